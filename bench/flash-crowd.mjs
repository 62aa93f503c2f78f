/** How close does a crowd come to what its links allow, and how often does the origin send the file? */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Child } from './harness/child.mjs'
import { runIfMain } from './harness/command.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { over } from './harness/rounds.mjs'

const rig = fileURLToPath(new URL('swarm/swarm.py', import.meta.url))
const matrix = fileURLToPath(new URL('swarm/matrices/ours.json', import.meta.url))
const mib = 2 ** 20
/** It ends its peers one after the other, and then takes the namespaces down. */
const rigGraceMs = 60_000
/** Above it the machine sets the time, not the protocol. */
const busiest = 0.95
const quickCrowd = { n: 3, size: 8 }
const shares = ['eff', 'origin_ratio', 'p2p_ratio', 'machine_busy']

export const benchmark = {
  name: 'flash-crowd',
  question:
    'how close does a crowd come to what its links allow, and how often does the origin send the file?',
  needs: { root: true, programs: ['nginx', 'ip', 'g++', 'python3'] },
  defaults: { runs: 3 },
  quick: { runs: 1 },
  // The outputs of nine peers, and the payload.
  roomFor: () => 12 * 64 * mib,
  run,
}

async function run({ runs, directory, signal, say, isQuick }) {
  const { base, runs: scenarios } = JSON.parse(readFileSync(matrix, 'utf8'))
  const crowd = { ...base, ...(isQuick && quickCrowd) }
  const plan = join(directory, 'matrix.json')
  const results = join(directory, 'results.jsonl')
  writeFileSync(plan, JSON.stringify({ base: crowd, reps: runs, runs: scenarios }))
  writeFileSync(results, '')
  say(`${runs} runs of ${scenarios.length} scenarios, which may take minutes`)
  const command = ['python3', rig, 'matrix', plan, '--results', results, '--budget', '1e9']
  const env = { SWARM_WORK: directory, SWARM_NODE: process.execPath }
  const child = new Child(command, { env, graceMs: rigGraceMs })
  const how = await child.exited
  signal.throwIfAborted()
  if (how !== 0) throw new Error(`the rig failed: ${child.stderr}`)
  const samples = readFileSync(results, 'utf8').trim().split('\n').filter(Boolean).map(JSON.parse)
  const rows = []
  const errors = []
  for (const { label } of scenarios) {
    const all = samples.filter((sample) => sample.label === label)
    const good = all.filter(({ ok }) => ok)
    for (const { wrong, done, live, errs } of all.filter(({ ok }) => !ok)) {
      const what =
        wrong.length > 0 ? `WRONG DOWNLOAD at peers ${wrong}` : `${done} of ${live} peers completed`
      errors.push(`${label}: ${what}: ${JSON.stringify(errs).slice(0, 600)}`)
    }
    if (all.length < runs) errors.push(`${label}: only ${all.length} of ${runs} runs took place`)
    if (good.length > 0) rows.push(rowOf(label, good))
    const busy = good.length > 0 ? over(good, 'machine_busy').median : 0
    if (busy > busiest && !isQuick)
      errors.push(`${label}: VOID: all cores were busy for ${busy * 100} % of the time`)
  }
  return {
    settings: {
      crowd: `${crowd.n} peers, ${crowd.size} MiB, ${crowd.piece} KiB pieces`,
      links: `each peer ${crowd.up} Mbit/s up and ${crowd.down} down, origin ${crowd.origin} Mbit/s, ${crowd.rtt} ms round trip (LAN: 1 ms)`,
      runs: `${runs} of each in turns`,
    },
    tables: [
      {
        header: [
          '',
          'makespan s',
          'bound s',
          'bound / makespan',
          'copies from the origin',
          'from peers',
          'waste MiB',
          'CPU s',
          'busy',
        ],
        rows,
      },
    ],
    errors,
    notes: [
      'Medians and quartiles. Makespan: until the last peer is complete. Bound: the least that payload over link rates allows;',
      'headers alone take 3.6 % of that. Copies: bytes on the link of the origin without headers, by file size; 1 is the least.',
      'In the first row every process has started and waits for a line. `llmpt torrent get`, a v1 torrent. Every file was',
      'compared byte by byte.',
    ],
    data: samples,
  }
}

function rowOf(label, samples) {
  const [efficiency, copies, fromPeers, busy] = shares.map((figure) => over(samples, figure))
  return [
    label,
    withQuartiles(over(samples, 'makespan'), 2),
    over(samples, 'bound').median.toFixed(2),
    withQuartiles(efficiency, 3),
    withQuartiles(copies, 2),
    times(fromPeers.median),
    // Only who was gated tells.
    samples[0].peer_stats.some((stat) => 'redundant' in stat)
      ? ((over(samples, 'redundant').median + over(samples, 'failed').median) / mib).toFixed(2)
      : '',
    over(samples, 'cpu_peers').median.toFixed(1),
    busy.median.toFixed(2),
  ]
}

await runIfMain(import.meta.url, benchmark)
