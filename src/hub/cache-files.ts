/** Small writes into shared folders: atomic, never through a planted link, and with errors a person can act on. */
import { randomBytes } from 'node:crypto'
import { lstat, mkdir, readFile, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { CacheError, LlmptError } from '../errors.ts'

/** Tells backup tools to skip the folder. @see `CACHEDIR_TAG_CONTENT` of huggingface_hub */
export const cachedirTag: string = [
  'Signature: 8a477f597d28d172789f06886806bc55',
  '# This file is a cache directory tag created by huggingface_hub.',
  '# For information about cache directory tags, see:',
  '#\thttps://bford.info/cachedir/',
  '',
].join('\n')

/** Eight random hex digits: what makes a temporary name unique, as in Python's client. */
export function uniquePart(): string {
  return randomBytes(4).toString('hex')
}

/** Runs `work`; a failure of the file system leaves as a CacheError that names `folder` and says what to do. */
export async function inFolder<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw asCacheError(error, folder)
  }
}

/** What a failed system call means for a person; any other error stays as it is. */
export function asCacheError(error: unknown, folder: string): unknown {
  const { code, path, dest } = (error ?? {}) as NodeJS.ErrnoException & { dest?: string }
  if (error instanceof LlmptError || typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) return error
  return new CacheError(explain(code, folder, code === 'EINVAL' ? (dest ?? path) : path), { cause: error })
}

function explain(code: string, folder: string, path: string | undefined): string {
  const elsewhere = 'set HF_HUB_CACHE (or --cache-dir) to another folder'
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return `no space left for ${folder}: free some, or ${elsewhere} (${code})`
    case 'EACCES':
    case 'EPERM':
      return `no permission to write in ${path ?? folder}: make ${folder} yours, or ${elsewhere} (${code})`
    case 'EROFS':
      return `${folder} is on a read-only file system: ${elsewhere} (${code})`
    case 'ENAMETOOLONG':
      return `a path below ${folder} is too long for this file system: use a shorter folder (${code})`
    case 'EFBIG':
      return `the file system of ${folder}, or a limit (ulimit -f), allows no file as large as this: ${elsewhere} (${code})`
    case 'EINVAL':
      return `the file system of ${folder} does not take ${path ?? 'this'} for a name: ${elsewhere} (${code})`
    case 'ENOTDIR':
    case 'EEXIST':
    case 'EISDIR':
    case 'ENOTEMPTY':
      return `${path ?? folder} is in the way: something other than the cache made it, so move it away (${code})`
    case 'EMFILE':
    case 'ENFILE':
      return `too many open files to work in ${folder}: raise the limit (ulimit -n) (${code})`
    default:
      return `the file system below ${folder} failed: ${code}${path ? `, ${path}` : ''}`
  }
}

/** Creates `folder` and checks that links along the way do not lead out of `root`, which exists. @throws {CacheError} */
export async function makeFolderBelow(root: string, folder: string): Promise<void> {
  const realRoot = await realpath(root)
  const existing = await nearestExisting(folder, root)
  const realFolder = await realpath(existing).catch(() => undefined)
  if (realFolder !== realRoot && !realFolder?.startsWith(realRoot + sep)) {
    throw new CacheError(`${existing} leads out of ${root} through a link: remove that link`)
  }
  if (existing !== folder) await mkdir(folder, { recursive: true })
}

/** Before anything is created: `mkdir` would follow a planted link and make folders behind it. */
async function nearestExisting(folder: string, root: string): Promise<string> {
  let at = folder
  while (at !== root && at !== dirname(at) && !(await lstat(at).catch(() => undefined))) at = dirname(at)
  return at
}

/**
 * Writes a small file in one step: whoever reads sees the old or the new content. `tempFolder` is on the same disk.
 *
 * @param mode Before the umask. @defaultValue 0o666
 */
export async function replaceFile(
  path: string,
  content: string,
  tempFolder: string,
  mode = 0o666,
): Promise<void> {
  const temp = tempName(tempFolder)
  try {
    await writeFile(temp, content, { flag: 'wx', mode })
    await rename(temp, path)
  } catch (error) {
    await rm(temp, { force: true })
    throw error
  }
}

/** A name for something about to be renamed; `partial-sweep.ts` finds what a crash left. */
export function tempName(folder: string): string {
  return join(folder, `.llmpt-${uniquePart()}.tmp`)
}

/** `CACHEDIR.TAG`, when it is not there. A cache works without: failing to write it is no reason to stop. */
export async function tagFolder(folder: string): Promise<void> {
  await writeFile(join(folder, 'CACHEDIR.TAG'), cachedirTag, { flag: 'wx' }).catch(() => undefined)
}

/** The content of a small file, or `undefined`. */
export async function readText(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch(() => undefined)
}

/**
 * Makes room for a partial file: a link, or a file with a second name, would send our bytes somewhere else.
 *
 * @returns Whether an earlier try left one that can be written to.
 */
export async function clearUnsafePartial(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  if (!found) return false
  if (found.isFile() && found.nlink === 1) return true
  if (found.isDirectory()) throw new CacheError(`${path} is a folder and in the way: move it away`)
  await rm(path, { force: true })
  return false
}

/**
 * Whether links work in `folder`'s file system; tried once per `folder`, with nothing left behind.
 *
 * @throws The file system's error, when it is none about links: a full disk says nothing about them.
 */
export async function canLink(folder: string, inside: string): Promise<boolean> {
  const known = linkable.get(folder)
  if (known !== undefined) return await known
  const probe = probeLinks(inside)
  linkable.set(folder, probe)
  try {
    return await probe
  } catch (error) {
    linkable.delete(folder)
    throw error
  }
}

const linkable = new Map<string, Promise<boolean>>()
/** What is wrong with the disk or with this process, links or not. */
const otherTroubles = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EMFILE', 'ENFILE', 'ENOMEM'])

async function probeLinks(inside: string): Promise<boolean> {
  // Names that a sweep finds, should this process die here.
  const [file, link] = [tempName(inside), tempName(inside)]
  try {
    await writeFile(file, '')
    return await isFollowed(basename(file), link)
  } finally {
    for (const path of [file, link]) await rm(path, { force: true })
  }
}

/** Makes a link and looks at what it leads to: some systems make them and refuse to follow. */
async function isFollowed(target: string, link: string): Promise<boolean> {
  try {
    await symlink(target, link, 'file')
    return (await stat(link)).isFile()
  } catch (error) {
    if (otherTroubles.has((error as NodeJS.ErrnoException).code ?? '')) throw error
    return false
  }
}
