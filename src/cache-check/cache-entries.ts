/**
 * What there is in the Hub cache to be checked. Nothing of it is trusted: names are those of a folder that anybody may
 * have written to, links are read and never followed, and what cannot be looked at is an entry of its own.
 */
import type { Dirent } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { blobsFolder, linkedName, repoFolder, repoOfFolder, snapshotFolder } from '../hub/cache-layout.ts'
import { isSafePath } from '../hub/file-ref.ts'
import { messageOf } from '../log.ts'
import { asCommit, asEtag, type Commit, type Etag, type RepoRef } from '../values.ts'

/** A name that a snapshot gives to a content. */
export interface SnapshotName {
  readonly commit: Commit
  /** Path within the repository. */
  readonly path: string
}

export type CacheEntry =
  /** A regular file that is named by its content. `names` are the snapshot links that lead to it. */
  | {
      readonly kind: 'blob'
      readonly repo: RepoRef
      readonly path: string
      readonly etag: Etag
      readonly sizeBytes: number
      readonly names: readonly SnapshotName[]
    }
  /** Snapshot links that lead to a blob that is not there. */
  | {
      readonly kind: 'missing'
      readonly repo: RepoRef
      readonly path: string
      readonly etag: Etag
      readonly names: readonly SnapshotName[]
    }
  /** A regular file in a snapshot, as there are where links do not work; only the Hub knows its etag. */
  | {
      readonly kind: 'copy'
      readonly repo: RepoRef
      readonly path: string
      readonly sizeBytes: number
      readonly name: SnapshotName
    }
  /** Something else, or something that cannot be looked at. */
  | {
      readonly kind: 'odd'
      readonly repo: RepoRef | undefined
      readonly path: string
      readonly reason: string
    }

/** Names in `blobs/` that are no contents: files on their way, and those that were set aside. */
const notContents = /\.incomplete$|\.llmpt\.damaged$|^\.llmpt-[0-9a-f]{8}\.tmp$/

/** Everything to be checked: of one repository, or of all of the cache. */
export async function cacheEntries(cacheDir: string, repo?: RepoRef): Promise<CacheEntry[]> {
  if (repo !== undefined) return await repoEntries(cacheDir, repo)
  const entries: CacheEntry[] = []
  for (const folder of await list(cacheDir, undefined, entries)) {
    const found = repoOfFolder(folder.name)
    if (found !== undefined) entries.push(...(await repoEntries(cacheDir, found)))
  }
  return entries
}

async function repoEntries(cacheDir: string, repo: RepoRef): Promise<CacheEntry[]> {
  const entries: CacheEntry[] = []
  const root = repoFolder(cacheDir, repo)
  if (!(await isFolder(root, repo, entries))) return entries
  const named = await snapshotEntries(cacheDir, repo, entries)
  const blobs = blobsFolder(cacheDir, repo)
  const isThere = await isFolder(blobs, repo, entries)
  for (const item of isThere ? await list(blobs, repo, entries) : []) {
    if (notContents.test(item.name)) continue
    const path = join(blobs, item.name)
    const etag = asEtag(item.name)
    const names = named.get(item.name) ?? []
    named.delete(item.name)
    const found = await look(path)
    if (typeof found === 'string') entries.push({ kind: 'odd', repo, path, reason: found })
    else if (etag === undefined) entries.push({ kind: 'odd', repo, path, reason: 'its name is no digest' })
    else entries.push({ kind: 'blob', repo, path, etag, sizeBytes: found.sizeBytes, names })
  }
  for (const [name, names] of named) entries.push(await unlistedEntry(cacheDir, repo, name, names))
  return entries
}

/** What a snapshot names and `blobs/` did not list. Only what is certainly not there is missing. */
async function unlistedEntry(
  cacheDir: string,
  repo: RepoRef,
  name: string,
  names: readonly SnapshotName[],
): Promise<CacheEntry> {
  const path = join(blobsFolder(cacheDir, repo), name)
  try {
    await lstat(path)
  } catch (error) {
    if (!isNotThere(error)) return { kind: 'odd', repo, path, reason: whyNot(error) }
    const etag = asEtag(name)
    if (etag !== undefined) return { kind: 'missing', repo, etag, path, names }
    return { kind: 'odd', repo, path, reason: 'it is not there, and its name is no digest' }
  }
  return { kind: 'odd', repo, path, reason: 'it is there, but its folder could not be listed with it' }
}

/** Adds what is in the snapshots and is no link to a blob to `entries`; returns the links by the blob they lead to. */
async function snapshotEntries(
  cacheDir: string,
  repo: RepoRef,
  entries: CacheEntry[],
): Promise<Map<string, SnapshotName[]>> {
  const named = new Map<string, SnapshotName[]>()
  const root = join(repoFolder(cacheDir, repo), 'snapshots')
  if (!(await isFolder(root, repo, entries))) return named
  for (const { name } of await list(root, repo, entries)) {
    const commit = asCommit(name)
    const path = join(root, name)
    if (commit === undefined) entries.push({ kind: 'odd', repo, path, reason: 'its name is no commit' })
    else if (await isFolder(path, repo, entries)) await readSnapshot(cacheDir, repo, commit, named, entries)
  }
  return named
}

async function readSnapshot(
  cacheDir: string,
  repo: RepoRef,
  commit: Commit,
  named: Map<string, SnapshotName[]>,
  entries: CacheEntry[],
): Promise<void> {
  const root = snapshotFolder(cacheDir, repo, commit)
  const folders = ['']
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const item of await list(join(root, folder), repo, entries)) {
      const path = folder === '' ? item.name : `${folder}/${item.name}`
      const place = join(root, path)
      if (item.isDirectory()) {
        folders.push(path)
        continue
      }
      const blob = item.isSymbolicLink() ? await linkedName(cacheDir, repo, place) : undefined
      if (blob === undefined) entries.push(await ownEntry(repo, place, { commit, path }))
      else if (isSafePath(path)) namesOf(named, blob).push({ commit, path })
      else entries.push({ kind: 'odd', repo, path: place, reason: unsafeName })
    }
  }
}

const unsafeName = 'no file of a repository can be called that'

function namesOf(named: Map<string, SnapshotName[]>, blob: string): SnapshotName[] {
  const names = named.get(blob) ?? []
  if (names.length === 0) named.set(blob, names)
  return names
}

async function ownEntry(repo: RepoRef, path: string, name: SnapshotName): Promise<CacheEntry> {
  const found = await look(path)
  if (typeof found === 'string') return { kind: 'odd', repo, path, reason: found }
  if (!isSafePath(name.path)) return { kind: 'odd', repo, path, reason: unsafeName }
  return { kind: 'copy', repo, path, sizeBytes: found.sizeBytes, name }
}

/** The size of a regular file, or why there is none to be checked. */
async function look(path: string): Promise<{ sizeBytes: number } | string> {
  try {
    const found = await lstat(path)
    if (found.isFile()) return { sizeBytes: found.size }
    if (found.isSymbolicLink()) return 'it is a link, and links out of the cache are not followed'
    return found.isDirectory() ? 'it is a folder in the place of a file' : 'it is no regular file'
  } catch (error) {
    return whyNot(error)
  }
}

/** Whether there is a folder at `path`. What is not there is no entry; what is something else is an odd one. */
async function isFolder(path: string, repo: RepoRef, entries: CacheEntry[]): Promise<boolean> {
  try {
    const found = await lstat(path)
    if (found.isDirectory()) return true
    const what = found.isSymbolicLink() ? 'a link, and links are not followed' : 'no folder'
    entries.push({ kind: 'odd', repo, path, reason: `it is ${what}: what is in it is not checked` })
  } catch (error) {
    if (!isNotThere(error)) entries.push({ kind: 'odd', repo, path, reason: whyNot(error) })
  }
  return false
}

async function list(path: string, repo: RepoRef | undefined, entries: CacheEntry[]): Promise<Dirent[]> {
  try {
    const found = await readdir(path, { withFileTypes: true })
    return found.sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    if (!isNotThere(error)) entries.push({ kind: 'odd', repo, path, reason: whyNot(error) })
    return []
  }
}

function isNotThere(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT'
}

/** Why a file or a folder could not be looked at. */
export function whyNot(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return 'it is gone by now'
    case 'EACCES':
    case 'EPERM':
      return 'there is no permission to read it'
    default:
      return `it cannot be read: ${messageOf(error)}`
  }
}
