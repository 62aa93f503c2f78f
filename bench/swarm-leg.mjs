/** How fast does one process get a file from one other, and at what cost? Two processes on 127.0.0.1, nobody else. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createTorrent } from '../dist/index.js'
import { sessionSettings } from '../dist/swarm/settings.js'
import { nodeCommand, withChild } from './harness/child.mjs'
import { runIfMain, showSize } from './harness/command.mjs'
import { installDependencies, nodeForWebTorrent, versionOf } from './harness/dependencies.mjs'
import { compile } from './harness/needs.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { haveSameContent, writePayload } from './harness/workspace.mjs'
import {
  cpuSecondsOf,
  downloadOnce,
  fillCache,
  here,
  startDownloader,
  startHub,
  startSeeder,
  startTrackers,
} from './harness/world.mjs'

const gib = 2 ** 30
const mib = 2 ** 20
const host = '127.0.0.1'
const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url))
const ours = 'llmpt-native'
const smallFile = 'small.bin'
/** Larger ones are holes: their writing costs the same, their making nothing. */
const sparseFromBytes = 4 * gib
const slowestBytesPerSecond = 5e6

export const benchmark = {
  name: 'swarm-leg',
  question: 'how fast does one peer get a file from one other peer on loopback, and at what cost?',
  needs: { programs: ['g++', 'pkg-config'] },
  defaults: { runs: 5, sizes: '1GiB' },
  quick: { runs: 1, sizes: '64MiB' },
  options: {
    only: { type: 'string', help: 'only those whose names contain this (hash, swarm-leg)' },
  },
  // The source, the cache it is seeded from, and what arrives.
  roomFor: ({ sizes }) => Math.max(...sizes.map((size) => (size < sparseFromBytes ? 3 : 2) * size)) + 2 ** 26,
  run,
}

async function run({ runs, sizes, only = '', directory, signal, say }) {
  const missing = installDependencies()
  const node = missing === undefined ? nodeForWebTorrent() : { reason: missing }
  const client = compile(pathOf('peers/lt_client.cpp'), ['libtorrent-rasterbar'])
  const tables = []
  const errors = []
  const failures = []
  const data = {}
  for (const sizeBytes of sizes) {
    const size = showSize(sizeBytes)
    const scene = await setScene(directory, sizeBytes)
    const timeoutMs = 60_000 + (sizeBytes / slowestBytesPerSecond) * 1000
    const participants = [
      { name: ours, isOurs: true, run: () => downloadOurs(scene) },
      {
        name: 'libtorrent in C++, v2',
        run: () => transfer(libtorrentPeer(client, scene, 'v2'), scene, timeoutMs),
      },
      {
        name: 'WebTorrent, v1',
        unavailable: node.reason,
        run: () => transfer(webtorrentPeer(node, scene), scene, timeoutMs),
      },
    ]
    const chosen = participants.filter(({ name }) => name.includes(only))
    const results = await measureInTurns(chosen, runs, { signal, say: (text) => say(`${size}: ${text}`) })
    await scene.end()
    data[size] = results
    for (const { name, isOurs, failure } of results) {
      if (failure !== undefined) (isOurs ? errors : failures).push(`${size}, ${name}: ${failure}`)
    }
    const pieces = `${scene.pieceLength / mib} MiB pieces`
    const title = `${size}${sizeBytes >= sparseFromBytes ? ' of holes' : ''}, ${pieces}, ${runs} runs of each in turns`
    const complete = results.filter(({ failure }) => failure === undefined)
    tables.push(tableOf(title, sizeBytes, complete))
  }
  return {
    settings: {
      ...(node.version && { WebTorrent: `${versionOf('webtorrent')} on Node ${node.version}` }),
      'libtorrent in C++':
        "the stock posix disk backend and this package's settings at both ends; no file digest",
    },
    tables,
    errors,
    failures,
    notes: [
      'Ours is the whole call into the cache: identity from the Hub, the look-up, the swarm, SHA-256, the name; content over',
      'HTTP is off; its seeder is `llmpt seed`. The clock of the others runs from the moment they know the peer to the last',
      'piece written; they compare nothing with a digest. Every file was compared afterwards.',
      'CPU is user and system time of both ends; RSS is the most in the life of each process.',
      'Loop delay: 99th percentile of how late the event loop of our downloader was.',
      'WebTorrent knows v1 only. Its WebRTC part is replaced by an empty module; peers over TCP do not use it.',
    ],
    data,
  }
}

async function setScene(directory, sizeBytes) {
  const name = `model-${sizeBytes}.safetensors`
  const source = join(directory, name)
  if (sizeBytes >= sparseFromBytes) {
    writeFileSync(source, '')
    truncateSync(source, sizeBytes)
  } else await writePayload(source, sizeBytes)
  const small = join(directory, smallFile)
  await writePayload(small, mib)
  const hub = await startHub(here, { [name]: source, [smallFile]: small })
  const trackers = await startTrackers(here, join(directory, `trackers-${sizeBytes}`), ['only'])
  const tracker = trackers.urls.only
  const seederHome = join(directory, `seeder-${sizeBytes}`)
  await fillCache(here, { directory: seederHome, endpoint: hub.url })
  const seeder = await startSeeder(here, { directory: seederHome, endpoint: hub.url, tracker })
  const torrents = {}
  let pieceLength
  for (const format of ['v1', 'v2']) {
    const made = await createTorrent(source, { format })
    torrents[format] = join(directory, `${format}.torrent`)
    writeFileSync(torrents[format], made.torrentFile)
    if (format === 'v2') pieceLength = made.pieceLength
  }
  return {
    directory,
    source,
    name,
    torrents,
    pieceLength,
    seeder,
    request: { directory, source, endpoint: hub.url, path: name, config: { tracker, http: false } },
    small: { directory, source: small, endpoint: hub.url, path: smallFile, config: { p2p: false } },
    end: async () => {
      await seeder.end()
      await Promise.all([hub.child.end(), trackers.child.end()])
      for (const path of [source, seederHome]) rmSync(path, { recursive: true })
    },
  }
}

async function downloadOurs({ request, small, seeder }) {
  const child = await startDownloader(here)
  try {
    await downloadOnce(child, small)
    const before = await cpuSecondsOf(seeder.child.pid)
    const sample = await downloadOnce(child, request)
    const { peakMemoryBytes } = await child.ask('usage')
    if (sample.bytes.http > 0) throw new Error(`${sample.bytes.http} bytes came over HTTP`)
    return {
      ...sample,
      cpuSeconds: sample.cpuSeconds + (await cpuSecondsOf(seeder.child.pid)) - before,
      peakMemoryBytes,
    }
  } finally {
    await child.end()
  }
}

/** Commands of a seeder and of a leecher that connects to it, in C++. */
function libtorrentPeer(program, { torrents, directory }, format) {
  const options = {
    listen: [`${host}:0`],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: 0,
    limitLocalPeers: false,
  }
  const settings = Object.entries(sessionSettings(options)).map(([key, value]) => `${key}=${value}`)
  return {
    seeder: [program, 'seed', torrents[format], directory, ...settings],
    leecher: (port, folder) => [program, 'leech', torrents[format], folder, String(port), ...settings],
  }
}

function webtorrentPeer(node, { torrents, source, name }) {
  const how = {
    node: node.path,
    nodeFlags: ['--import', new URL('peers/no-webrtc.mjs', import.meta.url).href],
  }
  const peer = (options) =>
    nodeCommand(pathOf('peers/webtorrent.mjs'), { torrentPath: torrents.v1, ...options }, how)
  return {
    seeder: peer({ role: 'seeder', path: source }),
    leecher: (port, folder) => peer({ role: 'leecher', path: join(folder, name), peer: { host, port } }),
  }
}

async function transfer({ seeder, leecher }, { directory, source, name }, timeoutMs) {
  // The others take the file's name from the torrent, so the two copies differ in their folder.
  const folder = join(directory, 'leecher')
  mkdirSync(folder)
  try {
    const sample = await withChild(seeder, { timeoutMs }, async (from) => {
      const { port } = await from.event('listening')
      return await withChild(leecher(port, folder), { timeoutMs }, async (to) => {
        const { seconds } = await to.event('done')
        const [at, source] = [await to.finish(), await from.finish()]
        return { seconds, cpuSeconds: at.cpuSeconds + source.cpuSeconds, peakMemoryBytes: at.peakMemoryBytes }
      })
    })
    if (!(await haveSameContent(source, join(folder, name))))
      throw new Error('the file that arrived is another')
    return sample
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

function tableOf(title, sizeBytes, results) {
  const base = results.find(({ name }) => name === ours)
  const cpu = ({ samples }) => over(samples, 'cpuSeconds').median / (sizeBytes / gib)
  return {
    title,
    header: [
      '',
      'seconds',
      'MB/s',
      'our speed / its',
      'CPU s/GiB',
      'our CPU / its',
      'RSS MiB',
      'loop delay ms',
    ],
    rows: results.map((result) => {
      const { name, samples } = result
      const seconds = over(samples, 'seconds')
      return [
        name,
        withQuartiles(seconds, 3),
        (sizeBytes / 1e6 / seconds.median).toFixed(0),
        base === undefined ? '' : times(seconds.median / over(base.samples, 'seconds').median),
        cpu(result).toFixed(2),
        base === undefined ? '' : times(cpu(base) / cpu(result)),
        (over(samples, 'peakMemoryBytes').max / mib).toFixed(0),
        samples[0].loopDelayMs === undefined ? '' : withQuartiles(over(samples, 'loopDelayMs'), 1),
      ]
    }),
  }
}

await runIfMain(import.meta.url, benchmark)
