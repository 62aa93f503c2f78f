/**
 * Writes the standard Hub cache as Python's `huggingface_hub` does, in this order: the blob under a partial name,
 * its final name once the caller has verified it, the snapshot's link, the ref. So no reader ever finds a name
 * without its content, or a ref without its snapshot.
 */
import { lstat, mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CacheError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import { asEtag, type BlobRef, type Commit, type HubFile, type RepoRef } from '../values.ts'
import { inFolder, makeFolderBelow, readText, replaceFile, tagFolder } from './cache-files.ts'
import {
  blobPath,
  blobsFolder,
  isFileOfSize,
  lockPath,
  noExistPath,
  partialBlobPath,
  refPath,
  repoFolder,
  snapshotFolder,
  snapshotPath,
} from './cache-layout.ts'
import {
  type CacheDeps,
  type OpenOptions,
  openPartial,
  type PartialFile,
  type PresentFile,
} from './partial-file.ts'
import { sweepInBackground } from './partial-sweep.ts'
import { placeEntry } from './snapshot-entry.ts'
import { type TreeFile, writeTree } from './tree-cache.ts'

export type { CacheDeps, FileLocks, OpenOptions, PartialFile, PresentFile, Waiting } from './partial-file.ts'

/** How to open a blob. */
export interface BlobOptions extends OpenOptions {
  /** Where the content may be instead, as a caller knows it who looks for a file rather than for a content. */
  readonly findElsewhere?: (() => Promise<string | undefined>) | undefined
}

/** How the snapshot entry of a blob is made; see `linkSnapshot`. */
export interface LinkOptions {
  readonly isNewBlob?: boolean | undefined
  readonly contentPath?: string | undefined
  readonly anew?: boolean | undefined
}

/**
 * The right to write a blob, or the news that it is there. Waits while another process (of any client that takes
 * Python's lock) is writing it.
 *
 * The partial file is `blobs/<etag>.llmpt.incomplete` under the lock and has a unique name without.
 *
 * @throws {CacheError} when the folder cannot be used
 */
export async function openBlob(
  cacheDir: string,
  repo: RepoRef,
  blob: BlobRef,
  deps: CacheDeps = {},
  options: BlobOptions = {},
): Promise<PresentFile | PartialFile> {
  const folder = blobsFolder(cacheDir, repo)
  const finalPath = blobPath(cacheDir, repo, blob.etag)
  await prepareRepo(cacheDir, repo)
  await inFolder(cacheDir, async () => {
    const found = await lstat(finalPath).catch(() => undefined)
    if (found?.isDirectory()) throw new CacheError(`${finalPath} is a folder and in the way: move it away`)
  })
  const slot = await openPartial(
    {
      finalPath,
      lockPath: lockPath(cacheDir, repo, blob.etag),
      lockedPath: partialBlobPath(cacheDir, repo, blob.etag),
      uniquePath: (unique) => `${finalPath}.${unique}.incomplete`,
      sizeBytes: blob.sizeBytes,
      folder: cacheDir,
      findPresent: async () =>
        (await isFileOfSize(finalPath, blob.sizeBytes)) ? finalPath : await options.findElsewhere?.(),
    },
    deps,
    options,
  )
  // Only now, when the lock is held: an old partial file that somebody comes back for is not forgotten.
  const lockPathOf = (name: string): string | undefined => {
    const etag = asEtag(name.slice(0, name.indexOf('.')))
    return etag && lockPath(cacheDir, repo, etag)
  }
  for (const each of [folder, repoFolder(cacheDir, repo)]) sweepInBackground(each, { ...deps, lockPathOf })
  return slot
}

/**
 * Makes the snapshot entry of a blob that is in the cache, and returns its path.
 *
 * Where links do not work, the entry is the file itself: moved there when this process has just written the blob
 * (`isNewBlob`), else copied, as Python does it. An entry that is the file itself, without a blob, stays.
 *
 * @param options.contentPath The same content under another name, for where there is no blob.
 * @param options.anew Whether an entry that is the file itself is replaced.
 * @throws {CacheError} Also when the file system takes the name for that of another file of the snapshot.
 */
export async function linkSnapshot(
  cacheDir: string,
  file: HubFile,
  deps: CacheDeps = {},
  options: LinkOptions = {},
): Promise<string> {
  const entry = snapshotPath(cacheDir, file, file.commit, file.path)
  const root = repoFolder(cacheDir, file)
  await inFolder(cacheDir, async () => {
    await mkdir(root, { recursive: true })
    await makeFolderBelow(root, dirname(entry))
    // A link inside the repository's folder would lead the entry into another snapshot, or among the blobs.
    await makeFolderBelow(snapshotFolder(cacheDir, file, file.commit), dirname(entry))
    const { isNewBlob = false, contentPath, anew = false } = options
    await placeEntry(cacheDir, file, { symlinks: deps.symlinks, isNewBlob, contentPath, anew })
  })
  return entry
}

/** Remembers which commit `revision` is. Call it after the first entry of that snapshot; nothing to do for a commit. */
export async function writeRef(
  cacheDir: string,
  repo: RepoRef,
  revision: string,
  commit: Commit,
): Promise<void> {
  if (revision === commit) return
  const path = refPath(cacheDir, repo, revision)
  const root = repoFolder(cacheDir, repo)
  try {
    // Written only when it differs: others' caches may be readable and not writable.
    if ((await readText(path)) === commit) return
    await mkdir(root, { recursive: true })
    await makeFolderBelow(root, dirname(path))
    await replaceFile(path, commit, root)
  } catch (error) {
    // The file itself is in place; without the ref only offline use by this revision is lost.
    log.warn(`the cache cannot remember that ${repo.repo} "${revision}" is ${commit}: ${messageOf(error)}`)
  }
}

/** Remembers that `commit` has no file `path`, as the Hub has said (`EntryNotFound`). Failing to is no error. */
export async function writeNoExist(
  cacheDir: string,
  repo: RepoRef,
  commit: Commit,
  path: string,
): Promise<void> {
  const marker = noExistPath(cacheDir, repo, commit, path)
  try {
    await prepareRepo(cacheDir, repo)
    await makeFolderBelow(repoFolder(cacheDir, repo), dirname(marker))
    await replaceFile(marker, '', repoFolder(cacheDir, repo))
  } catch (error) {
    log.debug(`cannot remember that ${repo.repo} has no "${path}": ${messageOf(error)}`)
  }
}

/** Remembers the files of a commit. Failing to is no error. */
export async function keepCachedTree(
  cacheDir: string,
  repo: RepoRef,
  commit: Commit,
  files: readonly TreeFile[],
): Promise<void> {
  try {
    await prepareRepo(cacheDir, repo)
  } catch (error) {
    log.debug(`cannot keep the list of files of ${repo.repo}: ${messageOf(error)}`)
    return
  }
  await writeTree(repoFolder(cacheDir, repo), commit, files)
}

async function prepareRepo(cacheDir: string, repo: RepoRef): Promise<void> {
  await inFolder(cacheDir, async () => {
    await mkdir(blobsFolder(cacheDir, repo), { recursive: true })
    // Python's scan calls a repository folder without this one corrupt, also while its first file is on its way.
    await mkdir(join(repoFolder(cacheDir, repo), 'snapshots'), { recursive: true })
    await tagFolder(cacheDir)
  })
}
