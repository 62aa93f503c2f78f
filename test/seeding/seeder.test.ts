import { createHash } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { noiseBytes } from '../../src/demo/hub.ts'
import type { SharingVerdict } from '../../src/hub/sharing.ts'
import { divertLog } from '../../src/log.ts'
import type { NativeAddon } from '../../src/native/binding.ts'
import { requireAddon } from '../../src/native/load.ts'
import type { SeederClock } from '../../src/seeding/clock.ts'
import { Seeder, type SeedRequest } from '../../src/seeding/seeder.ts'
import { TorrentStore } from '../../src/seeding/torrent-store.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { asEtag, type BlobRef } from '../../src/values.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const sizeBytes = 700_001

async function rig(options: { addon?: NativeAddon } = {}) {
  const folder = await temporaryDirectory()
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: `${folder.path}/tracker` })
  const client = new TrackerClient({ url: tracker.url })
  const addon = options.addon ?? requireAddon()
  const swarms: Swarm[] = []
  const newSwarm = (host: string): Swarm => {
    const limits = { maxDownloadBytesPerSecond: 0, maxUploadBytesPerSecond: 0, limitLocalPeers: false }
    const swarm = new Swarm(requireAddon(), { listen: [`${host}:0`], utp: false, ...limits })
    swarms.push(swarm)
    return swarm
  }
  const newSeeder = (use: NativeAddon = addon, clock?: SeederClock, swarm = newSwarm('127.0.0.2')): Seeder =>
    new Seeder({
      clock,
      addon: use,
      swarm,
      store: new TorrentStore(`${folder.path}/state`),
      trackers: [client],
      threads: 1,
    })
  return {
    folder,
    tracker,
    client,
    newSwarm,
    newSeeder,
    [Symbol.asyncDispose]: async () => {
      for (const swarm of swarms) await swarm.close()
      await tracker.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

async function blobIn(folder: string, seed: string): Promise<SeedRequest> {
  const bytes = noiseBytes(seed, sizeBytes)
  const etag = asEtag(createHash('sha256').update(bytes).digest('hex'))
  if (etag === undefined) throw new Error('no etag')
  const path = `${folder}/${etag}`
  await writeFile(path, bytes)
  return {
    blob: { etag, sizeBytes },
    path,
    label: `acme/tiny/${seed}`,
    forMs: Number.POSITIVE_INFINITY,
    verdict: async () => 'public',
  }
}

const hourMs = 3_600_000

/** A clock that stands still between hours. */
function slowClock() {
  let nowMs = Date.now()
  const works: { everyMs: number; work: () => void }[] = []
  const clock: SeederClock = {
    now: () => nowMs,
    every: (everyMs, work) => {
      const entry = { everyMs, work }
      works.push(entry)
      return () => void works.splice(works.indexOf(entry), 1)
    },
  }
  return {
    clock,
    works,
    /** Moves on; what is due every hour is done `hours` times. */
    async pass(hours: number, seeder: Seeder): Promise<void> {
      for (let hour = 0; hour < hours; hour++) {
        nowMs += hourMs
        for (const { work } of [...works]) work()
        await seeder.recheck()
        await seeder.settled()
      }
    },
  }
}

/** The Hub's word, which can change; counts the questions. */
class HubsWord {
  says: SharingVerdict
  questions = 0

  constructor(says: SharingVerdict) {
    this.says = says
  }

  readonly verdict = async (): Promise<SharingVerdict> => {
    this.questions += 1
    return this.says
  }
}

async function seeders(client: TrackerClient, blob: BlobRef): Promise<number> {
  return (await known(client, blob)).reduce((sum, candidate) => sum + candidate.seeders, 0)
}

const known = async (client: TrackerClient, blob: BlobRef) =>
  (await client.lookup([blob])).get(blob.etag) ?? []

describe('Seeder', () => {
  test('hashes, serves and registers a blob, and says so', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'one')
    const seeder = r.newSeeder()
    seeder.seed(request)
    expect((await seeder.status())[0]).toMatchObject({ label: 'acme/tiny/one', sizeBytes, endsAt: undefined })
    await seeder.settled()
    const [status] = await seeder.status()
    expect(status).toMatchObject({
      state: 'seeding',
      error: undefined,
      etag: request.blob.etag,
      uploadedBytes: 0,
    })
    const [candidate] = await known(r.client, request.blob)
    expect(candidate?.infoHash).toBe(status?.infoHash)
    await seeder.close()
  })

  test('stops on demand; the file stays, and the same blob can be seeded again', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'two')
    const seeder = r.newSeeder()
    seeder.seed(request)
    await seeder.settled()
    await seeder.stop(request.blob.etag)
    expect((await seeder.status())[0]?.state).toBe('ended')
    expect((await readFile(request.path)).length).toBe(sizeBytes)
    seeder.seed(request)
    await seeder.settled()
    expect((await seeder.status())[0]?.state).toBe('seeding')
    await seeder.close()
  })

  test('ends by itself when its time is up', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'three')
    const seeder = r.newSeeder()
    seeder.seed({ ...request, forMs: 1 })
    await seeder.settled()
    while ((await seeder.status())[0]?.state !== 'ended')
      await new Promise((resolve) => setImmediate(resolve))
    await seeder.close()
  })

  test('goes on with the others when one blob is gone', async () => {
    await using r = await rig()
    const gone = await blobIn(r.folder.path, 'gone')
    const there = await blobIn(r.folder.path, 'there')
    await rm(gone.path)
    const seeder = r.newSeeder()
    seeder.seed(gone)
    seeder.seed(there)
    await seeder.settled()
    const states = (await seeder.status()).map(({ state, error }) => [state, error !== undefined])
    expect(states).toEqual([
      ['failed', true],
      ['seeding', false],
    ])
    await seeder.close()
  })

  test('never publishes a file that is not what its name promises', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'wrong')
    const wrong = Buffer.from(await readFile(request.path))
    wrong[sizeBytes - 1] = (wrong[sizeBytes - 1] ?? 0) ^ 1
    await writeFile(request.path, wrong)
    const seeder = r.newSeeder()
    seeder.seed({ ...request, check: true })
    await seeder.settled()
    const [status] = await seeder.status()
    expect(status).toMatchObject({ state: 'failed', infoHash: undefined })
    expect(status?.error).toMatch(/not what its name promises/)
    expect(await known(r.client, request.blob)).toEqual([])
    expect(await new TorrentStore(`${r.folder.path}/state`).load(request.blob)).toBeUndefined()
    await seeder.close()
  })

  test('seeds a file whose content is compared with its etag, in the pass that makes its torrent', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'right')
    const real = requireAddon()
    const read: number[] = []
    const counting = {
      ...real,
      createTorrent: (...args: Parameters<NativeAddon['createTorrent']>) => {
        const job = real.createTorrent(...args)
        job.promise.then(({ readBytes }) => read.push(readBytes)).catch(() => {})
        return job
      },
      hashFile: () => {
        throw new Error('hashed again')
      },
    } as unknown as NativeAddon
    const seeder = r.newSeeder(counting)
    seeder.seed({ ...request, check: true })
    await seeder.settled()
    expect((await seeder.status())[0]).toMatchObject({ state: 'seeding', error: undefined })
    expect(read).toEqual([sizeBytes])
    await seeder.close()
  })

  test('serves peers it knows while the tracker is away', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'alone')
    await r.tracker.close()
    const seeder = r.newSeeder()
    seeder.seed(request)
    await seeder.settled()
    expect((await seeder.status())[0]).toMatchObject({ state: 'seeding', error: undefined })
    await seeder.close()
  })

  test('hashes a blob once in its life', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'hashed')
    const first = r.newSeeder()
    first.seed(request)
    await first.settled()
    await first.close()
    // Whatever is hashed now fails.
    const blind = { createTorrent: () => Promise.reject(new Error('hashed again')) } as unknown as NativeAddon
    const second = r.newSeeder(blind)
    second.seed(request)
    await second.settled()
    expect((await second.status())[0]).toMatchObject({ state: 'seeding', error: undefined })
    await second.close()
  })

  test('does not write to a blob that was damaged meanwhile, whatever peers offer', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'damaged')
    const seeder = r.newSeeder()
    seeder.seed(request)
    await seeder.settled()
    const damaged = Buffer.alloc(sizeBytes, 7)
    await writeFile(request.path, damaged)
    const torrent = await new TorrentStore(`${r.folder.path}/state`).load(request.blob)
    if (torrent === undefined) throw new Error('no torrent')
    const other = r.newSwarm('127.0.0.3')
    const wanted = `${r.folder.path}/wanted`
    const announceUrls = [r.client.announceUrl]
    await other.join(
      { ...torrent, announceUrls, peers: [], isPromising: true, mayBeCrowd: false, isTied: false },
      { path: wanted, mode: 'download' },
    )
    // The seeder reads a piece to send it, finds that it does not fit, and is a seeder no longer.
    while ((await seeder.status())[0]?.state !== 'failed')
      await new Promise((resolve) => setImmediate(resolve))
    expect((await seeder.status())[0]?.error).toMatch(/changed/)
    expect((await readFile(request.path)).equals(damaged)).toBe(true)
    await seeder.close()
  })

  test('has nothing to do for an empty blob', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'empty')
    const seeder = r.newSeeder()
    seeder.seed({ ...request, blob: { ...request.blob, sizeBytes: 0 } })
    expect(await seeder.status()).toEqual([])
    await seeder.close()
  })
})

describe('what not everybody may have', () => {
  test.each(['gated', 'private'] as const)('is never hashed, served or registered: %s', async (verdict) => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, verdict)
    const blind = { createTorrent: () => Promise.reject(new Error('hashed')) } as unknown as NativeAddon
    const seeder = r.newSeeder(blind)
    seeder.seed({ ...request, verdict: async () => verdict })
    await seeder.settled()
    const [status] = await seeder.status()
    expect(status).toMatchObject({ state: 'withdrawn', infoHash: undefined })
    expect(status?.error).toMatch(/not everybody may see it/)
    expect(await known(r.client, request.blob)).toEqual([])
    await seeder.close()
  })

  test('waits while the Hub does not answer, and is seeded within the hour after it did', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'later')
    const hub = new HubsWord('unknown')
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    seeder.seed({ ...request, verdict: hub.verdict })
    await seeder.settled()
    expect((await seeder.status())[0]).toMatchObject({
      state: 'waiting',
      error: expect.stringMatching(/answer/),
    })
    await time.pass(1, seeder)
    expect((await seeder.status())[0]?.state).toBe('waiting')
    expect(await known(r.client, request.blob)).toEqual([])
    hub.says = 'public'
    await time.pass(1, seeder)
    expect((await seeder.status())[0]).toMatchObject({ state: 'seeding', error: undefined })
    expect(await known(r.client, request.blob)).toHaveLength(1)
    expect(time.works.map(({ everyMs }) => everyMs)).toEqual([hourMs])
    await seeder.close()
    expect(time.works).toEqual([])
  })

  test('leaves its swarm on the day its repository turns private, is not registered again, and one line says so', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'turned')
    const hub = new HubsWord('public')
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    seeder.seed({ ...request, verdict: hub.verdict })
    await seeder.settled()
    while ((await seeders(r.client, request.blob)) !== 1) await new Promise((next) => setImmediate(next))
    hub.says = 'private'
    await time.pass(23, seeder)
    expect([(await seeder.status())[0]?.state, hub.questions]).toEqual(['seeding', 1])
    const lines: string[] = []
    const restore = divertLog(
      (level, message) => void (level !== 'debug' && lines.push(`${level} ${message}`)),
    )
    await time.pass(2, seeder)
    restore()
    const [status] = await seeder.status()
    expect(status).toMatchObject({
      state: 'withdrawn',
      peers: 0,
      error: expect.stringMatching(/private or gone/),
    })
    expect(lines).toEqual([`warn ${request.label}: no longer seeded: ${status?.error}`])
    while ((await seeders(r.client, request.blob)) !== 0) await new Promise((next) => setImmediate(next))
    expect(hub.questions).toBe(2)
    await time.pass(48, seeder)
    expect(hub.questions).toBe(2)
    hub.says = 'public'
    seeder.seed({ ...request, verdict: hub.verdict })
    await seeder.settled()
    expect((await seeder.status())[0]?.state).toBe('seeding')
    await seeder.close()
  })

  test('stays where another repository has the same content for everybody', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'twice')
    const [a, b] = [new HubsWord('public'), new HubsWord('public')]
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    seeder.seed({ ...request, label: 'acme/a/w.bin', verdict: a.verdict })
    await seeder.settled()
    seeder.seed({ ...request, label: 'acme/b/w.bin', verdict: b.verdict })
    a.says = 'gated'
    await time.pass(24, seeder)
    expect((await seeder.status())[0]?.state).toBe('seeding')
    b.says = 'private'
    await time.pass(24, seeder)
    expect((await seeder.status())[0]?.state).toBe('withdrawn')
    await seeder.close()
  })

  test('is seeded on through a week in which the Hub does not answer, asked about every hour, and then no longer', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'silence')
    const hub = new HubsWord('public')
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    seeder.seed({ ...request, verdict: hub.verdict })
    await seeder.settled()
    hub.says = 'unknown'
    await time.pass(24, seeder)
    expect(hub.questions).toBe(2)
    await time.pass(7 * 24 - 25, seeder)
    expect((await seeder.status())[0]?.state).toBe('seeding')
    expect(hub.questions).toBe(2 + 7 * 24 - 25)
    await time.pass(1, seeder)
    expect((await seeder.status())[0]).toMatchObject({
      state: 'withdrawn',
      error: expect.stringMatching(/does not answer.*for 7 days/),
    })
    await seeder.close()
  })

  test.each(['private', 'unknown'] as const)(
    'leaves the swarm that its download was in: %s',
    async (verdict) => {
      await using r = await rig()
      const request = await blobIn(r.folder.path, `joined ${verdict}`)
      const made = await createBlobTorrent(requireAddon(), request.path, request.blob)
      if (made === undefined) throw new Error('no torrent')
      const announceUrls = [r.client.announceUrl]
      const offer = { ...made, announceUrls, peers: [], isPromising: false, mayBeCrowd: false, isTied: true }
      const swarm = r.newSwarm('127.0.0.4')
      const torrent = await swarm.join(offer, { path: request.path, mode: 'seed' })
      if (torrent === undefined) throw new Error('not joined')
      const seeder = r.newSeeder(undefined, undefined, swarm)
      seeder.seed({ ...request, joined: { torrent, offer }, verdict: async () => verdict })
      await seeder.settled()
      expect(torrent.isRemoved).toBe(true)
      expect(await known(r.client, request.blob)).toEqual([])
      await seeder.close()
    },
  )

  test('takes turns when fewer questions are asked than there are files, and none is given up', async () => {
    await using r = await rig()
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    let left = 3
    const asked: string[] = []
    for (const seed of ['t1', 't2', 't3']) {
      const verdict = async (): Promise<SharingVerdict> => {
        if (left === 0) return 'not-asked'
        left -= 1
        asked.push(seed)
        return 'public'
      }
      seeder.seed({ ...(await blobIn(r.folder.path, seed)), verdict })
    }
    await seeder.settled()
    for (let day = 0; day < 9; day++) {
      await time.pass(23, seeder)
      // One question a day, for three files.
      left = 1
      await time.pass(1, seeder)
    }
    expect(asked).toEqual(['t1', 't2', 't3', ...Array(3).fill(['t1', 't2', 't3']).flat()])
    expect((await seeder.status()).map(({ state }) => state)).toEqual(Array(3).fill('seeding'))
    await seeder.close()
  })

  test('many files of one repository leave with one line', async () => {
    await using r = await rig()
    const hub = new HubsWord('public')
    const time = slowClock()
    const seeder = r.newSeeder(undefined, time.clock)
    for (const seed of ['m1', 'm2', 'm3']) {
      seeder.seed({ ...(await blobIn(r.folder.path, seed)), verdict: hub.verdict })
    }
    await seeder.settled()
    hub.says = 'gated'
    const lines: string[] = []
    const restore = divertLog((level, message) => void (level === 'warn' && lines.push(message)))
    await time.pass(24, seeder)
    restore()
    expect(lines).toEqual([expect.stringMatching(/^acme\/tiny\/m1 and 2 more: no longer seeded: .*gated/)])
    await seeder.close()
  })

  test('closing does not wait for an answer that does not come', async () => {
    await using r = await rig()
    const request = await blobIn(r.folder.path, 'hanging')
    const seeder = r.newSeeder()
    await new Promise<void>((asked) => {
      const verdict = (signal: AbortSignal): Promise<SharingVerdict> =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason))
          asked()
        })
      seeder.seed({ ...request, verdict })
    })
    await seeder.close()
    expect((await seeder.status())[0]?.state).toBe('ended')
    expect(await known(r.client, request.blob)).toEqual([])
  })
})
