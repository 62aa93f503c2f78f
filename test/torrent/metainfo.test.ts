import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { TorrentError } from '../../src/errors.ts'
import { parseMagnet } from '../../src/torrent/magnet.ts'
import { checkBlobTorrent, defaultMetainfoLimits, parseMetainfo } from '../../src/torrent/metainfo.ts'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'
import type { Etag } from '../../src/values.ts'
import { type Bencodable, bencode, type MakeOptions, makeTorrent, Raw } from './fixtures/make-torrent.ts'
import { askLibtorrent, hasPythonLibtorrent, type TorrentSpec } from './fixtures/python-libtorrent.ts'

const KiB = 1024
const MiB = 1024 * KiB
const formats = ['v1', 'v2', 'hybrid'] as const

function etagOf(content: Uint8Array): Etag {
  return createHash('sha256').update(content).digest('hex') as Etag
}

/** A torrent of 3 bytes whose info has other entries than it should. */
function withInfo(info: { [key: string]: Bencodable }, options: MakeOptions = {}): Buffer {
  return makeTorrent('f', Buffer.from('abc'), { ...options, info }).torrentFile
}

describe.skipIf(!hasPythonLibtorrent)('beside libtorrent', () => {
  const sizes = [
    1,
    16 * KiB - 1,
    16 * KiB,
    16 * KiB + 1,
    256 * KiB - 1,
    256 * KiB,
    256 * KiB + 1,
    5 * 256 * KiB + 7,
  ]
  const large = [100 * MiB - 1, 100 * MiB]
  const folder = [
    { path: 'dir/10', size: 300_000 },
    { path: 'dir/2', size: 20_000 },
    { path: 'dir/sub/ä', size: 5 },
    { path: 'dir/sub.x', size: 262_144 },
  ]
  const specs: TorrentSpec[] = [
    ...formats.flatMap((format) =>
      sizes.map((size) => ({ format, pieceLength: 256 * KiB, files: [{ path: 'one', size }] })),
    ),
    ...large.map((size) => ({
      format: 'v2' as const,
      pieceLength: pieceLengthFor(size),
      files: [{ path: 'one', size }],
    })),
    ...formats.map((format) => ({
      format,
      pieceLength: 64 * KiB,
      files: folder,
      trackers: ['http://t.example/announce'],
    })),
    {
      format: 'v2',
      pieceLength: 16 * KiB,
      files: [{ path: 'p', size: 9 }],
      private: true,
      webSeeds: ['http://w.example/'],
    },
  ]
  const references = hasPythonLibtorrent ? askLibtorrent({ torrents: specs }).torrents : []

  test.each(
    specs.map((spec, index) => ({ spec, index, title: `${spec.format}, ${spec.files.map((f) => f.size)}` })),
  )('reads the same from a torrent: $title', ({ spec, index }) => {
    const reference = references[index]
    const metainfo = parseMetainfo(Buffer.from(reference?.torrent ?? '', 'base64'))
    expect(metainfo).toMatchObject({
      format: spec.format,
      infoHash: reference?.v2 ?? reference?.v1,
      infoHashV1: reference?.v1 ?? undefined,
      infoHashV2: reference?.v2 ?? undefined,
      name: reference?.name,
      numPieces: reference?.numPieces,
      pieceLength: spec.pieceLength,
      trackers: spec.trackers ?? [],
      isPrivate: spec.private ?? false,
      hasWebSeeds: spec.webSeeds !== undefined,
      isSingleFile: spec.files.length === 1,
    })
    const prefix = metainfo.isSingleFile ? '' : `${metainfo.name}/`
    const files = metainfo.files.map((file) => ({
      path: prefix + file.path,
      size: file.sizeBytes,
      root: file.piecesRoot ?? null,
    }))
    expect(files).toEqual(reference?.files)
    const magnet = parseMagnet(reference?.magnet ?? '')
    expect([magnet.infoHashV1, magnet.infoHashV2]).toEqual([metainfo.infoHashV1, metainfo.infoHashV2])
    expect([magnet.name, magnet.trackers]).toEqual([metainfo.name, metainfo.trackers])
  })

  test('our own torrents of the tests are what libtorrent makes', () => {
    specs.forEach((spec, index) => {
      const size = spec.files[0]?.size ?? 0
      if (spec.files.length > 1 || size > MiB || spec.private) return
      const content = Buffer.alloc(size)
      for (let i = 0; i < Math.min(size, 70_000); i++) content[i] = (i * 31) % 251
      const made = makeTorrent('one', content, { format: spec.format, pieceLength: spec.pieceLength })
      expect(made.infoHash).toBe(references[index]?.v2 ?? references[index]?.v1)
    })
  })
})

describe('hostile bytes', () => {
  const good = makeTorrent('f', Buffer.from('abc')).torrentFile.toString('latin1')
  const spoilt = (from: string, to: string): Buffer => {
    expect(good).toContain(from)
    return Buffer.from(good.replace(from, to), 'latin1')
  }

  test.each<[string, Uint8Array, RegExp]>([
    ['nothing', Buffer.alloc(0), /not a bencoded dictionary/],
    ['a page', Buffer.from('<!doctype html>'), /not a bencoded dictionary/],
    ['a list', Buffer.from('le'), /not a bencoded dictionary/],
    ['an empty dictionary', Buffer.from('de'), /no "info"/],
    ['info that is a string', Buffer.from('d4:info3:abce'), /not a bencoded dictionary/],
    ['bytes after the end', Buffer.from(`${good}x`, 'latin1'), /after the end/],
    ['a missing end', Buffer.from(good.slice(0, -1), 'latin1'), /bencode/],
    ['a string past the end', spoilt('4:name1:f', '4:name999999:f'), /runs past the end/],
    ['a string length with a leading zero', spoilt('4:name1:f', '4:name01:f'), /leading zero/],
    ['a string length beyond numbers', spoilt('1:f', '99999999999999999999:f'), /too large|no string/],
    ['a negative string length', spoilt('4:name1:f', '4:name-1:f'), /bencode/],
    ['a leading zero', spoilt('6:lengthi3e', '6:lengthi03e'), /leading zero/],
    ['minus zero', spoilt('6:lengthi3e', '6:lengthi-0e'), /minus zero/],
    ['a negative length', spoilt('6:lengthi3e', '6:lengthi-3e'), /without a size/],
    ['a float', spoilt('6:lengthi3e', '6:lengthi3.0e'), /broken integer/],
    ['a plus sign', spoilt('6:lengthi3e', '6:lengthi+3e'), /no number/],
    ['an empty integer', spoilt('6:lengthi3e', '6:lengthie'), /no number/],
    ['an integer beyond 2^53', spoilt('6:lengthi3e', '6:lengthi9007199254740993e'), /too large/],
    ['a key twice', spoilt('4:name1:f', '4:name1:f4:name1:g'), /ascending/],
    ['keys out of order', spoilt('4:name1:f', '4:name1:f1:a1:b'), /ascending/],
    ['a key that is a number', spoilt('4:name1:f', 'i4e1:f'), /bencode/],
    ['a key without a value', spoilt('12:piece lengthi262144e', '12:piece length'), /key without a value/],
    ['__proto__ inside info', withInfo({ __proto__x: 1, ['__proto__']: { length: 3 } }), /__proto__/],
    ['a name that is not UTF-8', withInfo({ name: Buffer.from([0x66, 0xff]) }), /not UTF-8/],
    ['a key that is not UTF-8', withInfo({ '\xff\xfe': 1 }), /not UTF-8/],
    ['a key with U+FFFD', withInfo({ '\xef\xbf\xbd': 1 }), /U\+FFFD/],
    ['a key that starts with a byte order mark', withInfo({ '\xef\xbb\xbfx': 1 }), /U\+FEFF/],
  ])('%s: refused', (_, bytes, reason) => {
    expect(() => parseMetainfo(bytes)).toThrow(TorrentError)
    expect(() => parseMetainfo(bytes)).toThrow(reason)
  })

  test.each(['', '.', '..', '../f', 'a/b', 'a\\b', 'a\0b', 'C:', 'c:x', '\n', 'x'.repeat(256)])(
    'the name %j is refused, as name, as file and as folder',
    (name) => {
      const key = Buffer.from(name).toString('latin1')
      const leaf = { '': { length: 3, 'pieces root': Buffer.alloc(32) } }
      expect(() => parseMetainfo(withInfo({ name }))).toThrow(TorrentError)
      expect(() => parseMetainfo(withInfo({ 'file tree': { [key]: leaf } }))).toThrow(TorrentError)
      expect(() => parseMetainfo(withInfo({ 'file tree': { [key]: { x: leaf } } }))).toThrow(TorrentError)
      const files = [{ length: 3, path: ['d', name] }]
      const v1 = bencode({ info: { files, name: 'n', 'piece length': 16384, pieces: Buffer.alloc(20) } })
      expect(() => parseMetainfo(v1)).toThrow(TorrentError)
    },
  )

  test.each<[string, Buffer]>([
    ['another meta version', withInfo({ 'meta version': 3 })],
    ['a file tree without a version', withInfo({ 'meta version': 1 })],
    ['no piece length', withInfo({ 'piece length': 0 })],
    ['a piece length that is no power of two', withInfo({ 'piece length': 20_000 })],
    ['a piece length below a block', withInfo({ 'piece length': 8192 })],
    ['a negative piece length', withInfo({ 'piece length': -16384 })],
    ['no files', withInfo({ 'file tree': {} })],
    ['a file tree that is a list', withInfo({ 'file tree': [] })],
    [
      'a file that is also a folder',
      withInfo({ 'file tree': { f: { '': { length: 0 }, x: { '': { length: 0 } } } } }),
    ],
    ['a file without a root', withInfo({ 'file tree': { f: { '': { length: 3 } } } })],
    ['a root that is too short', withInfo({ 'file tree': { f: { '': { length: 3, 'pieces root': 'x' } } } })],
    [
      'an empty file with a root',
      withInfo({ 'file tree': { f: { '': { length: 0, 'pieces root': Buffer.alloc(32) } } } }),
    ],
    ['a link', withInfo({ 'file tree': { f: { '': { attr: 'l', length: 0 } } } })],
    ['two names', withInfo({ 'name.utf-8': 'g' })],
    ['pieces that are too few', withInfo({ pieces: '' }, { format: 'v1' })],
    ['pieces that are too many', withInfo({ pieces: Buffer.alloc(40) }, { format: 'v1' })],
    ['length and files', withInfo({ files: [] }, { format: 'v1' })],
    ['different files for v1 and v2', withInfo({ length: 4 }, { format: 'hybrid' })],
    [
      'sizes that add up beyond numbers',
      bencode({
        info: {
          files: [1, 2].map((n) => ({ length: Number.MAX_SAFE_INTEGER, path: [`${n}`] })),
          name: 'n',
          'piece length': 2 ** 28,
          pieces: '',
        },
      }),
    ],
    [
      'two v1 files of one name',
      bencode({
        info: {
          files: [1, 1].map(() => ({ length: 1, path: ['a'] })),
          name: 'n',
          'piece length': 2,
          pieces: Buffer.alloc(20),
        },
      }),
    ],
    [
      'another path.utf-8',
      bencode({
        info: {
          files: [{ length: 1, path: ['a'], 'path.utf-8': ['b'] }],
          name: 'n',
          'piece length': 2,
          pieces: Buffer.alloc(20),
        },
      }),
    ],
  ])('%s: refused', (_, bytes) => {
    expect(() => parseMetainfo(bytes)).toThrow(TorrentError)
  })

  test('nesting is limited without recursion', () => {
    const deep = (levels: number): Buffer =>
      bencode({ info: new Raw(makeInfo()), z: new Raw('l'.repeat(levels) + 'e'.repeat(levels)) })
    const makeInfo = (): Buffer => {
      const torrent = makeTorrent('f', Buffer.from('abc')).torrentFile
      return torrent.subarray('d4:info'.length, -1)
    }
    expect(parseMetainfo(deep(99)).name).toBe('f')
    expect(() => parseMetainfo(deep(100))).toThrow(/nested deeper/)
    expect(() => parseMetainfo(deep(1_000_000))).toThrow(/nested deeper/)
  })

  test('size, number of values and number of pieces are limited', () => {
    const torrent = makeTorrent('f', Buffer.alloc(300_000)).torrentFile
    const limits = defaultMetainfoLimits
    expect(() => parseMetainfo(torrent, { ...limits, maxBytes: torrent.length - 1 })).toThrow(
      /bytes, more than/,
    )
    expect(() => parseMetainfo(torrent, { ...limits, maxTokens: 5 })).toThrow(/more than 5 values/)
    expect(() => parseMetainfo(torrent, { ...limits, maxPieces: 1 })).toThrow(/2 pieces, too many/)
    expect(parseMetainfo(torrent, { ...limits, maxBytes: torrent.length, maxPieces: 2 }).numPieces).toBe(2)
  })

  test('10 MB of the worst input take seconds, not hours', () => {
    const inputs = [
      Buffer.from(`d1:a${'l'.repeat(9_999_000)}`),
      Buffer.from(`d1:al${'le'.repeat(4_990_000)}ee`),
      Buffer.from(`d1:al${'i0e'.repeat(3_320_000)}ee`),
      Buffer.from(`d1:a${'9'.repeat(9_999_000)}`),
    ]
    for (const input of inputs) {
      const start = performance.now()
      expect(() => parseMetainfo(input)).toThrow(TorrentError)
      expect(performance.now() - start).toBeLessThan(5000)
    }
  })

  test('every truncation and every flipped byte is refused or still a torrent, never another error', () => {
    const torrent = makeTorrent('f', Buffer.alloc(300_000), {
      format: 'hybrid',
      outer: { announce: 'http://t/' },
    }).torrentFile
    for (let position = 0; position < torrent.length; position++) {
      const flipped = Buffer.from(torrent)
      flipped[position] = (flipped[position] ?? 0) ^ (1 << (position % 8))
      for (const bytes of [flipped, torrent.subarray(0, position)]) {
        try {
          parseMetainfo(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(TorrentError)
        }
      }
    }
  })
})

describe('what stands outside info', () => {
  test('trackers are collected from both keys, each once, and what is broken is skipped', () => {
    const outer = {
      announce: 'http://a/',
      'announce-list': [['http://b/', 'http://a/'], ['no url', 7, []], 'http://c/'],
    }
    const { torrentFile } = makeTorrent('f', Buffer.from('abc'), { outer })
    expect(parseMetainfo(torrentFile).trackers).toEqual(['http://a/', 'http://b/', 'http://c/'])
  })

  test('web seeds are noticed, and empty ones are none', () => {
    const has = (outer: MakeOptions['outer']): boolean =>
      parseMetainfo(makeTorrent('f', Buffer.from('abc'), { outer: outer ?? {} }).torrentFile).hasWebSeeds
    expect(has({ 'url-list': 'http://w/' })).toBe(true)
    expect(has({ httpseeds: ['http://w/'] })).toBe(true)
    expect(has({ 'url-list': '' })).toBe(false)
    expect(has({ 'url-list': [] })).toBe(false)
  })

  test('a piece layer that does not hash to its root is refused', () => {
    const content = Buffer.alloc(600_000, 1)
    const { piecesRoot } = makeTorrent('f', content)
    const root = Buffer.from(piecesRoot, 'hex').toString('latin1')
    const withLayers = (layers: { [key: string]: Bencodable }): Buffer =>
      makeTorrent('f', content, { outer: { 'piece layers': layers } }).torrentFile
    expect(() => parseMetainfo(withLayers({ [root]: Buffer.alloc(96) }))).toThrow(/another root/)
    expect(() => parseMetainfo(withLayers({ [root]: Buffer.alloc(64) }))).toThrow(/64 bytes for 3 pieces/)
    expect(() => parseMetainfo(withLayers({ [root]: 5 }))).toThrow(/expected a string/)
    expect(() => parseMetainfo(withLayers({ ['x'.repeat(32)]: Buffer.alloc(96) }))).toThrow(/no file/)
    expect(parseMetainfo(makeTorrent('f', content).torrentFile).pieceLayers.get(piecesRoot)).toHaveLength(96)
  })
})

describe('checkBlobTorrent', () => {
  const content = Buffer.alloc(300_000, 'blob')
  const etag = etagOf(content)
  const check = (name: string, options: MakeOptions = {}, rules = {}, sizeBytes = content.length): string =>
    checkBlobTorrent(
      parseMetainfo(makeTorrent(name, content, options).torrentFile),
      { etag, sizeBytes },
      rules,
    ).join('; ')

  test('accepts the torrent that every holder makes, v2 or hybrid', () => {
    expect(check(etag)).toBe('')
    expect(check(etag, { format: 'hybrid' })).toBe('')
  })

  test('accepts v1 only when told so', () => {
    expect(check(etag, { format: 'v1' })).toMatch(/v1/)
    expect(check(etag, { format: 'v1' }, { allowV1: true })).toBe('')
  })

  test.each<[string, RegExp, string, MakeOptions?]>([
    ['another name', /name/, 'model.bin'],
    ['another piece length', /piece length is 524288, not 262144/, etag, { pieceLength: 512 * KiB }],
    ['a private flag', /private/, etag, { info: { private: 1 } }],
    ['a private flag that says no', /private/, etag, { info: { private: 0 } }],
    ['a source', /source/, etag, { info: { source: 'x' } }],
    ['a second name', /name.utf-8/, etag, { info: { 'name.utf-8': etag } }],
    ['no piece layer', /layer is missing/, etag, { outer: { 'piece layers': {} } }],
  ])('says that it has %s', (_, reason, name, options) => {
    expect(check(name, options)).toMatch(reason)
  })

  test('says that it has attributes, another size, or more than one file', () => {
    const root = Buffer.alloc(32, 7)
    const leaf = { '': { attr: 'x', length: 3, 'pieces root': root } }
    const reasonsOf = (tree: { [key: string]: Bencodable }, sizeBytes: number): string =>
      checkBlobTorrent(parseMetainfo(withInfo({ name: etag, 'file tree': tree })), { etag, sizeBytes }).join(
        '; ',
      )
    expect(reasonsOf({ [etag]: leaf }, 3)).toMatch(/attr/)
    expect(reasonsOf({ [etag]: { '': { length: 3, 'pieces root': root } } }, 4)).toMatch(/3 bytes, not 4/)
    expect(reasonsOf({ [etag]: leaf, g: leaf }, 6)).toMatch(/one file/)
    expect(reasonsOf({ other: leaf }, 3)).toMatch(/one file/)
    expect(reasonsOf({ [etag]: { [etag]: leaf } }, 3)).toMatch(/one file/)
    expect(reasonsOf({ [etag]: { '': { length: 0 } } }, 0)).toMatch(/empty file/)
  })

  test('a file of one block is proven by a SHA-256 etag, and by no git etag', () => {
    const small = Buffer.from('abc')
    const blob = { etag: etagOf(small), sizeBytes: 3 }
    const other = makeTorrent(blob.etag, Buffer.from('abd')).torrentFile
    expect(checkBlobTorrent(parseMetainfo(makeTorrent(blob.etag, small).torrentFile), blob)).toEqual([])
    expect(checkBlobTorrent(parseMetainfo(other), blob)).toEqual([
      'its root is not the SHA-256 that the etag is',
    ])
    const git = { etag: 'a'.repeat(40) as Etag, sizeBytes: 3 }
    expect(checkBlobTorrent(parseMetainfo(makeTorrent(git.etag, small).torrentFile), git)).toEqual([])
  })
})
