/** What does the hook cost a program that does not need it: at its start, and for each request that is not ours? */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { neutralEnvironment, nodeCommand, withChild } from './harness/child.mjs'
import { runIfMain } from './harness/command.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { summary } from './harness/rounds.mjs'

const goals = { startMs: 15, ratio: 1.02 }
/** Two series of the very same thing that differ by more say that the machine was not quiet. */
const largestControl = { startMs: 3, ratio: 0.03 }
const requestsPerRun = 300
const callsPerRun = 200_000
const fetcher = fileURLToPath(new URL('parts/fetcher.mjs', import.meta.url))

export const benchmark = {
  name: 'hook-cost',
  question: 'what does the hook cost a program that does not need it, at its start and per request?',
  needs: {},
  defaults: { runs: 41 },
  quick: { runs: 3 },
  roomFor: () => 2 ** 20,
  run,
}

async function run({ runs, isQuick, directory, signal, say }) {
  const report = { settings: {}, tables: [], goals: [], errors: [], data: {} }
  measureStart(report, { runs, directory, signal, say })
  await measureRequests(report, { runs, signal, say })
  // So few rounds say nothing about the machine.
  if (isQuick) report.errors = []
  report.notes = [
    'Medians and quartiles. A difference is that within one round; the ratio is of medians.',
    'What the control shows is noise: the same program against itself.',
  ]
  return report
}

function measureStart(report, { runs, directory, signal, say }) {
  const empty = join(directory, 'empty.mjs')
  writeFileSync(empty, '')
  const participants = [
    { name: 'empty module', url: pathToFileURL(empty).href, ms: [] },
    { name: 'empty module again (control)', url: pathToFileURL(empty).href, ms: [] },
    { name: 'llmpt-native/register', url: new URL('../dist/register.js', import.meta.url).href, ms: [] },
    { name: 'llmpt-native', url: new URL('../dist/index.js', import.meta.url).href, ms: [] },
  ]
  const env = neutralEnvironment()
  for (let round = 0; round <= runs; round++) {
    signal.throwIfAborted()
    say(round === 0 ? 'start: warm-up' : `start: round ${round} of ${runs}`)
    for (const participant of rotated(participants, round)) {
      const startedAt = performance.now()
      const { status } = spawnSync(process.execPath, ['--import', participant.url, '-e', '0'], { env })
      const elapsedMs = performance.now() - startedAt
      if (status !== 0) throw new Error(`node --import ${participant.name} ended with ${status}`)
      if (round > 0) participant.ms.push(elapsedMs)
    }
  }
  const [base] = participants
  const differences = participants.map(({ ms }) => summary(ms.map((each, round) => each - base.ms[round])))
  report.data.startMs = Object.fromEntries(participants.map(({ name, ms }) => [name, ms]))
  report.tables.push({
    title: `node --import … -e 0, ${runs} rounds`,
    header: ['', 'ms', 'ms more than the empty module'],
    rows: participants.map(({ name, ms }, index) => [
      name,
      withQuartiles(summary(ms), 1),
      index === 0 ? '' : withQuartiles(differences[index], 1),
    ]),
  })
  const cost = differences[2].median
  report.goals.push({
    isMet: cost <= goals.startMs,
    text: `register costs ${cost.toFixed(1)} ms at start; goal ${goals.startMs} ms`,
  })
  if (Math.abs(differences[1].median) > largestControl.startMs)
    report.errors.push(`void: the control starts ${differences[1].median.toFixed(1)} ms later than itself`)
}

async function measureRequests(report, { runs, signal, say }) {
  const server = createServer((_req, res) => res.end('ok')).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${server.address().port}/api/models/acme/tiny?full=true`
  try {
    await withChild(nodeCommand(fetcher), {}, async (child) => {
      await child.event('ready')
      await measureFetches(report, child, { url, runs, signal, say })
      await measureCalls(report, child, { url, runs, signal, say })
    })
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

async function measureFetches(report, child, { url, runs, signal, say }) {
  const names = ['plain', 'control', 'hooked']
  const samples = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round <= runs; round++) {
    signal.throwIfAborted()
    say(round === 0 ? 'requests: warm-up' : `requests: round ${round} of ${runs}`)
    for (const who of rotated(names, round)) {
      const { microseconds } = await child.ask('fetchMany', { who, url, count: requestsPerRun })
      if (round > 0) samples[who].push(microseconds)
    }
  }
  const medians = Object.fromEntries(names.map((name) => [name, summary(samples[name])]))
  const ratios = names.map((name) => medians[name].median / medians.plain.median)
  report.data.requestMicroseconds = samples
  report.tables.push({
    title: `a request that is not ours, on loopback, ${runs} times ${requestsPerRun}`,
    header: ['', 'µs', 'of the plain fetch'],
    rows: names.map((name, index) => [
      name === 'control' ? 'plain again (control)' : name,
      withQuartiles(medians[name], 1),
      times(ratios[index]),
    ]),
  })
  const [, control, hooked] = ratios
  report.goals.push({
    isMet: hooked <= goals.ratio,
    text: `through the hook ${times(hooked)} of the plain fetch, control ${times(control)}; goal ${goals.ratio}`,
  })
  if (Math.abs(control - 1) > largestControl.ratio)
    report.errors.push(`void: the plain fetch takes ${times(control)} of itself`)
}

async function measureCalls(report, child, { url, runs, signal, say }) {
  const names = ['no fetch', 'no fetch, hooked']
  const samples = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round <= runs; round++) {
    signal.throwIfAborted()
    say(round === 0 ? 'calls: warm-up' : `calls: round ${round} of ${runs}`)
    for (const who of rotated(names, round)) {
      const { nanoseconds } = await child.ask('callMany', { who, url, count: callsPerRun })
      if (round > 0) samples[who].push(nanoseconds)
    }
  }
  report.data.callNanoseconds = samples
  report.tables.push({
    title: `a call that goes nowhere, ${runs} times ${callsPerRun}`,
    header: ['', 'ns'],
    rows: names.map((name) => [name, withQuartiles(summary(samples[name]), 0)]),
  })
}

/** The same in another order each round: whoever goes first may find the machine different. */
function rotated(list, round) {
  return list.map((_, index) => list[(index + round) % list.length])
}

await runIfMain(import.meta.url, benchmark)
