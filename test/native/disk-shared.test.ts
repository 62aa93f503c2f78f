/** Two hands on one file: what libtorrent makes of bytes that somebody else writes beside its peers. */
import { closeSync, openSync, writeSync } from 'node:fs'
import { mkdir, open, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Torrent } from '../../src/native/session.ts'
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
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 128 * 1024
const blockLength = 16 * 1024
const eio = 5
const eisdir = 21

async function writeAt(path: string, bytes: Uint8Array, offset: number): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, offset)
  await file.close()
}

/** A download from one seed, which sends what `brought` holds, slowly until it is told otherwise. */
async function startDownload(
  folder: string,
  bytes: Uint8Array,
  options: { format?: Format; brought?: Uint8Array; rate?: number; pieceLength?: number } = {},
) {
  const { torrentFile, path } = await makeTorrent(folder, bytes, {
    pieceLength: options.pieceLength ?? pieceLength,
    format: options.format ?? 'v2',
  })
  if (options.brought !== undefined) await writeFile(path, options.brought)
  const seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  seeding.exemptLocalPeers(false)
  const seed = await seeding.addTorrent({
    torrentFile,
    savePath: folder,
    renamedFiles: { 0: path },
    // Bytes that are not what the torrent says are sent only by who has not looked at them.
    ...(options.brought === undefined
      ? { flags: { seed_mode: true, upload_mode: true } }
      : { havePieces: new Uint8Array(Math.ceil(bytes.length / pieceLength / 8)).fill(0xff) }),
    uploadLimit: options.rate ?? 0,
  })
  const session = openSession()
  const target = join(folder, 'target')
  const torrent = await session.addTorrent({ torrentFile, savePath: folder, renamedFiles: { 0: target } })
  await nextAlert(torrent, 'torrent_checked')
  return {
    torrent,
    seed,
    target,
    begin: async () => torrent.connectPeer(await addressOf(seeding)),
    [Symbol.asyncDispose]: async () => void (await Promise.all([session.close(), seeding.close()])),
  }
}

/** A piece of which a peer has brought the first block, but not all. */
async function startedPiece(torrent: Torrent): Promise<number> {
  let piece: number | undefined
  await until(async () => {
    const begun = (await torrent.unfinishedPieces()).find(({ blocks }) => ((blocks[0] ?? 0) & 0x80) !== 0)
    piece = begun?.piece
    return piece !== undefined
  })
  return piece as number
}

describe.each(formats)('in a %s torrent', (format) => {
  test('what somebody else writes over the blocks of peers fails a shared piece, and no peer is blamed', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(3 * pieceLength)
    await using scene = await startDownload(folder.path, bytes, { format, rate: blockLength })
    const { torrent, seed, target } = scene
    torrent.sharePieces(0, 3)
    await scene.begin()
    const piece = await startedPiece(torrent)
    await writeAt(target, Buffer.alloc(blockLength, 0x5a), piece * pieceLength)
    const failed = nextAlert(torrent, 'hash_failed')
    const finished = nextAlert(torrent, 'torrent_finished')
    seed.setRateLimits({})
    expect((await failed).piece).toBe(piece)
    expect((await torrent.peers()).map(({ hashFailures }) => hashFailures)).toEqual([0])
    await finished
    expect((await readFile(target)).equals(bytes)).toBe(true)
    expect(await torrent.status()).toMatchObject({ failedBytes: 0 })
  })

  test('wrong bytes that are announced are not charged to the peer that brought a part of the piece', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(3 * pieceLength)
    await using scene = await startDownload(folder.path, bytes, { format, rate: blockLength })
    const { torrent, seed, target } = scene
    await scene.begin()
    const piece = await startedPiece(torrent)
    await writeAt(target, Buffer.alloc(pieceLength, 0x5a), piece * pieceLength)
    expect(await torrent.announcePiece(piece)).toEqual({ hasPassed: false, wasThere: false })
    expect((await torrent.peers()).map(({ hashFailures }) => hashFailures)).toEqual([0])
    const finished = nextAlert(torrent, 'torrent_finished')
    seed.setRateLimits({})
    await finished
    expect((await readFile(target)).equals(bytes)).toBe(true)
    expect(await torrent.status()).toMatchObject({ failedBytes: 0 })
  })

  test('a peer that sends rubbish for a shared piece is charged with it', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(pieceLength)
    const brought = bytes.map((byte) => byte ^ 1)
    await using scene = await startDownload(folder.path, bytes, { format, brought })
    const { torrent } = scene
    torrent.sharePieces(0, 1)
    const failed = nextAlert(torrent, 'hash_failed')
    await scene.begin()
    await failed
    expect((await torrent.status()).failedBytes).toBeGreaterThan(0)
  })
})

// Some announces come while a block of the peer is on its way through the backend: that one must not be what it was.
test('whatever wrong bytes are announced, and when, a peer is never charged with them', async () => {
  await using folder = await temporaryDirectory()
  const large = 4 * 1024 * 1024
  const bytes = Buffer.concat([...Array(8).keys()].map((piece) => Buffer.alloc(large, piece)))
  await using scene = await startDownload(folder.path, bytes, { pieceLength: large })
  const { torrent, target } = scene
  torrent.sharePieces(0, 8)
  const file = openSync(target, 'w+')
  await scene.begin()
  await until(async () => (await torrent.status()).payloadDownload > 0)
  const rubbish = Buffer.alloc(blockLength, 0x5a)
  let announced = 0
  for (let round = 0; round < rounds(300, 3000); round++) {
    const [begun] = await torrent.unfinishedPieces()
    if (begun === undefined) continue
    announced += 1
    // At once: while a file is opened and written to behind the scenes, a piece comes and goes.
    for (let block = 0; block < 256; block += 32) {
      writeSync(file, rubbish, 0, blockLength, begun.piece * large + block * blockLength)
    }
    await torrent.announcePiece(begun.piece)
  }
  closeSync(file)
  expect(announced).toBeGreaterThan(0)
  const { failedBytes, numPeers, state } = await torrent.status()
  expect(failedBytes).toBe(0)
  // Two who have everything part; whoever is banned parts before.
  expect(numPeers === 1 || state === 'seeding').toBe(true)
  for (const { hashFailures } of await torrent.peers()) expect(hashFailures).toBe(0)
})

test('a disk that cannot be read is the answer to an announce, and the torrent goes on', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(2 * pieceLength)
  const { torrentFile } = await makeTorrent(folder.path, bytes, { pieceLength })
  await using session = openSession()
  const target = join(folder.path, 'target')
  await mkdir(target)
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: target },
    havePieces: new Uint8Array(1),
  })
  await nextAlert(torrent, 'torrent_checked')
  const errors: string[] = []
  torrent.onAlert(({ type }) => errors.push(type))
  await expect(torrent.announcePiece(1)).rejects.toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'announcePiece',
    value: eisdir,
  })
  expect(await torrent.status()).toMatchObject({ isPaused: false })
  expect(errors.filter((type) => type.endsWith('_error'))).toEqual([])
  await rmdir(target)
  await writeFile(target, bytes)
  expect(await torrent.announcePiece(1)).toEqual({ hasPassed: true, wasThere: false })
})

test('an input/output error is the answer to an announce', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(2 * pieceLength), { pieceLength })
  await using session = openSession()
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder.path,
    // Its first page cannot be mapped, and so reading there is EIO.
    renamedFiles: { 0: '/proc/self/mem' },
    havePieces: new Uint8Array(1),
  })
  await nextAlert(torrent, 'torrent_checked')
  await expect(torrent.announcePiece(0)).rejects.toMatchObject({ category: 'generic', value: eio })
})

test('an announce while the files are still being checked is answered: it cannot be checked now', async () => {
  await using folder = await temporaryDirectory()
  // Checking them takes longer than getting here.
  const bytes = Buffer.alloc(1500 * pieceLength, 'llmpt')
  const { torrentFile, path } = await makeTorrent(folder.path, bytes, { pieceLength })
  await using session = openSession()
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path, renamedFiles: { 0: path } })
  const { state } = await torrent.status()
  expect(state).toMatch(/^checking/)
  await expect(torrent.announcePiece(1499)).rejects.toMatchObject({ operation: 'announcePiece' })
})
