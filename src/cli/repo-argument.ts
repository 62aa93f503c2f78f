/** What people write where a repository or a file of one is meant, and what they should have written. */
import { ConfigError } from '../errors.ts'
import { isSafePath } from '../hub/file-ref.ts'
import { isRepoId } from '../values.ts'

/** @throws {ConfigError} When no repository can be called this; with what was probably meant. */
export function checkRepoArgument(text: string): void {
  const isTyped = /^(?:datasets|spaces)\//.test(text)
  if (isRepoId(text) && !isTyped) return
  const hint = hintFor(text)
  throw new ConfigError(
    `"${text}" cannot be a repository: they are called "name" or "org/name"${hint && `; ${hint}`}`,
  )
}

function hintFor(text: string): string {
  const [, afterHost] = /^https?:\/\/[^/]+\/(.*)$/i.exec(text) ?? []
  const [, kind = '', rest = ''] =
    /^(?:(datasets|spaces|models)\/)?(.*)$/.exec((afterHost ?? text).replace(/[?#].*$/, '')) ?? []
  const [name = '', revision = ''] = rest.split('@')
  // A page of the Hub goes on after the name: /tree/main, /blob/main/config.json.
  const repo = name.split('/').slice(0, 2).join('/').replace(/\/$/, '')
  const isPage = afterHost !== undefined || kind !== ''
  if (!isRepoId(repo) || (!isPage && revision === '')) return ''
  const type = kind === '' || kind === 'models' ? '' : ` --repo-type ${kind.slice(0, -1)}`
  return `did you mean ${repo}${type}${revision === '' ? '' : ` --revision ${revision}`}?`
}

/** @throws {ConfigError} When no file of a repository can have this path. */
export function checkPathArgument(path: string): void {
  const folder = path.replace(/\/+$/, '')
  if (folder !== path && isSafePath(folder))
    throw new ConfigError(`"${path}" is a folder: ${useGlob(folder)}`)
  if (!isSafePath(path)) throw new ConfigError(`"${path}" is not a path inside a repository`)
}

/** How to get everything in a folder. */
export function useGlob(folder: string): string {
  return `for all that is in it, use --include '${folder}/*'`
}
