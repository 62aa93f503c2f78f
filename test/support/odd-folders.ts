/**
 * Folders on file systems that lack what a cache likes to have: links, names that differ in case, odd characters.
 *
 * Real ones where the system lets us have them, and everywhere imitations that behave alike for whoever works in them from
 * this process through `node:fs/promises`: they keep files in an ordinary folder, and look names up as FAT and APFS do.
 */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join, relative, sep } from 'node:path'
import { type TemporaryDirectory, temporaryDirectory } from './temp-dir.ts'

type OpenFolder = () => Promise<TemporaryDirectory>

/** Folders of the FAT family by what they are: no links, no upper and lower case, no `?` in names. */
export const fatFolders: readonly (readonly [string, OpenFolder])[] = [
  ['an imitation of FAT', imitatedFat],
  ...realFileSystems(),
]

/** Folders that do not tell upper case from lower case, and whether links work there. */
export const caselessFolders: readonly (readonly [string, OpenFolder, boolean])[] = [
  ['an imitation of APFS', imitatedApfs, true],
  ...fatFolders.map(([name, openFolder]) => [name, openFolder, false] as const),
]

/** Folders in which links do not work, each in a way of its own. */
export const linklessFolders: readonly (readonly [string, OpenFolder])[] = [
  ['a folder in which links are refused', refusingFolder],
  ...(canMount() ? [['a folder whose links nobody follows', unfollowingFolder] as const] : []),
  ...fatFolders,
]

/** As on Windows without its developer mode. */
async function refusingFolder(): Promise<TemporaryDirectory> {
  const folder = await temporaryDirectory()
  const restore = intercept(folder.path, {
    symlink: async (_target: string, path: string) => refuse('EPERM', 'symlink', path),
  })
  return endingWith(restore, folder)
}

/** Links can be made there, and lead nowhere. */
async function unfollowingFolder(): Promise<TemporaryDirectory> {
  const folder = await temporaryDirectory()
  mount('-t', 'tmpfs', '-o', 'nosymfollow,size=256m', 'none', folder.path)
  return mounted(folder)
}

/** A folder that can be made read-only, until what that returns is disposed of. */
export interface FreezableFolder extends TemporaryDirectory {
  freeze(): Promise<AsyncDisposable>
}

/** By what a write to them is answered with. */
export const readOnlyFolders: readonly (readonly [string, () => Promise<FreezableFolder>])[] = [
  ['EACCES', foldersOfOthers],
  ...(canMount() ? [['EROFS', readOnlyFileSystem] as const] : []),
]

/** While it is frozen, folders and files in it can be read, and this process is nobody who may do more. */
async function foldersOfOthers(): Promise<FreezableFolder> {
  const folder = await temporaryDirectory()
  const isRoot = process.getuid?.() === 0
  const freeze = async (): Promise<AsyncDisposable> => {
    const changed: [string, number][] = []
    for (const name of ['', ...(await fs.readdir(folder.path, { recursive: true }))]) {
      const path = join(folder.path, name)
      const found = await fs.lstat(path)
      if (found.isSymbolicLink()) continue
      changed.push([path, found.mode])
      await fs.chmod(path, found.isDirectory() ? 0o555 : 0o444)
    }
    // Root may write anywhere.
    if (isRoot) process.seteuid?.(65534)
    const thaw = async (): Promise<void> => {
      if (isRoot) process.seteuid?.(0)
      for (const [path, mode] of changed) await fs.chmod(path, mode)
    }
    return { [Symbol.asyncDispose]: thaw }
  }
  return { ...folder, freeze }
}

async function readOnlyFileSystem(): Promise<FreezableFolder> {
  const folder = await temporaryDirectory()
  mount('-t', 'tmpfs', '-o', 'size=64m', 'none', folder.path)
  const freeze = async (): Promise<AsyncDisposable> => {
    mount('-o', 'remount,ro', folder.path)
    return { [Symbol.asyncDispose]: async () => mount('-o', 'remount,rw', folder.path) }
  }
  return { ...mounted(folder), freeze }
}

/** A folder in which one function of `node:fs/promises` fails until it is mended. */
export async function failingFolder(
  name: string,
  code: string,
): Promise<TemporaryDirectory & { mend(): void }> {
  const folder = await temporaryDirectory()
  const mend = intercept(folder.path, {
    [name]: async (...args: unknown[]) => refuse(code, name, String(args[0])),
  })
  return { ...endingWith(mend, folder), mend }
}

/** Case is kept and does not matter, as on a Mac. */
async function imitatedApfs(): Promise<TemporaryDirectory> {
  const folder = await temporaryDirectory()
  const at = (path: string): string => keptName(folder.path, path)
  const { link, chmod } = fs
  const own = {
    ...lookingUp(at, (_operation, path) => at(path)),
    symlink: async (target: string, path: string) => symlinkSync(target, at(path)),
    link: (from: string, to: string) => link(at(from), at(to)),
    chmod: (path: string, mode: number) => chmod(at(path), mode),
  }
  return endingWith(intercept(folder.path, own), folder)
}

async function imitatedFat(): Promise<TemporaryDirectory> {
  const folder = await temporaryDirectory()
  const at = (path: string): string => keptName(folder.path, path, true)
  const made = (operation: string, path: string): string => {
    if (/["*:<>?\\|]/.test(relative(folder.path, path))) refuse('EINVAL', operation, path)
    return at(path)
  }
  const { open, statfs } = fs
  const own = {
    ...lookingUp(at, made),
    symlink: async (_target: string, path: string) => refuse('EPERM', 'symlink', path),
    link: async (_target: string, path: string) => refuse('EPERM', 'link', path),
    chmod: async (path: string) => refuse('EPERM', 'chmod', path),
    statfs: async (path: string) => Object.assign(await statfs(at(path)), { type: 0x4d44 }),
    open: async (path: string, ...rest: never[]) => {
      const handle = await open(made('open', path), ...rest)
      return Object.assign(handle, { chmod: async () => refuse('EPERM', 'fchmod', path) })
    },
  }
  return endingWith(intercept(folder.path, own), folder)
}

/** The functions that look a name up, and those that may make one. */
function lookingUp(
  at: (path: string) => string,
  made: (operation: string, path: string) => string,
): Record<string, AnyFunction> {
  const { open, copyFile, writeFile, readFile, lstat, stat, readdir, rm, utimes } = fs
  const { realpath, readlink, access } = fs
  return {
    readlink: (path: string) => readlink(at(path)),
    lstat: (path: string, ...rest: never[]) => lstat(at(path), ...rest),
    stat: (path: string, ...rest: never[]) => stat(at(path), ...rest),
    access: (path: string, ...rest: never[]) => access(at(path), ...rest),
    readdir: (path: string, ...rest: never[]) => readdir(at(path), ...rest),
    rm: (path: string, ...rest: never[]) => rm(at(path), ...rest),
    utimes: (path: string, ...rest: [number, number]) => utimes(at(path), ...rest),
    // At once, as the kernel does it: two spellings must not become two names.
    mkdir: async (path: string, ...rest: never[]) => mkdirSync(made('mkdir', path), ...rest),
    readFile: (path: string, ...rest: never[]) => readFile(at(path), ...rest),
    writeFile: (path: string, ...rest: [string]) => writeFile(made('open', path), ...rest),
    copyFile: (from: string, to: string, ...rest: never[]) =>
      copyFile(at(from), made('copyfile', to), ...rest),
    rename: async (from: string, to: string) => renameSync(at(from), made('rename', to)),
    open: (path: string, ...rest: never[]) => open(made('open', path), ...rest),
    // As on Linux: a name comes back as it was asked for.
    realpath: async (path: string) => {
      const real = await realpath(at(path))
      return real === at(path) ? path : real
    },
  }
}

/** What a name is kept under: that of what is there in any case, else itself; FAT forgets dots at its end. */
function keptName(root: string, path: string, forgetsDots = false): string {
  let at = root
  for (const part of relative(root, path).split(sep)) {
    const wanted = (forgetsDots && part.replace(/\.+$/, '')) || part
    const names = existsSync(at) ? readdirSync(at) : []
    at = join(at, names.find((name) => name.toLowerCase() === wanted.toLowerCase()) ?? wanted)
  }
  return at
}

type AnyFunction = (...args: never[]) => unknown

/** Puts functions in the place of those of `node:fs/promises`, for paths below `root`. Returns what undoes it. */
function intercept(root: string, own: Readonly<Record<string, AnyFunction>>): () => void {
  const functions = fs as unknown as Record<string, AnyFunction>
  const before = Object.fromEntries(Object.keys(own).map((name) => [name, functions[name] as AnyFunction]))
  const isOurs = (value: unknown): boolean =>
    typeof value === 'string' && (value === root || value.startsWith(root + sep))
  for (const [name, replacement] of Object.entries(own)) {
    functions[name] = (...args: never[]) =>
      (args.slice(0, 2).some(isOurs) ? replacement : (before[name] as AnyFunction))(...args)
  }
  syncBuiltinESMExports()
  return () => {
    Object.assign(functions, before)
    syncBuiltinESMExports()
  }
}

function endingWith(restore: () => void, folder: TemporaryDirectory): TemporaryDirectory {
  const dispose = async (): Promise<void> => {
    restore()
    await folder[Symbol.asyncDispose]()
  }
  return { path: folder.path, [Symbol.asyncDispose]: dispose }
}

function refuse(code: string, syscall: string, path: string): never {
  throw Object.assign(new Error(`${code}: refused, ${syscall} '${path}'`), { code, syscall, path })
}

/** FAT by the kernel and exFAT through FUSE, as far as the tools are installed and we may mount. */
function realFileSystems(): [string, OpenFolder][] {
  const kinds = [
    ['vfat', ['mkfs.vfat', '-F', '32'], ['mount', '-o', 'umask=022']],
    ['exFAT', ['mkfs.exfat'], ['mount.exfat-fuse', '-o', 'umask=022']],
  ] as const
  return kinds.flatMap(([name, make, mounting]) => {
    const openFolder = async (): Promise<TemporaryDirectory> => {
      const folder = await temporaryDirectory()
      const path = mountImage(folder.path, make, mounting)
      return mounted({ ...folder, path }, folder)
    }
    return canMountImage(make, mounting) ? [[name, openFolder] as [string, OpenFolder]] : []
  })
}

function canMountImage(make: readonly string[], mounting: readonly string[]): boolean {
  if (!canMount()) return false
  const folder = mkdtempSync(join(tmpdir(), 'llmpt-test-'))
  try {
    run('umount', mountImage(folder, make, mounting))
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Mounts a new image in a folder below `folder`, and returns its path. */
function mountImage(folder: string, make: readonly string[], mounting: readonly string[]): string {
  const [image, target] = [join(folder, 'image'), join(folder, 'files')]
  mkdirSync(target)
  writeFileSync(image, '')
  truncateSync(image, 256 * 1024 * 1024)
  run(...make, image)
  const device = run('losetup', '--find', '--show', image)
  try {
    run(...mounting, device, target)
    return target
  } finally {
    // The device is free when nothing is mounted from it.
    run('losetup', '--detach', device)
  }
}

function mounted(place: TemporaryDirectory, owner: AsyncDisposable = place): TemporaryDirectory {
  return {
    path: place.path,
    [Symbol.asyncDispose]: async () => {
      run('umount', '-l', place.path)
      await owner[Symbol.asyncDispose]()
    },
  }
}

/** Mounting is for root, and not for root in every container. */
function canMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false
  const folder = mkdtempSync(join(tmpdir(), 'llmpt-test-'))
  try {
    mount('-t', 'tmpfs', '-o', 'nosymfollow,size=1m', 'none', folder)
    run('umount', folder)
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function mount(...args: string[]): void {
  run('mount', ...args)
}

function run(...command: string[]): string {
  const [program = '', ...args] = command
  // Tools for file systems are not on everybody's path.
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', env })
  if (status !== 0) throw new Error(`${command.join(' ')}: ${error?.message ?? stderr}`)
  return stdout.trim()
}
