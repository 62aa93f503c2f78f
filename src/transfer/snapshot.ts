/** Many files at once, bounded; and which files a call is about. */
import { ConfigError, HubError } from '../errors.ts'
import type { HubFile } from '../values.ts'

/**
 * Runs `work` for every item, at most `limit` at a time, in order. The first failure stops new work, waits for
 * what is under way, and is thrown.
 */
export async function forEachBounded<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]()
  let failure: { error: unknown } | undefined
  const worker = async (): Promise<void> => {
    for (const item of queue) {
      try {
        await work(item)
      } catch (error) {
        failure ??= { error }
      }
      if (failure !== undefined) return
    }
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker))
  if (failure !== undefined) throw failure.error
}

/** Files in the order they are fetched: large ones first, so that none is left alone at the end. */
export function fetchOrder(files: readonly HubFile[]): HubFile[] {
  return files.toSorted((a, b) => b.sizeBytes - a.sizeBytes)
}

export interface Selection {
  readonly allowPatterns?: readonly string[] | undefined
  readonly ignorePatterns?: readonly string[] | undefined
  /** Exact paths, besides what `allowPatterns` match if there are any; one that is not there is an error. */
  readonly paths?: readonly string[] | undefined
}

/** The files of a repository that a call is about. @throws {HubError} For an exact path that is not there. */
export function selectFiles(files: readonly HubFile[], repo: string, selection: Selection): HubFile[] {
  const { paths, allowPatterns, ignorePatterns } = selection
  const missing = paths?.find((path) => !files.some((file) => file.path === path))
  if (missing !== undefined) {
    throw new HubError(`${repo} has no file "${missing}" in this revision`, {
      url: '',
      status: 404,
      hubCode: 'EntryNotFound',
    })
  }
  const exact = paths && new Set(paths)
  // Who names files and patterns wants both.
  const isAsked = (path: string): boolean =>
    exact === undefined
      ? matchesPatterns(path, allowPatterns, undefined)
      : exact.has(path) || (allowPatterns !== undefined && matchesPatterns(path, allowPatterns, undefined))
  return files.filter(({ path }) => isAsked(path) && matchesPatterns(path, undefined, ignorePatterns))
}

/**
 * Which paths a download is about, by Python's rules: shell patterns in which `*` also matches `/`, and a pattern
 * that ends in `/` means everything below.
 *
 * @see huggingface_hub, `filter_repo_objects`; Python's `fnmatch`
 */
export function matchesPatterns(
  path: string,
  allow: readonly string[] | undefined,
  ignore: readonly string[] | undefined,
): boolean {
  if (allow !== undefined && !allow.some((pattern) => toRegExp(pattern).test(path))) return false
  return !ignore?.some((pattern) => toRegExp(pattern).test(path))
}

function toRegExp(pattern: string): RegExp {
  const shell = pattern.endsWith('/') ? `${pattern}*` : pattern
  let source = ''
  for (let at = 0; at < shell.length; at++) {
    const char = shell[at] ?? ''
    const close = shell.indexOf(']', shell[at + 1] === '!' ? at + 3 : at + 2)
    if (char === '*') source += '.*'
    else if (char === '?') source += '.'
    else if (char === '[' && close !== -1) {
      const set = shell.slice(at + 1, close).replace(/[\\\]]/g, '\\$&')
      source += `[${set.startsWith('!') ? `^${set.slice(1)}` : set.replace(/^\^/, '\\^')}]`
      at = close
    } else source += char.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
  }
  try {
    return new RegExp(`^${source}$`, 's')
  } catch (error) {
    throw new ConfigError(`"${pattern}" is not a pattern of paths`, { cause: error })
  }
}
