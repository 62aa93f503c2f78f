/**
 * Files in a folder of the user's choice, beside the bookkeeping that Python's client keeps there
 * (`.cache/huggingface`), so that either client knows what the other has downloaded.
 */
import { createHash } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { copyFile, lstat, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CacheError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import { asCommit, asEtag, type Commit, digestOf, type Etag, type HubFile } from '../values.ts'
import { inFolder, makeFolderBelow, readText, replaceFile, tagFolder } from './cache-files.ts'
import { checkedPath, isFileOfSize } from './cache-layout.ts'
import { contentHash } from './content-hash.ts'
import {
  type CacheDeps,
  type OpenOptions,
  openPartial,
  type PartialFile,
  type PresentFile,
} from './partial-file.ts'
import { sweepInBackground } from './partial-sweep.ts'
import { sameNameError } from './snapshot-entry.ts'
import { isSpelledSo } from './spelling.ts'
import { type TreeFile, writeTree } from './tree-cache.ts'

/** Where the bookkeeping of a folder is. */
export function bookkeepingOf(localDir: string): string {
  return join(localDir, '.cache', 'huggingface')
}

/** What Python's client knows about a file it has downloaded to a folder. */
export interface LocalMetadata {
  readonly commit: Commit
  readonly etag: Etag
}

/**
 * The right to write `file` below `localDir`, or the news that it is there, by its metadata. The metadata is kept
 * in step: when it is present, and by `commit`.
 *
 * @throws {CacheError} when the folder cannot be used, or a link in it leads out of it
 */
export async function openLocalFile(
  localDir: string,
  file: HubFile,
  deps: CacheDeps = {},
  options: OpenOptions = {},
): Promise<PresentFile | PartialFile> {
  const { finalPath, metadataPath, lockPath } = localPaths(localDir, file.path)
  const folder = dirname(metadataPath)
  await inFolder(localDir, async () => {
    await prepareBookkeeping(localDir)
    await makeFolderBelow(localDir, dirname(finalPath))
    await makeFolderBelow(localDir, folder)
  })
  const name = join(folder, `${shortHash(`${basenameOf(file.path)}.metadata`)}.${file.etag}`)
  const opened = await openPartial(
    {
      finalPath,
      lockPath,
      lockedPath: `${name}.llmpt.incomplete`,
      uniquePath: (unique) => `${name}.${unique}.incomplete`,
      sizeBytes: file.sizeBytes,
      folder: localDir,
      findPresent: async () => ((await isUpToDate(localDir, file)) ? finalPath : undefined),
      onPublished: () => writeLocalMetadata(localDir, file, deps),
    },
    deps,
    options,
  )
  const lockPathOf = async (partial: string): Promise<string | undefined> =>
    (await lockNames(folder)).get(partial.slice(0, 28))
  sweepInBackground(folder, { ...deps, lockPathOf })
  if (opened.state === 'present') await writeLocalMetadata(localDir, file, deps)
  return opened
}

/**
 * Notes which commit and content the file at its final name is, and when that was true. For a file that was there
 * without metadata and has been verified, or has been copied there.
 */
export async function writeLocalMetadata(
  localDir: string,
  file: HubFile,
  deps: CacheDeps = {},
): Promise<void> {
  const { metadataPath } = localPaths(localDir, file.path)
  const seconds = (deps.now ?? Date.now)() / 1000
  const text = `${file.commit}\n${file.etag}\n${Number.isInteger(seconds) ? `${seconds}.0` : seconds}\n`
  await inFolder(localDir, async () => {
    await mkdir(dirname(metadataPath), { recursive: true })
    await replaceFile(metadataPath, text, dirname(metadataPath))
  })
}

/** What is known about the file at `path`, or `undefined` when nothing is, or it was touched since. */
export async function readLocalMetadata(localDir: string, path: string): Promise<LocalMetadata | undefined> {
  const { finalPath, metadataPath } = localPaths(localDir, path)
  const [commitText = '', etagText = '', timeText = ''] = ((await readText(metadataPath)) ?? '').split('\n')
  const commit = asCommit(commitText.trim())
  const etag = asEtag(etagText.trim())
  const writtenAt = Number(timeText.trim() || Number.NaN)
  if (commit === undefined || etag === undefined || Number.isNaN(writtenAt)) return undefined
  const found = await stat(finalPath).catch(() => undefined)
  // One second of grace, as Python gives it: some file systems round the time.
  return found?.isFile() && found.mtimeMs / 1000 - 1 <= writtenAt ? { commit, etag } : undefined
}

/** The file at its name, when it is what `file` is by the metadata, and was written for the same commit. */
export async function findSettledLocal(localDir: string, file: HubFile): Promise<string | undefined> {
  const known = await readLocalMetadata(localDir, file.path)
  if (known?.commit !== file.commit || known.etag !== file.etag) return undefined
  const { finalPath } = localPaths(localDir, file.path)
  return (await isFileOfSize(finalPath, file.sizeBytes)) ? finalPath : undefined
}

/**
 * Takes the user's own file at the name of `file` for it when it has its content, and notes that. Only large files, as
 * in Python's client: small ones are fetched as fast.
 *
 * @returns whether it is there now
 */
export async function adoptLocalFile(
  localDir: string,
  file: HubFile,
  deps: CacheDeps = {},
  signal?: AbortSignal,
): Promise<boolean> {
  const { finalPath } = localPaths(localDir, file.path)
  const found = await lstat(finalPath).catch(() => undefined)
  if (digestOf(file.etag) !== 'sha256' || !found?.isFile() || found.size !== file.sizeBytes) return false
  if ((await readLocalMetadata(localDir, file.path)) !== undefined) return false
  const hash = contentHash('sha256', file.sizeBytes)
  for await (const chunk of createReadStream(finalPath, { highWaterMark: 1024 * 1024 })) {
    signal?.throwIfAborted()
    hash.update(chunk as Buffer)
  }
  if (hash.digest('hex') !== file.etag) return false
  await inFolder(localDir, () => prepareBookkeeping(localDir))
  await writeLocalMetadata(localDir, file, deps)
  return true
}

/** Copies content that is elsewhere on this disk to the name of `file`. @throws {CacheError} */
export async function copyToLocal(
  localDir: string,
  file: HubFile,
  contentPath: string,
  deps: CacheDeps = {},
  options: OpenOptions = {},
): Promise<void> {
  const opened = await openLocalFile(localDir, file, deps, options)
  if (opened.state === 'present') return
  await using slot = opened
  await inFolder(localDir, () => copyFile(contentPath, slot.partialPath, constants.COPYFILE_FICLONE))
  await slot.commit()
}

/** Remembers the files of a commit. Failing to is no error. */
export async function keepLocalTree(
  localDir: string,
  commit: Commit,
  files: readonly TreeFile[],
): Promise<void> {
  try {
    await prepareBookkeeping(localDir)
  } catch (error) {
    log.debug(`cannot keep the list of files of ${localDir}: ${messageOf(error)}`)
    return
  }
  await writeTree(bookkeepingOf(localDir), commit, files)
}

/** The commit whose files were listed last for this folder, or of any of its files; `undefined` when nothing is known. */
export async function latestLocalCommit(localDir: string): Promise<Commit | undefined> {
  const trees = join(bookkeepingOf(localDir), 'trees')
  let latest: { commit: Commit; atMs: number } | undefined
  for (const name of await readdir(trees).catch(() => [])) {
    const commit = asCommit(name.replace(/\.json$/, ''))
    const found = commit && (await lstat(join(trees, name)).catch(() => undefined))
    if (commit === undefined || !found?.isFile()) continue
    if (latest === undefined || found.mtimeMs > latest.atMs) latest = { commit, atMs: found.mtimeMs }
  }
  // For folders that Python filled before it kept trees.
  return latest?.commit ?? (await findNoted(localDir, () => true))
}

/** Whether any file of the folder was downloaded as one of this commit. */
export async function hasLocalCommit(localDir: string, commit: Commit): Promise<boolean> {
  return (await findNoted(localDir, (noted) => noted === commit)) !== undefined
}

/** The first commit among the metadata of files that is wanted. */
async function findNoted(
  localDir: string,
  isWanted: (commit: Commit) => boolean,
): Promise<Commit | undefined> {
  const folder = join(bookkeepingOf(localDir), 'download')
  const names = await readdir(folder, { recursive: true }).catch(() => [])
  for (const name of names) {
    if (!name.endsWith('.metadata')) continue
    const commit = asCommit(((await readText(join(folder, name))) ?? '').split('\n', 1)[0] ?? '')
    if (commit !== undefined && isWanted(commit)) return commit
  }
  return undefined
}

async function prepareBookkeeping(localDir: string): Promise<void> {
  const bookkeeping = bookkeepingOf(localDir)
  await mkdir(localDir, { recursive: true })
  await makeFolderBelow(localDir, bookkeeping)
  await tagFolder(bookkeeping)
  await writeFile(join(bookkeeping, '.gitignore'), '*', { flag: 'wx' }).catch(() => undefined)
}

/** The locks in `folder` by the first part of the names of their partial files, which is a hash of the file's name. */
async function lockNames(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.endsWith('.lock')) continue
    found.set(shortHash(name.replace(/lock$/, 'metadata')), join(folder, name))
  }
  return found
}

/** @throws {CacheError} When what is there is another file of this commit, whose name the file system takes for ours. */
async function isUpToDate(localDir: string, file: HubFile): Promise<boolean> {
  const { finalPath } = localPaths(localDir, file.path)
  const known = await readLocalMetadata(localDir, file.path)
  const isOther = known?.commit === file.commit && known.etag !== file.etag
  if (isOther && !(await isSpelledSo(localDir, finalPath))) {
    throw await sameNameError(file.path, localDir, finalPath)
  }
  return known?.etag === file.etag && (await isFileOfSize(finalPath, file.sizeBytes))
}

/** @throws {CacheError} For a name that cannot be, and for one among the bookkeeping, which it would forge. */
function localPaths(localDir: string, path: string): LocalPaths {
  const parts = checkedPath(path).split('/')
  // As file systems may see it that do not tell upper from lower case, and forget a dot at the end.
  const [first, second] = parts.map((part) => part.toLowerCase().replace(/[. ]+$/, ''))
  if (first === '.cache' && second === 'huggingface') {
    throw new CacheError(
      `${JSON.stringify(path)} cannot be put into ${localDir}: that is where Hub clients keep their own notes. ` +
        'Leave it out (ignorePatterns, --exclude), or download into the cache',
    )
  }
  const noted = join(bookkeepingOf(localDir), 'download', ...parts)
  return {
    finalPath: join(localDir, ...parts),
    metadataPath: `${noted}.metadata`,
    lockPath: `${noted}.lock`,
  }
}

interface LocalPaths {
  readonly finalPath: string
  readonly metadataPath: string
  readonly lockPath: string
}

function shortHash(name: string): string {
  // Python's urlsafe alphabet keeps the padding.
  return `${createHash('sha1').update(name).digest('base64url')}=`
}

function basenameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}
