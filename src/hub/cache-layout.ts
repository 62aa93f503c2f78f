/**
 * Where everything is in the standard Hub cache, and what is there. Nothing here writes.
 *
 * A snapshot entry counts as a blob of ours only when it is a link to `blobs/<etag>` of the same repository: the
 * target of any other link may be anything on this disk, and must never be shared.
 */
import { lstat, open, readdir, readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { CacheError } from '../errors.ts'
import {
  asCommit,
  asEtag,
  type BlobRef,
  type Commit,
  type Etag,
  type FileRef,
  type HubFile,
  isRepoId,
  type RepoRef,
  repoTypes,
} from '../values.ts'
import { isSafePath, isSafeRevision } from './file-ref.ts'
import { isSpelledSo } from './spelling.ts'

/** `models--org--name`. @throws {CacheError} for an impossible repository id. */
export function repoFolderName(repo: RepoRef): string {
  if (!isRepoId(repo.repo))
    throw new CacheError(`"${repo.repo}" cannot be a repository: they are called "name" or "org/name"`)
  return [`${repo.repoType}s`, ...repo.repo.split('/')].join('--')
}

/** The repository whose folder is called `name`; `undefined` for any other folder. */
export function repoOfFolder(name: string): RepoRef | undefined {
  const [prefix, ...parts] = name.split('--')
  const repoType = repoTypes.find((type) => `${type}s` === prefix)
  const repo = parts.join('/')
  return repoType !== undefined && isRepoId(repo) ? { repoType, repo } : undefined
}

/** The folder of everything of one repository. */
export function repoFolder(cacheDir: string, repo: RepoRef): string {
  return join(cacheDir, repoFolderName(repo))
}

/** The folder of all contents of a repository; a torrent's save path. */
export function blobsFolder(cacheDir: string, repo: RepoRef): string {
  return join(repoFolder(cacheDir, repo), 'blobs')
}

/** The final name of a content. @throws {CacheError} for an impossible etag. */
export function blobPath(cacheDir: string, repo: RepoRef, etag: Etag): string {
  return join(blobsFolder(cacheDir, repo), checkedEtag(etag))
}

const partialEnding = '.llmpt.incomplete'

/** A content on its way, for the holder of its lock. */
export function partialBlobPath(cacheDir: string, repo: RepoRef, etag: Etag): string {
  return blobPath(cacheDir, repo, etag) + partialEnding
}

/** The contents of a repository of which there is such a file. */
export async function partialBlobs(cacheDir: string, repo: RepoRef): Promise<ReadonlySet<Etag>> {
  const names = await readdir(blobsFolder(cacheDir, repo)).catch(() => [])
  const partials = names.filter((name) => name.endsWith(partialEnding))
  return new Set(partials.flatMap((name) => asEtag(name.slice(0, -partialEnding.length)) ?? []))
}

/** A content that turned out not to be what its name promises: no client of the cache looks for this name. */
export function damagedBlobPath(cacheDir: string, repo: RepoRef, etag: Etag): string {
  return `${blobPath(cacheDir, repo, etag)}.llmpt.damaged`
}

/** The file that Python's client locks while it writes a blob. */
export function lockPath(cacheDir: string, repo: RepoRef, etag: Etag): string {
  return join(cacheDir, '.locks', repoFolderName(repo), `${checkedEtag(etag)}.lock`)
}

/** The folder that `snapshotDownload` returns. */
export function snapshotFolder(cacheDir: string, repo: RepoRef, commit: Commit): string {
  return join(repoFolder(cacheDir, repo), 'snapshots', checkedCommit(commit))
}

/** The entry that `p2pDownload` returns. @throws {CacheError} when `path` would leave the snapshot. */
export function snapshotPath(cacheDir: string, repo: RepoRef, commit: Commit, path: string): string {
  return below(snapshotFolder(cacheDir, repo, commit), checkedPath(path))
}

/** @throws {CacheError} when `revision` would leave `refs/`. */
export function refPath(cacheDir: string, repo: RepoRef, revision: string): string {
  if (!isSafeRevision(revision)) throw new CacheError(`"${revision}" cannot be a revision`)
  return below(join(repoFolder(cacheDir, repo), 'refs'), revision)
}

/** The marker of a file that a commit does not have. */
export function noExistPath(cacheDir: string, repo: RepoRef, commit: Commit, path: string): string {
  return below(join(repoFolder(cacheDir, repo), '.no_exist', checkedCommit(commit)), checkedPath(path))
}

/** `path` itself, when it is safe to join to a folder. @throws {CacheError} */
export function checkedPath(path: string): string {
  if (isSafePath(path) && (process.platform !== 'win32' || isSafeOnWindows(path))) return path
  const advice = 'ask the owner of the repository to rename it'
  throw new CacheError(`${JSON.stringify(path)} cannot be a file's name here: ${advice}`)
}

/** Names that mean something else to Windows: devices, streams, and a dot or a space at the end. */
export function isSafeOnWindows(path: string): boolean {
  return path.split('/').every((part) => {
    if (/[<>:"|?*\\\p{Cc}]/u.test(part) || /[. ]$/.test(part)) return false
    return !/^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³]) *(?:\.|$)/i.test(part)
  })
}

/** A file that the cache has. */
export interface CachedFile {
  /** The snapshot entry. */
  readonly path: string
  readonly commit: Commit
  readonly sizeBytes: number
  /**
   * Set only when the entry is a link to this blob of the same repository: then, and only then, it can be shared. A
   * file in place of a link is as good to read, but nothing here says which content it should have.
   */
  readonly blob: { readonly etag: Etag; readonly path: string } | undefined
}

/** The snapshot entry for `ref`, by commit or through `refs/`, or `undefined` when the cache does not have it. */
export async function findCached(cacheDir: string, ref: FileRef): Promise<CachedFile | undefined> {
  const commit = await findCommit(cacheDir, ref, ref.revision)
  if (commit === undefined) return undefined
  const path = snapshotPath(cacheDir, ref, commit, ref.path)
  const entry = await stat(path).catch(() => undefined)
  if (!entry?.isFile()) return undefined
  if (!(await isSpelledSo(snapshotFolder(cacheDir, ref, commit), path))) return undefined
  return { path, commit, sizeBytes: entry.size, blob: await linkedBlob(cacheDir, ref, path) }
}

/** The commit a revision was when it was last downloaded; a full commit is itself. */
export async function findCommit(
  cacheDir: string,
  repo: RepoRef,
  revision: string,
): Promise<Commit | undefined> {
  return asCommit(revision) ?? asCommit((await readSmallFile(refPath(cacheDir, repo, revision))) ?? '')
}

/** Whether `blobs/<etag>` is there with the right size. Its content was verified by whoever put it there. */
export async function hasBlob(cacheDir: string, repo: RepoRef, blob: BlobRef): Promise<boolean> {
  return await isFileOfSize(blobPath(cacheDir, repo, blob.etag), blob.sizeBytes)
}

/** Path of the content of `file`: its blob, or the snapshot entry that is a file of its own. */
export async function findContent(cacheDir: string, file: HubFile): Promise<string | undefined> {
  if (await hasBlob(cacheDir, file, file)) return blobPath(cacheDir, file, file.etag)
  return await findPlainEntry(cacheDir, file)
}

/** Path of the snapshot entry of `file`, when it is a file of its own. */
export async function findPlainEntry(cacheDir: string, file: HubFile): Promise<string | undefined> {
  return (await isPlainEntry(cacheDir, file))
    ? snapshotPath(cacheDir, file, file.commit, file.path)
    : undefined
}

/** A file with its name and its content in place. */
export interface SettledFile {
  /** The snapshot entry; in a folder of the user's, the file. */
  readonly path: string
  /** Where the content is: the blob, or the entry itself. */
  readonly contentPath: string
}

/**
 * `file`, when its snapshot entry is the link or the file that a download would make of it, by names and sizes alone.
 * Cheap, for many files: nothing is locked, read or written.
 */
export async function findSettled(cacheDir: string, file: HubFile): Promise<SettledFile | undefined> {
  const path = snapshotPath(cacheDir, file, file.commit, file.path)
  const target = await readlink(path).catch(() => undefined)
  if (target === undefined) {
    return (await isPlainEntry(cacheDir, file)) ? { path, contentPath: path } : undefined
  }
  const contentPath = blobPath(cacheDir, file, file.etag)
  const isRight =
    target === relative(dirname(path), contentPath) && (await isFileOfSize(path, file.sizeBytes))
  return isRight ? { path, contentPath } : undefined
}

/**
 * Whether the snapshot entry of `file` is a regular file of its size, as it is where links do not work. A commit never
 * changes, so that is its content, verified by whoever put it there. What is reached through a link along the way
 * may be anything, and does not count.
 */
export async function isPlainEntry(cacheDir: string, file: HubFile): Promise<boolean> {
  const { commit, path, sizeBytes } = file
  try {
    const named = snapshotPath(cacheDir, file, commit, path)
    // In most caches it is a link, or not there: that is one question, and finding out real paths is many.
    const seen = await lstat(named)
    if (!seen.isFile() || seen.size !== sizeBytes) return false
    const root = await realpath(repoFolder(cacheDir, file))
    const entry = await realpath(named)
    if (entry !== join(root, 'snapshots', commit, ...path.split('/'))) return false
    const found = await lstat(entry)
    return (
      found.isFile() &&
      found.size === sizeBytes &&
      (await isSpelledSo(join(root, 'snapshots', commit), entry))
    )
  } catch {
    return false
  }
}

/** Whether a regular file, or a link to one, has this size. */
export async function isFileOfSize(path: string, sizeBytes: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found?.isFile() === true && found.size === sizeBytes
}

async function linkedBlob(cacheDir: string, repo: RepoRef, path: string): Promise<CachedFile['blob']> {
  try {
    const etag = asEtag((await linkedName(cacheDir, repo, path)) ?? '')
    if (etag === undefined) return undefined
    // Some people keep a blob elsewhere and link it in: fine to read, not to share.
    const blob = blobPath(cacheDir, repo, etag)
    return (await lstat(blob)).isFile() ? { etag, path: blob } : undefined
  } catch {
    return undefined
  }
}

/**
 * The name in the repository's own `blobs/` that the link at `path` leads to, whether or not anything is there;
 * `undefined` for a link to anywhere else, and for what is no link.
 */
export async function linkedName(cacheDir: string, repo: RepoRef, path: string): Promise<string | undefined> {
  try {
    const target = resolve(await realpath(dirname(path)), await readlink(path))
    const blobs = await realpath(blobsFolder(cacheDir, repo)).catch(unlessGone)
    // Where the folder is gone, its name is all there is to compare with.
    const isOurs =
      blobs === undefined
        ? dirname(target) === blobsFolder(await realpath(cacheDir), repo)
        : (await realpath(dirname(target))) === blobs
    return isOurs ? basename(target) : undefined
  } catch {
    return undefined
  }
}

function unlessGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/**
 * Whether the folder that `path` is in, of the repository by its name, is that folder: no part of the way from the
 * cache to it is a link. A look, not a lock: whoever can write to the cache can still change it right afterwards.
 *
 * @throws The file system's error, when there is no such folder.
 */
export async function isReachedWithoutLinks(cacheDir: string, path: string): Promise<boolean> {
  const folder = dirname(path)
  return (await realpath(folder)) === join(await realpath(cacheDir), relative(cacheDir, folder))
}

/** A ref is 40 bytes; whatever is there instead is not read into memory. */
async function readSmallFile(path: string): Promise<string | undefined> {
  const file = await open(path).catch(() => undefined)
  if (!file) return undefined
  try {
    if (!(await file.stat()).isFile()) return undefined
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 0)
    return buffer.toString('latin1', 0, bytesRead).trim()
  } catch {
    return undefined
  } finally {
    await file.close()
  }
}

function below(folder: string, path: string): string {
  const joined = resolve(folder, ...path.split('/'))
  if (!joined.startsWith(resolve(folder) + sep)) throw new CacheError(`"${path}" would leave ${folder}`)
  return joined
}

function checkedEtag(etag: Etag): Etag {
  if (asEtag(etag) === undefined) throw new CacheError(`"${etag}" cannot be the name of a blob`)
  return etag
}

function checkedCommit(commit: Commit): Commit {
  if (asCommit(commit) === undefined) throw new CacheError(`"${commit}" cannot be a commit`)
  return commit
}
