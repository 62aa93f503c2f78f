/** What is kept of a damaged file, beside what an interrupted download has brought. */
import { lstat, mkdir, open, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { salvage } from '../../src/cache-check/salvage.ts'
import { damagedBlobPath, partialBlobPath } from '../../src/hub/cache-layout.ts'
import { requireAddon } from '../../src/native/load.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'
import { Journal } from '../../src/transfer/journal.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'
import { hubFile, sha256 } from '../hub/fixtures.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { openLocks } from '../support/transfer-rig.ts'
import { flipBit, mebibyte, pieceLength } from './fixtures.ts'

/** A file of holes with its torrent, and a damaged copy in a cache. */
async function damagedFile(sizeBytes: number) {
  const folder = await temporaryDirectory()
  const [cacheDir, stateDir, content] = ['hub', 'llmpt', 'content'].map((name) => join(folder.path, name))
  if (cacheDir === undefined || stateDir === undefined || content === undefined) throw new Error('no paths')
  const file = hubFile('holes.bin', '', { etag: sha256('any name does'), sizeBytes })
  const [damaged, partial] = [damagedBlobPath, partialBlobPath].map((pathOf) =>
    pathOf(cacheDir, file, file.etag),
  ) as [string, string]
  await mkdir(dirname(damaged), { recursive: true })
  for (const path of [content, damaged]) {
    await writeFile(path, '')
    await truncate(path, sizeBytes)
  }
  const addon = requireAddon()
  const torrent = await createBlobTorrent(addon, content, file)
  if (torrent === undefined) throw new Error('no torrent')
  const journal = new Journal(stateDir, partial, file.etag)
  return {
    damaged,
    partial,
    /** The pieces a download would go on from. */
    kept: async () => {
      const left = await journal.load(sizeBytes, pieceLengthFor(sizeBytes))
      return left && [...left.map.present()]
    },
    /** An interrupted download that has the first pieces. */
    begin: async (pieces: number) => {
      const map = new PieceMap(sizeBytes, pieceLengthFor(sizeBytes))
      for (let piece = 0; piece < pieces; piece++) map.mark(piece, 'http')
      await writeFile(partial, 'begun')
      await truncate(partial, sizeBytes)
      journal.begin(map)
      journal.close()
    },
    salvage: (locks = openLocks) => salvage(file, torrent.torrentFile, { cacheDir, stateDir, addon, locks }),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

test('what is left of a file is compared in the pieces of the whole file, however short it is', async () => {
  await using file = await damagedFile(101 * mebibyte)
  await truncate(file.damaged, 99 * mebibyte)
  expect(await file.salvage()).toEqual({ pieceLength: mebibyte, wrongPieces: [99, 100] })
  expect(await file.kept()).toEqual(Array.from({ length: 99 }, (_, piece) => piece))
})

test('what is too long is cut, and its last piece counts', async () => {
  await using file = await damagedFile(2 * mebibyte + 100)
  await truncate(file.damaged, 3 * mebibyte)
  expect((await file.salvage())?.wrongPieces).toEqual([])
  expect((await lstat(file.partial)).size).toBe(2 * mebibyte + 100)
})

test('an interrupted download that has less makes room', async () => {
  await using file = await damagedFile(mebibyte)
  await flipBit(file.damaged, 2 * pieceLength)
  await file.begin(2)
  await file.salvage()
  expect(await file.kept()).toEqual([0, 1, 3])
  await using partial = await open(file.partial)
  expect((await partial.read(Buffer.alloc(5), 0, 5, 0)).buffer.toString('hex')).toBe('0000000000')
})

test('an interrupted download that has more stays as it is', async () => {
  await using file = await damagedFile(mebibyte)
  for (const piece of [0, 2, 3]) await flipBit(file.damaged, piece * pieceLength)
  await file.begin(2)
  expect((await file.salvage())?.wrongPieces).toEqual([0, 2, 3])
  expect(await file.kept()).toEqual([0, 1])
  expect((await readFile(file.partial)).toString('utf8', 0, 5)).toBe('begun')
  expect((await lstat(file.damaged)).size).toBe(mebibyte)
})

test('where no lock can be had all stays as it is, since no download would go on with it', async () => {
  await using file = await damagedFile(mebibyte)
  const none = {
    tryLock: (): boolean => {
      throw new Error('ENOLCK')
    },
    unlock: (): void => {},
  }
  expect(await file.salvage(none)).toBeUndefined()
  expect(await readdir(dirname(file.damaged))).toEqual([basename(file.damaged)])
  expect(await file.kept()).toBeUndefined()
})
