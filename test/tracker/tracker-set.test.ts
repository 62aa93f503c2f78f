import { describe, expect, test } from 'vitest'
import { TrackerClient } from '../../src/tracker/client.ts'
import { TrackerSet } from '../../src/tracker/tracker-set.ts'
import { hostileServer, silentServer } from './fixtures/hostile-server.ts'
import { announce, publish, testBlob, testTracker } from './fixtures/test-tracker.ts'

const setOf = (timeoutMs: number, ...trackers: { url: string }[]): TrackerSet =>
  new TrackerSet(trackers.map(({ url }) => new TrackerClient({ url, timeoutMs })))

describe('a lookup at several trackers', () => {
  test('merges what they say: one candidate for a torrent, with the peers of both', async () => {
    await using first = await testTracker()
    await using second = await testTracker()
    const [both, one] = [testBlob(), testBlob()]
    for (const tracker of [first, second]) await publish(tracker, both)
    await publish(second, one)
    const key = both.infoHash.slice(0, 40)
    await announce(first, { key, port: 1001, left: 0 })
    await announce(first, { key, port: 1002, left: 0 })
    await announce(second, { key, port: 1002, left: 0 })
    await announce(second, { key, port: 1003, left: 5 })
    const trackers = setOf(5000, second, first)
    const found = await trackers.lookup([both, one])
    expect(found.get(one.etag)).toHaveLength(1)
    const [candidate, ...others] = found.get(both.etag) ?? []
    expect(others).toEqual([])
    expect(candidate).toMatchObject({ seeders: 2, leechers: 1, trackerUrl: first.url })
    expect(candidate?.peers.map((peer) => peer.port).sort()).toEqual([1001, 1002, 1003])
    for (const url of trackers.announceUrls) expect(candidate?.magnetLink).toContain(encodeURIComponent(url))
  })

  test('puts a torrent that is seeded first, whoever named it', async () => {
    await using first = await testTracker()
    await using second = await testTracker()
    const etag = 'a'.repeat(40)
    const [few, many] = [testBlob(Buffer.from('few.'), etag), testBlob(Buffer.from('many'), etag)]
    await publish(first, few)
    await publish(second, many)
    await announce(second, { key: many.infoHash.slice(0, 40), left: 0 })
    const found = await setOf(5000, first, second).lookup([few])
    expect(found.get(few.etag)?.map((candidate) => candidate.infoHash)).toEqual([many.infoHash, few.infoHash])
  })

  test('does not wait for a silent one when nothing is missing', async () => {
    await using silent = await silentServer()
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    await announce(tracker, { key: blob.infoHash.slice(0, 40), left: 0 })
    // The silent one's deadline is beyond the test's own.
    const found = await setOf(600_000, silent, tracker).lookup([blob, { ...testBlob(), sizeBytes: 0 }], {
      graceMs: 10,
    })
    expect(found.size).toBe(1)
  })

  test('waits for a silent one until its deadline when something is missing, and keeps what is there', async () => {
    await using silent = await silentServer()
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    // Without grace: only what is missing keeps it waiting.
    const start = performance.now()
    const slow = new TrackerClient({ url: silent.url, timeoutMs: 300 })
    const quick = new TrackerClient({ url: tracker.url, timeoutMs: 20_000 })
    const found = await new TrackerSet([slow, quick]).lookup([blob, testBlob()], { graceMs: 0 })
    expect(performance.now() - start).toBeGreaterThanOrEqual(290)
    expect([...found.keys()]).toEqual([blob.etag])
  })

  test('finds nothing without trackers, or with bad ones only', async () => {
    await using bad = await hostileServer((_, response) => void response.writeHead(500).end())
    expect((await setOf(300).lookup([testBlob()])).size).toBe(0)
    expect((await setOf(300, bad, bad).lookup([testBlob()])).size).toBe(0)
  })

  test("ends with the caller's reason", async () => {
    await using silent = await silentServer()
    const reason = new Error('enough')
    const controller = new AbortController()
    const looking = setOf(20_000, silent).lookup([testBlob()], { signal: controller.signal })
    setImmediate(() => controller.abort(reason))
    await expect(looking).rejects.toBe(reason)
    await expect(setOf(300, silent).lookup([], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })
})

test('a torrent is fetched from whoever named it, or else from the others', async () => {
  await using empty = await testTracker()
  await using bad = await hostileServer((_, response) => void response.writeHead(500).end())
  await using tracker = await testTracker()
  const blob = testBlob()
  await publish(tracker, blob)
  const trackers = setOf(5000, empty, bad, tracker)
  const [candidate] = (await trackers.lookup([blob])).get(blob.etag) ?? []
  if (candidate === undefined) throw new Error('no candidate')
  const asked = bad.requests.length
  expect(Buffer.from((await trackers.fetchTorrent(candidate)) ?? []).equals(blob.torrentFile)).toBe(true)
  expect(bad.requests).toHaveLength(asked)
  expect(await trackers.fetchTorrent({ ...candidate, trackerUrl: bad.url })).toBeDefined()
  expect(await trackers.fetchTorrent({ ...candidate, etag: testBlob().etag })).toBeUndefined()
})
