/**
 * Files in a folder of the user's choice, beside the bookkeeping that Python's client keeps there
 * (`.cache/huggingface`), so that either client knows what the other has downloaded.
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { asCommit, asEtag, type Commit, type Etag, type HubFile } from '../values.ts'
import { inFolder, makeFolderBelow, readText, replaceFile, tagFolder } from './cache-files.ts'
import { checkedPath, isFileOfSize } from './cache-layout.ts'
import {
  type CacheDeps,
  type OpenOptions,
  openPartial,
  type PartialFile,
  type PresentFile,
} from './partial-file.ts'
import { sweepInBackground } from './partial-sweep.ts'

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
  const { bookkeeping, finalPath, metadataPath, lockPath } = localPaths(localDir, file.path)
  const folder = dirname(metadataPath)
  await inFolder(localDir, async () => {
    await mkdir(localDir, { recursive: true })
    await makeFolderBelow(localDir, dirname(finalPath))
    await makeFolderBelow(localDir, folder)
    await tagFolder(bookkeeping)
    await writeFile(join(bookkeeping, '.gitignore'), '*', { flag: 'wx' }).catch(() => undefined)
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

/** The locks in `folder` by the first part of the names of their partial files, which is a hash of the file's name. */
async function lockNames(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.endsWith('.lock')) continue
    found.set(shortHash(name.replace(/lock$/, 'metadata')), join(folder, name))
  }
  return found
}

async function isUpToDate(localDir: string, file: HubFile): Promise<boolean> {
  const { finalPath } = localPaths(localDir, file.path)
  const known = await readLocalMetadata(localDir, file.path)
  return known?.etag === file.etag && (await isFileOfSize(finalPath, file.sizeBytes))
}

function localPaths(localDir: string, path: string): LocalPaths {
  const parts = checkedPath(path).split('/')
  const bookkeeping = join(localDir, '.cache', 'huggingface')
  const noted = join(bookkeeping, 'download', ...parts)
  return {
    bookkeeping,
    finalPath: join(localDir, ...parts),
    metadataPath: `${noted}.metadata`,
    lockPath: `${noted}.lock`,
  }
}

interface LocalPaths {
  readonly bookkeeping: string
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
