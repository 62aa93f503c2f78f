/** Node's own `fetch`, in programs that have no client. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { commonOfAnswer, fetchCalls, fetchRepos, largeFetchCalls } from './support/fetch-suite.ts'
import { observe, type Run } from './support/observe.ts'
import { isHeldTo } from './support/suite.ts'
import { type Mode, newClientWorld, patienceMs, type World } from './support/world.ts'

const { targets, repos } = fetchRepos('fetch')
let world: World
let runs: Readonly<Record<Mode, Run>>

beforeAll(async () => {
  world = await newClientWorld(repos)
  runs = await observe(world, 'fetch.mjs', targets)
}, patienceMs)
afterAll(() => world[Symbol.asyncDispose]())

isHeldTo({ runs: () => runs, calls: fetchCalls, large: largeFetchCalls, common: commonOfAnswer })

test('an answer from a peer has the URL that was asked for, and what the Hub itself said of the file', () => {
  const { etag, commit, sizeBytes } = world.hub.file('weights.bin', { repo: targets['lfs'] ?? '' })
  expect(runs.peers.calls['lfs']?.seen).toMatchObject({
    result: {
      url: `${world.hub.url}/${targets['lfs']}/resolve/main/weights.bin`,
      redirected: false,
      headers: {
        etag: `"${etag}"`,
        'x-linked-etag': `"${etag}"`,
        'x-linked-size': String(sizeBytes),
        'x-repo-commit': commit,
      },
    },
  })
})

test('a few bytes come from the storage, and no more than those, although a peer has the file', () => {
  const requests = runs.peers.calls['smallRange']?.requests.filter(({ origin }) => origin !== 'hub')
  expect(requests?.map(({ bytesSent }) => bytesSent)).toEqual([16])
})
