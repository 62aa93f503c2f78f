/** `@huggingface/hub`, imported and required, as its users call it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { FileTree, RepoSpec } from '../../src/demo/hub.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { isLook, observe, type Run } from './support/observe.ts'
import { isHeldTo } from './support/suite.ts'
import { type Mode, newClientWorld, patienceMs, type World } from './support/world.ts'

const git: FileTree = { 'config.json': '{"hidden_size": 8}' }
/** Contents differ: what a program has of one repository must not help it with another one. */
const lfs = (seed: string): FileTree => ({ 'weights.bin': { seed: `lfs ${seed}`, sizeBytes: 1_250_003 } })
const xet = (seed: string): FileTree => ({
  'model.safetensors': { content: { seed: `xet ${seed}`, sizeBytes: 1_250_003 }, storage: 'xet' },
})
const everything = (seed: string): FileTree => ({
  ...git,
  ...lfs(seed),
  ...xet(seed),
  'nested/vocab.txt': 'a b',
})

const filesOf: Record<string, (seed: string) => FileTree> = {
  infoGit: () => git,
  infoLfs: lfs,
  infoXet: xet,
  git: () => git,
  lfs,
  xet,
  xetSerial: xet,
  xetParallel: xet,
  xetOverHttp: xet,
  sliceLfs: lfs,
  sliceXet: xet,
  smallSlice: lfs,
  stream: lfs,
  cancelledStream: lfs,
  aborted: lfs,
  toCache: lfs,
  snapshot: everything,
  list: everything,
  missing: () => git,
  missingRepo: () => git,
  missingRevision: () => git,
  wrongToken: () => git,
  renamed: lfs,
  gated: lfs,
  withToken: lfs,
}
const programs = {
  'hub.mjs': Object.keys(filesOf),
  'hub.cjs': ['infoLfs', 'lfs', 'xet', 'toCache', 'missing', 'gated'],
}
/** Looks at a file: they want to know about it, or a few bytes of it, or may not have it. */
const looks = new Set(['infoGit', 'infoLfs', 'infoXet', 'git', 'smallSlice', 'list', 'missing'])
const refused = new Set(['missingRepo', 'missingRevision', 'wrongToken', 'gated', 'withToken'])

const repoOf = (program: string, call: string): string => `acme/${program}-${call}`
const repos: RepoSpec[] = Object.entries(programs).flatMap(([program, calls]) =>
  calls.map((call) => {
    const repo = repoOf(program, call)
    const files = filesOf[call]?.(repo) ?? {}
    if (call === 'renamed') return { repo: `${repo}-now`, files, renamedFrom: [repo] }
    return { repo, files, isGated: call === 'gated' || call === 'withToken' }
  }),
)

let world: World
const runs = new Map<string, Readonly<Record<Mode, Run>>>()

beforeAll(async () => {
  world = await newClientWorld(repos, { hf_member: [repoOf('hub.mjs', 'withToken')] })
  for (const [program, calls] of Object.entries(programs)) {
    const targets = Object.fromEntries(calls.map((call) => [call, repoOf(program, call)]))
    runs.set(program, await observe(world, program, targets))
  }
}, patienceMs)
afterAll(() => world[Symbol.asyncDispose]())

function runsOf(program: string): Readonly<Record<Mode, Run>> {
  const found = runs.get(program)
  if (found === undefined) throw new Error(`${program} did not run`)
  return found
}

describe.each(Object.entries(programs))('%s', (program, calls) => {
  isHeldTo({
    runs: () => runsOf(program),
    calls,
    large: calls.filter((call) => !looks.has(call) && !refused.has(call)),
    common: withoutWhatPeersChange,
  })
})

/** What a peer's answer knows better than the storage's, or leaves out: see the tests below. */
function withoutWhatPeersChange(result: unknown, call: string): unknown {
  if (!call.startsWith('info')) return result
  const { etag: _etag, xet: _xet, ...rest } = result as { etag: string; xet?: object }
  return rest
}

test('what a token opened, no peer is asked for: the one look without it is refused', () => {
  for (const mode of ['hooked', 'peers'] as const) {
    const looks = runsOf('hub.mjs')[mode].calls['withToken']?.requests.filter(isLook)
    expect(looks?.map(({ status }) => status)).toEqual([401])
  }
})

describe('fileDownloadInfo', () => {
  const infoOf = (mode: Mode, call: string) => runsOf('hub.mjs')[mode].calls[call]?.seen

  test('of an LFS file has the digest of the file instead of a name that only the storage knows', () => {
    const { sha256 } = world.hub.file('weights.bin', { repo: repoOf('hub.mjs', 'infoLfs') })
    expect(infoOf('unhooked', 'infoLfs')).not.toMatchObject({ result: { etag: `"${sha256}"` } })
    expect(infoOf('peers', 'infoLfs')).toMatchObject({ result: { etag: `"${sha256}"` } })
  })

  test('of a Xet file is that of an ordinary file, so that the client asks no other service', () => {
    expect(infoOf('unhooked', 'infoXet')).toHaveProperty('result.xet.hash')
    expect(infoOf('peers', 'infoXet')).not.toHaveProperty('result.xet')
  })
})

test('a look at sixteen bytes takes sixteen bytes from the storage, and no more, although a peer has the file', () => {
  const { requests } = runsOf('hub.mjs').peers.calls['smallSlice'] ?? { requests: [] }
  expect(requests.filter(({ origin }) => origin !== 'hub').map(({ bytesSent }) => bytesSent)).toEqual([16])
})

test('a cache that the client and the hook write to at once is as the client leaves it', async () => {
  const env = world.environment('peers')
  const repo = repoOf('hub.mjs', 'snapshot')
  const { Program } = await import('./support/program.ts')
  await using program = await Program.start('hub.mjs', { env, nodeArguments: world.preload('peers') })
  await program.call('snapshot', { repo, hubUrl: world.hub.url })
  await program.end()
  const faults = await checkCacheContract(`${env['HF_HOME']}/hub`)
  expect(faults.filter((fault) => !/refs|CACHEDIR/.test(fault))).toEqual([])
})
