/** The packages we compare with: installed here, when somebody runs a benchmark, and nowhere else. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const directory = fileURLToPath(new URL('..', import.meta.url))
const oldestNodeForWebTorrent = 22

/** @returns {string | undefined} Why there are none; `undefined` when they are installed. */
export function installDependencies() {
  if (areUpToDate()) return undefined
  console.error('bench: installing what we compare with …')
  // No install scripts: the one that matters would compile or download WebRTC, which no benchmark uses.
  // WebTorrent runs on a Node of its own, so that the one npm runs on may be older than it demands.
  const flags = ['--ignore-scripts', '--include=optional', '--engine-strict=false', '--no-audit', '--no-fund']
  const [command, ...first] = npm()
  const install = spawnSync(command, [...first, 'ci', ...flags, '--loglevel=error'], {
    cwd: directory,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (install.status === 0) return undefined
  const text = install.error?.message ?? `${install.stderr}${install.stdout}`.trim().split('\n', 1)[0]
  return `npm ci in bench/ failed: ${text}`
}

/** Version of an installed package; `undefined` when it is not there. */
export function versionOf(name) {
  return readJson(join('node_modules', name, 'package.json'))?.version
}

/**
 * A Node that WebTorrent can run on: the one from npm, so that everybody measures the same; without it, ours.
 *
 * @returns {{ path: string, version: string } | { reason: string }}
 */
export function nodeForWebTorrent() {
  const path = join(directory, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node')
  const probe = spawnSync(path, ['--version'], { encoding: 'utf8' })
  if (probe.status === 0) return { path, version: probe.stdout.trim().replace(/^v/, '') }
  const { node: version } = process.versions
  if (Number(version.split('.')[0]) >= oldestNodeForWebTorrent) return { path: process.execPath, version }
  return {
    reason:
      `WebTorrent needs Node ${oldestNodeForWebTorrent} or newer: this is ${version}, ` +
      `and its own copy (an npm package for linux-x64) does not run on ${process.platform}-${process.arch}`,
  }
}

function npm() {
  const path = process.env.npm_execpath ?? ''
  return basename(path) === 'npm-cli.js' ? [process.execPath, path] : ['npm']
}

function areUpToDate() {
  const installed = readJson('node_modules/.package-lock.json')?.packages
  const wanted = readJson('package-lock.json')?.packages
  if (installed === undefined || wanted === undefined) return false
  return Object.entries(wanted).every(([path, { version, optional }]) => {
    if (path === '') return true
    if (installed[path] === undefined) return optional === true
    return installed[path].version === version && existsSync(join(directory, path, 'package.json'))
  })
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(join(directory, path), 'utf8'))
  } catch {
    return undefined
  }
}
