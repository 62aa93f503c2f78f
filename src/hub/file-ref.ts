/**
 * Resolve URLs and the files they name. The revision is one percent-encoded segment, each segment of the
 * file's path is encoded by itself: `#`, `?`, `%` and spaces are legal in names.
 */
import { type FileRef, isRepoId, type RepoRef, repoNameOf } from '../values.ts'

/** First path segments of the Hub that are no organisations, and no repositories of ours. */
const foreignPrefixes = new Set(['api', 'kernels', 'buckets', 'datasets', 'spaces'])
const resolvePath = /^(?:(datasets|spaces)\/)?([^/]+(?:\/[^/]+)?)\/resolve\/([^/]+)\/(.+)$/

/**
 * The file a resolve URL names, or `undefined` for every other URL.
 *
 * @param endpoints Hub origins, possibly with a path prefix, without a trailing slash.
 */
export function parseResolveUrl(url: string | URL, endpoints: readonly string[]): FileRef | undefined {
  const parsed = typeof url === 'string' ? parseUrl(url) : url
  if (!parsed) return undefined
  for (const endpoint of endpoints) {
    const rest = pathBelow(parsed, endpoint)
    const match = rest === undefined ? null : resolvePath.exec(rest)
    if (match) return fileRefOf(match)
  }
  return undefined
}

/** Where the Hub answers for `ref`: content, a redirect to it, or the reason why not. @throws {TypeError} for an unsafe path. */
export function resolveUrl(endpoint: string, ref: FileRef): string {
  if (!isSafePath(ref.path))
    throw new TypeError(`not the name of a file in a repository: ${JSON.stringify(ref.path)}`)
  const path = ref.path.split('/').map(encodeURIComponent).join('/')
  return `${repoUrl(endpoint, ref)}/resolve/${encodeURIComponent(ref.revision)}/${path}`
}

/** The page of a repository, where a person accepts its conditions. @throws {TypeError} for an impossible id. */
export function repoUrl(endpoint: string, repo: RepoRef): string {
  if (!isRepoId(repo.repo)) throw new TypeError(`not a repository id: ${JSON.stringify(repo.repo)}`)
  return `${endpoint}/${repoNameOf(repo)}`
}

/**
 * Whether `path` can be a file's name inside a repository and stays inside the folder it is joined to, under
 * the rules of POSIX and of Windows: a file written here may be read there.
 *
 * @see `_validate_relative_filename` of huggingface_hub
 */
export function isSafePath(path: string): boolean {
  if (path === '' || path.includes('\0') || /\p{Surrogate}/u.test(path) || path.length > 4096) return false
  if (path.split(/[/\\]/).includes('..')) return false
  return path.split('/').every((part) => part !== '' && part !== '.' && !/^(?:[A-Za-z]:|\\)/.test(part))
}

/** Whether `revision` can be a branch, a tag, `refs/pr/N` or a commit, and so a file below `refs/`. */
export function isSafeRevision(revision: string): boolean {
  return isSafePath(revision) && revision.length <= 255
}

function fileRefOf(match: RegExpExecArray): FileRef | undefined {
  const [, prefix, repo, encodedRevision, encodedPath] = match
  const revision = decode(encodedRevision)
  const path = decode(encodedPath)
  if (repo === undefined || revision === undefined || path === undefined) return undefined
  if (prefix === undefined && foreignPrefixes.has(repo.split('/')[0] ?? '')) return undefined
  if (!isRepoId(repo) || !isSafeRevision(revision) || !isSafePath(path)) return undefined
  const repoType = prefix === 'datasets' ? 'dataset' : prefix === 'spaces' ? 'space' : 'model'
  return { repoType, repo, revision, path }
}

function pathBelow(url: URL, endpoint: string): string | undefined {
  const base = parseUrl(endpoint)
  if (!base || base.origin !== url.origin) return undefined
  const prefix = base.pathname.replace(/\/*$/, '/')
  return url.pathname.startsWith(prefix) ? url.pathname.slice(prefix.length) : undefined
}

function parseUrl(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined
}

function decode(text: string | undefined): string | undefined {
  try {
    return text === undefined ? undefined : decodeURIComponent(text)
  } catch {
    return undefined
  }
}
