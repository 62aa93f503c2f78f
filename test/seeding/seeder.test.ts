import { createHash } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { noiseBytes } from '../../src/demo/hub.ts'
import type { NativeAddon } from '../../src/native/binding.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Seeder, type SeedRequest } from '../../src/seeding/seeder.ts'
import { TorrentStore } from '../../src/seeding/torrent-store.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
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
  const newSeeder = (use: NativeAddon = addon): Seeder =>
    new Seeder({
      addon: use,
      swarm: newSwarm('127.0.0.2'),
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
  return { blob: { etag, sizeBytes }, path, label: `acme/tiny/${seed}`, forMs: Number.POSITIVE_INFINITY }
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
