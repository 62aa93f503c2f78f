/**
 * `fetch`, with files of the Hub answered from elsewhere when somebody offers them.
 *
 * The caller's own request goes out first, unchanged but for following its redirects by hand: so the Hub decides
 * what the file is and who may have it, and costs no request more. What comes of its answer is in `hub-fetch.ts`.
 */
import { log, messageOf } from '../log.ts'
import { type Candidate, candidateOf, type FetchArguments, looksLikeResolve } from './candidate.ts'
import type { FetchDeps } from './offer.ts'

export type { FetchDeps, OfferContext, OfferedFile } from './offer.ts'

/** The way back from `patchGlobalFetch`. */
export interface PatchedFetch {
  /**
   * Switches the hook off for everybody who holds it, and puts the global `fetch` back unless somebody else has
   * wrapped it since. Idempotent.
   */
  restore(): void
}

/** What a hooked `fetch` tells about itself, also to another copy of this package in the same process. */
interface Hook {
  readonly original: typeof fetch
  isActive(): boolean
}

const hookKey = Symbol.for('llmpt-native.fetch')

/**
 * A `fetch` that behaves as `original`, and answers a file of the Hub from what `deps.offer` gives. An `original`
 * that is such a `fetch` itself is unwrapped first: one look-up per request is enough.
 */
export function wrapFetch(original: typeof fetch, deps: FetchDeps): typeof fetch {
  const inner = hookOf(original)?.original ?? original
  const hooked = (...args: FetchArguments): Promise<Response> => {
    const candidate = tryCandidate(args, deps)
    return candidate === undefined ? inner(...args) : fetchFromHub(inner, deps, candidate, args)
  }
  const hook: Hook = { original: inner, isActive: () => deps.isActive() }
  return Object.defineProperty(hooked, hookKey, { value: hook })
}

/** Puts a hooked `fetch` in the place of the global one, until `restore`. */
export function patchGlobalFetch(deps: FetchDeps): PatchedFetch {
  let isInstalled = true
  const previous = globalThis.fetch
  const hooked = wrapFetch(previous, {
    endpoints: () => deps.endpoints(),
    offer: (file, context) => deps.offer(file, context),
    isActive: () => isInstalled && deps.isActive(),
  })
  globalThis.fetch = hooked
  return {
    restore() {
      isInstalled = false
      if (globalThis.fetch === hooked) globalThis.fetch = skipInactive(previous)
    },
  }
}

function hookOf(fetchFunction: typeof fetch): Hook | undefined {
  return (fetchFunction as { [hookKey]?: Hook })[hookKey]
}

/** An earlier hook that was switched off while ours covered it is not put back. */
function skipInactive(previous: typeof fetch): typeof fetch {
  const hook = hookOf(previous)
  return hook === undefined || hook.isActive() ? previous : hook.original
}

function tryCandidate(args: FetchArguments, deps: FetchDeps): Candidate | undefined {
  try {
    if (!looksLikeResolve(args[0]) || !deps.isActive()) return undefined
    return candidateOf(args, deps.endpoints())
  } catch (error) {
    // Most likely an option that the original refuses, and says so better.
    log.debug(`a request is left alone: ${messageOf(error)}`)
    return undefined
  }
}

/** Most programs that have the hook never ask the Hub: what is needed for that is loaded when one does. */
async function fetchFromHub(
  original: typeof fetch,
  deps: FetchDeps,
  candidate: Candidate,
  args: FetchArguments,
): Promise<Response> {
  // At once: the caller may change what it passed as soon as it has its promise.
  const first = original(args[0], { ...args[1], redirect: 'manual' })
  first.catch(() => undefined) // Whoever waits for it hears of it.
  const loaded = await import('./hub-fetch.ts').catch((error: unknown) => {
    log.debug(`the hook cannot be loaded: ${messageOf(error)}`)
    return undefined
  })
  if (loaded !== undefined) return await new loaded.HubFetch(original, deps, candidate).run(args, first)
  const answer = await first
  answer.body?.cancel().catch(() => undefined)
  return await original(...args)
}
