/** Where the files of one call go: the standard cache, or a folder of the user's. The same steps for both. */
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { log } from '../log.ts'
import { asCommit, type Commit, type Etag, type FileRef, type HubFile, type RepoRef } from '../values.ts'
import {
  type CachedFile,
  findCached,
  findCommit,
  findContent,
  findPlainEntry,
  findSettled,
  isFileOfSize,
  partialBlobs,
  repoFolder,
  type SettledFile,
  snapshotFolder,
  snapshotPath,
} from './cache-layout.ts'
import { keepCachedTree, linkSnapshot, openBlob, writeNoExist, writeRef } from './cache-writer.ts'
import { checkFat } from './fat.ts'
import {
  adoptLocalFile,
  bookkeepingOf,
  copyToLocal,
  findSettledLocal,
  hasLocalCommit,
  keepLocalTree,
  latestLocalCommit,
  openLocalFile,
  readLocalMetadata,
  writeLocalMetadata,
} from './local-dir.ts'
import type { CacheDeps, OpenOptions, PartialFile, PresentFile } from './partial-file.ts'
import { sweepInBackground } from './partial-sweep.ts'
import { unlinkedFinder } from './snapshot-entry.ts'
import { isSpelledSo } from './spelling.ts'
import { readTree, removeTree, type TreeFile } from './tree-cache.ts'

export interface Place {
  /** The right to write a file's content, or the news that it is there. @throws {CacheError} */
  open(
    file: HubFile,
    deps: Pick<CacheDeps, 'rename'>,
    options: OpenOptions,
  ): Promise<PresentFile | PartialFile>
  /** Gives content that is there its name in the repository. @returns the path the caller is told */
  settle(file: HubFile, isNew: boolean): Promise<string>
  /** Gives `file` its name and content from the same content under another name. @returns as `settle` */
  settleFrom(file: HubFile, contentPath: string, options: OpenOptions): Promise<string>
  /**
   * `file`, when there is nothing to do for it: it has its name and its content. Cheap, for many files: nothing is
   * locked or written, and names and sizes are all that is looked at.
   */
  findSettled(file: HubFile): Promise<SettledFile | undefined>
  /** Contents of which a partial file of ours is left: they need a look, also when somebody else has brought them. */
  partials(repo: RepoRef): Promise<ReadonlySet<Etag>>
  /** Removes, in the background, what writers of names left behind that were killed. One look at a folder. */
  tidy(repo: RepoRef): void
  /** Content of `file` that is elsewhere on this disk, from where `settleFrom` takes it. */
  findElsewhere(file: HubFile): Promise<string | undefined>
  /** Takes a file that somebody else has put at the name of `file` for it, when it has its content. */
  adopt(file: HubFile, signal?: AbortSignal): Promise<boolean>
  /** Notes which commit `revision` is; after the first `settle`. */
  noteRevision(repo: RepoRef, revision: string, commit: Commit): Promise<void>
  /** Notes that the Hub has no such file at this commit (`EntryNotFound`), as Python does. Failing to is no error. */
  noteMissing(repo: RepoRef, commit: Commit, path: string): Promise<void>
  /** Path of the content, when it is there complete. */
  has(file: HubFile): Promise<string | undefined>
  /** Where `file` is or would be: what `settle` returns. @throws {CacheError} for a name that cannot be */
  pathOf(file: HubFile): string
  /** The files of a commit, when that was noted, by us or by Python's client. */
  tree(repo: RepoRef, commit: Commit): Promise<readonly TreeFile[] | undefined>
  /** Notes the files of a commit. Failing to is no error. */
  keepTree(repo: RepoRef, commit: Commit, files: readonly TreeFile[]): Promise<void>
  /** Forgets them, when the Hub contradicts them. */
  dropTree(repo: RepoRef, commit: Commit): Promise<void>
  /** The commit that a revision was when it was last seen. */
  findCommit(repo: RepoRef, revision: string, options?: FindOptions): Promise<Commit | undefined>
  /** What is there under this name, as far as it can be told without the Hub. */
  find(ref: FileRef, options?: FindOptions): Promise<CachedFile | undefined>
  /** Whether anything is there that can be files of this commit: where no tree is noted, that is all that is known. */
  hasSnapshot(repo: RepoRef, commit: Commit): Promise<boolean>
  /** The folder that holds all files of a commit. */
  folderOf(repo: RepoRef, commit: Commit): string
}

/** How to find what a revision was. */
export interface FindOptions {
  /**
   * Whether nobody may be asked, and nothing will be fetched by the answer: then what a folder of the user's holds is
   * taken for what is asked for, though it does not remember which repository and branch it is of. @defaultValue false
   */
  readonly isLastResort?: boolean | undefined
}

/** The standard Hub cache. */
export function cachePlace(cacheDir: string, deps: CacheDeps): Place {
  return {
    open: async (file, own, options) => {
      await checkFat(cacheDir, file)
      const { symlinks } = deps
      const findUnlinked = unlinkedFinder(cacheDir, file, { symlinks, signal: options.signal })
      const findElsewhere = async (): Promise<string | undefined> =>
        (await findPlainEntry(cacheDir, file)) ?? (await findUnlinked())
      return await openBlob(cacheDir, file, file, { ...deps, ...own }, { ...options, findElsewhere })
    },
    settle: (file, isNewBlob) => linkSnapshot(cacheDir, file, deps, { isNewBlob }),
    settleFrom: (file, contentPath, { anew }) => linkSnapshot(cacheDir, file, deps, { contentPath, anew }),
    findSettled: (file) => findSettled(cacheDir, file),
    partials: (repo) => partialBlobs(cacheDir, repo),
    tidy: (repo) => sweepNames(repoFolder(cacheDir, repo), deps),
    findElsewhere: async () => undefined,
    adopt: async () => false,
    noteRevision: (repo, revision, commit) => writeRef(cacheDir, repo, revision, commit),
    noteMissing: (repo, commit, path) => writeNoExist(cacheDir, repo, commit, path),
    has: (file) => findContent(cacheDir, file),
    pathOf: (file) => snapshotPath(cacheDir, file, file.commit, file.path),
    tree: (repo, commit) => readTree(repoFolder(cacheDir, repo), repo, commit),
    keepTree: (repo, commit, files) => keepCachedTree(cacheDir, repo, commit, files),
    dropTree: (repo, commit) => removeTree(repoFolder(cacheDir, repo), commit),
    findCommit: (repo, revision) => findCommit(cacheDir, repo, revision),
    find: (ref) => findCached(cacheDir, ref),
    hasSnapshot: async (repo, commit) =>
      (await readdir(snapshotFolder(cacheDir, repo, commit)).catch(() => [])).length > 0,
    folderOf: (repo, commit) => snapshotFolder(cacheDir, repo, commit),
  }
}

/**
 * A folder of the user's, with the bookkeeping Python's client keeps there.
 *
 * The folder remembers commits, and neither repositories nor branches: which commit a branch was is for the cache to tell.
 * Else what was downloaded there from one repository would be looked up and handed out as another one's.
 *
 * @param cacheDir The standard cache: content that is there is copied.
 */
export function localPlace(localDir: string, deps: CacheDeps, cacheDir?: string): Place {
  const pathOf = (path: string): string => join(localDir, ...path.split('/'))
  const noted = async (repo: RepoRef, revision: string): Promise<Commit | undefined> =>
    asCommit(revision) ?? (cacheDir === undefined ? undefined : await findCommit(cacheDir, repo, revision))
  const warnOfGuess = (repo: RepoRef, revision: string): void =>
    log.warn(
      `taking the files in ${localDir} for ${repo.repo}@${revision}: the folder does not remember which repository and ` +
        'branch they are of, and nobody may be asked',
    )
  return {
    open: async (file, own, options) => {
      await checkFat(localDir, file)
      return await openLocalFile(localDir, file, { ...deps, ...own }, options)
    },
    settle: async (file) => {
      await writeLocalMetadata(localDir, file, deps)
      return pathOf(file.path)
    },
    settleFrom: async (file, contentPath, options) => {
      await copyToLocal(localDir, file, contentPath, deps, options)
      return pathOf(file.path)
    },
    findSettled: async (file) => {
      const path = await findSettledLocal(localDir, file)
      return path === undefined ? undefined : { path, contentPath: path }
    },
    // Here they lie in as many folders as there are, and a sweep comes by.
    partials: async () => new Set(),
    tidy: () => sweepNames(bookkeepingOf(localDir), deps),
    findElsewhere: async (file) => (cacheDir === undefined ? undefined : await findContent(cacheDir, file)),
    adopt: (file, signal) => adoptLocalFile(localDir, file, deps, signal),
    noteRevision: async () => {},
    noteMissing: async () => {},
    pathOf: (file) => pathOf(file.path),
    tree: (repo, commit) => readTree(bookkeepingOf(localDir), repo, commit),
    keepTree: (_repo, commit, files) => keepLocalTree(localDir, commit, files),
    dropTree: (_repo, commit) => removeTree(bookkeepingOf(localDir), commit),
    findCommit: async (repo, revision, { isLastResort = false } = {}) => {
      const known = await noted(repo, revision)
      if (!isLastResort || asCommit(revision) !== undefined) return known
      // It may have been filled since the cache was: what was listed last is what there is.
      const latest = await latestLocalCommit(localDir)
      if (latest !== undefined && latest !== known) warnOfGuess(repo, revision)
      return latest
    },
    has: async (file) => {
      const known = await readLocalMetadata(localDir, file.path)
      const isIt = known?.etag === file.etag && (await isFileOfSize(pathOf(file.path), file.sizeBytes))
      return isIt ? pathOf(file.path) : undefined
    },
    find: async (ref, { isLastResort = false } = {}) => {
      const known = await readLocalMetadata(localDir, ref.path)
      const found = await lstat(pathOf(ref.path)).catch(() => undefined)
      if (known === undefined || !found?.isFile()) return undefined
      if (!(await isSpelledSo(localDir, pathOf(ref.path)))) return undefined
      if (known.commit !== (await noted(ref, ref.revision))) {
        if (!isLastResort || asCommit(ref.revision) !== undefined) return undefined
        warnOfGuess(ref, ref.revision)
      }
      const path = pathOf(ref.path)
      return { path, commit: known.commit, sizeBytes: found.size, blob: { etag: known.etag, path } }
    },
    hasSnapshot: (_repo, commit) => hasLocalCommit(localDir, commit),
    folderOf: () => localDir,
  }
}

/** In the folder where links, refs and lists of files are made. It holds no partial file that somebody comes back for. */
function sweepNames(folder: string, deps: CacheDeps): void {
  sweepInBackground(folder, { ...deps, lockPathOf: () => undefined })
}
