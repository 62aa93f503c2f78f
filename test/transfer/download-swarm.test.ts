import { open, readdir, readFile, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { Client } from '../../src/client.ts'
import { startHub } from '../../src/demo/hub.ts'
import { divertLog } from '../../src/log.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
import { createBlobTorrent, createTorrentOf } from '../../src/torrent/create.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import type { TorrentFinder } from '../../src/transfer/find-torrent.ts'
import { startBadPeer } from '../fakes/bad-peer.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { transferRig } from '../support/transfer-rig.ts'
import { newUser, type User } from '../support/users.ts'

const mebibyte = 1024 * 1024
const files = {
  'model.safetensors': { seed: 'swarm', sizeBytes: 20 * mebibyte + 12_345 },
  'adapter.bin': { seed: 'adapter', sizeBytes: 100_001 },
  'config.json': '{"hidden_size": 8}',
}

async function world() {
  const data = await temporaryDirectory()
  const hub = await startHub(files)
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  return {
    hub,
    tracker,
    user: { endpoint: hub.url, trackers: [tracker.url] },
    [Symbol.asyncDispose]: async () => {
      await tracker.close()
      await hub.close()
      await data[Symbol.asyncDispose]()
    },
  }
}

describe('two users', () => {
  test('the second gets the model from the first, verified, and nothing from storage', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    await using second = await newUser(w.user)
    const ref = w.hub.ref('model.safetensors')
    const mine = await first.client.downloadFile(ref)
    expect(mine.bytes).toEqual({ p2p: 0, http: mine.sizeBytes, cache: 0 })
    await first.client.seedingSettled()
    expect((await first.client.seedStatus()).map(({ state, error }) => [state, error])).toEqual([
      ['seeding', undefined],
    ])
    w.hub.resetStats()
    const theirs = await second.client.downloadFile(ref)
    expect(theirs.bytes).toEqual({ p2p: theirs.sizeBytes, http: 0, cache: 0 })
    expect(theirs.infoHash).toMatch(/^[0-9a-f]{64}$/)
    expect(w.hub.stats('cdn').bytesSent).toBe(0)
    expect(await sha256Of(theirs.path)).toBe(w.hub.file('model.safetensors').sha256)
    expect(await checkCacheContract(second.cacheDir)).toEqual([])
  })

  test('the second gets what the first has while the storage is down, small files too', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    await using second = await newUser({ ...w.user, smallFileBytes: 1 })
    await first.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    await first.client.seedingSettled()
    await w.hub.setAvailability('cdn', 'refused')
    const got = await second.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    expect(got.files.map(({ name, bytes }) => [name, bytes.http])).toEqual([
      ['adapter.bin', 0],
      ['config.json', 0],
      ['model.safetensors', 0],
    ])
    expect(await checkCacheContract(second.cacheDir)).toEqual([])
  })

  test('a small file goes over HTTP, and comes from peers when HTTP fails', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    await using second = await newUser(w.user)
    await using third = await newUser(w.user)
    const ref = w.hub.ref('adapter.bin')
    const { sizeBytes, sha256 } = w.hub.file('adapter.bin')
    await first.client.downloadFile(ref)
    await first.client.seedingSettled()
    expect((await second.client.downloadFile(ref)).bytes).toEqual({ p2p: 0, http: sizeBytes, cache: 0 })
    await w.hub.setAvailability('cdn', 'refused')
    const got = await third.client.downloadFile(ref)
    expect(got.bytes).toEqual({ p2p: sizeBytes, http: 0, cache: 0 })
    expect(await sha256Of(got.path)).toBe(sha256)
  })
})

/** A peer that serves other bytes of the right size under the right name, and a tracker row that points to it. */
async function liar(w: Awaited<ReturnType<typeof world>>, host: string, bytesPerSecond = 0) {
  const folder = await temporaryDirectory()
  const file = w.hub.file('model.safetensors')
  const bytes = await file.bytes()
  bytes[5_000_000] = (bytes[5_000_000] ?? 0) ^ 1
  const path = `${folder.path}/lie`
  await writeFile(path, bytes)
  const addon = requireAddon()
  const torrent = await createBlobTorrent(addon, path, file)
  if (torrent === undefined) throw new Error('no torrent')
  const swarm = new Swarm(addon, {
    listen: [`${host}:0`],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: bytesPerSecond,
    limitLocalPeers: true,
  })
  const tracker = new TrackerClient({ url: w.tracker.url })
  await tracker.publish({ ...file, ...torrent })
  const offer = {
    ...torrent,
    announceUrls: [tracker.announceUrl],
    peers: [],
    isPromising: false,
    mayBeCrowd: false,
    isTied: false,
  }
  const joined = await swarm.join(offer, { path, mode: 'seed' })
  await waitForSeeder(w.tracker.url, file)
  return {
    torrent: joined,
    infoHash: torrent.infoHash,
    [Symbol.asyncDispose]: async () => {
      await swarm.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** Until the tracker counts a seeder of this blob. */
async function waitForSeeder(url: string, file: { etag: string; sizeBytes: number }): Promise<void> {
  const client = new TrackerClient({ url })
  for (;;) {
    const found = await client.lookup([file as never])
    if ([...found.values()].flat().some(({ seeders }) => seeders > 0)) return
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('a torrent that lies', () => {
  test('is found out by the digest; the file comes over HTTP, and the torrent is never used again', async () => {
    await using w = await world()
    await using lie = await liar(w, '127.0.0.101')
    await using user = await newUser(w.user)
    const ref = w.hub.ref('model.safetensors')
    const got = await user.client.downloadFile(ref)
    expect(await sha256Of(got.path)).toBe(w.hub.file('model.safetensors').sha256)
    expect(got.bytes).toEqual({ p2p: 0, http: got.sizeBytes, cache: 0 })
    expect(got.infoHash).toBeUndefined()
    const condemned = JSON.parse(await readFile(`${user.stateDir}/condemned.json`, 'utf8'))
    expect(condemned).toEqual([[got.etag, lie.infoHash]])
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
    expect((await lie.torrent?.status())?.payloadUpload).toBeGreaterThan(0)
  })

  test('is condemned by the pieces the Hub gives before its bytes fill the file', async () => {
    await using w = await world()
    await using lie = await liar(w, '127.0.0.102', mebibyte)
    await using user = await newUser(w.user, { policy: { headStartMs: 0 } })
    w.hub.setThrottle('cdn', 8 * mebibyte)
    const lines: string[] = []
    const undivert = divertLog((_level, message) => lines.push(message))
    try {
      const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
      expect(await sha256Of(got.path)).toBe(w.hub.file('model.safetensors').sha256)
      expect(JSON.parse(await readFile(`${user.stateDir}/condemned.json`, 'utf8'))).toEqual([
        [got.etag, lie.infoHash],
      ])
      expect(lines.filter((line) => line.includes('contradicts'))).toHaveLength(1)
      expect(lines.filter((line) => line.includes('holds other content'))).toEqual([])
      // Two requests for the piece in dispute, and nothing twice that HTTP had brought before.
      expect(w.hub.stats('cdn').bytesSent).toBeLessThan(got.sizeBytes + 8 * mebibyte)
    } finally {
      undivert()
    }
  })

  test('with another size or name is not joined at all', async () => {
    await using w = await world()
    await using folder = await temporaryDirectory()
    await using user = await newUser(w.user)
    const file = w.hub.file('model.safetensors')
    await writeFile(`${folder.path}/x`, 'x'.repeat(100_000))
    const torrent = await createTorrentOf(requireAddon(), `${folder.path}/x`, { name: file.etag })
    if (torrent === undefined) throw new Error('no torrent')
    const tracker = new TrackerClient({ url: w.tracker.url })
    await expect(tracker.publish({ ...torrent, ...file })).rejects.toMatchObject({
      code: 'ERR_LLMPT_TRACKER',
    })
    // Consistent in itself, so that only who knows the file's true size can tell.
    await tracker.publish({ ...file, ...torrent })
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(got.bytes.http).toBe(file.sizeBytes)
  })
})

describe('what was there before', () => {
  test('and is damaged is fetched again, without blaming an honest torrent', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    const ref = w.hub.ref('model.safetensors')
    await first.client.downloadFile(ref)
    await first.client.seedingSettled()
    await using user = await newUser({ ...w.user, seed: false })
    const file = w.hub.file('model.safetensors')
    await interrupt(user, w, 10 * mebibyte)
    const partial = `${user.cacheDir}/models--acme--tiny/blobs/${file.etag}.llmpt.incomplete`
    const handle = await open(partial, 'r+')
    await handle.write(Buffer.alloc(262_144), 0, 262_144, 262_144)
    await handle.close()
    const got = await user.client.downloadFile(ref)
    expect(await sha256Of(got.path)).toBe(file.sha256)
    await expect(readFile(`${user.stateDir}/condemned.json`)).rejects.toThrow('ENOENT')
  })

  test('is not fetched again from peers either', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    const ref = w.hub.ref('model.safetensors')
    await first.client.downloadFile(ref)
    await first.client.seedingSettled()
    await using user = await newUser({ ...w.user, seed: false })
    await interrupt(user, w, 10 * mebibyte)
    await w.hub.setAvailability('cdn', 'refused')
    const got = await user.client.downloadFile(ref)
    expect(got.bytes.cache).toBeGreaterThan(9 * mebibyte)
    expect(got.bytes.p2p).toBe(got.sizeBytes - got.bytes.cache)
    expect(await sha256Of(got.path)).toBe(w.hub.file('model.safetensors').sha256)
  })
})

/** A download over HTTP alone that is given up after about this many bytes. */
async function interrupt(user: User, w: Awaited<ReturnType<typeof world>>, bytes: number): Promise<void> {
  const controller = new AbortController()
  const alone = new Client({ ...user.client.config, p2p: false })
  const remove = w.hub.inject({ origin: 'cdn', stallAfterBytes: bytes })
  const running = alone.downloadFile(w.hub.ref('model.safetensors'), {
    signal: controller.signal,
    onProgress: ({ bytes: { http } }) => {
      if (http > bytes - mebibyte) controller.abort(new Error('enough'))
    },
  })
  await expect(running).rejects.toThrow('enough')
  remove()
  await alone.close()
}

test('a lie that is met when HTTP is nearly done does not get into the file after it was verified', async () => {
  await using w = await world()
  await using folder = await temporaryDirectory()
  const file = w.hub.file('model.safetensors')
  const bytes = await file.bytes()
  for (let at = 0; at < bytes.length; at += 16_384) bytes[at] = (bytes[at] ?? 0) ^ 1
  await writeFile(`${folder.path}/lie`, bytes)
  const addon = requireAddon()
  const torrent = await createBlobTorrent(addon, `${folder.path}/lie`, file)
  if (torrent === undefined) throw new Error('no torrent')
  const limits = { maxDownloadBytesPerSecond: 0, maxUploadBytesPerSecond: 300_000, limitLocalPeers: true }
  await using liars = new Swarm(addon, { listen: ['127.0.0.121:0'], utp: false, ...limits })
  const lie = {
    ...torrent,
    announceUrls: [],
    peers: [],
    isPromising: false,
    mayBeCrowd: false,
    isTied: false,
  }
  await liars.join(lie, { path: `${folder.path}/lie`, mode: 'seed' })
  await using mine = new Swarm(addon, { listen: ['127.0.0.122:0'], utp: false, ...limits })
  const peers = await liars.session.listening()
  await using rig = await transferRig(w.hub.url)
  w.hub.setThrottle('cdn', 30 * mebibyte)
  let done = 0
  let isLate = (): void => {}
  const late = new Promise<void>((resolve) => {
    isLate = resolve
  })
  const got = await rig.fetch(
    file,
    {
      onProgress: (_phase, progress) => {
        done = progress.bytes.http / progress.sizeBytes
        if (done > 0.85) isLate()
      },
    },
    {
      addon,
      swarm: mine,
      finder: {
        find: () => late.then(() => ({ ...lie, peers, isPromising: true, mayBeCrowd: false, isTied: false })),
      } as unknown as TorrentFinder,
      policy: { ...rig.deps.policy, headStartMs: 0, tickMs: 10 },
    },
  )
  expect(done).toBeGreaterThan(0.85)
  expect(await sha256Of(got.path)).toBe(file.sha256)
  // Whatever libtorrent still had to do with this file, it has done by now.
  await got.joined?.leg.leave()
  await mine.close()
  expect(await sha256Of(got.path)).toBe(file.sha256)
})

describe('a peer that sends rubbish under an honest torrent', () => {
  test('alone: HTTP brings the file, and nothing of the rubbish gets in', async () => {
    await using w = await world()
    await using folder = await temporaryDirectory()
    const file = w.hub.file('model.safetensors')
    await writeFile(`${folder.path}/true`, await file.bytes())
    const torrent = await createBlobTorrent(requireAddon(), `${folder.path}/true`, file)
    if (torrent === undefined) throw new Error('no torrent')
    await new TrackerClient({ url: w.tracker.url }).publish({ ...file, ...torrent })
    const pieces = Math.ceil(file.sizeBytes / torrent.pieceLength)
    await using bad = await startBadPeer('127.0.0.111', torrent.infoHash, pieces)
    await using user = await newUser({ ...w.user, peers: [bad.address], headStartMs: 1_500 })
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(bad.blocksSent()).toBeGreaterThan(0)
    expect(got.bytes).toEqual({ p2p: 0, http: file.sizeBytes, cache: 0 })
    expect(await sha256Of(got.path)).toBe(file.sha256)
    // The torrent is right; only the peer is not.
    await expect(readFile(`${user.stateDir}/condemned.json`)).rejects.toThrow('ENOENT')
  })

  const times = Array.from({ length: rounds(3, 40) }, (_, n) => n + 1)
  test.each(times)('beside an honest peer: the file is right, wherever it came from (%i)', async () => {
    await using w = await world()
    await using first = await newUser(w.user)
    const file = w.hub.file('model.safetensors')
    await first.client.downloadFile(w.hub.ref('model.safetensors'))
    await first.client.seedingSettled()
    const [seeded] = await first.client.seedStatus()
    if (seeded?.infoHash === undefined) throw new Error('not seeded')
    await using bad = await startBadPeer('127.0.0.112', seeded.infoHash, Math.ceil(file.sizeBytes / 262_144))
    await using user = await newUser({ ...w.user, peers: [bad.address], headStartMs: 1_500 })
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(got.bytes.p2p + got.bytes.http).toBe(file.sizeBytes)
    expect(await sha256Of(got.path)).toBe(file.sha256)
  })
})

describe('when the swarm fails', () => {
  test('a dead tracker costs nothing but its look-up', async () => {
    await using w = await world()
    await using user = await newUser(w.user)
    await w.tracker.close()
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(got.bytes).toEqual({ p2p: 0, http: got.sizeBytes, cache: 0 })
  })

  test('a torrent without a living peer does not hold up HTTP', async () => {
    await using w = await world()
    const first = await newUser(w.user)
    await first.client.downloadFile(w.hub.ref('model.safetensors'))
    await first.client.seedingSettled()
    await first[Symbol.asyncDispose]()
    await using user = await newUser({ ...w.user, headStartMs: 1_500 })
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(got.bytes).toEqual({ p2p: 0, http: got.sizeBytes, cache: 0 })
    expect(await sha256Of(got.path)).toBe(w.hub.file('model.safetensors').sha256)
  })

  test('peers that leave in the middle cost nothing that was verified', async () => {
    await using w = await world()
    const first = await newUser({ ...w.user, maxUploadBytesPerSecond: 4 * mebibyte })
    await first.client.downloadFile(w.hub.ref('model.safetensors'))
    await first.client.seedingSettled()
    await using user = await newUser(w.user)
    let leaving: PromiseLike<void> | undefined
    const file = w.hub.file('model.safetensors')
    const running = user.client.downloadFile(w.hub.ref('model.safetensors'), {
      onProgress: ({ bytes }) => {
        if (bytes.p2p > 2 * mebibyte) leaving ??= first[Symbol.asyncDispose]()
      },
    })
    const got = await running
    await leaving
    expect(leaving).toBeDefined()
    expect(got.bytes.p2p).toBeGreaterThan(2 * mebibyte)
    expect(got.bytes.http + got.bytes.p2p).toBe(file.sizeBytes)
    expect(await sha256Of(got.path)).toBe(file.sha256)
  })

  test('with HTTP switched off and nobody there, the error says so', async () => {
    await using w = await world()
    await using user = await newUser({ ...w.user, http: false })
    const running = user.client.downloadFile(w.hub.ref('model.safetensors'))
    await expect(running).rejects.toMatchObject({ code: 'ERR_LLMPT_SWARM' })
    expect(await readdir(`${user.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })
})
