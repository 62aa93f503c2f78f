/** A source fails in the middle of a file: the others take over, and hardly a byte comes twice. */
import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { startBadPeer } from '../fakes/bad-peer.ts'
import { sha256Of } from '../support/digest.ts'
import { type Outcome, ownHost, raceScene, type Scene } from '../support/race-scene.ts'
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const mebibyte = 1024 * 1024
const sizeBytes = rounds(12, 48) * mebibyte + 4_321
const pieceBytes = 256 * 1024
/** At most this many requests are under way at once, each in a piece of its own. */
const streams = 4
/** Below the patience of every layer underneath (10 s): who is faster than this has noticed by itself. */
const capMs = 7_000

const rate = 4 * mebibyte
const both = { sizeBytes, httpRate: rate }

async function expectRight(scene: Scene, { fetched, ...rest }: Outcome): Promise<void> {
  if (process.env['SHOW']) console.log(expect.getState().currentTestName, rest, fetched.bytes)
  expect(await sha256Of(fetched.path)).toBe(scene.file.sha256)
  expect(fetched.bytes.http + fetched.bytes.p2p).toBe(sizeBytes)
  expect(rest.longestGapMs).toBeLessThan(capMs)
}

/** One percent, the pieces that both hands had begun, and what `more` says. */
function wasteLimit(more = 0): number {
  // A run that is cut in the middle of a block gives up to a block more away.
  return sizeBytes / 100 + streams * (pieceBytes + 16_384) + more
}

describe('with HTTP and a seed at work', () => {
  test('an origin that falls silent with its connections open leaves the rest to the seed', async () => {
    await using scene = await raceScene(both)
    const seed = await scene.seeder(rate)
    let afterFault = 0
    const outcome = await scene.run({
      peers: [seed.address],
      at: 0.4,
      fault: () => scene.hub.setThrottle('cdn', 1),
      onProgress: (share, { bytes }) => {
        if (share < 0.5) afterFault = bytes.p2p
      },
    })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.p2p).toBeGreaterThan(afterFault + 0.4 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('an origin that refuses connections leaves the rest to the seed', async () => {
    await using scene = await raceScene(both)
    const seed = await scene.seeder(rate)
    const outcome = await scene.run({
      peers: [seed.address],
      at: 0.4,
      fault: () => void scene.hub.setAvailability('cdn', 'refused'),
    })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.http).toBeLessThan(0.6 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('an origin that comes back is used again', async () => {
    await using scene = await raceScene(both)
    const seed = await scene.seeder(rate / 4)
    let back = Number.POSITIVE_INFINITY
    let httpAtReturn = 0
    const outcome = await scene.run({
      peers: [seed.address],
      at: 0.3,
      fault: () => void scene.hub.setAvailability('cdn', 'refused'),
      onProgress: (share, { bytes }) => {
        if (share < 0.45 || back <= share) return
        back = share
        httpAtReturn = bytes.http
        void scene.hub.setAvailability('cdn', 'up')
      },
    })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.http).toBeGreaterThan(httpAtReturn + sizeBytes / 8)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('a seed that falls silent with its connection open leaves the rest to HTTP', async () => {
    await using scene = await raceScene(both)
    const seed = await scene.seeder(rate)
    const outcome = await scene.run({ peers: [seed.address], at: 0.4, fault: () => seed.freeze() })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.http).toBeGreaterThan(0.6 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('a seed that falls to a trickle does not hold up the end', async () => {
    await using scene = await raceScene(both)
    const seed = await scene.seeder(rate)
    const outcome = await scene.run({ peers: [seed.address], at: 0.4, fault: () => seed.setRate(1_024) })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.http).toBeGreaterThan(0.6 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('seeds that are killed leave the rest to HTTP', async () => {
    await using scene = await raceScene(both)
    const seeds = [await scene.seeder(rate / 2), await scene.seeder(rate / 2)]
    const outcome = await scene.run({
      peers: seeds.map(({ address }) => address),
      at: 0.4,
      fault: () => {
        for (const seed of seeds) void seed.kill()
      },
    })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.http).toBeGreaterThan(0.6 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('seeds that are killed while HTTP rests wake it up', async () => {
    await using scene = await raceScene({ sizeBytes, httpRate: rate / 10 })
    const seed = await scene.seeder(rate)
    let httpAtFault = 0
    let httpRate = Number.NaN
    const outcome = await scene.run({
      peers: [seed.address],
      at: 0.7,
      fault: () => {
        scene.hub.setThrottle('cdn', rate)
        void seed.kill()
      },
      onProgress: (share, progress) => {
        if (share < 0.7) [httpAtFault, httpRate] = [progress.bytes.http, progress.httpRate]
      },
    })
    await expectRight(scene, outcome)
    expect(httpRate).toBe(0)
    expect(outcome.fetched.bytes.http).toBeGreaterThan(httpAtFault + 0.15 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })

  test('a seed that comes back is used again', async () => {
    await using scene = await raceScene({ sizeBytes, httpRate: rate / 4 })
    const seed = await scene.seeder(rate)
    let back = 0
    const outcome = await scene.run({
      peers: [seed.address],
      at: 0.3,
      fault: () => seed.freeze(),
      onProgress: (share, { bytes }) => {
        if (share < 0.5 || back > 0) return
        back = bytes.p2p
        seed.thaw()
      },
    })
    await expectRight(scene, outcome)
    expect(outcome.fetched.bytes.p2p).toBeGreaterThan(back + sizeBytes / 8)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  })
})

test('a seed that comes to an empty swarm is found by its announce', async () => {
  await using data = await temporaryDirectory()
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  try {
    const client = new TrackerClient({ url: tracker.url })
    const { announceUrl } = client
    await using scene = await raceScene({ sizeBytes, httpRate: rate / 4, announceUrls: [announceUrl] })
    await client.publish({ ...scene.file, ...scene.offer })
    const first = await scene.seeder(rate)
    let second: Promise<unknown> | undefined
    const outcome = await scene.run({
      peers: [first.address],
      at: 0.3,
      fault: () => {
        second = first.kill().then(() => scene.seeder(rate, announceUrl))
      },
    })
    await second
    await expectRight(scene, outcome)
    // HTTP alone would have had to bring more than that.
    expect(outcome.fetched.bytes.p2p).toBeGreaterThan(0.4 * sizeBytes)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit())
  } finally {
    await tracker.close()
  }
})

describe('with a peer that sends rubbish', () => {
  const pieces = Math.ceil(sizeBytes / pieceBytes)

  test('beside HTTP alone, the rubbish costs a few pieces', async () => {
    await using scene = await raceScene(both)
    await using bad = await startBadPeer(ownHost(), scene.offer.infoHash, pieces)
    const outcome = await scene.run({ peers: [bad.address] })
    await expectRight(scene, outcome)
    expect(bad.blocksSent()).toBeGreaterThan(0)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit(8 * pieceBytes))
    await expect(readFile(`${scene.rig.stateDir}/condemned.json`)).rejects.toThrow('ENOENT')
  })

  test('beside HTTP and an honest seed, the rubbish costs a few pieces', async () => {
    await using scene = await raceScene(both)
    await using bad = await startBadPeer(ownHost(), scene.offer.infoHash, pieces)
    const seed = await scene.seeder(rate)
    const outcome = await scene.run({ peers: [bad.address, seed.address] })
    await expectRight(scene, outcome)
    expect(outcome.wastedBytes).toBeLessThan(wasteLimit(8 * pieceBytes))
  })
})

describe('without HTTP', () => {
  const pieces = Math.ceil(sizeBytes / pieceBytes)
  const times = Array.from({ length: rounds(2, 20) }, (_, n) => n + 1)

  test.each(times)('one honest seed brings the file beside ten peers that send rubbish (%i)', async () => {
    // libtorrent bans the honest one too, most of the time, for pieces that a liar sent a part of.
    await using scene = await raceScene({ sizeBytes, httpRate: 0 })
    const liars = await Promise.all(
      Array.from({ length: 10 }, () => startBadPeer(ownHost(), scene.offer.infoHash, pieces)),
    )
    try {
      const seed = await scene.seeder()
      const outcome = await scene.run({
        peers: [...liars.map(({ address }) => address), seed.address],
        policy: { stallMs: 500 },
        deps: { canUseHttp: false },
      })
      await expectRight(scene, outcome)
      expect(outcome.fetched.bytes.p2p).toBe(sizeBytes)
    } finally {
      for (const liar of liars) await liar[Symbol.asyncDispose]()
    }
  })
})
