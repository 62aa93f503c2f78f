/** The Hub, its storage, the trackers, the seeders and the downloaders that several benchmarks put together. */
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Child, llmpt, nodeCommand } from './child.mjs'
import { haveSameContent } from './workspace.mjs'

/** Slower than this, beyond the first two minutes, a download is taken for stuck. */
const slowestBytesPerSecond = 1e6

/** A module of `parts/`. */
export const pathOfPart = (name) => fileURLToPath(new URL(`../parts/${name}.mjs`, import.meta.url))

/** On this machine itself, not on one of a lab. */
export const here = { host: '127.0.0.1', on: (command) => command }

/** One of the machines of a lab. */
export function machineOf(lab, name) {
  return { host: lab.address(name), on: (command) => lab.on(name, command) }
}

/**
 * The embedded Hub with the repository `acme/bench`.
 *
 * @param {Record<string, string>} files Paths of their contents, by name.
 * @param {Record<string, string>} storageUrls Where the contents are, by name; without one, at the Hub's own storage.
 * @returns {Promise<{ child: Child, url: string, files: Record<string, { etag: string, sizeBytes: number }> }>}
 */
export async function startHub({ host, on }, files, storageUrls = {}) {
  const child = new Child(on(nodeCommand(pathOfPart('hub'), { host, files, storageUrls })))
  return { child, ...(await child.event('listening')) }
}

/** @returns {Promise<{ child: Child, urls: Record<string, string>, silentUrl: string }>} */
export async function startTrackers({ host, on }, directory, names) {
  const child = new Child(on(nodeCommand(pathOfPart('trackers'), { host, directory, names })))
  return { child, ...(await child.event('listening')) }
}

/** A process that has the package loaded and waits for `download` commands. @param kind Or one of another client. */
export async function startDownloader({ on }, kind = 'downloader', how = {}) {
  const child = new Child(on(nodeCommand(pathOfPart(kind))), how)
  await child.event('ready')
  return child
}

/**
 * One download into an empty cache, compared with what it should be, and removed.
 *
 * @param {Child} downloader
 * @param {{ directory: string, source: string, endpoint: string, path: string, config?: object }} options
 * @throws {WrongDownload} @throws {Error} What the download failed with.
 */
export async function downloadOnce(downloader, { directory, source, ...request }) {
  const home = mkdtempSync(join(directory, 'home-'))
  try {
    const timeoutMs = 120_000 + (statSync(source).size / slowestBytesPerSecond) * 1000
    const sample = await downloader.ask('download', { home, ...request }, timeoutMs)
    if (!(await haveSameContent(source, sample.path)))
      throw new WrongDownload(`the file that arrived is not ${request.path}`)
    return sample
  } finally {
    rmSync(home, { recursive: true, force: true, maxRetries: 3 })
  }
}

/** What arrived is not what was sent. */
export class WrongDownload extends Error {}

/** Puts the repository `acme/bench` into the cache below `directory`, over HTTP, as `llmpt download` does. */
export async function fillCache({ on }, { directory, endpoint }) {
  const fill = ['download', 'acme/bench', '--include', '*.safetensors', '--no-p2p']
  const child = new Child(on([process.execPath, llmpt, ...fill, ...placesOf(directory, endpoint)]), {
    env: { HF_HOME: directory },
  })
  if ((await child.exited) !== 0) throw new Error(`llmpt download failed: ${child.stderr}`)
}

/**
 * `llmpt seed` of the repository `acme/bench`, from a cache that `fillCache` has filled.
 *
 * @param {{ directory: string, endpoint: string, tracker: string, maxUpload?: number }} options Bytes per second.
 * @returns {Promise<{ child: Child, infoHash: string, end(): Promise<number> }>} `end` resolves with the bytes it gave.
 */
export async function startSeeder({ host, on }, { directory, endpoint, tracker, maxUpload = 0 }) {
  const seed = ['seed', 'acme/bench', '--tracker', tracker, '--listen', `${host}:0`]
  const limit = ['--max-upload', String(maxUpload)]
  const child = new Child(
    on([process.execPath, llmpt, ...seed, ...limit, ...placesOf(directory, endpoint)]),
    { env: { HF_HOME: directory } },
  )
  const { infoHash } = await child.event('seeding')
  const end = async () => {
    child.signal('SIGCONT')
    child.signal('SIGINT')
    const { uploadedBytes } = await child.event('ended')
    await child.end()
    return uploadedBytes
  }
  return { child, infoHash, end }
}

function placesOf(directory, endpoint) {
  return ['--cache-dir', join(directory, 'hub'), '--endpoint', endpoint, '--json']
}

/** User and system time of a process so far, in seconds, from the kernel's table. */
export async function cpuSecondsOf(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Linux counts in these, whatever its own clock does. */
const ticksPerSecond = 100
