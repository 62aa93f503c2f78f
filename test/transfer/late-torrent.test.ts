/** The look-up of a torrent holds nobody up, and a torrent that is found late joins in with what is there by then. */
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import type { TorrentFinder } from '../../src/transfer/find-torrent.ts'
import { silentServer } from '../fakes/silent-server.ts'
import { sha256Of } from '../support/digest.ts'
import { raceScene } from '../support/race-scene.ts'
import { newUser } from '../support/users.ts'

const mebibyte = 1024 * 1024
const sizeBytes = 12 * mebibyte + 777
const pieceBytes = 256 * 1024
/** A look-up has 5 s, a question to the Hub 10 s: whoever waits for one of them is slower than this. */
const patienceMs = 4_500

/** A tracker whose answer about a torrent comes when `tell` is called. */
function slowFinder<T>(): { finder: TorrentFinder; tell: (offer: T) => void; isAsked: () => boolean } {
  let tell: (offer: T) => void = () => {}
  const answer = new Promise<T>((resolve) => {
    tell = resolve
  })
  let asked = false
  const find = (_file: unknown, signal: AbortSignal): Promise<T> => {
    asked = true
    const aborted = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason))
    })
    return Promise.race([answer, aborted])
  }
  return { finder: { find } as unknown as TorrentFinder, tell, isAsked: () => asked }
}

test('a torrent that is found late brings the rest, and nothing that was there comes twice', async () => {
  await using scene = await raceScene({ sizeBytes, httpRate: 1.5 * mebibyte })
  const seed = await scene.seeder()
  const late = slowFinder()
  let httpBefore = 0
  const outcome = await scene.run({
    peers: [],
    deps: { finder: late.finder },
    at: 0.4,
    fault: () => late.tell({ ...scene.offer, peers: [seed.address] }),
    onProgress: (_share, { bytes }) => {
      if (bytes.p2p === 0) httpBefore = bytes.http
    },
  })
  const { bytes, path } = outcome.fetched
  expect(await sha256Of(path)).toBe(scene.file.sha256)
  expect(httpBefore).toBeGreaterThan(0.35 * sizeBytes)
  expect(bytes.p2p).toBeGreaterThan(0.25 * sizeBytes)
  expect(bytes.http + bytes.p2p).toBe(sizeBytes)
  // Four requests may be in the middle of a piece that peers then bring, and the last pieces are asked of both.
  expect(outcome.wastedBytes).toBeLessThan(sizeBytes / 100 + 5 * pieceBytes)
})

test('a torrent that is found when nearly all is there costs nothing twice either', async () => {
  await using scene = await raceScene({ sizeBytes, httpRate: 6 * mebibyte })
  const seed = await scene.seeder(mebibyte)
  const late = slowFinder()
  const outcome = await scene.run({
    peers: [],
    deps: { finder: late.finder },
    policy: { tickMs: 10 },
    at: 0.85,
    fault: () => late.tell({ ...scene.offer, peers: [seed.address] }),
  })
  expect(await sha256Of(outcome.fetched.path)).toBe(scene.file.sha256)
  expect(outcome.wastedBytes).toBeLessThan(sizeBytes / 100 + 5 * pieceBytes)
})

test('what a late torrent finds there is given on to others', async () => {
  await using scene = await raceScene({ sizeBytes, httpRate: 3 * mebibyte })
  const seed = await scene.seeder(mebibyte / 2)
  const late = slowFinder()
  const { fetched } = await scene.run({
    peers: [],
    deps: { finder: late.finder },
    at: 0.4,
    fault: () => late.tell({ ...scene.offer, peers: [seed.address] }),
  })
  expect(fetched.bytes.http).toBeGreaterThan(0.5 * sizeBytes)
  // Only a torrent that has found all of it right goes on serving the file.
  expect(fetched.joined).toBeDefined()
})

test('a tracker that never answers does not hold up a byte, nor the end', async () => {
  await using hub = await startHub({ 'model.safetensors': { seed: 'late', sizeBytes } })
  await using tracker = await silentServer()
  await using user = await newUser({
    endpoint: hub.url,
    trackers: [tracker.url],
    seed: false,
    headStartMs: 0,
  })
  const began = performance.now()
  const got = await user.client.downloadFile(hub.ref('model.safetensors'))
  expect(performance.now() - began).toBeLessThan(patienceMs)
  await tracker.asked
  expect(got.bytes).toEqual({ http: sizeBytes, p2p: 0, cache: 0 })
  expect(await sha256Of(got.path)).toBe(hub.file('model.safetensors').sha256)
})

test('a tracker that never answers does not hold up a snapshot, about whose files it is asked ahead', async () => {
  const names = ['a.safetensors', 'b.safetensors', 'c.safetensors']
  await using hub = await startHub(
    Object.fromEntries(names.map((name) => [name, { seed: name, sizeBytes: 2 * mebibyte }])),
  )
  await using tracker = await silentServer()
  await using user = await newUser({
    endpoint: hub.url,
    trackers: [tracker.url],
    seed: false,
    headStartMs: 0,
  })
  const began = performance.now()
  const { repo, repoType } = hub.ref('a.safetensors')
  const got = await user.client.downloadSnapshot({ repo, repoType }, 'main')
  expect(performance.now() - began).toBeLessThan(patienceMs)
  expect(got.bytes).toEqual({ http: 3 * 2 * mebibyte, p2p: 0, cache: 0 })
})

test('a Hub that does not say whether everybody may read the file does not hold up the end', async () => {
  await using scene = await raceScene({ sizeBytes, httpRate: 0 })
  const late = slowFinder()
  const began = performance.now()
  const { fetched } = await scene.run({
    peers: [],
    deps: { finder: late.finder },
    change: {
      mayShare: (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason))
        }),
    },
  })
  expect(performance.now() - began).toBeLessThan(patienceMs)
  expect(late.isAsked()).toBe(false)
  expect(fetched.bytes).toEqual({ http: sizeBytes, p2p: 0, cache: 0 })
})

test('peers bring bytes while storage says nothing, and storage is asked while peers do', async () => {
  await using scene = await raceScene({ sizeBytes, httpRate: 0 })
  const seed = await scene.seeder(6 * mebibyte)
  await scene.hub.setAvailability('cdn', 'black-hole')
  let requestsAtFirst = Number.NaN
  const outcome = await scene.run({
    peers: [seed.address],
    onProgress: (_share, { bytes }) => {
      if (Number.isNaN(requestsAtFirst) && bytes.p2p > 0) requestsAtFirst = scene.hub.requests('cdn').length
    },
  })
  expect(requestsAtFirst).toBe(1)
  expect(outcome.fetched.bytes).toEqual({ http: 0, p2p: sizeBytes, cache: 0 })
  expect(await sha256Of(outcome.fetched.path)).toBe(scene.file.sha256)
})
