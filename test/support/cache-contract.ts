/**
 * Checks a Hub cache, or a folder of a user's with its bookkeeping, against the published layout, as an inspector who
 * has never seen our writer: whatever would make Python's `scan_cache_dir` warn is a failure, and so is everything
 * Python would have written differently.
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
const commitName = /^[0-9a-f]{40}$/
const etagName = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/
const repoFolderName = /^(?:models|datasets|spaces)--[\w.-]+?(?:--[\w.-]+?)?$/

/** Circumstances under which the cache was written. */
export interface ContractOptions {
  /** Of the process that wrote the cache. @defaultValue this process's */
  readonly umask?: number
  /** A cache without links has plain files in its snapshots. @defaultValue true */
  readonly symlinks?: boolean
  /** Folders below snapshots may be empty while a download is under way. @defaultValue false */
  readonly allowPartial?: boolean
  /** Whether the file system keeps the modes of files; those of the FAT family do not. @defaultValue true */
  readonly modes?: boolean
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

/** As above, for a folder that files were downloaded to (`local_dir` in Python, `localDir` here). */
export async function checkLocalDirContract(
  localDir: string,
  options: ContractOptions = {},
): Promise<string[]> {
  const problems: string[] = []
  await new Inspector(localDir, problems, options).localDir(localDir)
  return problems
}

class Inspector {
  readonly #cacheDir: string
  readonly #problems: string[]
  readonly #symlinks: boolean
  readonly #allowPartial: boolean
  readonly #modes: boolean
  readonly #fileMode: number
  readonly #folderMode: number
  readonly #lockMode = 0o664

  constructor(cacheDir: string, problems: string[], options: ContractOptions) {
    const umask = options.umask ?? process.umask()
    this.#cacheDir = cacheDir
    this.#problems = problems
    this.#symlinks = options.symlinks ?? true
    this.#allowPartial = options.allowPartial ?? false
    this.#modes = options.modes ?? true
    this.#fileMode = 0o666 & ~umask
    this.#folderMode = 0o777 & ~umask
  }

  async tagFile(path: string): Promise<void> {
    const text = await readFile(path, 'utf8').catch(() => undefined)
    if (text === undefined) return this.#report(path, 'missing')
    if (text !== tag) this.#report(path, 'not the text Python writes')
    await this.#mode(path, this.#fileMode)
  }

  async locks(folder: string): Promise<void> {
    for (const name of await readdir(folder)) {
      const path = join(folder, name)
      if (!repoFolderName.test(name)) this.#report(path, 'not a repository folder')
      await this.#mode(path, this.#folderMode)
      for (const lock of await readdir(path)) {
        const lockFile = join(path, lock)
        if (!lock.endsWith('.lock') || !etagName.test(basename(lock, '.lock'))) {
          this.#report(lockFile, 'not <etag>.lock')
        }
        await this.#lock(lockFile)
      }
    }
  }

  async #lock(path: string): Promise<void> {
    const found = await lstat(path)
    if (!found.isFile() || found.size !== 0) this.#report(path, 'not an empty file')
    await this.#mode(path, this.#lockMode)
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
    await this.#noExist(folder)
    await this.#trees(join(folder, 'trees'), folder)
  }

  /** Files that lie where the user wants them, and what is known about them in `.cache/huggingface`. */
  async localDir(folder: string): Promise<void> {
    const notes = join(folder, '.cache', 'huggingface')
    const known = new Set(['.gitignore', 'CACHEDIR.TAG', 'download', 'trees'])
    for (const name of await readdir(notes)) {
      if (!known.has(name)) this.#report(join(notes, name), 'left over: Python has no such entry')
    }
    const ignores = await readFile(join(notes, '.gitignore'), 'utf8').catch(() => undefined)
    if (ignores !== '*') this.#report(join(notes, '.gitignore'), `not "*": ${JSON.stringify(ignores)}`)
    await this.tagFile(join(notes, 'CACHEDIR.TAG'))
    for (const path of await walk(join(notes, 'download'))) {
      const name = relative(join(notes, 'download'), path)
      if (name.endsWith('.lock')) await this.#lock(path)
      else if (name.endsWith('.metadata')) await this.#metadata(path, join(folder, name.slice(0, -9)))
      else if (!(this.#allowPartial && name.endsWith('.incomplete'))) this.#report(path, 'left over')
    }
    await this.#trees(join(notes, 'trees'))
  }

  async #metadata(path: string, file: string): Promise<void> {
    await this.#mode(path, this.#fileMode)
    const lines = (await readFile(path, 'utf8')).split('\n')
    const [commit = '', etag = '', time = '', end] = lines
    if (lines.length !== 4 || end !== '') this.#report(path, 'not three lines')
    if (!commitName.test(commit)) this.#report(path, `not a commit: ${commit}`)
    if (!etagName.test(etag)) return this.#report(path, `not an etag: ${etag}`)
    // As Python's `float` is written, and read.
    if (!/^\d+\.\d+$/.test(time)) this.#report(path, `not a time in seconds, with a fraction: ${time}`)
    const found = await lstat(file).catch(() => undefined)
    if (!found?.isFile()) return this.#report(path, `there is no file ${file}`)
    if (found.mtimeMs / 1000 - 1 > Number(time)) this.#report(path, 'older than its file: Python ignores it')
    if ((await digest(file, etag.length === 64, found.size)) !== etag) {
      this.#report(file, 'the content has another digest than its metadata says')
    }
    await this.#mode(file, this.#fileMode)
  }

  /** The lists of all files of commits. @param repoFolder Whose snapshots must agree with them. */
  async #trees(folder: string, repoFolder?: string): Promise<void> {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name)
      const commit = basename(name, '.json')
      if (name !== `${commit}.json` || !commitName.test(commit)) {
        this.#report(path, 'not <commit>.json')
        continue
      }
      await this.#mode(path, 0o600)
      const files = this.#filesOfTree(path, await readFile(path, 'utf8'))
      if (files === undefined || repoFolder === undefined) continue
      for (const [entry, etag] of await linksOf(join(repoFolder, 'snapshots', commit))) {
        const promised = files.get(entry)
        if (promised === undefined) this.#report(path, `does not list ${entry}, which the snapshot has`)
        else if (etag !== undefined && etag !== promised) {
          this.#report(path, `${entry} is ${promised}, and the snapshot has ${etag}`)
        }
      }
    }
  }

  /** Paths of a commit and their etags, or `undefined` for a file that Python would not read. */
  #filesOfTree(path: string, text: string): Map<string, string> | undefined {
    let tree: Record<string, unknown>
    try {
      tree = JSON.parse(text) as Record<string, unknown>
    } catch {
      this.#report(path, 'not JSON')
      return undefined
    }
    if (Object.keys(tree).sort().join() !== 'files,format_version') this.#report(path, 'unknown fields')
    if (tree['format_version'] !== 1) this.#report(path, 'not of format 1')
    const files = new Map<string, string>()
    for (const [name, entry] of Object.entries((tree['files'] ?? {}) as Record<string, TreeEntry>)) {
      const problem = problemOf(entry)
      if (problem !== undefined) this.#report(path, `${name}: ${problem}`)
      files.set(name, String(entry.lfs_sha256 ?? entry.blob_id))
    }
    return files
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
      if (!commitName.test(name)) this.#report(path, 'not a commit')
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
      if (!commitName.test(text)) this.#report(path, `not exactly 40 hex digits: ${JSON.stringify(text)}`)
      else if (!commits.has(text)) this.#report(path, 'Python warns: refers to a missing commit')
      if (relative(folder, path) === text) this.#report(path, 'a ref for a commit')
      await this.#mode(path, this.#fileMode)
    }
  }

  async #blobs(folder: string): Promise<void> {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name)
      if (name.endsWith('.incomplete') && this.#allowPartial) continue
      if (!etagName.test(name)) {
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

  async #noExist(repoFolder: string): Promise<void> {
    const folder = join(repoFolder, '.no_exist')
    for (const path of await walk(folder).catch(() => [])) {
      const name = relative(folder, path)
      if (!commitName.test(name.split(sep)[0] ?? '')) this.#report(path, 'not below a commit')
      if ((await stat(path)).size !== 0) this.#report(path, 'not empty')
      if (await lstat(join(repoFolder, 'snapshots', name)).catch(() => undefined)) {
        this.#report(path, 'Python takes a file for missing that is there')
      }
      await this.#mode(path, this.#fileMode)
    }
  }

  async #mode(path: string, expected: number): Promise<void> {
    if (process.platform === 'win32' || !this.#modes) return
    const mode = (await lstat(path)).mode & 0o777
    if (mode !== expected) this.#report(path, `mode ${mode.toString(8)} instead of ${expected.toString(8)}`)
  }

  #report(path: string, problem: string): void {
    this.#problems.push(`${relative(this.#cacheDir, path)}: ${problem}`)
  }
}

/** One file of `trees/<commit>.json`. */
type TreeEntry = Readonly<Record<string, unknown>>

const treeFields: Readonly<Record<string, (value: unknown) => boolean>> = {
  size: isSize,
  blob_id: (value) => typeof value === 'string' && commitName.test(value),
  lfs_sha256: isSha256,
  lfs_size: isSize,
  xet_hash: isSha256,
}

function problemOf(entry: TreeEntry): string | undefined {
  for (const [field, value] of Object.entries(entry)) {
    const isRight = treeFields[field]
    if (isRight === undefined) return `an unknown field, ${field}`
    if (!isRight(value)) return `${field} is ${JSON.stringify(value)}`
  }
  if (entry['size'] === undefined || entry['blob_id'] === undefined) return 'no size, or no blob_id'
  const isHalf = (entry['lfs_sha256'] === undefined) !== (entry['lfs_size'] === undefined)
  return isHalf ? 'only half of what is known of a file in large-file storage' : undefined
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isSha256(value: unknown): boolean {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
}

/** The entries of a snapshot and the blobs that they lead to; `undefined` for a file of its own. */
async function linksOf(snapshot: string): Promise<[string, string | undefined][]> {
  const paths = await walk(snapshot).catch(() => [])
  return await Promise.all(
    paths.map(async (path): Promise<[string, string | undefined]> => {
      const target = await readlink(path).catch(() => undefined)
      return [relative(snapshot, path).split(sep).join('/'), target && basename(target)]
    }),
  )
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
