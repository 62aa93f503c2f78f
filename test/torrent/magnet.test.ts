import { describe, expect, test } from 'vitest'
import { TorrentError } from '../../src/errors.ts'
import { makeMagnet, parseMagnet } from '../../src/torrent/magnet.ts'
import { asInfoHash, type InfoHash } from '../../src/values.ts'
import { askLibtorrent, hasPythonLibtorrent } from './fixtures/python-libtorrent.ts'

const v1 = asInfoHash('0123456789abcdef0123456789abcdef01234567') as InfoHash
const v2 = asInfoHash('89abcdef'.repeat(8)) as InfoHash
const base32 = 'AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH'
const tracker = 'http://tracker.example:8080/announce?key=a%2Fb&x=1+2'

describe('makeMagnet', () => {
  test('writes what parseMagnet reads, for every combination of hashes', () => {
    for (const hashes of [{ infoHashV1: v1 }, { infoHashV2: v2 }, { infoHashV1: v1, infoHashV2: v2 }]) {
      const parts = {
        ...hashes,
        name: 'größe & mehr=50%+',
        trackers: [tracker, 'udp://t.example:1'],
        sizeBytes: 2 ** 40,
      }
      expect(parseMagnet(makeMagnet(parts))).toEqual({
        infoHash: v2,
        infoHashV1: undefined,
        infoHashV2: undefined,
        peers: [],
        ...parts,
        ...('infoHashV2' in hashes ? {} : { infoHash: v1 }),
      })
    }
  })

  test('refuses a magnet link without a hash, or with one in the wrong place', () => {
    expect(() => makeMagnet({ name: 'x' })).toThrow(RangeError)
    expect(() => makeMagnet({ infoHashV1: v2 })).toThrow(RangeError)
    expect(() => makeMagnet({ infoHashV2: v1 })).toThrow(RangeError)
  })

  test.skipIf(!hasPythonLibtorrent)('is read by libtorrent as it was meant', () => {
    const magnets = [{ infoHashV1: v1 }, { infoHashV2: v2 }, { infoHashV1: v1, infoHashV2: v2 }].map(
      (hashes) => makeMagnet({ ...hashes, name: v2, trackers: [tracker], sizeBytes: 5 }),
    )
    expect(askLibtorrent({ magnets }).magnets).toEqual([
      { v1, v2: null, name: v2, trackers: [tracker] },
      { v1: null, v2, name: v2, trackers: [tracker] },
      { v1, v2, name: v2, trackers: [tracker] },
    ])
  })
})

describe('parseMagnet', () => {
  test.each([
    ['upper case', `MAGNET:?xt=URN:BTIH:${v1.toUpperCase()}`, v1],
    ['base32', `magnet:?xt=urn:btih:${base32}`, v1],
    ['base32 in lower case', `magnet:?xt=urn:btih:${base32.toLowerCase()}`, v1],
    ['escaped colons', `magnet:?xt=urn%3Abtih%3A${v1}`, v1],
    ['numbered topics', `magnet:?xt.1=urn:btih:${v1}&xt.2=urn:btmh:1220${v2}`, v2],
    ['other kinds of hashes beside it', `magnet:?xt=urn:sha1:AAAA&xt=urn:btmh:1220${v2}&xt=urn:ed2k:31`, v2],
    ['the same topic twice', `magnet:?xt=urn:btih:${v1}&xt=urn:btih:${base32}`, v1],
    ['v1 after v2', `magnet:?xt=urn:btmh:1220${v2}&xt=urn:btih:${v1}`, v2],
  ])('takes %s', (_, text, infoHash) => {
    expect(parseMagnet(text).infoHash).toBe(infoHash)
  })

  test.each([
    ['nothing', ''],
    ['no hash', 'magnet:?dn=x'],
    ['another scheme', `http://x/?xt=urn:btih:${v1}`],
    ['a scheme further on', `x magnet:?xt=urn:btih:${v1}`],
    ['a hash too short', `magnet:?xt=urn:btih:${v1.slice(1)}`],
    ['a hash too long', `magnet:?xt=urn:btih:${v1}0`],
    ['a hash that is not hex', `magnet:?xt=urn:btih:${v1.slice(1)}g`],
    ['base32 with a digit that is none', `magnet:?xt=urn:btih:${base32.slice(1)}1`],
    ['a multihash of another kind', `magnet:?xt=urn:btmh:1320${v2}`],
    ['a multihash too long', `magnet:?xt=urn:btmh:1220${v2}00`],
    ['two torrents', `magnet:?xt=urn:btih:${v1}&xt=urn:btih:${'0'.repeat(40)}`],
    ['too much', `magnet:?xt=urn:btih:${v1}&dn=${'x'.repeat(20_000)}`],
  ])('refuses %s', (_, text) => {
    expect(() => parseMagnet(text)).toThrow(TorrentError)
  })

  test('is not moved by what breaks other parsers', () => {
    const text = `magnet:?xt=urn:btih:${v1}&__proto__=x&constructor=1&so=0-999999999&dn=%E0%A4%A&tr=%&tr=javascript:0&xl=1e9`
    const magnet = parseMagnet(text)
    expect(magnet).toMatchObject({ infoHash: v1, trackers: [], sizeBytes: undefined })
    expect(Object.getPrototypeOf(magnet)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>)['x']).toBeUndefined()
  })

  test('keeps a bounded number of trackers and peers, each once', () => {
    const many = Array.from({ length: 200 }, (_, n) => `tr=http://t${n}.example/announce&x.pe=192.0.2.1:${n}`)
    const magnet = parseMagnet(`magnet:?xt=urn:btih:${v1}&${many.join('&')}&tr=http://t0.example/announce`)
    expect(magnet.trackers).toHaveLength(64)
    expect(magnet.peers).toHaveLength(64)
    expect(magnet.peers[0]).toEqual({ host: '192.0.2.1', port: 1 })
  })

  test('a name with control characters is not shown', () => {
    expect(parseMagnet(`magnet:?xt=urn:btih:${v1}&dn=a%00b`).name).toBeUndefined()
    expect(parseMagnet(`magnet:?xt=urn:btih:${v1}&dn=a+b`).name).toBe('a b')
  })
})
