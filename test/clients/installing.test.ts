/** The ways to switch the hook on and off: whether a program's downloads are seen shows in what storage is asked for. */
import { cp, mkdir, symlink } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RepoSpec } from '../../src/demo/hub.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'
import { fromStorage, isLook } from './support/observe.ts'
import { indexUrl, Program, type ProgramOptions, registerUrl } from './support/program.ts'
import { newClientWorld, patienceMs, type World } from './support/world.ts'

const names = [
  ...['preloaded', 'by-variable', 'preloaded-twice', 'before', 'enabled', 'client', 'twice', 'disabled'],
  ...[
    'wrapped-after',
    'disabled-below',
    'wrapped-before',
    'two-copies',
    'one-copy-left',
    'own-fetch',
    'proxied',
  ],
  ...['early-client', 'worker', 'fork', 'own-worker', 'own-fork'],
]
const repos: RepoSpec[] = names.map((name) => ({
  repo: `acme/${name}`,
  files: { 'weights.bin': { seed: name, sizeBytes: 1_250_003 } },
}))

let world: World
let folder: TemporaryDirectory
/** The entry point of a second copy of our package. */
let otherIndexUrl: string

beforeAll(async () => {
  world = await newClientWorld(repos)
  folder = await temporaryDirectory()
  const root = fileURLToPath(new URL('../../', import.meta.url))
  const copy = `${folder.path}/copy`
  await mkdir(copy)
  await cp(`${root}dist`, `${copy}/dist`, { recursive: true })
  await cp(`${root}package.json`, `${copy}/package.json`)
  for (const name of ['node_modules', 'build']) await symlink(`${root}${name}`, `${copy}/${name}`)
  otherIndexUrl = pathToFileURL(`${copy}/dist/index.js`).href
}, patienceMs)
afterAll(async () => {
  await world[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

function start(program: string, options: ProgramOptions = {}): Promise<Program> {
  return Program.start(program, { ...options, env: { ...world.environment('peers'), ...options.env } })
}

/** Calls a program for a repository. */
async function ask(program: Program, call: string, name: string) {
  world.hub.resetStats()
  const seen = await program.call(call, { repo: `acme/${name}`, hubUrl: world.hub.url })
  if ('error' in seen) throw new Error(JSON.stringify(seen.error))
  const requests = world.hub.requests()
  return {
    result: seen.result,
    isSeen: fromStorage(requests).length === 0,
    hubRequests: requests.filter((request) => request.origin === 'hub' && !isLook(request)).length,
  }
}

function sha256Of(name: string): string {
  return world.hub.file('weights.bin', { repo: `acme/${name}` }).sha256
}

describe('a program that knows nothing of us is seen', () => {
  test.each([
    ['with --import', 'preloaded', { nodeArguments: ['--import', registerUrl] }],
    ['with NODE_OPTIONS', 'by-variable', { env: { NODE_OPTIONS: `--import ${registerUrl}` } }],
    [
      'with both',
      'preloaded-twice',
      { nodeArguments: ['--import', registerUrl], env: { NODE_OPTIONS: `--import ${registerUrl}` } },
    ],
  ] as const)('%s', async (_way, name, options) => {
    await using program = await start('fetch.mjs', options)
    const { result, isSeen, hubRequests } = await ask(program, 'lfs', name)
    expect(result).toMatchObject({ status: 200, sha256: sha256Of(name) })
    expect({ isSeen, hubRequests }).toEqual({ isSeen: true, hubRequests: 1 })
    expect(await program.end()).toMatchObject({ code: 0 })
  })

  test.each([
    ['a worker thread', 'inWorker', 'worker'],
    ['a fork', 'inFork', 'fork'],
  ])('in %s, which inherits the preload', async (_where, call, name) => {
    await using program = await start('elsewhere.mjs', { nodeArguments: ['--import', registerUrl] })
    const { result, isSeen } = await ask(program, call, name)
    expect({ result, isSeen }).toEqual({ result: [sha256Of(name), 0], isSeen: true })
  })
})

describe('enableP2P', () => {
  test('before a client is imported is as good as a preload', async () => {
    await using program = await start('early.mjs', { args: [indexUrl] })
    const { result, isSeen } = await ask(program, 'lfs', 'early-client')
    expect(result).toMatchObject({ sha256: sha256Of('early-client') })
    expect(isSeen).toBe(true)
  })

  test.each([
    ['a worker thread', 'inWorker', 'own-worker'],
    ['a fork', 'inFork', 'own-fork'],
  ])('in %s is enough for what runs there', async (_where, call, name) => {
    await using program = await start('elsewhere.mjs', { args: [indexUrl] })
    const { result, isSeen } = await ask(program, call, name)
    expect({ result, isSeen }).toEqual({ result: [sha256Of(name), 0], isSeen: true })
  })

  test('on and off, twice, in two copies, below and above other wrappers, does what it says and leaves nothing', async () => {
    await using program = await start('ways.mjs', { args: [indexUrl, otherIndexUrl] })
    const steps: [call: string, name: string, result: (sha256: string) => unknown, isSeen: boolean][] = [
      ['before', 'before', (sha256) => [false, true, sha256], false],
      ['enabled', 'enabled', (sha256) => [true, sha256], true],
      ['client', 'client', (sha256) => sha256, true],
      ['twice', 'twice', (sha256) => sha256, true],
      ['disabled', 'disabled', (sha256) => [false, true, sha256], false],
      ['wrappedAfter', 'wrapped-after', (sha256) => [sha256, 1], true],
      ['disabledBelow', 'disabled-below', (sha256) => [true, sha256], false],
      ['wrappedBefore', 'wrapped-before', (sha256) => [sha256, 1, true], true],
      ['twoCopies', 'two-copies', (sha256) => sha256, true],
      ['oneCopyLeft', 'one-copy-left', (sha256) => [sha256, true], true],
      ['ownFetch', 'own-fetch', (sha256) => [sha256, true], true],
      ['proxied', 'proxied', (sha256) => [sha256, 1], true],
    ]
    for (const [call, name, result, isSeen] of steps) {
      const got = await ask(program, call, name)
      expect([call, got.result, got.isSeen]).toEqual([call, result(sha256Of(name)), isSeen])
      // The client asks twice: a probe, and the bytes.
      expect([call, got.hubRequests]).toEqual([call, call === 'client' ? 2 : 1])
    }
    expect(await program.end()).toMatchObject({ code: 0, stderr: '' })
  })
})
