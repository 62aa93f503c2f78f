/**
 * Checks a Hub cache against its published layout, as an inspector who has never seen our writer: whatever would
 * make Python's `scan_cache_dir` warn is a failure, and so is everything Python would have written differently.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, readdir, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, relative, sep } from 'node:path'

const ignored = new Set(['.DS_Store', 'Thumbs.db', 'desktop.ini'])
const tag =
  'Signature: 8a477f597d28d172789f06886806bc55\n' +
  '# This file is a cache directory tag created by huggingface_hub.\n' +
  '# For information about cache directory tags, see:\n' +
  '#\thttps://bford.info/cachedir/\n'
const repoFolderName = /^(?:models|datasets|spaces)--[\w.-]+?(?:--[\w.-]+?)?$/

/** Circumstances under which the cache was written. */
export interface ContractOptions {
  /** Of the process that wrote the cache. @defaultValue this process's */
  readonly umask?: number
  /** A cache without links has plain files in its snapshots. @defaultValue true */
  readonly symlinks?: boolean
  /** Folders below snapshots may be empty while a download is under way. @defaultValue false */
  readonly allowPartial?: boolean
}

/** One sentence per violation, with the path; empty when the cache is as it should be. */
export async function checkCacheContract(cacheDir: string, options: ContractOptions = {}): Promise<string[]> {
  const problems: string[] = []
  const inspector = new Inspector(cacheDir, problems, options)
  const names = await readdir(cacheDir)
  for (const name of names) {
    const path = join(cacheDir, name)
    if (ignored.has(name)) continue
    if (name === '.locks') await inspector.locks(path)
    else if (name === 'CACHEDIR.TAG') await inspector.tagFile(path)
    else await inspector.repo(path)
  }
  const hasRepos = names.some((name) => repoFolderName.test(name))
  if (hasRepos && !names.includes('CACHEDIR.TAG')) problems.push('CACHEDIR.TAG: missing')
  return problems
}

class Inspector {
  readonly #cacheDir: string
  readonly #problems: string[]
  readonly #symlinks: boolean
  readonly #allowPartial: boolean
  readonly #fileMode: number
  readonly #folderMode: number
  readonly #lockMode = 0o664

  constructor(cacheDir: string, problems: string[], options: ContractOptions) {
    const umask = options.umask ?? process.umask()
    this.#cacheDir = cacheDir
    this.#problems = problems
    this.#symlinks = options.symlinks ?? true
    this.#allowPartial = options.allowPartial ?? false
    this.#fileMode = 0o666 & ~umask
    this.#folderMode = 0o777 & ~umask
  }

  async tagFile(path: string): Promise<void> {
    if ((await readFile(path, 'utf8')) !== tag) this.#report(path, 'not the text Python writes')
    await this.#mode(path, this.#fileMode)
  }

  async locks(folder: string): Promise<void> {
    for (const name of await readdir(folder)) {
      const path = join(folder, name)
      if (!repoFolderName.test(name)) this.#report(path, 'not a repository folder')
      await this.#mode(path, this.#folderMode)
      for (const lock of await readdir(path)) {
        const lockFile = join(path, lock)
        const found = await lstat(lockFile)
        if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})\.lock$/.test(lock)) this.#report(lockFile, 'not <etag>.lock')
        if (!found.isFile() || found.size !== 0) this.#report(lockFile, 'not an empty file')
        await this.#mode(lockFile, this.#lockMode)
      }
    }
  }

  async repo(folder: string): Promise<void> {
    const found = await lstat(folder)
    if (!found.isDirectory()) return this.#report(folder, 'Python warns: repo path is not a directory')
    if (!repoFolderName.test(basename(folder))) {
      return this.#report(folder, 'Python warns: not a valid cache directory')
    }
    await this.#mode(folder, this.#folderMode)
    const known = new Set(['blobs', 'snapshots', 'refs', '.no_exist', 'trees'])
    for (const name of await readdir(folder)) {
      if (!known.has(name)) this.#report(join(folder, name), 'left over: Python has no such entry')
    }
    if (!(await isFolder(join(folder, 'snapshots')))) {
      return this.#report(folder, "Python warns: snapshots dir doesn't exist")
    }
    const commits = await this.#snapshots(folder)
    await this.#refs(join(folder, 'refs'), commits)
    await this.#blobs(join(folder, 'blobs'))
    await this.#noExist(join(folder, '.no_exist'))
  }

  async #snapshots(folder: string): Promise<Set<string>> {
    const snapshots = join(folder, 'snapshots')
    const commits = new Set<string>()
    for (const name of await readdir(snapshots)) {
      const path = join(snapshots, name)
      if (ignored.has(name)) continue
      if (!(await isFolder(path))) {
        this.#report(path, 'Python warns: snapshots folder corrupted, found a file')
        continue
      }
      if (!/^[0-9a-f]{40}$/.test(name)) this.#report(path, 'not a commit')
      commits.add(name)
      const files = await walk(path)
      if (files.length === 0 && !this.#allowPartial) this.#report(path, 'an empty snapshot')
      for (const file of files) await this.#entry(folder, file)
      for (const below of await folders(path)) await this.#mode(below, this.#folderMode)
    }
    return commits
  }

  async #entry(repoFolder: string, path: string): Promise<void> {
    const found = await lstat(path)
    if (!found.isSymbolicLink()) {
      if (this.#symlinks) this.#report(path, 'a plain file where links work')
      else await this.#mode(path, this.#fileMode)
      return
    }
    if (!this.#symlinks) this.#report(path, 'a link where links do not work')
    const target = await readlink(path)
    if (isAbsolute(target)) this.#report(path, `an absolute link: ${target}`)
    const real = await realpath(path).catch(() => undefined)
    if (real === undefined) return this.#report(path, 'Python warns: blob missing (broken symlink)')
    const expected = relative(dirname(path), join(repoFolder, 'blobs', basename(real)))
    if (target !== expected) this.#report(path, `links to ${target} instead of ${expected}`)
  }

  async #refs(folder: string, commits: ReadonlySet<string>): Promise<void> {
    const found = await lstat(folder).catch(() => undefined)
    if (!found) return
    if (!found.isDirectory()) return this.#report(folder, 'Python warns: refs directory cannot be a file')
    for (const path of await walk(folder)) {
      const text = await readFile(path, 'utf8')
      if (/\.tmp$|\.incomplete$/.test(path)) this.#report(path, 'left over: not a ref')
      if (!/^[0-9a-f]{40}$/.test(text))
        this.#report(path, `not exactly 40 hex digits: ${JSON.stringify(text)}`)
      else if (!commits.has(text)) this.#report(path, 'Python warns: refers to a missing commit')
      if (relative(folder, path) === text) this.#report(path, 'a ref for a commit')
      await this.#mode(path, this.#fileMode)
    }
  }

  async #blobs(folder: string): Promise<void> {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name)
      if (name.endsWith('.incomplete') && this.#allowPartial) continue
      if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(name)) {
        this.#report(path, 'left over: not the name of a blob')
        continue
      }
      const found = await lstat(path)
      if (!found.isFile()) this.#report(path, 'not a regular file')
      else if ((await digest(path, name.length === 64, found.size)) !== name) {
        this.#report(path, 'the content has another digest than the name')
      }
      await this.#mode(path, this.#fileMode)
    }
  }

  async #noExist(folder: string): Promise<void> {
    for (const path of await walk(folder).catch(() => [])) {
      const [commit = ''] = relative(folder, path).split(sep)
      if (!/^[0-9a-f]{40}$/.test(commit)) this.#report(path, 'not below a commit')
      if ((await stat(path)).size !== 0) this.#report(path, 'not empty')
      await this.#mode(path, this.#fileMode)
    }
  }

  async #mode(path: string, expected: number): Promise<void> {
    if (process.platform === 'win32') return
    const mode = (await lstat(path)).mode & 0o777
    if (mode !== expected) this.#report(path, `mode ${mode.toString(8)} instead of ${expected.toString(8)}`)
  }

  #report(path: string, problem: string): void {
    this.#problems.push(`${relative(this.#cacheDir, path)}: ${problem}`)
  }
}

/** Every file and link below `folder`, depth first. */
async function walk(folder: string): Promise<string[]> {
  const found: string[] = []
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) found.push(...(await walk(path)))
    else if (!ignored.has(entry.name)) found.push(path)
  }
  return found
}

async function folders(folder: string): Promise<string[]> {
  const found = [folder]
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) found.push(...(await folders(join(folder, entry.name))))
  }
  return found
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true
}

async function digest(path: string, isSha256: boolean, sizeBytes: number): Promise<string> {
  const hash = createHash(isSha256 ? 'sha256' : 'sha1')
  if (!isSha256) hash.update(`blob ${sizeBytes}\0`)
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
