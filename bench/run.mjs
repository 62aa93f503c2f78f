/**
 * Lists the benchmarks, and runs those that are named: `npm run bench -- <name…|all> [options]`, `--help` for more.
 * Ends with 1 when one of ours could not run, was wrong, or its run is void.
 */
import { runCommandLine } from './harness/command.mjs'

const names = [
  'hash',
  'torrent-ready',
  'http-leg',
  'snapshot',
  'swarm-leg',
  'never-slower',
  'both',
  'rescue',
  'flash-crowd',
  'hook-cost',
]
const usage = 'npm run bench -- <name…|all> [options]'

const args = process.argv.slice(2)
const chosen = args.filter((arg, at) => !arg.startsWith('-') && !isValue(args[at - 1]))
const unknown = chosen.find((name) => name !== 'all' && !names.includes(name))
if (unknown !== undefined) {
  console.error(`bench: there is no benchmark ${unknown}; there are ${names.join(', ')}`)
  process.exit(2)
}
const isListing = chosen.length === 0
const wanted = isListing || chosen.includes('all') ? names : chosen
const benchmarks = []
for (const name of wanted) benchmarks.push((await import(`./${name}.mjs`)).benchmark)
const options = args.filter((arg) => !chosen.includes(arg))
await runCommandLine(benchmarks, isListing ? ['--help'] : options, { usage })

/** Whether what follows `arg` belongs to it. */
function isValue(arg) {
  return arg !== undefined && /^--(?:runs|sizes|rate|situations|only|place|pieces|out)$/.test(arg)
}
