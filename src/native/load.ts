/**
 * Finds, loads and checks the addon, at the first call and once per process. Without a usable one the package goes
 * on over HTTP: `loadAddon` says why, and warns once.
 */
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { NativeUnavailableError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { NativeAddon } from './binding.ts'

export type LoadedAddon = { readonly addon: NativeAddon } | { readonly reason: string }

// Right from src/native as well as from dist/native.
const packageRoot = fileURLToPath(new URL('../../', import.meta.url))

const cure =
  'To build it, install libtorrent-rasterbar 2.0.8 or newer with its headers, cmake and a C++17 compiler, ' +
  'and run `npm run build:native` in the package; `llmpt doctor` tells more.'

let loaded: LoadedAddon | undefined

/**
 * The addon, or why there is none. `LLMPT_NATIVE_ADDON` names another file than the one in `build/` or `prebuilds/`:
 * the sanitizer build, for one.
 */
export function loadAddon(): LoadedAddon {
  const result = load()
  if ('reason' in result) {
    log.warnOnce('native-unavailable', `no peer-to-peer, downloads use HTTP only: ${result.reason}. ${cure}`)
  }
  return result
}

/** The addon, for whoever cannot go on without it. @throws {NativeUnavailableError} */
export function requireAddon(): NativeAddon {
  const result = load()
  if ('addon' in result) return result.addon
  throw new NativeUnavailableError(`the native addon is not usable: ${result.reason}. ${cure}`)
}

function load(): LoadedAddon {
  loaded ??= loadOnce()
  return loaded
}

function loadOnce(): LoadedAddon {
  let addon: Partial<NativeAddon>
  try {
    addon = loadBinary()
  } catch (error) {
    return { reason: firstLine(messageOf(error)) }
  }
  if (typeof addon.selfCheck !== 'function') return { reason: 'the file found is not this addon' }
  const check = addon.selfCheck()
  return check.ok ? { addon: addon as NativeAddon } : { reason: check.reason ?? 'its self-check failed' }
}

function loadBinary(): Partial<NativeAddon> {
  const require = createRequire(import.meta.url)
  const override = process.env['LLMPT_NATIVE_ADDON']
  if (override) return require(resolve(override)) as Partial<NativeAddon>
  const findAndLoad = require('node-gyp-build') as (directory: string) => Partial<NativeAddon>
  return findAndLoad(packageRoot)
}

// Node's and node-gyp-build's messages go on with stacks and lists of what was tried.
function firstLine(text: string): string {
  return text.split('\n', 1)[0]?.replace(/[.:\s]+$/, '') ?? text
}
