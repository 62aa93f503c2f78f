import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFile,
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Verdict, VerifiedFile } from '../../src/cache-check/verify-cache.ts'
import { verifyCache } from '../../src/cache-check/verify-cache.ts'
import { startHub } from '../../src/demo/hub.ts'
import { lockPath } from '../../src/hub/cache-layout.ts'
import { tryLock, unlock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import type { DownloadProgress } from '../../src/transfer/progress.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { newWorld, startPeer } from '../support/swarms.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'
import { downloadedCache, flipBit, knowTorrent, mebibyte, pieceLength, type Scene } from './fixtures.ts'

const tiny = { repoType: 'model', repo: 'acme/tiny' } as const

async function check(scene: Scene, options: { repair?: boolean } = {}): Promise<readonly VerifiedFile[]> {
  return (await scene.user.client.verifyCache(options)).files
}

function verdicts(files: readonly VerifiedFile[]): Record<string, Verdict> {
  return Object.fromEntries(
    files.map(({ names, path, verdict }) => [names[0] ?? path.slice(path.lastIndexOf('/') + 1), verdict]),
  )
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}

const allRight = {
  'config.json': 'right',
  'empty.txt': 'right',
  'model.safetensors': 'right',
  'second.bin': 'right',
}

describe('a check', () => {
  test('finds a fresh download right, LFS and git blobs alike, without asking the Hub', async () => {
    await using scene = await downloadedCache()
    const report = await scene.user.client.verifyCache()
    expect(verdicts(report.files)).toEqual(allRight)
    expect(report.isSound).toBe(true)
    expect(scene.hub.requests()).toEqual([])
  })

  test.each([
    ['an LFS blob', 'model.safetensors', 5 * mebibyte + 4_320],
    ['an LFS blob, at its first byte', 'second.bin', 0],
    ['a git blob', 'config.json', 7],
  ])(
    'finds one flipped bit in %s and moves the blob aside, so that its link leads nowhere',
    async (_, name, at) => {
      await using scene = await downloadedCache()
      await flipBit(scene.blob(name), at, 3)
      const damaged = await sha256Of(scene.blob(name))
      const files = await check(scene)
      expect(verdicts(files)).toEqual({ ...allRight, [name]: 'wrong' })
      const movedTo = `${scene.blob(name)}.llmpt.damaged`
      expect(files.find(({ verdict }) => verdict === 'wrong')).toMatchObject({
        path: scene.blob(name),
        movedTo,
      })
      expect(await isThere(scene.blob(name))).toBe(false)
      expect(await sha256Of(movedTo)).toBe(damaged)
      expect(await readlink(scene.entry(name))).toContain(scene.hub.file(name).etag)
    },
  )

  test('finds a blob that is too short, too long, or not empty as it should be', async () => {
    await using scene = await downloadedCache()
    await truncate(scene.blob('model.safetensors'), 5 * mebibyte)
    await appendFile(scene.blob('second.bin'), 'x')
    await writeFile(scene.blob('empty.txt'), 'x')
    const expected = { 'model.safetensors': 'wrong', 'second.bin': 'wrong', 'empty.txt': 'wrong' }
    expect(verdicts(await check(scene))).toEqual({ ...allRight, ...expected })
  })

  test('tells of a blob that a snapshot names and that is not there', async () => {
    await using scene = await downloadedCache()
    await rm(scene.blob('second.bin'))
    const report = await scene.user.client.verifyCache()
    expect(verdicts(report.files)).toEqual({ ...allRight, 'second.bin': 'missing' })
    expect(report.isSound).toBe(false)
  })

  test('is about one repository when one is named', async () => {
    await using scene = await downloadedCache()
    const other = join(scene.user.cacheDir, 'datasets--acme--other', 'blobs')
    await mkdir(other, { recursive: true })
    await writeFile(join(other, 'a'.repeat(64)), 'wrong')
    const { files } = await scene.user.client.verifyCache({ repo: tiny })
    expect(verdicts(files)).toEqual(allRight)
    const all = await scene.user.client.verifyCache()
    expect(all.files.find(({ verdict }) => verdict === 'wrong')?.repo).toEqual({
      repoType: 'dataset',
      repo: 'acme/other',
    })
  })

  test('leaves a wrong blob that somebody is writing alone, and says so', async () => {
    await using scene = await downloadedCache()
    const { etag } = scene.hub.file('second.bin')
    await flipBit(scene.blob('second.bin'), 1_000)
    await using lock = await open(lockPath(scene.user.cacheDir, tiny, etag), 'w')
    expect(tryLock(requireAddon(), lock.fd)).toBe(true)
    const files = await check(scene, { repair: true })
    const wrong = files.find(({ verdict }) => verdict === 'wrong')
    expect(wrong?.reason).toContain('another process is at work on it')
    expect(wrong?.movedTo).toBeUndefined()
    expect(await isThere(scene.blob('second.bin'))).toBe(true)
  })

  test('takes what was set aside away when the right blob is there again', async () => {
    await using scene = await downloadedCache()
    await flipBit(scene.blob('second.bin'), 1_000)
    await check(scene)
    const { client } = scene.user
    await client.downloadFile(scene.hub.ref('second.bin'))
    expect(await isThere(`${scene.blob('second.bin')}.llmpt.damaged`)).toBe(true)
    expect(verdicts(await check(scene))).toEqual(allRight)
    expect(await isThere(`${scene.blob('second.bin')}.llmpt.damaged`)).toBe(false)
  })

  test('counts every byte once, and the files to the last', async () => {
    await using scene = await downloadedCache()
    const seen: DownloadProgress[] = []
    await scene.user.client.verifyCache({ onProgress: (progress) => seen.push(progress) })
    const counted = seen.map(({ bytes }) => bytes.cache)
    expect(counted).toEqual(counted.toSorted((a, b) => a - b))
    expect(seen.at(-1)).toMatchObject({
      files: { done: 4, total: 4 },
      bytes: { p2p: 0, http: 0 },
      active: [],
    })
    expect(counted.at(-1)).toBe(seen.at(-1)?.sizeBytes)
  })

  test('ends at once when it is cancelled in the middle of a huge file', async () => {
    await using scene = await downloadedCache()
    const huge = join(dirname(scene.blob('second.bin')), 'b'.repeat(64))
    await writeFile(huge, '')
    await truncate(huge, 2 ** 40)
    const controller = new AbortController()
    const reason = new Error('enough')
    const cancelled = scene.user.client.verifyCache({
      signal: controller.signal,
      onProgress: ({ active }) => {
        if (active.some(({ progress }) => progress.sizeBytes === 2 ** 40)) controller.abort(reason)
      },
    })
    await expect(cancelled).rejects.toBe(reason)
    expect(await isThere(huge)).toBe(true)
  })

  test('without the addon finds and says the same', async () => {
    await using scene = await downloadedCache()
    await flipBit(scene.blob('model.safetensors'), 2 * mebibyte)
    await flipBit(scene.blob('config.json'), 1)
    const { cacheDir, stateDir } = scene.user
    const { signal } = new AbortController()
    const deps = {
      cacheDir,
      stateDir,
      addon: undefined,
      locks: undefined,
      listFiles: undefined,
      repairs: undefined,
    }
    const { files } = await verifyCache({ signal }, deps)
    expect(verdicts(files)).toEqual({ ...allRight, 'model.safetensors': 'wrong', 'config.json': 'wrong' })
    expect(await isThere(scene.blob('model.safetensors'))).toBe(false)
  })
})

describe('a cache that cannot be trusted', () => {
  test('has FIFOs, folders, links and odd names in the place of blobs: each is a line, none is wrong', async () => {
    await using scene = await downloadedCache()
    await using outside = await temporaryDirectory()
    const blobs = dirname(scene.blob('second.bin'))
    const victim = join(outside.path, 'victim')
    await writeFile(victim, 'precious')
    expect(spawnSync('mkfifo', [join(blobs, '1'.repeat(64))]).status).toBe(0)
    await mkdir(join(blobs, '2'.repeat(64)))
    await symlink(victim, join(blobs, '3'.repeat(64)))
    await symlink('4'.repeat(40), join(blobs, '4'.repeat(40)))
    await writeFile(join(blobs, 'W-abc-7'), 'what is this')
    await mkdir(join(scene.user.cacheDir, 'models--..--x', 'blobs'), { recursive: true })
    await symlink(outside.path, join(scene.user.cacheDir, 'models--acme--linked'))
    const report = await scene.user.client.verifyCache()
    expect(report.isSound).toBe(true)
    const odd = report.files.filter(({ verdict }) => verdict === 'unchecked')
    expect(
      odd.map(({ path, reason }) => [path.slice(scene.user.cacheDir.length + 1).slice(-12), reason]),
    ).toEqual([
      ['acme--linked', 'it is a link, and links are not followed: what is in it is not checked'],
      ['111111111111', 'it is no regular file'],
      ['222222222222', 'it is a folder in the place of a file'],
      ['333333333333', 'it is a link, and links out of the cache are not followed'],
      ['444444444444', 'it is a link, and links out of the cache are not followed'],
      [expect.stringContaining('W-abc-7'), 'its name is no digest'],
    ])
    expect(await readFile(victim, 'utf8')).toBe('precious')
    expect(await readdir(outside.path)).toEqual(['victim'])
  })

  test('has loops and strangers in its snapshots, which are not followed', async () => {
    await using scene = await downloadedCache()
    await using outside = await temporaryDirectory()
    await writeFile(join(outside.path, 'victim'), 'precious')
    const snapshot = dirname(scene.entry('config.json'))
    await symlink('.', join(snapshot, 'loop'))
    await symlink(join(outside.path, 'victim'), join(snapshot, 'stranger'))
    await symlink('../../blobs/../snapshots', join(snapshot, 'up'))
    await mkdir(join(dirname(snapshot), 'not-a-commit'))
    const report = await scene.user.client.verifyCache({ repair: true })
    expect(report.isSound).toBe(true)
    const odd = report.files.filter(({ verdict }) => verdict === 'unchecked')
    expect(odd.map(({ path }) => path.slice(path.lastIndexOf('/') + 1))).toEqual([
      'loop',
      'stranger',
      'up',
      'not-a-commit',
    ])
    expect(await readdir(outside.path)).toEqual(['victim'])
  })

  test('has a file called like a digest it does not have: it is wrong, and nobody can ask for it', async () => {
    await using scene = await downloadedCache()
    const forged = join(dirname(scene.blob('second.bin')), 'c'.repeat(64))
    await writeFile(forged, 'not that')
    const files = await check(scene, { repair: true })
    const wrong = files.find(({ verdict }) => verdict === 'wrong')
    expect(wrong).toMatchObject({ path: forged, movedTo: `${forged}.llmpt.damaged` })
    expect(wrong?.reason).toContain('no snapshot names it')
  })

  test('has a folder where a wrong blob would go: the blob stays, and that is said', async () => {
    await using scene = await downloadedCache()
    await flipBit(scene.blob('second.bin'), 0)
    await mkdir(join(`${scene.blob('second.bin')}.llmpt.damaged`, 'x'), { recursive: true })
    const wrong = (await check(scene, { repair: true })).find(({ verdict }) => verdict === 'wrong')
    expect(wrong?.reason).toContain('it cannot be moved away')
  })
})

describe('the folder of blobs', () => {
  const unlisted = 'it is there, but its folder could not be listed with it'

  test('is a link to another disk: what is in it is not checked, and nothing is missing or repaired', async () => {
    await using scene = await downloadedCache()
    await using outside = await temporaryDirectory()
    const blobs = dirname(scene.blob('second.bin'))
    await rename(blobs, join(outside.path, 'blobs'))
    await symlink(join(outside.path, 'blobs'), blobs)
    const { files, isSound } = await scene.user.client.verifyCache({ repair: true })
    expect(isSound).toBe(true)
    expect(new Set(files.map(({ verdict }) => verdict))).toEqual(new Set(['unchecked']))
    expect(files.map(({ path, reason }) => [path, reason])).toContainEqual([
      scene.blob('second.bin'),
      unlisted,
    ])
    expect(scene.hub.requests()).toEqual([])
  })

  test('is a file: what the snapshots name cannot be looked at', async () => {
    await using scene = await downloadedCache()
    const blobs = dirname(scene.blob('second.bin'))
    await rename(blobs, `${blobs}.away`)
    await writeFile(blobs, '')
    const { files, isSound } = await scene.user.client.verifyCache()
    expect(isSound).toBe(true)
    expect(new Set(files.map(({ verdict }) => verdict))).toEqual(new Set(['unchecked']))
  })

  test('is gone: all that snapshots name is missing, and can be fetched again', async () => {
    await using scene = await downloadedCache()
    await rm(dirname(scene.blob('second.bin')), { recursive: true })
    const files = await check(scene)
    expect(new Set(files.map(({ verdict }) => verdict))).toEqual(new Set(['missing']))
    expect(files).toHaveLength(4)
    await check(scene, { repair: true })
    expect(verdicts(await check(scene))).toEqual(allRight)
  })
})

describe('a repair', () => {
  test('with a known torrent fetches the wrong pieces and nothing else', async () => {
    await using scene = await downloadedCache()
    const { hub, user } = scene
    const model = hub.file('model.safetensors')
    await knowTorrent(user.stateDir, model)
    await knowTorrent(user.stateDir, hub.file('second.bin'))
    for (const [piece, offset] of [
      [0, 0],
      [7, 99],
      [7, 100],
      [20, 4_320],
    ] as const) {
      await flipBit(scene.blob('model.safetensors'), piece * pieceLength + offset)
    }
    await flipBit(scene.blob('second.bin'), 11 * pieceLength)
    const files = await check(scene, { repair: true })
    expect(verdicts(files)).toEqual({
      ...allRight,
      'model.safetensors': 'repaired',
      'second.bin': 'repaired',
    })
    const wrongBytes = 2 * pieceLength + 4_321
    expect(files.find(({ names }) => names[0] === 'model.safetensors')).toMatchObject({
      damage: { pieceLength, wrongPieces: [0, 7, 20] },
      bytes: { p2p: 0, http: wrongBytes, cache: model.sizeBytes - wrongBytes },
    })
    expect(hub.stats('cdn').bytesSent).toBe(wrongBytes + pieceLength)
    expect(await sha256Of(scene.entry('model.safetensors'))).toBe(model.sha256)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
    expect((await readdir(dirname(scene.blob('second.bin')))).filter((name) => name.includes('.'))).toEqual(
      [],
    )
    expect(verdicts(await check(scene))).toEqual(allRight)
  })

  test('asks the trackers for the torrent, and keeps what is right of a file cut short', async () => {
    const sizeBytes = 4 * mebibyte + 12_345
    await using world = await newWorld(sizeBytes)
    await using _peer = await startPeer(world, { isServed: false })
    await using user = await newUser({ ...world.user, seed: false, headStartMs: 0 })
    const { path } = await user.client.downloadFile(world.hub.ref(world.file.path))
    await rm(join(user.stateDir, 'torrents'), { recursive: true, force: true })
    const blob = join(user.cacheDir, 'models--acme--tiny', 'blobs', world.file.etag)
    await truncate(blob, 3 * mebibyte + 5)
    world.hub.resetStats()
    const { files, isSound } = await user.client.verifyCache({ repair: true })
    expect([isSound, files.map(({ verdict }) => verdict)]).toEqual([true, ['repaired']])
    expect(world.hub.stats('cdn').bytesSent).toBe(sizeBytes - 3 * mebibyte)
    expect(await sha256Of(path)).toBe(world.file.sha256)
  })

  test('gets the wrong pieces from peers when the storage of the Hub is away', async () => {
    await using world = await newWorld()
    await using peer = await startPeer(world)
    await using user = await newUser({ ...world.user, seed: false, headStartMs: 0 })
    await user.client.downloadFile(world.hub.ref(world.file.path))
    const before = await peer.uploadedBytes()
    await flipBit(join(user.cacheDir, 'models--acme--tiny', 'blobs', world.file.etag), 9 * pieceLength)
    await world.hub.setAvailability('cdn', 'refused')
    const { files } = await user.client.verifyCache({ repair: true })
    expect(files.map(({ verdict, bytes }) => [verdict, bytes?.p2p])).toEqual([['repaired', pieceLength]])
    expect((await peer.uploadedBytes()) - before).toBe(pieceLength)
  })

  test('is right in the end though torrent and peer lie', async () => {
    await using world = await newWorld()
    const forge = (bytes: Buffer): void => {
      for (const piece of [4, 11]) bytes[piece * pieceLength] = (bytes[piece * pieceLength] ?? 0) ^ 1
    }
    await using user = await newUser({ ...world.user, seed: false, headStartMs: 0 })
    const { path } = await user.client.downloadFile(world.hub.ref(world.file.path))
    await using _liar = await startPeer(world, { forge })
    const blob = join(user.cacheDir, 'models--acme--tiny', 'blobs', world.file.etag)
    for (const piece of [4, 6]) await flipBit(blob, piece * pieceLength)
    const { files } = await user.client.verifyCache({ repair: true })
    expect(files.map(({ verdict, damage }) => [verdict, damage?.wrongPieces])).toEqual([
      ['repaired', [6, 11]],
    ])
    expect(await sha256Of(path)).toBe(world.file.sha256)
  })

  test('asks no tracker about a file that not everybody may read', async () => {
    let asked = 0
    await using tracker = createServer((_, response) => {
      asked += 1
      response.end('{}')
    })
    await once(tracker.listen(0, '127.0.0.1'), 'listening')
    const { port } = tracker.address() as AddressInfo
    const repo = 'acme/secret'
    const sizeBytes = 2 * mebibyte
    await using hub = await startHub(
      { repo, files: { 'a.bin': { seed: 'secret', sizeBytes } }, isPrivate: true },
      { tokens: { hf_secret: [repo] } },
    )
    await using user = await newUser({
      endpoint: hub.url,
      token: 'hf_secret',
      trackers: [`http://127.0.0.1:${port}`],
      seed: false,
      headStartMs: 0,
    })
    const { etag } = await user.client.downloadFile(hub.ref('a.bin'))
    await flipBit(join(user.cacheDir, 'models--acme--secret', 'blobs', etag ?? ''), 5)
    const { files } = await user.client.verifyCache({ repair: true })
    expect(files.map(({ verdict, bytes }) => [verdict, bytes?.http])).toEqual([['repaired', sizeBytes]])
    expect(asked).toBe(0)
  })

  test('without a torrent fetches whole files, git blobs and empty ones too', async () => {
    await using scene = await downloadedCache()
    await flipBit(scene.blob('second.bin'), 5)
    await flipBit(scene.blob('config.json'), 5)
    await writeFile(scene.blob('empty.txt'), 'x')
    const expected = { 'second.bin': 'repaired', 'config.json': 'repaired', 'empty.txt': 'repaired' }
    expect(verdicts(await check(scene, { repair: true }))).toEqual({ ...allRight, ...expected })
    expect(scene.hub.stats('cdn').bytesSent).toBe(3 * mebibyte)
    expect(await checkCacheContract(scene.user.cacheDir)).toEqual([])
    expect(verdicts(await check(scene))).toEqual(allRight)
  })

  test('by a torrent that calls wrong pieces right still ends with the right file', async () => {
    await using scene = await downloadedCache()
    const model = scene.hub.file('model.safetensors')
    const forge = (bytes: Buffer): void => {
      for (const at of [3 * pieceLength, 9 * pieceLength]) bytes[at] = (bytes[at] ?? 0) ^ 1
    }
    await knowTorrent(scene.user.stateDir, model, forge)
    // One that the torrent has as well, and one that it does not have.
    await flipBit(scene.blob('model.safetensors'), 3 * pieceLength)
    await flipBit(scene.blob('model.safetensors'), 5 * pieceLength)
    const files = await check(scene, { repair: true })
    expect(verdicts(files)).toEqual({ ...allRight, 'model.safetensors': 'repaired' })
    expect(await sha256Of(scene.entry('model.safetensors'))).toBe(model.sha256)
    expect(verdicts(await check(scene))).toEqual(allRight)
  })

  test('by a torrent of nothing but other content fetches the file once', async () => {
    await using scene = await downloadedCache()
    const model = scene.hub.file('model.safetensors')
    await knowTorrent(scene.user.stateDir, model, (bytes) => bytes.fill(7))
    await flipBit(scene.blob('model.safetensors'), 0)
    const files = await check(scene, { repair: true })
    expect(verdicts(files)).toEqual({ ...allRight, 'model.safetensors': 'repaired' })
    expect(scene.hub.stats('cdn').bytesSent).toBe(model.sizeBytes)
    expect(await isThere(`${scene.blob('model.safetensors')}.llmpt.damaged`)).toBe(false)
  })

  test('mends what an earlier check moved away, and what is simply gone', async () => {
    await using scene = await downloadedCache()
    await knowTorrent(scene.user.stateDir, scene.hub.file('model.safetensors'))
    await flipBit(scene.blob('model.safetensors'), pieceLength)
    await rm(scene.blob('config.json'))
    await check(scene)
    const files = await check(scene, { repair: true })
    expect(verdicts(files)).toEqual({
      ...allRight,
      'model.safetensors': 'repaired',
      'config.json': 'repaired',
    })
    expect(scene.hub.stats('cdn').bytesSent).toBe(pieceLength)
  })

  test('asks by another name when the commit of the first is gone from the Hub', async () => {
    await using scene = await downloadedCache()
    const snapshots = dirname(dirname(scene.entry('config.json')))
    const gone = join(snapshots, '0'.repeat(40))
    await mkdir(gone)
    await symlink(`../../blobs/${scene.hub.file('second.bin').etag}`, join(gone, 'old.bin'))
    await flipBit(scene.blob('second.bin'), 0)
    const files = await check(scene, { repair: true })
    expect(files.find(({ verdict }) => verdict === 'repaired')?.names).toEqual(['old.bin', 'second.bin'])
    expect(await sha256Of(join(gone, 'old.bin'))).toBe(scene.hub.file('second.bin').sha256)
  })

  test('does not take another file for the one that is missing', async () => {
    await using scene = await downloadedCache()
    const entry = scene.entry('second.bin')
    await rm(entry)
    await symlink(`../../blobs/${'e'.repeat(64)}`, entry)
    const missing = (await check(scene, { repair: true })).find(({ verdict }) => verdict === 'missing')
    expect(missing?.reason).toContain('at the Hub, second.bin is another file')
    expect(await readlink(entry)).toContain('e'.repeat(64))
  })

  test('never writes into a file that has a second name somewhere else', async () => {
    await using scene = await downloadedCache()
    await using outside = await temporaryDirectory()
    await knowTorrent(scene.user.stateDir, scene.hub.file('second.bin'))
    await flipBit(scene.blob('second.bin'), 0)
    await appendFile(scene.blob('second.bin'), 'more')
    await link(scene.blob('second.bin'), join(outside.path, 'same'))
    const before = await sha256Of(join(outside.path, 'same'))
    expect(verdicts(await check(scene, { repair: true }))).toEqual({ ...allRight, 'second.bin': 'repaired' })
    expect(await sha256Of(join(outside.path, 'same'))).toBe(before)
  })

  test('keeps what is right when the Hub is down, and goes on from there the next time', async () => {
    await using scene = await downloadedCache()
    const { hub, user } = scene
    await knowTorrent(user.stateDir, hub.file('model.safetensors'))
    await flipBit(scene.blob('model.safetensors'), pieceLength)
    const up = hub.inject({ origin: 'cdn', status: 403 })
    const first = await user.client.verifyCache({ repair: true })
    expect(first.isSound).toBe(false)
    expect(first.files.find(({ verdict }) => verdict === 'wrong')?.reason).toContain(
      'it could not be repaired',
    )
    up()
    hub.resetStats()
    expect(verdicts(await check(scene, { repair: true }))).toEqual({
      ...allRight,
      'model.safetensors': 'repaired',
    })
    expect(hub.stats('cdn').bytesSent).toBe(pieceLength)
  })
})

describe('a cache without links', () => {
  test('has its copies compared with what the Hub says, and repaired', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    await knowTorrent(scene.user.stateDir, scene.hub.file('model.safetensors'))
    expect(verdicts(await check(scene))).toEqual(allRight)
    await flipBit(scene.entry('model.safetensors'), 2 * pieceLength)
    await flipBit(scene.entry('config.json'), 2)
    expect(verdicts(await check(scene, { repair: true }))).toEqual({
      ...allRight,
      'model.safetensors': 'repaired',
      'config.json': 'repaired',
    })
    expect(scene.hub.stats('cdn').bytesSent).toBe(pieceLength)
    expect((await lstat(scene.entry('model.safetensors'))).isFile()).toBe(true)
    expect(verdicts(await check(scene))).toEqual(allRight)
  })

  test('has files that go, or become something else, after they were listed', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    const { cacheDir, stateDir } = scene.user
    const { signal } = new AbortController()
    const listed = ['model.safetensors', 'second.bin', 'config.json', 'empty.txt'].map((name) =>
      scene.hub.file(name),
    )
    const listFiles = async (): Promise<typeof listed> => {
      await rm(scene.entry('model.safetensors'))
      await rm(scene.entry('second.bin'))
      expect(spawnSync('mkfifo', [scene.entry('second.bin')]).status).toBe(0)
      return listed
    }
    const rest = { addon: requireAddon(), locks: undefined, repairs: undefined }
    const { files, isSound } = await verifyCache({ signal }, { cacheDir, stateDir, listFiles, ...rest })
    expect(isSound).toBe(true)
    expect(files.map(({ names, verdict, reason }) => [names[0], verdict, reason])).toEqual([
      ['config.json', 'right', undefined],
      ['empty.txt', 'right', undefined],
      ['model.safetensors', 'unchecked', 'it is gone by now'],
      ['second.bin', 'unchecked', 'it is no regular file'],
    ])
  })

  test('has a folder that becomes a link after it was listed: nothing behind it is read or moved', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    await using outside = await temporaryDirectory()
    const { cacheDir, stateDir } = scene.user
    const { signal } = new AbortController()
    const victim = join(outside.path, 'second.bin')
    await writeFile(victim, 'precious')
    const snapshot = dirname(scene.entry('second.bin'))
    const listFiles = async (): Promise<[ReturnType<typeof scene.hub.file>]> => {
      await rename(snapshot, `${snapshot}.away`)
      await symlink(outside.path, snapshot)
      return [scene.hub.file('second.bin')]
    }
    const rest = { addon: requireAddon(), locks: undefined, repairs: undefined }
    const { files } = await verifyCache({ signal }, { cacheDir, stateDir, listFiles, ...rest })
    expect(files.find(({ names }) => names[0] === 'second.bin')).toMatchObject({
      verdict: 'unchecked',
      reason: 'it is reached through a link by now, and links are not followed',
    })
    expect(await readFile(victim, 'utf8')).toBe('precious')
  })

  /** More copies of `config.json`, of other commits: those with the letters of `wrong` are damaged. */
  async function withCopies(scene: Scene, letters: string, wrong: string): Promise<readonly VerifiedFile[]> {
    const config = scene.entry('config.json')
    for (const letter of letters) {
      const folder = join(dirname(dirname(config)), letter.repeat(40))
      await mkdir(folder)
      await copyFile(config, join(folder, 'config.json'))
      if (wrong.includes(letter)) await flipBit(join(folder, 'config.json'), 1)
    }
    const { cacheDir, stateDir } = scene.user
    const addon = requireAddon()
    const locks = { tryLock: (fd: number) => tryLock(addon, fd), unlock: (fd: number) => unlock(addon, fd) }
    const listFiles = async () => [scene.hub.file('config.json')]
    const { signal } = new AbortController()
    const deps = { cacheDir, stateDir, addon, locks, listFiles, repairs: undefined }
    return (await verifyCache({ signal }, deps)).files.filter(({ names }) => names[0] === 'config.json')
  }

  test('has many wrong copies of one content: none of them is taken for the work of another process', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    const files = await withCopies(scene, '123456789abcdef', '123456789abcdef')
    const wrong = files.filter(({ verdict }) => verdict === 'wrong')
    expect(wrong).toHaveLength(15)
    expect(new Set(wrong.map(({ reason }) => reason))).toEqual(
      new Set(['its content is not what its name promises']),
    )
  })

  test('has a right copy beside a wrong one: what was set aside is still where the report says', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    const files = await withCopies(scene, '0123456789abcdef', '0')
    expect(files.filter(({ verdict }) => verdict === 'right')).toHaveLength(16)
    const movedTo = files.find(({ verdict }) => verdict === 'wrong')?.movedTo ?? ''
    expect(await isThere(movedTo)).toBe(true)
  })

  test('cannot be checked where the Hub does not know the files, or may not be asked', async () => {
    await using scene = await downloadedCache({ symlinks: false })
    await flipBit(scene.entry('second.bin'), 2)
    const snapshot = dirname(scene.entry('config.json'))
    await writeFile(join(snapshot, 'notes.txt'), 'mine')
    await rename(snapshot, join(dirname(snapshot), 'd'.repeat(40)))
    const gone = await scene.user.client.verifyCache()
    expect(new Set(gone.files.map(({ verdict }) => verdict))).toEqual(new Set(['unchecked']))
    expect(gone.files[0]?.reason).toContain('only the Hub knows its digest')
    await rename(join(dirname(snapshot), 'd'.repeat(40)), snapshot)
    await using offline = await newUser({
      endpoint: scene.hub.url,
      offline: true,
      cacheDir: scene.user.cacheDir,
    })
    const silent = await offline.client.verifyCache()
    expect(silent.files.map(({ reason }) => reason)).toEqual(
      Array(5).fill('it is a copy, and only the Hub knows its digest: offline it is not asked'),
    )
    expect(verdicts((await scene.user.client.verifyCache()).files)).toEqual({
      ...allRight,
      'second.bin': 'wrong',
      'notes.txt': 'unchecked',
    })
  })
})
