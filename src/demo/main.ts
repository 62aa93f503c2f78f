/**
 * The demo: `node dist/demo/main.js [--json] [--size 200MB] [--keep]`. Everything happens on 127.0.0.1, in a
 * temporary folder and in processes that end with this one.
 */
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { exitCodes } from '../cli/command.ts'
import { formatBytes, formatRate, formatTime } from '../cli/format.ts'
import { Interrupt, Interrupted } from '../cli/interrupt.ts'
import { parseSize } from '../cli/parse.ts'
import { ConfigError } from '../errors.ts'
import { messageOf } from '../log.ts'
import { Narrator } from './narrator.ts'
import { type StoryResult, tellStory, type UserResult } from './story.ts'

interface DemoOptions {
  readonly json: boolean
  readonly keep: boolean
  readonly modelBytes: number
}

const smallestModelBytes = 2_000_000

process.exitCode = await main(process.argv.slice(2))
setTimeout(() => process.exit(), 2_000).unref()

async function main(args: string[]): Promise<number> {
  let options: DemoOptions
  try {
    options = readOptions(args)
  } catch (error) {
    process.stderr.write(`demo: ${messageOf(error)}\nusage: demo [--json] [--size 200MB] [--keep]\n`)
    return exitCodes.wrongUse
  }
  using interrupt = new Interrupt()
  const folder = await mkdtemp(join(tmpdir(), 'llmpt-demo-'))
  const narrator = new Narrator(options.json ? process.stderr : process.stdout)
  // At the very end, when nobody writes there any more; also after a second Ctrl-C.
  process.on('exit', () => {
    if (!options.keep) rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  })
  try {
    const { modelBytes } = options
    const result = await tellStory({ folder, modelBytes, narrator, signal: interrupt.signal })
    tellResult(result, narrator)
    if (options.keep) narrator.line(`Everything is kept in ${folder}`)
    if (options.json) process.stdout.write(`${JSON.stringify(eventOf(result))}\n`)
    return result.problems.length === 0 ? exitCodes.ok : exitCodes.failed
  } catch (error) {
    const reason = interrupt.signal.aborted ? interrupt.signal.reason : error
    narrator.line(`\nThe demo did not get to its end: ${messageOf(reason)}`)
    if (options.json)
      process.stdout.write(`${JSON.stringify({ event: 'demo', ok: false, error: messageOf(reason) })}\n`)
    return reason instanceof Interrupted ? exitCodes.interrupted : exitCodes.failed
  }
}

function readOptions(args: string[]): DemoOptions {
  const { values } = parseArgs({
    args,
    options: {
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      size: { type: 'string', default: '200MB' },
    },
  })
  const modelBytes = parseSize(values.size)
  if (modelBytes < smallestModelBytes)
    throw new ConfigError(`--size ${values.size}: a model has 2MB at least`)
  return { json: values.json, keep: values.keep, modelBytes }
}

function eventOf({ repo, files, totalBytes, first, second, problems }: StoryResult): object {
  return { event: 'demo', ok: problems.length === 0, repo, files, totalBytes, first, second, problems }
}

function tellResult(result: StoryResult, narrator: Narrator): void {
  const { first, second, totalBytes, problems } = result
  narrator.line('')
  const rows = [
    ['', "Hub's storage", 'Hub, small files', 'other users', 'time', 'rate'],
    rowOf('Ada', first),
    rowOf('Ben', second),
  ]
  for (const row of rows)
    narrator.line(
      `   ${row.map((cell, column) => (column === 0 ? cell.padEnd(4) : cell.padStart(17))).join('')}`,
    )
  narrator.line('')
  for (const problem of problems) narrator.line(`FAILED: ${problem}`)
  if (problems.length > 0) return
  narrator.line(
    `Both have all ${formatBytes(totalBytes)}, equal to the original. Ben got the model from Ada alone.`,
  )
}

function rowOf(
  name: string,
  { p2pBytes, httpBytes, hubSmallBytes, elapsedMs, bytesPerSecond }: UserResult,
): string[] {
  const bytes = [httpBytes, hubSmallBytes, p2pBytes].map(formatBytes)
  return [name, ...bytes, formatTime(elapsedMs), formatRate(bytesPerSecond)]
}
