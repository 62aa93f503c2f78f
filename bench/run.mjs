/**
 * Runs the benchmarks and prints machine, versions, medians and ratios; the same text goes to bench/results/.
 *
 * `npm run bench -- [name…] [--runs N] [--size SIZE] [--json]`
 *
 *   name     create-torrent or loopback; all of them when none is named
 *   --runs   rounds that count, after one to warm up (5)
 *   --size   of the file, such as 64MiB or 1GiB (1GiB)
 *   --json   one JSON document on stdout instead of the text
 *
 * Ends with 1 when one of ours could not run. That another could not is said in the table.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { endAllChildren } from './harness/child.mjs'
import { installDependencies } from './harness/dependencies.mjs'
import { describeMachine, unrest } from './harness/machine.mjs'
import { asText, evaluate } from './harness/report.mjs'
import { measureInTurns } from './harness/rounds.mjs'
import { makeWorkspace } from './harness/workspace.mjs'

const names = ['create-torrent', 'loopback']
const bytesPerUnit = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }
const resultsDirectory = fileURLToPath(new URL('results/', import.meta.url))
/** Slower than this, a run is taken for stuck. */
const slowestBytesPerSecond = 5e6

const exitCodeOf = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }
const interruption = new AbortController()
let workspace

for (const [signal, code] of Object.entries(exitCodeOf)) {
  process.on(signal, () => {
    interruption.abort(new Error(`interrupted by ${signal}`))
    void endAllChildren().then(() => process.exit(code))
  })
}
process.on('exit', () => workspace?.remove())

const wish = parseCommandLine()
try {
  process.exitCode = await main(wish)
} catch (error) {
  // The signal's own handler ends us, once the children are gone.
  if (!interruption.signal.aborted) {
    console.error(error)
    await endAllChildren()
    process.exit(1)
  }
}

async function main({ chosen, runs, sizeBytes, json }) {
  const missingDependencies = installDependencies()
  const { addon, packageVersion } = await loadOurs()
  const machine = describeMachine(addon, packageVersion)
  const reports = []
  for (const name of chosen) {
    const report = await measure(name, { runs, sizeBytes, missingDependencies })
    reports.push(report)
    const text = [
      ...Object.entries(machine).map(([key, value]) => `${key}: ${value}`),
      '',
      asText(report),
    ].join('\n')
    if (!json) console.log(`\n${reports.length === 1 ? text : asText(report)}`)
    console.error(`bench: written to bench/results/${save(name, text)}`)
  }
  if (json) console.log(JSON.stringify({ machine, runs, sizeBytes, benchmarks: reports }, undefined, 2))
  return reports.some(({ rows }) => rows.some((row) => row.isOurs && row.failure !== undefined)) ? 1 : 0
}

async function measure(name, { runs, sizeBytes, missingDependencies }) {
  const benchmark = await import(`./${name}.mjs`)
  const warning = unrest()
  workspace = makeWorkspace(benchmark.roomFor(sizeBytes))
  try {
    const timeoutMs = 60_000 + (sizeBytes / slowestBytesPerSecond) * 1000
    const { settings, participants } = await benchmark.prepare({
      sizeBytes,
      directory: workspace.path,
      timeoutMs,
      missingDependencies,
    })
    const results = await measureInTurns(participants, runs, {
      signal: interruption.signal,
      onProgress: (round, who) => console.error(`bench: ${name}: ${round}: ${who}`),
    })
    return {
      title: name,
      question: benchmark.question,
      reference: benchmark.reference,
      settings: {
        file: `${sizeBytes / 2 ** 20} MiB, ${workspace.description}`,
        runs: `${runs} of each in turns, after one to warm up`,
        ...settings,
      },
      notes: benchmark.notes,
      rows: evaluate(results, { sizeBytes, reference: benchmark.reference }),
      warning,
    }
  } finally {
    workspace.remove()
    workspace = undefined
  }
}

/** The package as it is built. It is loaded here only to say its versions; what is measured runs elsewhere. */
async function loadOurs() {
  try {
    const { requireAddon } = await import('../dist/native/load.js')
    const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
    return { addon: requireAddon(), packageVersion: version }
  } catch (error) {
    throw new Error('the package is not built; `npm run bench` does that first', { cause: error })
  }
}

function save(name, text) {
  mkdirSync(resultsDirectory, { recursive: true })
  const stamp = new Date()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-')
  const file = `${stamp}-${name}.txt`
  writeFileSync(join(resultsDirectory, file), text)
  return file
}

function parseCommandLine() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        runs: { type: 'string', default: '5' },
        size: { type: 'string', default: '1GiB' },
        json: { type: 'boolean', default: false },
      },
    })
    const unknown = positionals.find((name) => !names.includes(name))
    if (unknown !== undefined)
      throw new Error(`there is no benchmark ${unknown}; there are ${names.join(', ')}`)
    return {
      chosen: positionals.length === 0 ? names : positionals,
      runs: parseRuns(values.runs),
      sizeBytes: parseSize(values.size),
      json: values.json,
    }
  } catch (error) {
    console.error(`bench: ${error.message}`)
    process.exit(2)
  }
}

function parseRuns(text) {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`--runs takes a number from 1 on, not ${text}`)
  return Number(text)
}

function parseSize(text) {
  const [, number, unit] = /^(\d+)(KiB|MiB|GiB)$/.exec(text) ?? []
  if (Number(number) > 0) return Number(number) * bytesPerUnit[unit]
  throw new Error(`--size takes a number and KiB, MiB or GiB, not ${text}`)
}
