/** undici's own `fetch`, which is another function than Node's: not seen by itself, and seen through `createFetch`. */
import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { commonOfAnswer, fetchRepos, largeFetchCalls } from './support/fetch-suite.ts'
import { comparable, observe, type Run } from './support/observe.ts'
import { clientNode, indexUrl } from './support/program.ts'
import { isHeldTo } from './support/suite.ts'
import { type Mode, newClientWorld, patienceMs, type World } from './support/world.ts'

/** undici 8 needs Node 22.19. */
const major = Number(
  spawnSync(clientNode, ['-p', 'process.versions.node.split(".")[0]'], { encoding: 'utf8' }).stdout,
)
const versions = major >= 22 ? ['undici6', 'undici7', 'undici8'] : ['undici6', 'undici7']
/** A `Request` of Node's is a stranger to undici, with the hook and without. */
const shared = [
  ...['git', 'lfs', 'xet', 'range', 'smallRange', 'head', 'manual', 'clone', 'bodyless', 'aborted'],
  ...['abortedBefore', 'missing', 'anonymous', 'notOurs'],
]
/** One of undici's own is a stranger to us, and goes to undici untouched. */
const calls = [...shared, 'ownRequest']
const large = largeFetchCalls.filter((call) => calls.includes(call))
const programs = new Map(versions.map((name) => [name, fetchRepos(name)]))

let world: World
const wrapped = new Map<string, Readonly<Record<Mode, Run>>>()
const bare = new Map<string, Readonly<Record<Mode, Run>>>()

beforeAll(async () => {
  world = await newClientWorld([...programs.values()].flatMap(({ repos }) => repos))
  for (const [name, { targets }] of programs) {
    const repoOf = (call: string): string => targets[call === 'ownRequest' ? 'request' : call] ?? ''
    const chosen = Object.fromEntries(calls.map((call) => [call, repoOf(call)]))
    wrapped.set(
      name,
      await observe(world, 'undici.mjs', chosen, {
        argsOf: (mode) => (mode === 'unhooked' ? [name] : [name, indexUrl]),
      }),
    )
    bare.set(
      name,
      await observe(world, 'undici.mjs', { lfs: targets['lfs'] ?? '' }, { argsOf: () => [name] }),
    )
  }
}, patienceMs)
afterAll(() => world[Symbol.asyncDispose]())

describe.each(versions)('%s', (name) => {
  const runsOf = (all: typeof wrapped): Readonly<Record<Mode, Run>> => {
    const found = all.get(name)
    if (found === undefined) throw new Error(`${name} did not run`)
    return found
  }

  describe('in createFetch', () => {
    isHeldTo({ runs: () => runsOf(wrapped), calls, large, common: commonOfAnswer })
  })

  test('by itself is not seen by the hook', () => {
    const { unhooked, peers } = runsOf(bare)
    expect(peers.calls['lfs']?.seen).toEqual(unhooked.calls['lfs']?.seen)
    expect(comparable(peers.calls['lfs']?.requests ?? [])).toEqual(
      comparable(unhooked.calls['lfs']?.requests ?? []),
    )
  })
})
