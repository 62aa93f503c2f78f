/**
 * Entries of snapshots: links to blobs, or where links do not work the files themselves.
 *
 * Without links a new blob is moved to its entry, as Python does it, so that nothing is kept twice. `blobs/` then holds
 * nothing that other commits and names could use: what they want of the same content is copied from entry to entry,
 * and believed when its digest is right.
 */
import { type BigIntStats, constants } from 'node:fs'
import { copyFile, lstat, open, readdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { CacheError } from '../errors.ts'
import { asCommit, digestOf, type FileMetadata, type HubFile } from '../values.ts'
import { canLink, makeFolderBelow, tempName } from './cache-files.ts'
import {
  blobPath,
  hasBlob,
  isFileOfSize,
  isPlainEntry,
  linkedName,
  repoFolder,
  snapshotFolder,
  snapshotPath,
} from './cache-layout.ts'
import { contentHash } from './content-hash.ts'
import { isSpelledSo, spellingOf } from './spelling.ts'

/** How an entry is made. */
export interface EntryOptions {
  /** @defaultValue whether links work there */
  readonly symlinks?: boolean | undefined
  /** Whether this process has just written the blob, and may move it. */
  readonly isNewBlob: boolean
  /** The same content under another name, for where there is no blob. */
  readonly contentPath?: string | undefined
  /** Whether an entry that is the file itself is replaced. @defaultValue false */
  readonly anew?: boolean | undefined
}

/** Makes the entry of a blob, in its folder, which exists. @throws {CacheError} When another file has its name. */
export async function placeEntry(cacheDir: string, file: HubFile, options: EntryOptions): Promise<void> {
  const entry = snapshotPath(cacheDir, file, file.commit, file.path)
  const blob = blobPath(cacheDir, file, file.etag)
  const root = repoFolder(cacheDir, file)
  const target = relative(dirname(entry), blob)
  const { isNewBlob, contentPath = blob, anew = false } = options
  const hasItsBlob = await hasBlob(cacheDir, file, file)
  // First, and without writing: others' caches may be readable only, and a disk may be full.
  if (options.symlinks !== false && hasItsBlob && (await targetOf(entry)) === target) return
  await inTurn(entry.toLowerCase(), async () => {
    const isAlike = await checkName(cacheDir, file)
    // Without a blob that file is the only copy: a link would lead nowhere.
    if (!hasItsBlob && !anew && (isAlike || (await isPlainEntry(cacheDir, file)))) return
    const links = options.symlinks ?? (await canLink(cacheDir, root))
    if (links && (hasItsBlob || contentPath === blob)) await linkTo(target, entry, root)
    else {
      if (isNewBlob && (await moveBlob(blob, entry))) return
      if (!anew && (await isFileOfSize(entry, file.sizeBytes))) return
      await copyEntry(hasItsBlob ? blob : contentPath, entry, root, file)
    }
  })
}

/**
 * Looks for the content of `file` where there is no blob of it and no entry: under another spelling of the name, where
 * this process has moved it, and in entries of other commits. It is copied to the entry from those.
 *
 * @returns The entry's path, when it is there by now.
 * @throws {CacheError} When another file of the snapshot has the name, as far as the file system can tell.
 * @throws The signal's reason.
 */
export type FindUnlinked = () => Promise<string | undefined>

/** To be asked as often as one likes: a copy with other content is read once. */
export function unlinkedFinder(
  cacheDir: string,
  file: HubFile,
  options: { readonly symlinks?: boolean | undefined; readonly signal?: AbortSignal | undefined },
): FindUnlinked {
  const root = repoFolder(cacheDir, file)
  const entry = snapshotPath(cacheDir, file, file.commit, file.path)
  const refused = new Set<string>()
  return async () => {
    if (await checkName(cacheDir, file, options.signal)) return entry
    if (options.symlinks ?? (await canLink(cacheDir, root))) return undefined
    for (const candidate of await copiesOf(cacheDir, file)) {
      if (refused.has(candidate)) continue
      if (await adopt(candidate, cacheDir, file, options.signal)) return entry
      refused.add(candidate)
    }
    return undefined
  }
}

/**
 * Whether a file of this very content is kept under another spelling of the name; `false` also for a link, and when
 * nothing is there.
 *
 * @throws {CacheError} When it leads to another file: one would replace the other, or be taken for it.
 */
async function checkName(cacheDir: string, file: HubFile, signal?: AbortSignal): Promise<boolean> {
  const root = snapshotFolder(cacheDir, file, file.commit)
  const entry = snapshotPath(cacheDir, file, file.commit, file.path)
  const found = await lstat(entry).catch(() => undefined)
  if (found === undefined || (await isSpelledSo(root, entry))) return false
  // Whether or not the blob is there.
  if (found.isSymbolicLink() && (await linkedName(cacheDir, file, entry)) === file.etag) return false
  if (found.isFile() && (await hasDigest(entry, file, signal))) return true
  throw await sameNameError(file.path, root, entry)
}

/** What a person hears whose file system takes `path`, which is to be at `place` in `folder`, for what is there. */
export async function sameNameError(path: string, folder: string, place: string): Promise<CacheError> {
  return new CacheError(
    `"${path}" would replace "${await spellingOf(folder, place)}" in ${folder}: its file system does not tell their ` +
      'names apart. Use a folder on one that tells upper case from lower case, or leave one of the two out',
  )
}

/** Regular files of the right size that may be this content: where this process moved it, and other commits' entries. */
async function copiesOf(cacheDir: string, file: HubFile): Promise<string[]> {
  const moved = movedBlobs.get(blobPath(cacheDir, file, file.etag))
  const found = moved !== undefined && (await isRegularOfSize(moved, file.sizeBytes)) ? [moved] : []
  const snapshots = dirname(snapshotFolder(cacheDir, file, file.commit))
  for (const name of await readdir(snapshots).catch(() => [])) {
    const commit = asCommit(name)
    if (commit === undefined || commit === file.commit) continue
    const path = snapshotPath(cacheDir, file, commit, file.path)
    const isCandidate = (await isRegularOfSize(path, file.sizeBytes)) && path !== moved
    if (isCandidate && (await isPlainEntry(cacheDir, { ...file, commit }))) found.push(path)
  }
  return found
}

/** Copies a file to the entry of `file`, if it is its content. */
async function adopt(
  from: string,
  cacheDir: string,
  file: HubFile,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const entry = snapshotPath(cacheDir, file, file.commit, file.path)
  const root = repoFolder(cacheDir, file)
  const temp = tempName(root)
  try {
    const before = await lstat(from, { bigint: true })
    // First: a commit has thousands of files whose sizes say nothing, and a wrong one is not worth a copy.
    if (!(await hasDigest(from, file, signal))) return false
    await copyNew(from, temp)
    const isSame = isSameState(before, await lstat(from, { bigint: true }))
    if (!isSame && !(await hasDigest(temp, file, signal))) return false
    await makeFolderBelow(root, dirname(entry))
    await makeFolderBelow(snapshotFolder(cacheDir, file, file.commit), dirname(entry))
    await rename(temp, entry)
    return true
  } catch (error) {
    // Gone meanwhile: it is fetched, then.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  } finally {
    await rm(temp, { force: true })
  }
}

/** Whether nobody has written to a file, or put another one in its place, between two looks at it. */
function isSameState(before: BigIntStats, after: BigIntStats): boolean {
  const isSameFile = before.dev === after.dev && before.ino === after.ino && before.size === after.size
  return isSameFile && before.mtimeNs === after.mtimeNs && before.ctimeNs === after.ctimeNs
}

async function hasDigest(path: string, file: FileMetadata, signal?: AbortSignal): Promise<boolean> {
  if (!(await isRegularOfSize(path, file.sizeBytes))) return false
  const hash = contentHash(digestOf(file.etag), file.sizeBytes)
  await using handle = await open(path)
  const buffer = Buffer.allocUnsafe(1024 * 1024)
  for (;;) {
    signal?.throwIfAborted()
    const { bytesRead } = await handle.read(buffer)
    if (bytesRead === 0) return hash.digest('hex') === file.etag
    hash.update(buffer.subarray(0, bytesRead))
  }
}

async function isRegularOfSize(path: string, sizeBytes: number): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  return found?.isFile() === true && found.size === sizeBytes
}

async function targetOf(entry: string): Promise<string | undefined> {
  return await readlink(entry).catch(() => undefined)
}

async function linkTo(target: string, entry: string, tempFolder: string): Promise<void> {
  try {
    await symlink(target, entry, 'file')
    return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  if ((await targetOf(entry)) === target) return
  const temp = tempName(tempFolder)
  await symlink(target, temp, 'file')
  await replaceBy(temp, entry)
}

async function copyEntry(from: string, entry: string, root: string, expected: FileMetadata): Promise<void> {
  const temp = tempName(root)
  await copyBlob(from, temp, root, expected)
  await replaceBy(temp, entry)
}

/** Where this process moved blobs, for other names of the same content, and those that have just seen the blob. */
const movedBlobs = new Map<string, string>()

/** `false`: somebody else has moved it. */
async function moveBlob(blob: string, entry: string): Promise<boolean> {
  const before = movedBlobs.get(blob)
  // First, so that whoever finds the blob gone finds where it went.
  movedBlobs.set(blob, entry)
  try {
    await rename(blob, entry)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || before === undefined) throw error
    movedBlobs.set(blob, before)
    return false
  }
}

async function copyBlob(blob: string, to: string, root: string, expected: FileMetadata): Promise<void> {
  try {
    await copyNew(blob, to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const moved = movedBlobs.get(blob) ?? (await findMoved(join(root, 'snapshots'), expected))
    if (moved === undefined) throw error
    await copyNew(moved, to)
  }
}

/** Where another process has just moved a blob: a regular file somewhere in the snapshots, with its digest. */
async function findMoved(folder: string, expected: FileMetadata): Promise<string | undefined> {
  for (const item of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, item.name)
    if (item.isDirectory()) {
      const found = await findMoved(path, expected)
      if (found !== undefined) return found
    } else if (await hasDigest(path, expected)) return path
  }
  return undefined
}

/** Shares the bytes where the file system can. */
function copyNew(from: string, to: string): Promise<void> {
  return copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
}

async function replaceBy(temp: string, to: string): Promise<void> {
  try {
    await rename(temp, to)
  } catch (error) {
    await rm(temp, { force: true })
    throw error
  }
}

/** The last to be at work on an entry, in this process: between the look at a name and its use nobody may take it. */
const turns = new Map<string, Promise<unknown>>()

async function inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
  const before = turns.get(name)?.catch(() => undefined)
  const mine = before === undefined ? work() : before.then(work)
  turns.set(name, mine)
  try {
    return await mine
  } finally {
    if (turns.get(name) === mine) turns.delete(name)
  }
}
