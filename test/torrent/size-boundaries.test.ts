/** Every size at which something about a torrent changes, one byte before it, and one byte after it. */
import { createHash } from 'node:crypto'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { TorrentError } from '../../src/errors.ts'
import { requireAddon } from '../../src/native/load.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { makeMagnet, parseMagnet } from '../../src/torrent/magnet.ts'
import { checkBlobTorrent, parseMetainfo } from '../../src/torrent/metainfo.ts'
import type { Etag, InfoHash } from '../../src/values.ts'
import { formats } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { bencode } from './fixtures/make-torrent.ts'
import { askLibtorrent, hasPythonLibtorrent } from './fixtures/python-libtorrent.ts'
import { zeroTorrent } from './fixtures/zero-torrent.ts'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

/** Size, piece length, pieces: written out, not computed. */
const blobs: readonly (readonly [sizeBytes: number, pieceLength: number, numPieces: number])[] = [
  [1, 256 * KiB, 1],
  [16 * KiB - 1, 256 * KiB, 1],
  [16 * KiB, 256 * KiB, 1],
  [16 * KiB + 1, 256 * KiB, 1],
  [256 * KiB - 1, 256 * KiB, 1],
  [256 * KiB, 256 * KiB, 1],
  [256 * KiB + 1, 256 * KiB, 2],
  [100 * MiB - 1, 256 * KiB, 400],
  [100 * MiB, MiB, 100],
  [100 * MiB + 1, MiB, 101],
  [GiB - 1, MiB, 1024],
  [GiB, 4 * MiB, 256],
  [GiB + 1, 4 * MiB, 257],
  [10 * GiB - 1, 4 * MiB, 2560],
  [10 * GiB, 16 * MiB, 640],
  [10 * GiB + 1, 16 * MiB, 641],
]

/** Around one piece and around a power of two of them, for the piece lengths that only larger blobs have. */
const others: typeof blobs = [MiB, 4 * MiB, 16 * MiB].flatMap(
  (length) =>
    [
      [length - 1, length, 1],
      [length, length, 1],
      [length + 1, length, 2],
      [4 * length - 1, length, 4],
      [4 * length, length, 4],
      [4 * length + 1, length, 5],
    ] as const,
)

/** Hashing 10 GiB takes a while, of holes too. */
const hashedUpTo = process.env['LLMPT_TEST_FULL'] ? Number.POSITIVE_INFINITY : 100 * MiB + 1

/** A blob of one block must have its real etag: it is compared with the root. */
function etagOf(sizeBytes: number): Etag {
  const content = sizeBytes <= 16 * KiB ? Buffer.alloc(sizeBytes) : `${sizeBytes} zeros`
  return createHash('sha256').update(content).digest('hex') as Etag
}

describe.each(formats)('the info dictionary of a %s torrent', (format) => {
  test.each([...blobs, ...others])(
    'of %i bytes in pieces of %i bytes has %i pieces',
    (sizeBytes, pieceLength, numPieces) => {
      const etag = etagOf(sizeBytes)
      const made = zeroTorrent(etag, sizeBytes, { format, pieceLength })
      const metainfo = parseMetainfo(made.torrentFile)
      expect(metainfo).toMatchObject({
        format,
        name: etag,
        pieceLength,
        numPieces,
        totalBytes: sizeBytes,
        isSingleFile: true,
        extraKeys: [],
        infoHash: made.infoHash,
        infoHashV1: made.infoHashV1,
        infoHashV2: made.infoHashV2,
      })
      const hasRoot = format !== 'v1'
      expect(metainfo.files).toMatchObject([
        { path: etag, sizeBytes, piecesRoot: hasRoot ? made.piecesRoot : undefined },
      ])
      const lengths = [...metainfo.pieceLayers].map(([root, layer]) => [root, layer.length])
      expect(lengths).toEqual(hasRoot && numPieces > 1 ? [[made.piecesRoot, 32 * numPieces]] : [])
    },
  )

  test.each(blobs)('of %i bytes is that of a blob in pieces of %i bytes', (sizeBytes, pieceLength) => {
    const blob = { etag: etagOf(sizeBytes), sizeBytes }
    const made = zeroTorrent(blob.etag, sizeBytes, { format, pieceLength })
    expect(checkBlobTorrent(parseMetainfo(made.torrentFile), blob, { allowV1: true })).toEqual([])
  })

  test.each(blobs)('of %i bytes is that of no blob one byte longer or shorter', (sizeBytes, pieceLength) => {
    const etag = etagOf(sizeBytes)
    const metainfo = parseMetainfo(zeroTorrent(etag, sizeBytes, { format, pieceLength }).torrentFile)
    for (const other of [sizeBytes - 1, sizeBytes + 1]) {
      const reasons = checkBlobTorrent(metainfo, { etag, sizeBytes: other }, { allowV1: true })
      expect(reasons.join()).toMatch(`${sizeBytes} bytes, not ${other}`)
    }
  })

  test.each(blobs)(
    'of %i bytes is that of no blob in pieces of half or of twice %i bytes',
    (sizeBytes, pieceLength) => {
      const blob = { etag: etagOf(sizeBytes), sizeBytes }
      for (const other of [pieceLength / 2, pieceLength * 2]) {
        const { torrentFile } = zeroTorrent(blob.etag, sizeBytes, { format, pieceLength: other })
        const reasons = checkBlobTorrent(parseMetainfo(torrentFile), blob, { allowV1: true })
        expect(reasons.join()).toMatch(`piece length is ${other}, not ${pieceLength}`)
      }
    },
  )

  test.each(blobs.filter(([sizeBytes]) => sizeBytes <= hashedUpTo))(
    'of %i zeros in pieces of %i bytes is what hashing such a file gives',
    async (sizeBytes, pieceLength) => {
      await using folder = await temporaryDirectory()
      const path = join(folder.path, 'zeros')
      await writeFile(path, '')
      await truncate(path, sizeBytes)
      const blob = { etag: etagOf(sizeBytes), sizeBytes }
      const made = await createBlobTorrent(requireAddon(), path, blob, { format })
      const expected = zeroTorrent(blob.etag, sizeBytes, { format, pieceLength })
      expect(made).toMatchObject({
        infoHashV1: expected.infoHashV1,
        infoHashV2: expected.infoHashV2,
        pieceLength,
      })
      const layers = [...parseMetainfo(made?.torrentFile ?? Buffer.alloc(0)).pieceLayers]
      const isLayered = format !== 'v1' && expected.layer.length > 32
      expect(layers.map(([root]) => root)).toEqual(isLayered ? [expected.piecesRoot] : [])
      if (isLayered) expect(expected.layer.equals(layers[0]?.[1] ?? Buffer.alloc(0))).toBe(true)
    },
    120_000,
  )

  test('of no byte is no blob torrent', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'empty')
    await writeFile(path, '')
    const blob = { etag: etagOf(0), sizeBytes: 0 }
    expect(await createBlobTorrent(requireAddon(), path, blob, { format })).toBeUndefined()
    const info = {
      name: blob.etag,
      'piece length': 256 * KiB,
      ...(format !== 'v1' && { 'file tree': { [blob.etag]: { '': { length: 0 } } }, 'meta version': 2 }),
      ...(format !== 'v2' && { length: 0, pieces: '' }),
    }
    const reasons = checkBlobTorrent(parseMetainfo(bencode({ info })), blob, { allowV1: true })
    expect(reasons.join()).toMatch('empty file')
  })
})

describe('a torrent with one piece too few or too many', () => {
  test.each([...blobs, ...others])(
    'is refused: %i bytes in pieces of %i bytes, a layer',
    (sizeBytes, pieceLength) => {
      const { layer } = zeroTorrent('f', sizeBytes, { pieceLength })
      for (const wrong of [layer.subarray(32), Buffer.concat([layer, Buffer.alloc(32)])]) {
        const { torrentFile } = zeroTorrent('f', sizeBytes, { pieceLength, layer: wrong })
        expect(() => parseMetainfo(torrentFile)).toThrow(TorrentError)
      }
    },
  )

  test.each([...blobs, ...others])(
    'is refused: %i bytes in pieces of %i bytes, v1',
    (sizeBytes, pieceLength) => {
      const { pieces } = zeroTorrent('f', sizeBytes, { format: 'v1', pieceLength })
      for (const wrong of [pieces.subarray(20), Buffer.concat([pieces, Buffer.alloc(20)])]) {
        const { torrentFile } = zeroTorrent('f', sizeBytes, { format: 'v1', pieceLength, pieces: wrong })
        expect(() => parseMetainfo(torrentFile)).toThrow(TorrentError)
      }
    },
  )
})

test('a layer for a file of exactly one piece is refused, and of one byte more it is needed', () => {
  const layer = Buffer.from(zeroTorrent('f', 256 * KiB, { pieceLength: 256 * KiB }).piecesRoot, 'hex')
  const { torrentFile } = zeroTorrent('f', 256 * KiB, { pieceLength: 256 * KiB, layer })
  expect(() => parseMetainfo(torrentFile)).toThrow(/32 bytes for 1 pieces/)
  const blob = { etag: etagOf(256 * KiB + 1), sizeBytes: 256 * KiB + 1 }
  const made = zeroTorrent(blob.etag, blob.sizeBytes, { pieceLength: 256 * KiB })
  const text = made.torrentFile.toString('latin1').replace(/12:piece layersd[\s\S]*$/, '12:piece layersdee')
  expect(checkBlobTorrent(parseMetainfo(Buffer.from(text, 'latin1')), blob).join()).toMatch(
    'layer is missing',
  )
})

test.skipIf(!hasPythonLibtorrent)('libtorrent reads the same from the torrents of all these sizes', () => {
  const made = formats.flatMap((format) =>
    [...blobs, ...others].map(([sizeBytes, pieceLength, numPieces]) => ({
      torrent: zeroTorrent('zeros', sizeBytes, { format, pieceLength }),
      facts: { sizeBytes, pieceLength, numPieces },
    })),
  )
  const read = askLibtorrent({ read: made.map(({ torrent }) => torrent.torrentFile.toString('base64')) }).read
  const expected = made.map(({ torrent, facts }) => ({
    ...facts,
    v1: torrent.infoHashV1 ?? null,
    v2: torrent.infoHashV2 ?? null,
  }))
  expect(read).toEqual(expected)
})

describe('the magnet link', () => {
  const v2 = '89abcdef'.repeat(8) as InfoHash
  const v1 = '01234567'.repeat(5) as InfoHash

  test.each([...blobs, [Number.MAX_SAFE_INTEGER, 16 * MiB, 0] as const])(
    'of a blob of %i bytes says so, and is read back',
    (sizeBytes) => {
      const name = etagOf(sizeBytes % GiB)
      const magnet = makeMagnet({ infoHashV1: v1, infoHashV2: v2, name, sizeBytes })
      expect(magnet).toBe(`magnet:?xt=urn:btih:${v1}&xt=urn:btmh:1220${v2}&dn=${name}&xl=${sizeBytes}`)
      expect(parseMagnet(magnet)).toMatchObject({
        infoHash: v2,
        infoHashV1: v1,
        infoHashV2: v2,
        name,
        sizeBytes,
      })
    },
  )

  test.each([
    ['0', 0],
    ['1', 1],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    ['9007199254740992', undefined],
    ['99999999999999999', undefined],
    ['-1', undefined],
    ['1.5', undefined],
    ['', undefined],
  ])('with xl=%s has the size %s', (text, sizeBytes) => {
    expect(parseMagnet(`magnet:?xt=urn:btmh:1220${v2}&xl=${text}`).sizeBytes).toBe(sizeBytes)
  })
})
