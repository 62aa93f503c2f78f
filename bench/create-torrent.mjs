/** How fast is a torrent made? Every run is a process of its own; the clock runs inside it, around the call alone. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseMetainfo, pieceLengthFor } from '../dist/index.js'
import { nodeCommand, withChild } from './harness/child.mjs'
import { runIfMain, showSize } from './harness/command.mjs'
import { installDependencies, versionOf } from './harness/dependencies.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'

const gib = 2 ** 30
const mib = 2 ** 20
const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url))
const reference = 'create-torrent v1'
/** Slower than this, a run is taken for stuck. */
const slowestBytesPerSecond = 5e6

export const benchmark = {
  name: 'create-torrent',
  question: 'how fast is a torrent of one file made, against create-torrent (pure JavaScript)?',
  needs: {},
  defaults: { runs: 5, sizes: '1GiB' },
  quick: { runs: 1, sizes: '64MiB' },
  roomFor: ({ sizes }) => Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, directory, signal, say }) {
  const missing = installDependencies()
  const tables = []
  const errors = []
  const failures = []
  const data = {}
  for (const sizeBytes of sizes) {
    const path = join(directory, 'payload.bin')
    await writePayload(path, sizeBytes)
    const pieceLength = pieceLengthFor(sizeBytes)
    const make = maker({ path, out: join(directory, 'made.torrent'), pieceLength }, sizeBytes)
    const results = await measureInTurns(participants(make, missing), runs, { signal, say })
    const size = showSize(sizeBytes)
    data[size] = results
    for (const { name, isOurs, failure } of results) {
      if (failure !== undefined) (isOurs ? errors : failures).push(`${size}, ${name}: ${failure}`)
    }
    const complete = results.filter(({ failure }) => failure === undefined)
    tables.push(
      tableOf(`${size}, ${pieceLength / mib} MiB pieces, ${runs} runs of each in turns`, sizeBytes, complete),
    )
  }
  return {
    settings: { 'create-torrent': versionOf('create-torrent') ?? 'not installed' },
    tables,
    errors,
    failures,
    notes: [
      'create-torrent makes v1 torrents only; it hashes with WebCrypto, on the threads of libuv (4).',
      'v1 is SHA-1 and v2 is SHA-256 over the same bytes. All torrents of one format had to have the same info hash.',
      'CPU and RSS are those of the whole process, the start of Node included; seconds are the making alone.',
    ],
    data,
  }
}

function participants(make, missing) {
  const threadCounts = [...new Set([1, availableParallelism()])]
  const ours = ['v1', 'v2'].flatMap((format) =>
    threadCounts.map((threads) => ({
      name: `llmpt-native ${format}, ${threads} thread${threads === 1 ? '' : 's'}`,
      isOurs: true,
      run: () => make(pathOf('creators/ours.mjs'), { format, threads }),
    })),
  )
  const theirs = {
    name: reference,
    unavailable: missing,
    run: () => make(pathOf('creators/create-torrent.mjs'), { format: 'v1' }),
  }
  return [...ours, theirs]
}

/** Runs one creator; two that disagree about the info hash did not do the same work. */
function maker(common, sizeBytes) {
  const infoHashes = new Map()
  const timeoutMs = 60_000 + (sizeBytes / slowestBytesPerSecond) * 1000
  return (script, options) =>
    withChild(nodeCommand(script, { ...common, ...options }), { timeoutMs }, async (child) => {
      const { seconds } = await child.event('done')
      const usage = await child.finish()
      const { infoHash } = parseMetainfo(readFileSync(common.out))
      const expected = infoHashes.get(options.format) ?? infoHash
      infoHashes.set(options.format, expected)
      if (infoHash !== expected) throw new Error(`made the torrent ${infoHash}, the others made ${expected}`)
      return { seconds, ...usage }
    })
}

function tableOf(title, sizeBytes, results) {
  const base = results.find(({ name }) => name === reference)
  const secondsOf = ({ samples }) => over(samples, 'seconds')
  return {
    title,
    header: ['', 'seconds', 'MB/s', 'speed / its', 'CPU s/GiB', 'RSS MiB'],
    rows: results.map((result) => {
      const seconds = secondsOf(result)
      return [
        result.name,
        withQuartiles(seconds, 3),
        (sizeBytes / 1e6 / seconds.median).toFixed(0),
        base === undefined ? '' : times(secondsOf(base).median / seconds.median),
        (over(result.samples, 'cpuSeconds').median / (sizeBytes / gib)).toFixed(2),
        (over(result.samples, 'peakMemoryBytes').median / mib).toFixed(0),
      ]
    }),
  }
}

await runIfMain(import.meta.url, benchmark)
