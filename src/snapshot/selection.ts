/** Which files of a repository a call is about, and in which order they are fetched. */
import { ConfigError, HubError } from '../errors.ts'
import type { HubFile } from '../values.ts'

export interface Selection {
  readonly allowPatterns?: readonly string[] | undefined
  readonly ignorePatterns?: readonly string[] | undefined
  /** Exact paths, besides what `allowPatterns` match if there are any; one that is not there is an error. */
  readonly paths?: readonly string[] | undefined
}

/**
 * Files in the order they are fetched from both ends: the largest first, so that none is left alone at the end, and the
 * smallest beside them, which wait for answers while the large ones fill the link.
 */
export function fetchOrder<F extends Pick<HubFile, 'sizeBytes'>>(files: readonly F[]): F[] {
  return files.toSorted((a, b) => b.sizeBytes - a.sizeBytes)
}

/** The files of a repository that a call is about. @throws {HubError} For an exact path that is not there. */
export function selectFiles<F extends Pick<HubFile, 'path'>>(
  files: readonly F[],
  repo: string,
  selection: Selection,
): F[] {
  const { paths, allowPatterns, ignorePatterns } = selection
  const there = paths && new Set(files.map(({ path }) => path))
  const missing = paths?.find((path) => !there?.has(path))
  if (missing !== undefined) {
    throw new HubError(`${repo} has no file "${missing}" in this revision`, {
      url: '',
      status: 404,
      hubCode: 'EntryNotFound',
    })
  }
  const exact = paths && new Set(paths)
  const isAllowed = matcher(allowPatterns)
  const isIgnored = matcher(ignorePatterns)
  // Who names files and patterns wants both.
  const isAsked = (path: string): boolean =>
    exact === undefined ? (isAllowed?.(path) ?? true) : exact.has(path) || isAllowed?.(path) === true
  return files.filter(({ path }) => isAsked(path) && isIgnored?.(path) !== true)
}

/**
 * Whether a download is about `path`, by Python's rules: shell patterns in which `*` also matches `/`, a pattern
 * that ends in `/` means everything below, and `\` is another `/`.
 *
 * @see huggingface_hub, `filter_repo_objects`; Python's `fnmatch`
 */
export function matchesPatterns(
  path: string,
  allow: readonly string[] | undefined,
  ignore: readonly string[] | undefined,
): boolean {
  return (matcher(allow)?.(path) ?? true) && matcher(ignore)?.(path) !== true
}

/** Whether any of `patterns` matches; `undefined` when there are none to ask. */
function matcher(patterns: readonly string[] | undefined): ((path: string) => boolean) | undefined {
  const expressions = patterns?.map(toRegExp)
  return expressions && ((path) => expressions.some((each) => each.test(path.replaceAll('\\', '/'))))
}

function toRegExp(pattern: string): RegExp {
  const slashed = pattern.replaceAll('\\', '/')
  const shell = slashed.endsWith('/') ? `${slashed}*` : slashed
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
