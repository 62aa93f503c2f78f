/** The command line of every benchmark: options, machine, workspace, results, and what the exit code says. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { endAllChildren } from './child.mjs'
import { describeMachine, unrest } from './machine.mjs'
import { checkNeeds, MissingNeed } from './needs.mjs'
import { asText } from './report.mjs'
import { makeWorkspace } from './workspace.mjs'

/**
 * @typedef {object} Benchmark
 * @property {string} name
 * @property {string} question
 * @property {{ programs?: readonly string[], root?: boolean }} needs
 * @property {{ runs?: number, sizes?: string }} defaults Which of these options it takes, and what they are unless given.
 * @property {{ runs?: number, sizes?: string }} quick The same with `--quick`.
 * @property {Record<string, { type: 'string' | 'boolean', help: string }>} [options] Its own, besides.
 * @property {(wish: object) => number} roomFor Bytes of temporary files.
 * @property {(context: object) => Promise<import('./report.mjs').Report>} run
 */

const bytesPerUnit = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }
const resultsDirectory = fileURLToPath(new URL('../results/', import.meta.url))
const exitCodeOf = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }

const commonOptions = {
  quick: { type: 'boolean', help: 'tiny sizes and few rounds: whether it works, not how fast it is' },
  runs: { type: 'string', help: 'rounds that count' },
  sizes: { type: 'string', help: 'of the file, such as 64MiB or 1MiB,1GiB' },
  json: { type: 'boolean', help: 'one JSON document with every sample instead of the text' },
  save: { type: 'boolean', help: 'write the text to bench/results too' },
  out: { type: 'string', help: 'write the text to this file too' },
  help: { type: 'boolean', help: 'this' },
}

/** Runs the benchmark of the module `url`, when that module is what Node was started with. */
export async function runIfMain(url, benchmark) {
  if (process.argv[1] === undefined || pathToFileURL(process.argv[1]).href !== url) return
  await runCommandLine([benchmark], process.argv.slice(2), {
    usage: `node bench/${benchmark.name}.mjs [options]`,
  })
}

/** Runs benchmarks one after the other and ends the process: 1 when one failed or was void, 2 for wrong use. */
export async function runCommandLine(benchmarks, args, { usage }) {
  const values = parseCommandLine(benchmarks, args, usage)
  const interruption = new AbortController()
  let workspace
  for (const [signal, code] of Object.entries(exitCodeOf)) {
    process.on(signal, () => {
      interruption.abort(new Error(`interrupted by ${signal}`))
      void endAllChildren().then(() => process.exit(code))
    })
  }
  process.on('exit', () => workspace?.remove())

  let hasFailed = false
  const done = []
  const texts = []
  const machine = await describeBuilt(benchmarks)
  for (const benchmark of benchmarks) {
    const say = (text) => console.error(`bench: ${benchmark.name}: ${text}`)
    try {
      const wish = wishFor(benchmark, values)
      checkNeeds(benchmark.needs)
      const warning = unrest()
      workspace = makeWorkspace(benchmark.roomFor(wish))
      const context = { ...wish, directory: workspace.path, signal: interruption.signal, say }
      const report = await benchmark.run(context)
      report.settings = { ...report.settings, files: workspace.description }
      if (wish.isQuick) report.settings['--quick'] = 'these figures mean nothing'
      if (report.errors?.length > 0) hasFailed = true
      done.push({ name: benchmark.name, report })
      const text = asText({ title: benchmark.name, question: benchmark.question, report, warning })
      const whole = `${machineLines(machine)}\n\n${text}`
      if (!values.json) console.log(`\n${done.length === 1 ? whole : text}`)
      texts.push(text)
      if (values.save) say(`written to bench/results/${save(benchmark.name, whole)}`)
    } catch (error) {
      // The signal's own handler ends us, once the children are gone.
      if (interruption.signal.aborted) return
      hasFailed = true
      say(
        `failed: ${error instanceof MissingNeed || error instanceof WrongUse ? error.message : error.stack}`,
      )
      if (error instanceof WrongUse) process.exitCode = 2
    } finally {
      await endAllChildren()
      workspace?.remove()
      workspace = undefined
    }
  }
  if (values.json) {
    console.log(JSON.stringify({ machine, benchmarks: done }, undefined, 2))
  }
  if (values.out !== undefined) {
    mkdirSync(dirname(values.out), { recursive: true })
    writeFileSync(values.out, [`${machineLines(machine)}\n`, ...texts].join('\n'))
  }
  process.exit(process.exitCode ?? (hasFailed ? 1 : 0))
}

class WrongUse extends Error {}

function parseCommandLine(benchmarks, args, usage) {
  const options = Object.assign({}, commonOptions, ...benchmarks.map((benchmark) => benchmark.options))
  const parsable = Object.fromEntries(Object.entries(options).map(([name, { type }]) => [name, { type }]))
  try {
    const { values } = parseArgs({ args, options: parsable })
    if (!values.help) return values
  } catch (error) {
    console.error(`bench: ${error.message}\nTry --help.`)
    process.exit(2)
  }
  const width = Math.max(...Object.keys(options).map((name) => name.length)) + 2
  console.log(`usage: ${usage}\n`)
  for (const { name, question, defaults } of benchmarks) {
    const preset = Object.entries(defaults).map(([key, value]) => `${key} ${value}`)
    console.log(`  ${name}: ${question}${preset.length > 0 ? ` (${preset.join(', ')})` : ''}`)
  }
  console.log()
  for (const [name, { help }] of Object.entries(options)) console.log(`  --${name.padEnd(width)} ${help}`)
  process.exit(0)
}

function wishFor({ defaults, quick, options = {} }, values) {
  const preset = values.quick ? quick : defaults
  const own = Object.fromEntries(Object.keys(options).map((name) => [name, values[name]]))
  return {
    ...own,
    isQuick: values.quick === true,
    ...(preset.runs !== undefined && { runs: parseRuns(values.runs ?? String(preset.runs)) }),
    ...(preset.sizes !== undefined && { sizes: (values.sizes ?? preset.sizes).split(',').map(parseSize) }),
  }
}

function parseRuns(text) {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new WrongUse(`--runs takes a number from 1 on, not ${text}`)
  return Number(text)
}

/** Bytes of `1MiB`, for options that take sizes. */
export function parseSize(text) {
  const [, number, unit] = /^(\d+)(KiB|MiB|GiB)$/.exec(text) ?? []
  if (Number(number) > 0) return Number(number) * bytesPerUnit[unit]
  throw new WrongUse(`sizes are numbers with KiB, MiB or GiB, such as 1MiB,1GiB, not ${text}`)
}

/** `1 MiB`, `1 GiB`. */
export function showSize(bytes) {
  const unit = bytes % 2 ** 30 === 0 ? 'GiB' : bytes % 2 ** 20 === 0 ? 'MiB' : 'KiB'
  return `${bytes / bytesPerUnit[unit]} ${unit}`
}

/** The package as it is built. It is loaded here only to say its versions; what is measured runs elsewhere. */
async function describeBuilt() {
  try {
    const { requireAddon } = await import('../../dist/index.js')
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    return describeMachine(requireAddon(), version)
  } catch (error) {
    console.error(`bench: the package is not built, see "npm run setup": ${error.message}`)
    process.exit(1)
  }
}

function machineLines(machine) {
  return Object.entries(machine)
    .map(([key, value]) => `${key}: ${value}`)
    .join('\n')
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
