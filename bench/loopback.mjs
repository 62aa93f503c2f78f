/** How fast does one peer get a file from another, and at what cost? Two processes on 127.0.0.1, nobody else. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pieceLengthFor } from '../dist/torrent/piece-length.js'
import { withChild } from './harness/child.mjs'
import { nodeForWebTorrent, versionOf } from './harness/dependencies.mjs'
import { haveSameContent, writePayload } from './harness/workspace.mjs'

const host = '127.0.0.1'
const fileName = 'payload.bin'
const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url))

export const question = 'how fast does one peer get a file from one other peer on loopback, and at what cost?'
export const reference = 'WebTorrent v1'
export const notes = [
  'WebTorrent knows v1 torrents only. Its WebRTC part cannot be built offline and is replaced by an empty module;',
  'peers over TCP do not use it. TCP only, no discovery, no encryption asked for by WebTorrent.',
  'The clock starts when the leecher, already listening, is given the seeder (ours with the torrent, WebTorrent after',
  'it has added the torrent) and stops when the last piece is verified and written; the content is compared after that.',
  'CPU is that of both processes from listening to their end; peak memory is that of each process in its whole life.',
]

/** Bytes of temporary files. */
export function roomFor(sizeBytes) {
  return 2 * sizeBytes + 2 ** 26
}

/** @returns {Promise<{ settings: Record<string, string>, participants: import('./harness/rounds.mjs').Participant[] }>} */
export async function prepare({ sizeBytes, directory, timeoutMs, missingDependencies }) {
  const path = join(directory, fileName)
  await writePayload(path, sizeBytes)
  const pieceLength = pieceLengthFor(sizeBytes)
  const torrents = {}
  for (const format of ['v1', 'v2']) {
    torrents[format] = join(directory, `${format}.torrent`)
    await makeTorrent({ path, out: torrents[format], format, pieceLength, threads: 1 }, timeoutMs)
  }
  const node = missingDependencies === undefined ? nodeForWebTorrent() : { reason: missingDependencies }
  const transferOf = (kind, format) => () =>
    transfer(kind, { torrentPath: torrents[format], path, directory, timeoutMs })
  const ours = { script: pathOf('peers/ours.mjs') }
  const theirs = {
    script: pathOf('peers/webtorrent.mjs'),
    node: node.path,
    nodeFlags: ['--import', new URL('peers/no-webrtc.mjs', import.meta.url).href],
  }
  return {
    settings: {
      pieces: `${pieceLength / 2 ** 20} MiB`,
      ...(node.version && { WebTorrent: `${versionOf('webtorrent')} on Node ${node.version}` }),
    },
    participants: [
      { name: 'llmpt-native v2', isOurs: true, run: transferOf(ours, 'v2') },
      { name: 'llmpt-native v1', isOurs: true, run: transferOf(ours, 'v1') },
      { name: reference, isOurs: false, unavailable: node.reason, run: transferOf(theirs, 'v1') },
    ],
  }
}

function makeTorrent(options, timeoutMs) {
  return withChild(pathOf('creators/ours.mjs'), options, { timeoutMs }, (child) => child.finish())
}

async function transfer({ script, ...how }, { torrentPath, path, directory, timeoutMs }) {
  // WebTorrent takes the file's name from the torrent, so the two copies differ in their folder.
  const target = join(directory, 'leecher')
  mkdirSync(target)
  const copy = join(target, fileName)
  const start = (options, work) => withChild(script, { torrentPath, ...options }, { ...how, timeoutMs }, work)
  try {
    const sample = await start({ role: 'seeder', path }, async (seeder) => {
      const { port } = await seeder.event('listening')
      return start({ role: 'leecher', path: copy, peer: { host, port } }, async (leecher) => {
        const { seconds } = await leecher.event('done')
        const ends = { leecher: await leecher.finish(), seeder: await seeder.finish() }
        return {
          seconds,
          cpuSeconds: ends.leecher.cpuSeconds + ends.seeder.cpuSeconds,
          peakBytes: { leecher: ends.leecher.peakMemoryBytes, seeder: ends.seeder.peakMemoryBytes },
        }
      })
    })
    if (!(await haveSameContent(path, copy)))
      throw new Error('the file that arrived is not the one that was sent')
    return sample
  } finally {
    rmSync(target, { recursive: true, force: true, maxRetries: 3 })
  }
}
