/** The hook in the global `fetch`: one per process, and nothing else is loaded for it before it is needed. */
import { getConfig } from './config.ts'
import { type PatchedFetch, patchGlobalFetch } from './hook/patch-fetch.ts'
import { fetchDeps, type HookOptions } from './runtime.ts'

let patched: PatchedFetch | undefined

/**
 * Lets every Hub client that uses the global `fetch` get files from peers where that is possible. Clients that
 * took `fetch` before (transformers.js does at import) keep the original: set their `env.fetch` to `createFetch()`.
 *
 * @throws {ConfigError}
 */
export function enableP2P(options: HookOptions = {}): void {
  disableP2P()
  if (!getConfig(options).p2p) return
  patched = patchGlobalFetch(fetchDeps(options))
}

/** Puts `fetch` back as it was. Whoever captured the hooked one gets the original's behaviour from it. */
export function disableP2P(): void {
  patched?.restore()
  patched = undefined
}

/** Whether `enableP2P` is in force. */
export function isEnabled(): boolean {
  return patched !== undefined
}
