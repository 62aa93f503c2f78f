/** What an interrupted download left, in whatever state it is found: it saves bandwidth or it does not, never more. */
import { createHash } from 'node:crypto'
import {
  appendFile,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Client } from '../../src/client.ts'
import { tryLock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
import type { DownloadDeps, FetchedFile } from '../../src/transfer/download.ts'
import type { TorrentFinder } from '../../src/transfer/find-torrent.ts'
import { Journal, journalKeptMs, journalPath, sweepJournals } from '../../src/transfer/journal.ts'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'
import { defaultRacePolicy } from '../../src/transfer/plan.ts'
import { race } from '../../src/transfer/race.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { raceScene } from '../support/race-scene.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { type TransferRig, transferRig } from '../support/transfer-rig.ts'
import { newUser, type User } from '../support/users.ts'
import { startWorld, strayFiles, type World } from './fixtures/rig.ts'

const mebibyte = 1024 * 1024
const pieceLength = 256 * 1024
const sizeBytes = 8 * mebibyte + 54_321

type Source = 'HTTP' | 'peers' | 'both'
const sources: readonly Source[] = ['HTTP', 'peers', 'both']

let world: World
beforeAll(async () => {
  world = await startWorld(sizeBytes, { hub: 0, seed: 24 * mebibyte })
})
afterAll(() => world[Symbol.asyncDispose]())

/** A cache and a state folder, as they are after a download that was given up, and what may still come of it. */
async function interrupted(source: Source = 'HTTP', afterBytes = 4 * mebibyte) {
  const rig = await transferRig(world.hub.url)
  await fetchFrom(source, rig, afterBytes)
  const partial = `${rig.cacheDir}/models--acme--tiny/blobs/${world.file.etag}.llmpt.incomplete`
  const journal = journalPath(rig.stateDir, partial)
  return {
    rig,
    partial,
    journal,
    lines: async () => (await readFile(journal, 'utf8')).trim().split('\n'),
    [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose](),
  }
}

/** Downloads from these sources alone, to the end or until there are `stopAtBytes`. */
async function fetchFrom(
  source: Source,
  rig: TransferRig,
  stopAtBytes = Number.POSITIVE_INFINITY,
): Promise<FetchedFile> {
  world.hub.setThrottle('cdn', Number.isFinite(stopAtBytes) ? 24 * mebibyte : 0)
  world.hub.resetStats()
  const controller = new AbortController()
  await using swarm = source === 'HTTP' ? undefined : newSwarm()
  const { infoHash, torrentFile } = world.torrent
  const offer = {
    infoHash,
    torrentFile,
    pieceLength,
    announceUrls: [],
    peers: [world.seed.address],
    isPromising: true,
    mayBeCrowd: false,
    isTied: true,
  }
  const deps: Partial<DownloadDeps> = {
    canUseHttp: source !== 'peers',
    policy: { ...rig.deps.policy, tickMs: 20 },
    ...(swarm && {
      addon: requireAddon(),
      swarm,
      finder: { find: async () => offer } as unknown as TorrentFinder,
    }),
  }
  const stop = new Error('enough')
  const running = rig.fetch(
    world.file,
    {
      signal: controller.signal,
      onProgress: (_phase, { bytes: { http, p2p } }) => {
        if (http + p2p >= stopAtBytes) controller.abort(stop)
      },
    },
    deps,
  )
  if (Number.isFinite(stopAtBytes)) await expect(running).rejects.toBe(stop)
  const fetched = await running.catch(() => undefined)
  await fetched?.joined?.leg.leave()
  return fetched as FetchedFile
}

function newSwarm(): Swarm {
  return new Swarm(requireAddon(), {
    listen: ['127.0.0.1:0'],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: 0,
    limitLocalPeers: false,
  })
}

async function expectRight(rig: TransferRig, fetched: FetchedFile): Promise<void> {
  expect(await sha256Of(fetched.path)).toBe(world.file.sha256)
  expect(await readdir(dirname(fetched.path))).toEqual([world.file.etag])
  expect(await readdir(join(rig.stateDir, 'partial'))).toEqual([])
}

describe('an interrupted download', () => {
  const ways = sources.flatMap((first) => sources.map((second) => [first, second] as const))
  test.each(ways)('from %s goes on from %s, and nothing is fetched twice', async (first, second) => {
    await using left = await interrupted(first)
    const fetched = await fetchFrom(second, left.rig)
    expect(fetched.bytes.cache).toBeGreaterThan(3 * mebibyte)
    expect(fetched.bytes.http + fetched.bytes.p2p).toBe(sizeBytes - fetched.bytes.cache)
    if (second !== 'both') expect(fetched.bytes[second === 'HTTP' ? 'p2p' : 'http']).toBe(0)
    if (second === 'HTTP') expect(world.hub.stats('cdn').bytesSent).toBe(fetched.bytes.http)
    await expectRight(left.rig, fetched)
  })
})

test('HTTP leaves pieces of which peers brought a part to them, while there may be peers', async () => {
  await using folder = await temporaryDirectory()
  await using file = await PartialFile.open(join(folder.path, 'partial'), false)
  const map = new PieceMap(sizeBytes, pieceLength)
  const asked: number[] = []
  await race({
    map,
    file,
    unfinished: [0, 1].map((piece) => ({ piece, blocks: new Uint8Array([0xff, 0]) })),
    open: async ({ start, end }) => {
      asked.push(map.pieceAt(start))
      return { start, batches: toBatches(Buffer.alloc(end - start)) }
    },
    swarm: {} as Swarm,
    findTorrent: (signal) =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(undefined))),
    http: 'with-swarm',
    swarmStart: 'at-once',
    policy: defaultRacePolicy,
    patienceMs: 10_000,
    signal: new AbortController().signal,
    listener: { piece() {}, written() {}, takenBack() {}, unfinished() {}, final() {} },
  })
  expect(asked[0]).toBe(2)
  expect(asked.slice(-2)).toContain(0)
})

async function* toBatches(bytes: Uint8Array): AsyncGenerator<Uint8Array[]> {
  yield [bytes]
}

describe('a journal that lies costs bandwidth at most', () => {
  const all = Array.from({ length: Math.ceil(sizeBytes / pieceLength) }, (_, piece) => `p ${piece} http`)
  const edit = async (path: string, change: (lines: string[]) => string[]): Promise<void> =>
    writeFile(path, `${change((await readFile(path, 'utf8')).trim().split('\n')).join('\n')}\n`)

  type Left = Awaited<ReturnType<typeof interrupted>>
  const lies: Record<string, (left: Left) => Promise<void>> = {
    'when it is of an older partial file': async ({ partial, journal }) => {
      await writeFile(partial, Buffer.alloc(sizeBytes, 7))
      await edit(journal, (lines) => lines)
    },
    'when it claims everything, and the file has its full size': async ({ partial, journal }) => {
      await truncate(partial, sizeBytes)
      await edit(journal, ([header = '']) => [header, ...all])
    },
    'when it claims everything, as blocks': async ({ partial, journal }) => {
      await truncate(partial, sizeBytes)
      await edit(journal, ([header = '']) => [header, `b 0 ${sizeBytes}`])
    },
    'when it claims every block as unfinished from peers': async ({ partial, journal }) => {
      await truncate(partial, sizeBytes)
      const full = all.slice(0, -1).map((_, piece) => `u ${piece} ffff`)
      await edit(journal, ([header = '']) => [header, ...full])
    },
    'when it claims everything, and the file is short': async ({ journal }) => {
      await edit(journal, ([header = '']) => [header, ...all])
    },
    'when a piece it claims is zeros': async ({ partial }) => {
      await overwrite(partial, pieceLength, Buffer.alloc(pieceLength))
    },
    'when two pieces it claims have changed places': async ({ partial }) => {
      const bytes = await readFile(partial)
      await overwrite(partial, 0, bytes.subarray(pieceLength, 2 * pieceLength))
      await overwrite(partial, pieceLength, bytes.subarray(0, pieceLength))
    },
  }
  /** What shows before anybody is asked for anything. */
  const useless: typeof lies = {
    'when it is of another file': async ({ journal }) => {
      const text = await readFile(journal, 'utf8')
      await writeFile(journal, text.replace(/"identity":"\w+"/, `"identity":"${'0'.repeat(64)}"`))
    },
    'when it speaks of pieces of another length': async ({ journal }) => {
      await edit(journal, ([header = '', ...lines]) => [
        header.replace(`${pieceLength}`, `${4 * pieceLength}`),
        ...lines,
      ])
    },
    'when it speaks of a file of another size': async ({ journal }) => {
      await edit(journal, ([header = '', ...lines]) => [
        header.replace(`${sizeBytes}`, `${2 * sizeBytes}`),
        ...lines,
      ])
    },
    'when it is rubbish': async ({ journal }) => {
      await writeFile(journal, createHash('sha512').update('rubbish').digest())
    },
  }
  const cases = Object.entries(lies).flatMap(([name, lie]) =>
    sources.map((source) => ({ name, source, lie })),
  )

  test.each(cases)('$name (from $source)', async ({ source, lie }) => {
    await using left = await interrupted()
    await lie(left)
    const fetched = await fetchFrom(source, left.rig)
    expect(world.hub.stats('cdn').bytesSent).toBeLessThanOrEqual(2 * sizeBytes)
    await expectRight(left.rig, fetched)
    // Whoever served it was honest.
    await expect(readFile(join(left.rig.stateDir, 'condemned.json'))).rejects.toThrow('ENOENT')
  })

  test.each(Object.entries(useless))('and is not believed at all %s', async (_when, lie) => {
    await using left = await interrupted()
    await lie(left)
    const fetched = await fetchFrom('HTTP', left.rig)
    expect(fetched.bytes).toEqual({ p2p: 0, http: sizeBytes, cache: 0 })
    await expectRight(left.rig, fetched)
  })

  test('and lines that are nonsense do not make the others worthless', async () => {
    await using left = await interrupted()
    const nonsense = [
      'p -1 http',
      'p 1e3 http',
      'p 99999999 p2p',
      'b 16384 0',
      'b 1 2',
      'u 3 zz',
      'x',
      '',
      'f',
    ]
    await edit(left.journal, (lines) => [...lines, ...nonsense])
    const fetched = await fetchFrom('HTTP', left.rig)
    expect(fetched.bytes.cache).toBeGreaterThan(3 * mebibyte)
    await expectRight(left.rig, fetched)
  })

  test('and a piece that peers were asked for, and of which nothing is there, is not missed', async () => {
    await using left = await interrupted()
    await appendFile(left.journal, 'u 31 0000\nu 32 00\n')
    const fetched = await fetchFrom('HTTP', left.rig)
    expect(fetched.bytes.cache).toBeGreaterThan(3 * mebibyte)
    await expectRight(left.rig, fetched)
  })

  test('and cut off anywhere it says nothing that it did not say in full, but for what was taken back', async () => {
    await using folder = await temporaryDirectory()
    const path = journalPath(folder.path, '/x')
    const journal = new Journal(folder.path, '/x', 'etag')
    journal.begin(new PieceMap(sizeBytes, pieceLength))
    for (let piece = 0; piece < 12; piece++) journal.piece(piece, piece % 2 === 0 ? 'http' : 'p2p')
    journal.written(13 * pieceLength, 13 * pieceLength + 131_072)
    journal.unfinished([{ piece: 20, blocks: new Uint8Array([0xf0, 0x0f]) }])
    journal.piece(32, 'http')
    journal.close()
    const whole = await new Journal(folder.path, '/x', 'etag').load(sizeBytes, pieceLength)
    if (whole === undefined) throw new Error('no journal')
    const text = await readFile(path)
    let seen = 0
    for (let length = text.length; length >= 0; length--) {
      await writeFile(path, text.subarray(0, length))
      const cut = await new Journal(folder.path, '/x', 'etag').load(sizeBytes, pieceLength)
      if (cut === undefined) continue
      seen += 1
      for (const piece of cut.map.present()) expect(whole.map.sourceOf(piece)).toBe(cut.map.sourceOf(piece))
      for (const [start, end] of cut.map.writtenRuns())
        expect(whole.map.endOfRun(start)).toBeGreaterThanOrEqual(end)
      for (const each of cut.unfinished) expect(whole.unfinished).toContainEqual(each)
    }
    expect(seen).toBeGreaterThan(100)
  })

  test.each([0.02, 0.2, 0.5, 0.8, 0.99])(
    'and cut off at %f of its length it is gone on from',
    async (share) => {
      await using left = await interrupted()
      const text = await readFile(left.journal)
      await writeFile(left.journal, text.subarray(0, Math.floor(text.length * share)))
      await expectRight(left.rig, await fetchFrom('HTTP', left.rig))
    },
  )

  test('and where it can not be written the download does without', async () => {
    await using rig = await transferRig(world.hub.url)
    await mkdir(rig.stateDir, { recursive: true })
    await writeFile(join(rig.stateDir, 'partial'), 'a file where the folder should be')
    const fetched = await fetchFrom('HTTP', rig)
    expect(await sha256Of(fetched.path)).toBe(world.file.sha256)
  })
})

test('many damaged pieces are each refused once, fetched again, and blamed on nobody', async () => {
  await using scene = await raceScene({ sizeBytes: 24 * mebibyte, httpRate: 24 * mebibyte })
  const { rig, file, hub, swarm } = scene
  const controller = new AbortController()
  const interrupted = rig.fetch(file, {
    signal: controller.signal,
    onProgress: (_phase, { bytes }) => {
      if (bytes.http > 10 * mebibyte) controller.abort(new Error('enough'))
    },
  })
  await expect(interrupted).rejects.toThrow('enough')
  const partial = `${rig.cacheDir}/models--acme--tiny/blobs/${file.etag}.llmpt.incomplete`
  const damaged = 32
  for (let piece = 0; piece < damaged; piece++)
    await overwrite(partial, piece * pieceLength + 77, Buffer.from('damaged'))
  hub.setThrottle('cdn', 2 * mebibyte)
  await using seed = await scene.seeder()
  const { fetched } = await scene.run({ peers: [seed.address] })
  const { 'ses.num_piece_failed': refusals = 0 } = await swarm.session.statistics()
  // Nothing is checked again before it was fetched again.
  expect(refusals).toBeGreaterThan(damaged / 2)
  expect(refusals).toBeLessThan(damaged * 2)
  expect(await sha256Of(fetched.path)).toBe(file.sha256)
  await expect(readFile(join(rig.stateDir, 'condemned.json'))).rejects.toThrow('ENOENT')
})

async function overwrite(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const handle = await open(path, 'r+')
  await handle.write(bytes, 0, bytes.length, offset)
  await handle.close()
}

describe('a partial file', () => {
  test('that is gone is begun anew', async () => {
    await using left = await interrupted()
    await rm(left.partial)
    const fetched = await fetchFrom('HTTP', left.rig)
    expect(fetched.bytes.cache).toBe(0)
    await expectRight(left.rig, fetched)
  })

  test('that is shorter than it was is begun anew', async () => {
    await using left = await interrupted()
    await truncate(left.partial, mebibyte)
    const fetched = await fetchFrom('HTTP', left.rig)
    expect(fetched.bytes.cache).toBe(0)
    await expectRight(left.rig, fetched)
  })

  test.each([
    ['a symbolic link', symlink],
    ['a second name of another file', link],
  ])('that is %s now is replaced, and what it leads to stays as it is', async (_what, plant) => {
    await using left = await interrupted()
    const victim = join(left.rig.stateDir, 'victim')
    await writeFile(victim, Buffer.alloc(sizeBytes, 1))
    const before = await sha256Of(victim)
    await rm(left.partial)
    await plant(victim, left.partial)
    const fetched = await fetchFrom('both', left.rig)
    expect(await sha256Of(victim)).toBe(before)
    expect((await lstat(fetched.path)).isFile()).toBe(true)
    await rm(victim)
    await expectRight(left.rig, fetched)
  })

  test('that is a folder now is an error that says so, before anything is fetched', async () => {
    await using left = await interrupted()
    await rm(left.partial)
    await mkdir(left.partial)
    world.hub.resetStats()
    const failing = left.rig.fetch(world.file)
    await expect(failing).rejects.toMatchObject({ code: 'ERR_LLMPT_CACHE' })
    expect(world.hub.stats('cdn').bytesSent).toBe(0)
  })
})

describe('a blob that somebody else finished meanwhile', () => {
  /** A user whose download was given up in the middle. */
  async function givenUp(): Promise<User & { partial: string; journal: string }> {
    const user = await newUser({ endpoint: world.hub.url, p2p: false })
    world.hub.setThrottle('cdn', 24 * mebibyte)
    const controller = new AbortController()
    const running = user.client.downloadFile(world.hub.ref(world.file.path), {
      signal: controller.signal,
      onProgress: ({ bytes }) => {
        if (bytes.http > 2 * mebibyte) controller.abort(new Error('enough'))
      },
    })
    await expect(running).rejects.toThrow('enough')
    world.hub.setThrottle('cdn', 0)
    world.hub.resetStats()
    const partial = `${user.cacheDir}/models--acme--tiny/blobs/${world.file.etag}.llmpt.incomplete`
    return Object.assign(user, { partial, journal: journalPath(user.stateDir, partial) })
  }
  const finish = async (user: { cacheDir: string }): Promise<void> =>
    writeFile(`${user.cacheDir}/models--acme--tiny/blobs/${world.file.etag}`, await world.file.bytes())

  test('is not fetched, and what we had of it is removed with its journal', async () => {
    await using user = await givenUp()
    expect((await lstat(user.partial)).isFile() && (await lstat(user.journal)).isFile()).toBe(true)
    await finish(user)
    const got = await user.client.downloadFile(world.hub.ref(world.file.path))
    expect(got.bytes).toEqual({ p2p: 0, http: 0, cache: sizeBytes })
    expect(world.hub.stats('cdn').requests).toBe(0)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
    expect(await readdir(dirname(user.journal))).toEqual([])
  })

  test('does not cost whoever holds the lock its partial file', async () => {
    await using user = await givenUp()
    await finish(user)
    const lock = await open(`${user.cacheDir}/.locks/models--acme--tiny/${world.file.etag}.lock`, 'r+')
    try {
      expect(tryLock(requireAddon(), lock.fd)).toBe(true)
      await user.client.downloadFile(world.hub.ref(world.file.path))
      expect((await lstat(user.partial)).isFile() && (await lstat(user.journal)).isFile()).toBe(true)
    } finally {
      await lock.close()
    }
  })

  test('by a process without the addon is not fetched by the next one with it, which tidies up', async () => {
    await using home = await temporaryDirectory()
    const config = { p2p: false }
    world.hub.setThrottle('cdn', 24 * mebibyte)
    const first = await world.download(home.path, config, { killAfterBytes: 3 * mebibyte })
    world.hub.setThrottle('cdn', 0)
    const without = await world.download(home.path, config, { env: { LLMPT_NATIVE_ADDON: '/nonexistent' } })
    const back = await world.download(home.path, config)
    expect([first.signal, without.code, back.code]).toEqual(['SIGKILL', 0, 0])
    // Without a lock nobody may touch what somebody with a lock may come back for.
    expect(without.said?.bytes).toEqual({ p2p: 0, http: sizeBytes, cache: 0 })
    expect(back.fromHub).toBe(0)
    expect(await strayFiles(home.path, world.file)).toEqual([])
    expect(await checkCacheContract(`${home.path}/hub`)).toEqual([])
  })
})

test('a process without the addon that is interrupted leaves the partial file of one with it as it was', async () => {
  await using left = await interrupted()
  const before = await sha256Of(left.partial)
  await using other = await transferRig(world.hub.url, { locks: undefined, in: left.rig })
  await fetchFrom('HTTP', other, 2 * mebibyte)
  expect(await sha256Of(left.partial)).toBe(before)
  const fetched = await fetchFrom('HTTP', left.rig)
  expect(fetched.bytes.cache).toBeGreaterThan(3 * mebibyte)
  await expectRight(left.rig, fetched)
})

describe('journals', () => {
  test('whose partial file is gone are removed by the next process, and no others', async () => {
    await using user = await newUser({ endpoint: world.hub.url, p2p: false })
    const there = join(user.cacheDir, 'there')
    await mkdir(user.cacheDir, { recursive: true })
    await writeFile(there, '')
    for (const partial of [there, join(user.cacheDir, 'gone')]) {
      const journal = new Journal(user.stateDir, partial, 'etag')
      journal.begin(new PieceMap(sizeBytes, pieceLength))
      journal.close()
    }
    await using next = new Client(user.client.config)
    await next.downloadFile(world.hub.ref(world.file.path))
    expect(await readdir(join(user.stateDir, 'partial'))).toEqual([journalNameOf(user, there)])
  })

  test('that nothing was noted in for a week are removed with whatever else is that old', async () => {
    await using folder = await temporaryDirectory()
    const partial = join(folder.path, 'there')
    await writeFile(partial, '')
    const journal = new Journal(folder.path, partial, 'etag')
    journal.begin(new PieceMap(sizeBytes, pieceLength))
    journal.close()
    await writeFile(join(folder.path, 'partial', 'rubbish'), 'rubbish')
    const path = journalPath(folder.path, partial)
    const now = Date.now()
    const at = (agoMs: number): Date => new Date(now - agoMs)
    await utimes(path, at(journalKeptMs - 60_000), at(journalKeptMs - 60_000))
    sweepJournals(folder.path, now)
    expect(await readdir(dirname(path))).toHaveLength(2)
    sweepJournals(folder.path, now + journalKeptMs + 60_000)
    expect(await readdir(dirname(path))).toEqual([])
  })

  function journalNameOf(user: User, partial: string): string {
    return journalPath(user.stateDir, partial).slice(join(user.stateDir, 'partial').length + 1)
  }
})
