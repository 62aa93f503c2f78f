import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  type Format,
  formats,
  makeTorrent,
  nextAlert,
  openSession,
  someBytes,
} from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 64 * 1024
const blockLength = 16 * 1024
const sizes = [
  1,
  blockLength - 1,
  blockLength,
  blockLength + 1,
  pieceLength - 1,
  pieceLength,
  pieceLength + 1,
  pieceLength + blockLength,
  2 * pieceLength - 3,
  2 * pieceLength,
  5 * pieceLength + 3 * blockLength + 7,
]

function pieceOf(bytes: Uint8Array, piece: number): Uint8Array {
  return bytes.subarray(piece * pieceLength, (piece + 1) * pieceLength)
}

describe.each(formats)('a %s torrent', (format: Format) => {
  test('is completed by pieces given from elsewhere, whatever the length of its last one', async () => {
    await using folder = await temporaryDirectory()
    await using session = openSession()
    for (const size of sizes) {
      const bytes = someBytes(size, String(size))
      const { torrentFile } = await makeTorrent(folder.path, bytes, {
        format,
        pieceLength,
        name: `of ${size}`,
      })
      const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
      await nextAlert(torrent, 'torrent_checked')
      const finished = nextAlert(torrent, 'torrent_finished', undefined, 10_000)
      for (let piece = 0; piece * pieceLength < size; piece++) torrent.addPiece(piece, pieceOf(bytes, piece))
      await finished
      expect((await readFile(join(folder.path, `of ${size}`))).equals(bytes)).toBe(true)
    }
  })

  test('refuses a piece that is not as long as it should be', async () => {
    await using folder = await temporaryDirectory()
    await using session = openSession()
    const { torrentFile } = await makeTorrent(folder.path, someBytes(pieceLength + 1000), {
      format,
      pieceLength,
    })
    const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
    for (const length of [0, 1000, pieceLength - 1, pieceLength + 1]) {
      expect(() => torrent.addPiece(0, new Uint8Array(length))).toThrow(RangeError)
    }
    for (const length of [0, 999, 1001, pieceLength]) {
      expect(() => torrent.addPiece(1, new Uint8Array(length))).toThrow(RangeError)
    }
  })

  test('takes a piece that failed its hash again', async () => {
    await using folder = await temporaryDirectory()
    await using session = openSession()
    const bytes = someBytes(3 * pieceLength - 5)
    const { torrentFile } = await makeTorrent(folder.path, bytes, { format, pieceLength })
    const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
    await nextAlert(torrent, 'torrent_checked')
    const finished = nextAlert(torrent, 'torrent_finished')
    for (const piece of [0, 2]) {
      const failed = nextAlert(torrent, 'hash_failed')
      torrent.addPiece(
        piece,
        pieceOf(bytes, piece).map((byte) => byte ^ 1),
      )
      expect(await failed).toMatchObject({ piece })
      // A second failure is libtorrent's own, now and then; the third try has not been seen to fail.
      for (let tries = 0; tries < 3; tries++) {
        const answer = Promise.race([
          nextAlert(torrent, 'piece_finished', (alert) => alert.piece === piece),
          nextAlert(torrent, 'hash_failed', (alert) => alert.piece === piece),
        ])
        torrent.addPiece(piece, pieceOf(bytes, piece), { overwrite: true })
        if ((await answer).type === 'piece_finished') break
      }
    }
    torrent.addPiece(1, pieceOf(bytes, 1))
    await finished
    expect((await readFile(join(folder.path, 'blob'))).equals(bytes)).toBe(true)
  })
})

test('the buffer given may be reused at once', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const bytes = someBytes(4 * pieceLength)
  const { torrentFile } = await makeTorrent(folder.path, bytes, { pieceLength })
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  await nextAlert(torrent, 'torrent_checked')
  const finished = nextAlert(torrent, 'torrent_finished')
  const buffer = new Uint8Array(pieceLength)
  for (let piece = 0; piece < 4; piece++) {
    buffer.set(pieceOf(bytes, piece))
    torrent.addPiece(piece, buffer)
    buffer.fill(0)
  }
  await finished
})
