/** Where the files of one call go: the standard cache, or a folder of the user's. The same steps for both. */
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { asCommit, type Commit, type FileRef, type HubFile, type RepoRef } from '../values.ts'
import {
  type CachedFile,
  findCached,
  findCommit,
  findContent,
  isFileOfSize,
  snapshotFolder,
} from './cache-layout.ts'
import { linkSnapshot, openBlob, writeNoExist, writeRef } from './cache-writer.ts'
import { openLocalFile, readLocalMetadata, writeLocalMetadata } from './local-dir.ts'
import type { CacheDeps, OpenOptions, PartialFile, PresentFile } from './partial-file.ts'

export interface Place {
  /** The right to write a file's content, or the news that it is there. @throws {CacheError} */
  open(
    file: HubFile,
    deps: Pick<CacheDeps, 'rename'>,
    options: OpenOptions,
  ): Promise<PresentFile | PartialFile>
  /** Gives content that is there its name in the repository. @returns the path the caller is told */
  settle(file: HubFile, isNew: boolean): Promise<string>
  /** Notes which commit `revision` is; after the first `settle`. */
  noteRevision(repo: RepoRef, revision: string, commit: Commit): Promise<void>
  /** Notes that the Hub has no such file at this commit (`EntryNotFound`), as Python does. Failing to is no error. */
  noteMissing(repo: RepoRef, commit: Commit, path: string): Promise<void>
  /** Path of the content, when it is there complete. */
  has(file: HubFile): Promise<string | undefined>
  /** What is there under this name, as far as it can be told without the Hub. */
  find(ref: FileRef): Promise<CachedFile | undefined>
  /** The folder of a whole revision, when any of it is there. */
  findSnapshot(repo: RepoRef, revision: string): Promise<{ path: string; commit: Commit } | undefined>
  /** The folder that holds all files of a commit. */
  folderOf(repo: RepoRef, commit: Commit): string
}

/** The standard Hub cache. */
export function cachePlace(cacheDir: string, deps: CacheDeps): Place {
  return {
    open: (file, own, options) =>
      openBlob(
        cacheDir,
        file,
        file,
        { ...deps, ...own },
        { ...options, findElsewhere: () => findContent(cacheDir, file) },
      ),
    settle: (file, isNewBlob) => linkSnapshot(cacheDir, file, deps, { isNewBlob }),
    noteRevision: (repo, revision, commit) => writeRef(cacheDir, repo, revision, commit),
    noteMissing: (repo, commit, path) => writeNoExist(cacheDir, repo, commit, path),
    has: (file) => findContent(cacheDir, file),
    find: (ref) => findCached(cacheDir, ref),
    findSnapshot: async (repo, revision) => {
      const commit = await findCommit(cacheDir, repo, revision)
      if (commit === undefined) return undefined
      const path = snapshotFolder(cacheDir, repo, commit)
      return (await lstat(path).catch(() => undefined))?.isDirectory() ? { path, commit } : undefined
    },
    folderOf: (repo, commit) => snapshotFolder(cacheDir, repo, commit),
  }
}

/** A folder of the user's, with the bookkeeping Python's client keeps there. */
export function localPlace(localDir: string, deps: CacheDeps): Place {
  const pathOf = (path: string): string => join(localDir, ...path.split('/'))
  return {
    open: (file, own, options) => openLocalFile(localDir, file, { ...deps, ...own }, options),
    settle: async (file) => {
      await writeLocalMetadata(localDir, file, deps)
      return pathOf(file.path)
    },
    noteRevision: async () => {},
    noteMissing: async () => {},
    has: async (file) => {
      const known = await readLocalMetadata(localDir, file.path)
      const isIt = known?.etag === file.etag && (await isFileOfSize(pathOf(file.path), file.sizeBytes))
      return isIt ? pathOf(file.path) : undefined
    },
    find: async (ref) => {
      const known = await readLocalMetadata(localDir, ref.path)
      const found = await lstat(pathOf(ref.path)).catch(() => undefined)
      if (known === undefined || !found?.isFile()) return undefined
      // A folder remembers commits, not branches: offline, what is there is what there is.
      if (asCommit(ref.revision) !== undefined && ref.revision !== known.commit) return undefined
      const path = pathOf(ref.path)
      return { path, commit: known.commit, sizeBytes: found.size, blob: { etag: known.etag, path } }
    },
    findSnapshot: async () => undefined,
    folderOf: () => localDir,
  }
}
