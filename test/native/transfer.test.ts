import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { alertCategory, baseAlertMask } from '../../src/native/session.ts'
import type { InfoHash, PeerAddress } from '../../src/values.ts'
import { connectExtensionPeer } from '../fakes/extension-peer.ts'
import {
  addressOf,
  formats,
  makeTorrent,
  nextAlert,
  openSession,
  someBytes,
  until,
} from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

/** A seeding process of its own. */
async function startSeed(
  torrent: string,
  content: string,
  folder: string,
): Promise<PeerAddress & AsyncDisposable> {
  const script = fileURLToPath(new URL('fixtures/seed.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, torrent, content, folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exit = once(child, 'exit')
  const [port] = await once(createInterface(child.stdout), 'line')
  return {
    host: '127.0.0.1',
    port: Number(port),
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      expect(await exit).toEqual([0, null])
    },
  }
}

test.each(formats)('a %s torrent goes from one process to another, byte for byte', async (format) => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(3_000_001, format)
  const { torrentFile, path, infoHashV1, infoHashV2 } = await makeTorrent(folder.path, bytes, { format })
  await writeFile(join(folder.path, 'torrent'), torrentFile)
  await using seed = await startSeed(join(folder.path, 'torrent'), path, folder.path)
  await using session = openSession()
  const target = join(folder.path, 'target')
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: target },
    peers: [seed],
  })
  await nextAlert(torrent, 'torrent_finished')
  expect((await readFile(target)).equals(bytes)).toBe(true)
  expect(torrent).toMatchObject({ infoHashV1, infoHashV2, infoHash: infoHashV2 ?? infoHashV1 })
  const pieces = Math.ceil(bytes.length / 32768)
  const status = await torrent.status()
  expect(status).toMatchObject({
    state: 'seeding',
    progress: 1,
    totalDone: bytes.length,
    totalWanted: bytes.length,
    numPieces: pieces,
    isFinished: true,
    failedBytes: 0,
  })
  expect(countBits(status.pieces)).toBe(pieces)
})

function countBits(bytes: Uint8Array | undefined): number {
  return [...(bytes ?? [])].reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)
}

test('the alerts that came with a torrent reach whoever listens as soon as it is there', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  await nextAlert(torrent, 'torrent_checked')
})

test('a download is found complete when the file is there already', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path, renamedFiles: { 0: path } })
  await nextAlert(torrent, 'torrent_finished')
  expect(await torrent.status()).toMatchObject({ payloadDownload: 0, isSeeding: true })
})

test('several questions at once are each answered', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: join(folder.path, 'none') })
  const statuses = await Promise.all(Array.from({ length: 20 }, () => torrent.status()))
  expect(new Set(statuses.map((status) => status.torrent))).toEqual(new Set([torrent.id]))
  expect(await torrent.pieceAvailability()).toEqual(new Uint32Array(4))
  const update = nextAlert(session, 'state_update')
  session.postTorrentUpdates()
  expect((await update).statuses).toMatchObject([{ torrent: torrent.id }])
})

test('availability counts the connected peers that have a piece', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(200_000))
  await using seeding = openSession()
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  await using session = openSession()
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: join(folder.path, 'none'),
    peers: [await addressOf(seeding)],
    // Nobody is asked for anything, so that both stay connected.
    piecePriorities: [0, 0, 0, 0, 0, 0, 1],
    downloadLimit: 1000,
  })
  session.exemptLocalPeers(false)
  await until(async () => (await torrent.pieceAvailability())[0] === 1)
  expect(await torrent.pieceAvailability()).toEqual(new Uint32Array(7).fill(1))
})

test('a file renamed to its final path goes on being seeded, and resume data remembers the path', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(200_000)
  const { torrentFile, path } = await makeTorrent(folder.path, bytes)
  const blob = join(folder.path, 'blob')
  const second = join(folder.path, 'second')
  let resumeData: Uint8Array
  {
    await using seeding = openSession()
    const seed = await seeding.addTorrent({ torrentFile, savePath: folder.path, renamedFiles: { 0: path } })
    await nextAlert(seed, 'torrent_finished')
    await seed.renameFile(0, blob)
    await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' })
    await using session = openSession()
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: folder.path,
      renamedFiles: { 0: second },
      peers: [await addressOf(seeding)],
    })
    await nextAlert(torrent, 'torrent_finished')
    expect((await readFile(second)).equals(bytes)).toBe(true)
    resumeData = await seed.saveResumeData()
  }
  await using again = openSession()
  const torrent = await again.addTorrent({ resumeData, savePath: folder.path })
  await nextAlert(torrent, 'torrent_finished')
  await rm(second)
  expect(await torrent.status()).toMatchObject({ isSeeding: true, totalDone: bytes.length })
})

test('a rename that cannot be done is a NativeError, and the file stays', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(100_000))
  await writeFile(join(folder.path, 'plain'), '')
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path, renamedFiles: { 0: path } })
  await nextAlert(torrent, 'torrent_finished')
  const impossible = join(folder.path, 'plain', 'below')
  await expect(torrent.renameFile(0, impossible)).rejects.toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'renameFile',
  })
  await access(path)
})

test.each(formats)(
  'a %s download goes on from resume data without checking or fetching again',
  async (format) => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(300_001, format)
    const { torrentFile } = await makeTorrent(folder.path, bytes, { format })
    const target = join(folder.path, 'target')
    const given = [0, 3, 9]
    const giveTo = (torrent: { addPiece(piece: number, data: Uint8Array): void }, piece: number): void =>
      torrent.addPiece(piece, bytes.subarray(piece * 32768, (piece + 1) * 32768))
    let resumeData: Uint8Array
    {
      await using session = openSession()
      const torrent = await session.addTorrent({
        torrentFile,
        savePath: folder.path,
        renamedFiles: { 0: target },
      })
      await nextAlert(torrent, 'torrent_checked')
      for (const piece of given) giveTo(torrent, piece)
      for (const piece of given) {
        await until(async () => hasPiece((await torrent.status()).pieces, piece))
      }
      resumeData = await torrent.saveResumeData()
    }
    await using session = openSession()
    const torrent = await session.addTorrent({ resumeData, savePath: folder.path })
    await nextAlert(torrent, 'torrent_checked')
    const { pieces, numPieces } = await torrent.status()
    expect(numPieces).toBe(3)
    for (const piece of given) expect(hasPiece(pieces, piece)).toBe(true)
    const finished = nextAlert(torrent, 'torrent_finished')
    for (let piece = 0; piece < 10; piece++) if (!given.includes(piece)) giveTo(torrent, piece)
    await finished
    expect((await readFile(target)).equals(bytes)).toBe(true)
  },
)

function hasPiece(pieces: Uint8Array | undefined, piece: number): boolean {
  return ((pieces?.[piece >> 3] ?? 0) & (0x80 >> (piece & 7))) !== 0
}

test('a seed whose file is missing says so, and in upload mode does not fetch it again', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(200_000))
  await using seeding = openSession()
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  const peers = [await addressOf(seeding)]
  const missing = join(folder.path, 'missing')
  await using session = openSession()
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: missing },
    flags: { seed_mode: true, upload_mode: true },
    peers,
  })
  const [rejected] = await Promise.all([
    nextAlert(torrent, 'fastresume_rejected'),
    nextAlert(torrent, 'torrent_checked'),
  ])
  expect(rejected).toMatchObject({ file: missing })

  // Without upload mode, libtorrent's own disk backend makes a download of the same seed, which has all of it by the time this one would.
  const fetched = join(folder.path, 'fetched')
  // libtorrent keeps one connection for each address, and the session above may have it.
  await using other = openSession({ listen_interfaces: '127.0.0.2:0' }, { diskBackend: 'posix' })
  const control = await other.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: fetched },
    flags: { seed_mode: true },
    peers,
  })
  await nextAlert(control, 'torrent_finished')
  await access(fetched)
  expect(await torrent.status()).toMatchObject({ isSeeding: false, payloadDownload: 0 })
  await expect(access(missing)).rejects.toMatchObject({ code: 'ENOENT' })
})

test.each([
  ['truncated', (path: string) => truncate(path, 50_000)],
  ['deleted', (path: string) => rm(path)],
] as const)('a file that is %s while it is seeded is told of when a peer asks for it', async (_, harm) => {
  await using folder = await temporaryDirectory()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(200_000))
  await using seeding = openSession()
  const seed = await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true, upload_mode: true },
  })
  await nextAlert(seed, 'torrent_checked')
  await harm(path)
  await using session = openSession()
  const fault = nextAlert(seed, 'file_error')
  await session.addTorrent({
    torrentFile,
    savePath: join(folder.path, 'other'),
    peers: [await addressOf(seeding)],
  })
  expect(await fault).toMatchObject({ file: path, operation: expect.any(String) })
})

test('rate limits hold for peers on this machine only when they are not exempt', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(400_000))
  await using seeding = openSession()
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  const peers = [await addressOf(seeding)]
  async function secondsToFinish(exempt: boolean): Promise<number> {
    await using session = openSession({ download_rate_limit: 200_000 })
    session.exemptLocalPeers(exempt)
    const begin = performance.now()
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: join(folder.path, String(exempt)),
      peers,
    })
    await nextAlert(torrent, 'torrent_finished')
    return (performance.now() - begin) / 1000
  }
  const limited = await secondsToFinish(false)
  const free = await secondsToFinish(true)
  expect(limited).toBeGreaterThan(1)
  expect(free).toBeLessThan(limited / 2)
})

test('a banned peer is disconnected and stays away', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(2_000_000))
  await using seeding = openSession()
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  await using session = openSession({ alert_mask: baseAlertMask | alertCategory.connect })
  session.exemptLocalPeers(false)
  const peer = await addressOf(seeding)
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: join(folder.path, 'none'),
    peers: [peer],
    downloadLimit: 50_000,
  })
  expect(await nextAlert(torrent, 'peer_connect')).toMatchObject(peer)
  const gone = nextAlert(torrent, 'peer_disconnected')
  session.banPeer(peer.host)
  expect(await gone).toMatchObject(peer)
  torrent.connectPeer(peer)
  await session.statistics()
  expect(await torrent.status()).toMatchObject({ numPeers: 0, numConnections: 0 })
})

test('a banned address that connects to us is turned away', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile, infoHashV2 } = await makeTorrent(folder.path, someBytes(100_000))
  await using session = openSession()
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  const connect = (host: string) =>
    addressOf(session).then((to) => connectExtensionPeer(host, to, infoHashV2 as InfoHash))
  await using before = await connect('127.0.0.2')
  await until(async () => (await torrent.peers()).length === 1)
  session.banPeer('127.0.0.2')
  await before.closed
  await using again = await connect('127.0.0.2')
  await again.closed
  await using neighbour = await connect('127.0.0.3')
  await until(async () => (await torrent.peers()).length === 1)
  expect(await torrent.peers()).toMatchObject([neighbour.address])
})

test('a magnet link learns its metadata from a peer, and pieces are known from then on', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(100_000)
  const { torrentFile, path, infoHashV2 } = await makeTorrent(folder.path, bytes)
  await using seeding = openSession()
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
  })
  await using session = openSession()
  const torrent = await session.addTorrent({
    magnet: `magnet:?xt=urn:btmh:1220${infoHashV2}`,
    savePath: join(folder.path, 'other'),
  })
  expect(torrent.infoHash).toBe(infoHashV2)
  expect(await torrent.status()).toMatchObject({ hasMetadata: false, state: 'downloading_metadata' })
  expect(() => torrent.addPiece(0, bytes.subarray(0, 32768))).toThrow(
    expect.objectContaining({ code: 'ERR_LLMPT_NATIVE', value: 109 }),
  )
  const finished = nextAlert(torrent, 'torrent_finished')
  const received = nextAlert(torrent, 'metadata_received')
  torrent.connectPeer(await addressOf(seeding))
  const { torrentFile: metadata } = await received
  expect(Buffer.from(torrentFile).includes(Buffer.from(metadata).subarray(7, -1))).toBe(true)
  torrent.setPiecePriority(0, 7)
  await finished
})

test('removing with the files deletes them', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile, path } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path, renamedFiles: { 0: path } })
  await nextAlert(torrent, 'torrent_finished')
  await torrent.remove({ deleteFiles: true })
  await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' })
})

test('pausing, flags, limits, deadlines and priorities can be changed while a torrent runs', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: join(folder.path, 'none') })
  const paused = nextAlert(torrent, 'torrent_paused')
  torrent.setFlags({ paused: true, sequential_download: true })
  await paused
  expect(await torrent.status()).toMatchObject({ isPaused: true })
  const resumed = nextAlert(torrent, 'torrent_resumed')
  torrent.setFlags({ paused: false })
  await resumed
  torrent.setRateLimits({ downloadBytesPerSecond: 1000, uploadBytesPerSecond: 1000 })
  torrent.setPieceDeadline(1, 100)
  torrent.clearPieceDeadlines()
  torrent.setPiecePriorities(new Uint8Array([0, 0, 7, 0]))
  expect(await torrent.status()).toMatchObject({ totalWanted: 32768 })
  torrent.setPiecePriority(0, 4)
  expect(await torrent.status()).toMatchObject({ totalWanted: 65536 })
  torrent.forceReannounce()
  const checked = nextAlert(torrent, 'torrent_checked')
  torrent.forceRecheck()
  await checked
})

test('misuse of a torrent is a TypeError or a RangeError', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  for (const piece of [-1, 4, 2 ** 31, 0.5, Number.NaN]) {
    expect(() => torrent.setPiecePriority(piece, 1)).toThrow(RangeError)
    expect(() => torrent.setPieceDeadline(piece, 1)).toThrow(RangeError)
    expect(() => torrent.addPiece(piece, new Uint8Array(32768))).toThrow(RangeError)
  }
  expect(() => torrent.setPiecePriority(0, 8)).toThrow(RangeError)
  expect(() => torrent.setPiecePriorities(new Uint8Array(3))).toThrow(RangeError)
  expect(() => torrent.setPiecePriorities(new Uint8Array(4).fill(8))).toThrow(RangeError)
  expect(() => torrent.setPiecePriorities([0, 0, 0, 0] as unknown as Uint8Array)).toThrow(TypeError)
  expect(() => torrent.addPiece(0, new Uint16Array(16384) as unknown as Uint8Array)).toThrow(TypeError)
  expect(() => torrent.setFlags({ no_such_flag: true } as object)).toThrow(TypeError)
  expect(() => torrent.setFlags({ paused: 1 } as object)).toThrow(TypeError)
  expect(() => torrent.connectPeer({ host: 'localhost', port: 1 })).toThrow(TypeError)
  expect(() => torrent.connectPeer({ host: '127.0.0.1', port: 0 })).toThrow(RangeError)
  expect(() => torrent.connectPeer({ host: '127.0.0.1', port: 65536 })).toThrow(RangeError)
  expect(() => torrent.setRateLimits({ uploadBytesPerSecond: -1 })).toThrow(RangeError)
  await expect(torrent.renameFile(0, 7 as unknown as string)).rejects.toThrow(TypeError)
  await expect(torrent.renameFile(-1, '/tmp/x')).rejects.toThrow(RangeError)
  expect(() => session.banPeer('example.org')).toThrow(TypeError)
})
