/** How fast is a torrent made? Every run is a process of its own; the clock runs inside it, around the call alone. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseMetainfo } from '../dist/torrent/metainfo.js'
import { pieceLengthFor } from '../dist/torrent/piece-length.js'
import { withChild } from './harness/child.mjs'
import { writePayload } from './harness/workspace.mjs'

const oursScript = fileURLToPath(new URL('creators/ours.mjs', import.meta.url))
const theirScript = fileURLToPath(new URL('creators/create-torrent.mjs', import.meta.url))

export const question = 'how fast is a torrent of one file made, against create-torrent (pure JavaScript)?'
export const reference = 'create-torrent v1'
export const notes = [
  'create-torrent makes v1 torrents only; it hashes with WebCrypto, on the threads of libuv (4).',
  'v1 is SHA-1 and v2 is SHA-256 over the same bytes. All torrents of one format had to have the same info hash.',
  'CPU and peak memory are those of the whole process, the start of Node included; MB/s is the making alone.',
]

/** Bytes of temporary files. */
export function roomFor(sizeBytes) {
  return sizeBytes + 2 ** 26
}

/** @returns {Promise<{ settings: Record<string, string>, participants: import('./harness/rounds.mjs').Participant[] }>} */
export async function prepare({ sizeBytes, directory, timeoutMs, missingDependencies }) {
  const path = join(directory, 'payload.bin')
  await writePayload(path, sizeBytes)
  const pieceLength = pieceLengthFor(sizeBytes)
  const make = maker({ path, out: join(directory, 'made.torrent'), pieceLength }, timeoutMs)
  const threadCounts = [...new Set([1, availableParallelism()])]
  const ours = ['v1', 'v2'].flatMap((format) =>
    threadCounts.map((threads) => ({
      name: `llmpt-native ${format}, ${threads} thread${threads === 1 ? '' : 's'}`,
      isOurs: true,
      run: () => make(oursScript, { format, threads }),
    })),
  )
  const theirs = {
    name: reference,
    isOurs: false,
    unavailable: missingDependencies,
    run: () => make(theirScript, { format: 'v1' }),
  }
  return { settings: { pieces: `${pieceLength / 2 ** 20} MiB` }, participants: [...ours, theirs] }
}

/** Runs one creator; two that disagree about the info hash did not do the same work. */
function maker(common, timeoutMs) {
  const infoHashes = new Map()
  return (script, options) =>
    withChild(script, { ...common, ...options }, { timeoutMs }, async (child) => {
      const { seconds } = await child.event('done')
      const { cpuSeconds, peakMemoryBytes } = await child.finish()
      const { infoHash } = parseMetainfo(readFileSync(common.out))
      const expected = infoHashes.get(options.format) ?? infoHash
      infoHashes.set(options.format, expected)
      if (infoHash !== expected) throw new Error(`made the torrent ${infoHash}, the others made ${expected}`)
      return { seconds, cpuSeconds, peakBytes: { peak: peakMemoryBytes } }
    })
}
