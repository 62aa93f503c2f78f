/**
 * What a commit holds, kept on disk as Python's client keeps it: `trees/<commit>.json`, format 1, for the owner only. A
 * commit never changes, so that its tree is good for ever. What is read was written by any client, or by anybody who
 * can write there: a tree that is not right in every part is no tree.
 *
 * @see huggingface_hub, `_tree_cache.py`
 */
import { constants } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { log, messageOf } from '../log.ts'
import { asCommit, asEtag, type Commit, digestOf, type Etag, type HubFile, type RepoRef } from '../values.ts'
import { makeFolderBelow, replaceFile } from './cache-files.ts'
import { isSafePath } from './file-ref.ts'

/** A file as the listing of its commit describes it. */
export interface TreeFile extends HubFile {
  /**
   * Git's own SHA-1 of what it keeps: the content, or the pointer to large-file storage. 40 hex digits; `undefined` when
   * the Hub does not say, and then the tree cannot be kept.
   */
  readonly blobId: string | undefined
  /** Xet's hash of the content, 64 hex digits; identifies nothing outside of Xet. */
  readonly xetHash?: string | undefined
}

/** Room for a million files. */
const maxTreeBytes = 256 * 1024 * 1024

/** The file in `folder` that keeps the tree of `commit`. */
export function treePath(folder: string, commit: Commit): string {
  if (asCommit(commit) === undefined) throw new TypeError(`"${commit}" is no commit`)
  return join(folder, 'trees', `${commit}.json`)
}

/**
 * The files of `commit` in the order of their paths, or `undefined` when no tree of it is kept that can be used.
 *
 * @param folder That of the repository in the cache, or the bookkeeping of a local folder.
 */
export async function readTree(
  folder: string,
  repo: RepoRef,
  commit: Commit,
): Promise<readonly TreeFile[] | undefined> {
  const path = treePath(folder, commit)
  try {
    const text = await readBounded(path)
    return text === undefined ? undefined : parseTree(text, repo, commit)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.warn(`the list of files ${path} cannot be used and is asked for again: ${messageOf(error)}`)
    return undefined
  }
}

/** Keeps the tree of a commit. Failing to costs a request next time, and is no error. */
export async function writeTree(folder: string, commit: Commit, files: readonly TreeFile[]): Promise<void> {
  const path = treePath(folder, commit)
  const trees = join(folder, 'trees')
  if (files.some(({ blobId }) => blobId === undefined)) return
  try {
    await mkdir(folder, { recursive: true })
    await makeFolderBelow(folder, trees)
    // The name of the temporary file is the one that a sweep of `folder` finds.
    await replaceFile(path, serializeTree(files), folder, 0o600)
  } catch (error) {
    log.debug(`cannot keep the list of files ${path}: ${messageOf(error)}`)
  }
}

/** Forgets a tree that the Hub contradicts. */
export async function removeTree(folder: string, commit: Commit): Promise<void> {
  await rm(treePath(folder, commit), { force: true }).catch(() => undefined)
}

/** The order of trees: by code points, as Python sorts. */
export function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  return a.path === b.path ? 0 : Buffer.compare(Buffer.from(a.path), Buffer.from(b.path))
}

/** Byte for byte what Python's `json.dump(…, indent=1)` makes of it: keys that look like numbers stay in their order. */
export function serializeTree(files: readonly TreeFile[]): string {
  const entries = files.toSorted(byPath).map((file) => {
    const { path, sizeBytes, blobId, etag, xetHash } = file
    const isLarge = digestOf(etag) === 'sha256'
    const fields = {
      size: sizeBytes,
      blob_id: blobId,
      ...(isLarge && { lfs_sha256: etag, lfs_size: sizeBytes }),
      ...(xetHash !== undefined && { xet_hash: xetHash }),
    }
    const lines = Object.entries(fields).map(([key, value]) => `   "${key}": ${JSON.stringify(value)}`)
    return `  ${JSON.stringify(path)}: {\n${lines.join(',\n')}\n  }`
  })
  const body = entries.length === 0 ? '{}' : `{\n${entries.join(',\n')}\n }`
  const text = `{\n "format_version": 1,\n "files": ${body}\n}`
  return text.replace(/[\x7f-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** @throws When it is not a tree of format 1, or any of its entries is one we cannot use. */
export function parseTree(text: string, repo: RepoRef, commit: Commit): TreeFile[] {
  const { format_version: version, files } = objectOf(JSON.parse(text))
  if (version !== 1) throw new Error('it is not of format 1')
  return Object.entries(objectOf(files))
    .map(([path, entry]) => fileOf(path, objectOf(entry), repo, commit))
    .sort(byPath)
}

function fileOf(path: string, entry: Record<string, unknown>, repo: RepoRef, commit: Commit): TreeFile {
  const { blob_id: blob, lfs_sha256: sha256, xet_hash: xetHash } = entry
  const blobId = typeof blob === 'string' ? asCommit(blob) : undefined
  const sizeBytes = sha256 == null ? entry['size'] : (entry['lfs_size'] ?? entry['size'])
  // What is in Xet has a SHA-256, and its pointer's digest is not it.
  const etag = sha256 == null && xetHash == null ? asEtag(blobId ?? '') : asSha256(sha256)
  const isUsable = isSafePath(path) && isSize(sizeBytes) && isSize(entry['size'])
  const isXetHash = xetHash == null || asSha256(xetHash) !== undefined
  if (!isUsable || !isXetHash || blobId === undefined || etag === undefined) {
    throw new Error(`it says nothing usable about ${JSON.stringify(path)}`)
  }
  const { repoType, repo: name } = repo
  const file = { repoType, repo: name, path, commit, etag, sizeBytes, blobId }
  return typeof xetHash === 'string' ? { ...file, xetHash } : file
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('it is no tree')
  return value as Record<string, unknown>
}

/** 64 hex digits. */
function asSha256(value: unknown): Etag | undefined {
  return typeof value === 'string' && value.length === 64 ? asEtag(value) : undefined
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

async function readBounded(path: string): Promise<string | undefined> {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  await using file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  const found = await file.stat()
  if (!found.isFile()) throw new Error('it is no regular file')
  if (found.size > maxTreeBytes) throw new Error('it is too long')
  return await file.readFile('utf8')
}
