/**
 * The packages that a folder's package-lock.json names. Looks first: whoever has them waits for nothing, and npm is
 * started only when something is missing.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/**
 * Compares what is installed with package-lock.json, instead of remembering what was once done: whoever ran
 * `npm install` by hand need not wait for `npm ci`. The version of Node does not matter, because every binary among the
 * dependencies uses Node-API or is a program of its own.
 */
export function packagesAreUpToDate(folder) {
  const installed = readJson(join(folder, 'node_modules/.package-lock.json'))?.packages
  const wanted = readJson(join(folder, 'package-lock.json'))?.packages
  if (installed === undefined || wanted === undefined) return false
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true
    if (installed[path] === undefined) return entry.optional === true && !isBinaryForThisPlatform(entry)
    return installed[path].version === entry.version && existsSync(join(folder, path, 'package.json'))
  })
}

/**
 * `npm ci` in `folder`. No dependency needs its install scripts: those with binaries carry them. Development
 * dependencies are named because NODE_ENV=production or an `omit` in somebody's npm configuration would drop them.
 *
 * @returns {string | undefined} What npm said, if it failed.
 */
export function installPackages(folder) {
  const flags = ['--ignore-scripts', '--include=dev', '--include=optional', '--no-audit', '--no-fund']
  const [command, ...first] = npm()
  const { status, error, stdout, stderr } = spawnSync(command, [...first, 'ci', ...flags], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 256 * 1024 * 1024,
  })
  return status === 0 ? undefined : `${stdout ?? ''}${stderr ?? ''}${error ? `${error.message}\n` : ''}`
}

/** The npm that runs us, if one does: there may be no other in the PATH. */
function npm() {
  const path = process.env.npm_execpath ?? ''
  return basename(path) === 'npm-cli.js' ? [process.execPath, path] : ['npm']
}

/**
 * Catches a node_modules that was copied from another kind of machine. Packages that name a C library are left
 * out: telling which one we have is slow, and npm chose right when it installed the others.
 */
function isBinaryForThisPlatform({ os, cpu, libc }) {
  if (os === undefined || cpu === undefined || libc !== undefined) return false
  return os.includes(process.platform) && cpu.includes(process.arch)
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}
