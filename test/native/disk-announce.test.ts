import { open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hasPiece } from '../../src/native/alerts.ts'
import type { Torrent } from '../../src/native/session.ts'
import type { PieceCheck } from '../../src/native/torrent.ts'
import {
  addressOf,
  type Format,
  formats,
  makeTorrent,
  nextAlert,
  openSession,
  someBytes,
  until,
} from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 64 * 1024
const blockLength = 16 * 1024

/** What an announce is answered with, by the name of the alert that comes with it. */
async function announce(torrent: Torrent, piece: number): Promise<'piece_finished' | 'hash_failed'> {
  const { hasPassed } = await torrent.announcePiece(piece)
  return hasPassed ? 'piece_finished' : 'hash_failed'
}

/** Writes bytes at their place, as somebody else than libtorrent would. */
async function writeAt(path: string, bytes: Uint8Array, offset: number): Promise<void> {
  const file = await open(path, 'r+').catch(() => open(path, 'w+'))
  await file.write(bytes, 0, bytes.length, offset)
  await file.close()
}

const pieceOf = (bytes: Uint8Array, piece: number): Uint8Array =>
  bytes.subarray(piece * pieceLength, (piece + 1) * pieceLength)

/** A download of which nothing is there yet. */
async function emptyDownload(folder: string, bytes: Uint8Array, format: Format = 'v2') {
  const { torrentFile, path } = await makeTorrent(folder, bytes, { format, pieceLength })
  // A peer that waits for pieces is to be unchoked soon, and not to be left with the last one.
  const session = openSession({ unchoke_interval: 1, close_redundant_connections: false })
  const target = join(folder, 'target')
  const torrent = await session.addTorrent({ torrentFile, savePath: folder, renamedFiles: { 0: target } })
  await nextAlert(torrent, 'torrent_checked')
  return { session, torrent, target, torrentFile, source: path }
}

describe.each(formats)('in a %s torrent', (format: Format) => {
  test('pieces that somebody else wrote complete it, whatever the length of its last one', async () => {
    await using folder = await temporaryDirectory()
    const sizes = [
      1,
      blockLength + 1,
      pieceLength,
      3 * pieceLength + 1,
      5 * pieceLength + 3 * blockLength + 7,
    ]
    for (const size of sizes) {
      const bytes = someBytes(size, `${format} ${size}`)
      const { session, torrent, target } = await emptyDownload(folder.path, bytes, format)
      await using _session = session
      await writeFile(target, bytes)
      const finished = nextAlert(torrent, 'torrent_finished')
      for (let piece = Math.ceil(size / pieceLength) - 1; piece >= 0; piece--) {
        expect(await announce(torrent, piece)).toBe('piece_finished')
      }
      await finished
      expect((await readFile(target)).equals(bytes)).toBe(true)
      expect(await torrent.status()).toMatchObject({ isSeeding: true, failedBytes: 0 })
      await rm(target)
    }
  })

  test('a piece with wrong bytes fails, and passes once the right ones were written', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(3 * pieceLength - 5)
    const { session, torrent, target } = await emptyDownload(folder.path, bytes, format)
    await using _session = session
    await writeFile(
      target,
      bytes.map((byte) => byte ^ 1),
    )
    for (const piece of [2, 0, 1]) {
      expect(await announce(torrent, piece)).toBe('hash_failed')
      await writeAt(target, pieceOf(bytes, piece), piece * pieceLength)
      expect(await announce(torrent, piece)).toBe('piece_finished')
    }
    expect(await torrent.status()).toMatchObject({ isSeeding: true })
    expect((await readFile(target)).equals(bytes)).toBe(true)
  })

  test('a piece is passed on to peers as it was written', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(4 * pieceLength + 9)
    const { session, torrent, target, torrentFile } = await emptyDownload(folder.path, bytes, format)
    await using _session = session
    await using leeching = openSession({
      listen_interfaces: '127.0.0.2:0',
      close_redundant_connections: false,
    })
    const copy = join(folder.path, 'copy')
    const leech = await leeching.addTorrent({
      torrentFile,
      savePath: folder.path,
      renamedFiles: { 0: copy },
      peers: [await addressOf(session)],
    })
    for (let piece = 0; piece < 5; piece++) {
      await writeAt(target, pieceOf(bytes, piece), piece * pieceLength)
      expect(await announce(torrent, piece)).toBe('piece_finished')
      // The neighbour is read ahead by nobody: it is not written yet.
      await until(async () => hasPiece((await leech.status()).pieces, piece))
    }
    expect((await readFile(copy)).equals(bytes)).toBe(true)
    expect(await leech.status()).toMatchObject({ failedBytes: 0 })
  })

  test('a piece counts of which libtorrent has some blocks from elsewhere already', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(2 * pieceLength)
    const { session, torrent, target, torrentFile, source } = await emptyDownload(folder.path, bytes, format)
    await using _session = session
    await using seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
    await seeding.addTorrent({
      torrentFile,
      savePath: folder.path,
      renamedFiles: { 0: source },
      flags: { seed_mode: true, upload_mode: true },
      uploadLimit: blockLength,
    })
    seeding.exemptLocalPeers(false)
    torrent.connectPeer(await addressOf(seeding))
    await until(async () => (await torrent.status()).payloadDownload >= blockLength)
    await writeFile(target, bytes)
    const finished = nextAlert(torrent, 'torrent_finished')
    await Promise.all([0, 1].map((piece) => torrent.announcePiece(piece)))
    await finished
    expect((await readFile(target)).equals(bytes)).toBe(true)
    expect(await torrent.status()).toMatchObject({ failedBytes: 0, isSeeding: true })
  })

  test('bytes that are not there at all count as wrong, and the torrent goes on', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(2 * pieceLength)
    const { session, torrent, target } = await emptyDownload(folder.path, bytes, format)
    await using _session = session
    expect(await announce(torrent, 1)).toBe('hash_failed')
    await writeFile(target, bytes)
    await truncate(target, pieceLength + blockLength)
    expect(await announce(torrent, 1)).toBe('hash_failed')
    await writeFile(target, bytes)
    expect(await announce(torrent, 1)).toBe('piece_finished')
    expect(await torrent.status()).toMatchObject({ isPaused: false })
  })
})

test('a piece that libtorrent has already is answered at once, while it downloads and while it seeds', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(2 * pieceLength)
  const { session, torrent, target } = await emptyDownload(folder.path, bytes)
  await using _session = session
  await writeFile(target, bytes)
  expect(await announce(torrent, 0)).toBe('piece_finished')
  expect(await announce(torrent, 0)).toBe('piece_finished')
  expect(await announce(torrent, 1)).toBe('piece_finished')
  await until(async () => (await torrent.status()).isSeeding)
  expect(await announce(torrent, 1)).toBe('piece_finished')
})

test('the same piece announced many times at once is answered each time, and counted once', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(2 * pieceLength)
  const { session, torrent, target } = await emptyDownload(folder.path, bytes)
  await using _session = session
  await writeFile(target, bytes)
  const answers = await Promise.all(Array.from({ length: 50 }, () => torrent.announcePiece(1)))
  expect(answers[0]).toEqual({ hasPassed: true, wasThere: false })
  for (const answer of answers.slice(1)) expect(answer).toEqual({ hasPassed: true, wasThere: true })
  expect(await torrent.status()).toMatchObject({ totalDone: pieceLength })
})

test('pieces are announced while others come from a peer, and every byte is right', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(200 * pieceLength + 77)
  const { session, torrent, target, torrentFile, source } = await emptyDownload(folder.path, bytes)
  await using _session = session
  await using seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: source },
    flags: { seed_mode: true, upload_mode: true },
  })
  const finished = nextAlert(torrent, 'torrent_finished')
  torrent.connectPeer(await addressOf(seeding))
  const answers: Promise<PieceCheck>[] = []
  for (let piece = 200; piece >= 0; piece -= 2) {
    await writeAt(target, pieceOf(bytes, piece), piece * pieceLength)
    answers.push(torrent.announcePiece(piece))
  }
  for (const { hasPassed } of await Promise.all(answers)) expect(hasPassed).toBe(true)
  await finished
  expect((await readFile(target)).equals(bytes)).toBe(true)
  expect(await torrent.status()).toMatchObject({ failedBytes: 0, isSeeding: true })
})

test('nothing of an announced piece is written, by libtorrent or by a peer whose block comes late', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(8 * pieceLength)
  const { session, torrent, target, torrentFile, source } = await emptyDownload(folder.path, bytes)
  await using _session = session
  await using seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: source },
    flags: { seed_mode: true, upload_mode: true },
    uploadLimit: 2 * blockLength,
  })
  seeding.exemptLocalPeers(false)
  torrent.connectPeer(await addressOf(seeding))
  // Requests for every piece are with the peer now, and more blocks than these are under way.
  await until(async () => (await torrent.status()).payloadDownload >= blockLength)
  await writeFile(target, bytes)
  await Promise.all(Array.from({ length: 8 }, (_, piece) => torrent.announcePiece(piece)))
  await until(async () => (await torrent.status()).isSeeding)
  const marked = Buffer.alloc(bytes.length, 0x5a)
  await writeFile(target, marked)
  await until(async () => (await torrent.status()).numPeers === 0)
  expect((await readFile(target)).equals(marked)).toBe(true)
})

test('announcing a torrent of 16 MiB pieces takes no memory for them', async () => {
  await using folder = await temporaryDirectory()
  const large = 16 * 1024 * 1024
  const bytes = Buffer.alloc(6 * large + 1, 'llmpt')
  const { torrentFile, path } = await makeTorrent(folder.path, bytes, { pieceLength: large })
  await using session = openSession()
  const target = join(folder.path, 'target')
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: target },
  })
  await nextAlert(torrent, 'torrent_checked')
  await rm(path)
  await writeFile(target, bytes)
  globalThis.gc?.()
  const before = process.memoryUsage.rss()
  const finished = nextAlert(torrent, 'torrent_finished')
  const answers = Array.from({ length: 7 }, (_, piece) => torrent.announcePiece(piece))
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss())
  }, 1)
  await Promise.all([finished, ...answers])
  clearInterval(watch)
  expect(most - before).toBeLessThan(large / 2)
})

test('a piece that is not in the torrent is a RangeError, and the posix backend a NativeError', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(2 * pieceLength), { pieceLength })
  await using session = openSession()
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  for (const piece of [-1, 2, 0.5]) await expect(torrent.announcePiece(piece)).rejects.toThrow(RangeError)
  for (const [first, end] of [
    [-1, 1],
    [0, 3],
    [2, 1],
  ] as const)
    expect(() => torrent.sharePieces(first, end)).toThrow(RangeError)
  await using other = openSession({}, { diskBackend: 'posix' })
  const posix = await other.addTorrent({ torrentFile, savePath: folder.path })
  await expect(posix.announcePiece(0)).rejects.toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'announcePiece',
  })
  expect(() => posix.sharePieces(0, 1)).toThrow(
    expect.objectContaining({ code: 'ERR_LLMPT_NATIVE', operation: 'sharePieces' }),
  )
})

test('an announce is answered, or rejected, when its torrent is removed or its session closed', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(40 * pieceLength)
  for (const end of ['remove', 'close'] as const) {
    const { session, torrent, target } = await emptyDownload(folder.path, bytes)
    await using _session = session
    await writeFile(target, bytes)
    const answers = Promise.allSettled(Array.from({ length: 40 }, (_, piece) => torrent.announcePiece(piece)))
    await (end === 'remove' ? torrent.remove() : session.close())
    for (const answer of await answers) {
      if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ code: 'ERR_LLMPT_NATIVE' })
    }
    await expect(torrent.announcePiece(0)).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE' })
    await rm(target)
  }
})
