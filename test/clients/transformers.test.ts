/** transformers.js with a tokenizer and a model, as `from_pretrained` and `pipeline` load them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { FileTree, RepoSpec } from '../../src/demo/hub.ts'
import { largeTransformersFiles, smallTransformersFiles, tokenizerFiles } from './support/model.ts'
import { fromStorage, observe, type Run } from './support/observe.ts'
import { indexUrl, Program } from './support/program.ts'
import { isHeldTo } from './support/suite.ts'
import { type Mode, newClientWorld, patienceMs, type World } from './support/world.ts'

const filesOf: Record<string, (seed: string) => FileTree> = {
  tokenizer: () => tokenizerFiles,
  smallModel: () => smallTransformersFiles,
  model: largeTransformersFiles,
  embedding: largeTransformersFiles,
  refused: () => ({}),
  gated: largeTransformersFiles,
}
const calls = Object.keys(filesOf)
/** For programs that switch the hook on by themselves. */
const own = ['early', 'late', 'given']
const repoOf = (call: string): string => `acme/transformers-${call}`
const repos: RepoSpec[] = [...calls, ...own].map((call) => {
  const repo = repoOf(call)
  const files = (filesOf[call] ?? largeTransformersFiles)(repo)
  return { repo, files, isGated: call === 'gated' }
})

let world: World
let runs: Readonly<Record<Mode, Run>>

beforeAll(async () => {
  world = await newClientWorld(repos)
  const targets = Object.fromEntries(calls.map((call) => [call, repoOf(call)]))
  runs = await observe(world, 'transformers/run.mjs', targets)
}, patienceMs)
afterAll(() => world[Symbol.asyncDispose]())

isHeldTo({ runs: () => runs, calls, large: ['model', 'embedding'] })

test('what comes out is what the table of the model says', () => {
  // [CLS] hello peer ##s [SEP], and each token's row has four numbers that begin with sin(4 id + 1).
  expect(runs.peers.calls['model']?.seen).toMatchObject({
    result: { output: { dims: [1, 5, 4], type: 'float32', first: Math.fround(Math.sin(9)) } },
  })
})

test('every file is announced, followed and finished', () => {
  const { sizeBytes } = world.hub.file('onnx/model.onnx', { repo: repoOf('model') })
  expect(runs.peers.calls['model']?.seen).toMatchObject({
    result: { progress: { 'onnx/model.onnx': { loaded: sizeBytes, total: sizeBytes } } },
  })
})

describe('enableP2P', () => {
  const ask = async (program: Program, call: string, name: string) => {
    world.hub.resetStats()
    const seen = await program.call(call, { repo: repoOf(name) })
    return { seen, isSeen: fromStorage(world.hub.requests()).length === 0 }
  }
  const start = (program: string): Promise<Program> =>
    Program.start(`transformers/${program}`, { env: world.environment('peers'), args: [indexUrl] })
  const output = { result: { output: { dims: [1, 5, 4] } } }

  test('before transformers.js is imported is as good as a preload', async () => {
    await using program = await start('early.mjs')
    expect(await ask(program, 'model', 'early')).toMatchObject({ seen: output, isSeen: true })
  })

  test('after transformers.js was imported is too late for it, until it is given a fetch', async () => {
    await using program = await start('late.mjs')
    expect(await ask(program, 'bound', 'late')).toMatchObject({ seen: output, isSeen: false })
    expect(await ask(program, 'given', 'given')).toMatchObject({ seen: output, isSeen: true })
  })
})
