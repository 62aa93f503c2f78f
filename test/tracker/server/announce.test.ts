import bencode from 'bencode'
import { describe, expect, test } from 'vitest'
import { announce, type Bdecoded, escapeBytes, rawRequest, testTracker } from '../fixtures/test-tracker.ts'

const key = '00ff'.repeat(10)
const peerId = '%41'.repeat(20)
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')
const compact = (port: number): string => `\x7f\0\0\x01${String.fromCharCode(port >> 8, port & 0xff)}`

describe('an announce', () => {
  test('is answered byte for byte as the protocol has it', async () => {
    await using tracker = await testTracker()
    const target = `/announce?info_hash=${escapeBytes(key)}&peer_id=${peerId}&port=6881&left=0&compact=1&event=started`
    const answer = await rawRequest(tracker.announceUrl, target)
    expect(text(answer.body)).toBe(
      'd8:completei1e10:incompletei0e8:intervali1800e12:min intervali900e5:peers0:e',
    )
    expect(answer.head).toMatch(/^HTTP\/1.1 200 /)
    expect(answer.head).toMatch(/content-type: text\/plain/i)
  })

  test('of a leecher finds the seeder, and itself is not handed out', async () => {
    await using tracker = await testTracker()
    await announce(tracker, { key, port: 1001, left: 0 })
    const answer = await announce(tracker, { key, port: 1002, left: 5 })
    expect(answer).toMatchObject({ complete: 1, incomplete: 1 })
    expect(text(answer.peers)).toBe(compact(1001))
  })

  test('of a seeder finds leechers only', async () => {
    await using tracker = await testTracker()
    await announce(tracker, { key, port: 1001, left: 0 })
    await announce(tracker, { key, port: 1002, left: 5 })
    expect(text((await announce(tracker, { key, port: 1003, left: 0 })).peers)).toBe(compact(1002))
  })

  test.each(['', 'x', '0', '1e3', '%00'])('with left=%s counts as a seeder', async (left) => {
    await using tracker = await testTracker()
    expect(await announce(tracker, { key, left })).toMatchObject({ complete: 1, incomplete: 0 })
  })

  test('without left counts as a seeder', async () => {
    await using tracker = await testTracker()
    const answer = await rawRequest(
      tracker.url,
      `/announce?info_hash=${escapeBytes(key)}&peer_id=${peerId}&port=1`,
    )
    expect(bencode.decode(answer.body)).toMatchObject({ complete: 1, incomplete: 0 })
  })

  test('that completes is counted; one that stops is gone, and gets nobody', async () => {
    await using tracker = await testTracker()
    await announce(tracker, { key, port: 1001, left: 5 })
    await announce(tracker, { key, port: 1002, left: 0, event: 'completed' })
    const stopped = await announce(tracker, { key, port: 1002, left: 0, event: 'stopped' })
    expect(stopped).toMatchObject({ complete: 0, incomplete: 1 })
    expect(stopped.peers).toHaveLength(0)
    const scrape = await rawRequest(tracker.url, `/scrape?info_hash=${escapeBytes(key)}`)
    expect(text(scrape.body)).toContain('8:completei0e10:downloadedi1e10:incompletei1e')
  })

  test('moves a peer from leecher to seeder, not twice into the swarm', async () => {
    await using tracker = await testTracker()
    await announce(tracker, { key, left: 5 })
    expect(await announce(tracker, { key, left: 0 })).toMatchObject({ complete: 1, incomplete: 0 })
  })

  test.each([
    ['', 50],
    ['&numwant=0', 50],
    ['&numwant=-1', 50],
    ['&numwant=-99999999999999', 50],
    ['&numwant=x', 50],
    ['&numwant=1000000', 50],
    ['&numwant=7', 7],
  ])('with %j gets at most as many peers: %i', async (numwant, expected) => {
    await using tracker = await testTracker()
    for (let port = 1; port <= 60; port++) await announce(tracker, { key, port })
    const answer = await announce(tracker, { key, port: 999, extra: `&compact=1${numwant}` })
    expect(answer.peers.length / 6).toBe(expected)
  })

  test.each(['', '&compact=0', '&compact=true'])('with %j gets dictionaries', async (extra) => {
    await using tracker = await testTracker()
    await announce(tracker, { key, port: 1001 })
    const { peers } = await announce(tracker, { key, port: 1002, extra })
    expect(peers.map((peer: Bdecoded) => [text(peer.ip), text(peer['peer id']), peer.port])).toEqual([
      ['127.0.0.1', '', 1001],
    ])
  })

  test('over IPv6 is handed out in peers6, IPv4-mapped addresses in peers', async () => {
    await using tracker = await testTracker({ host: '::', limits: {} })
    await announce(tracker, { key, port: 258 })
    const port = new URL(tracker.url).port
    const mapped = { ...tracker, url: `http://127.0.0.1:${port}` }
    const answer = await announce(mapped, { key, port: 772 })
    expect(text(answer.peers6)).toBe(`${'\0'.repeat(15)}\x01\x01\x02`)
    expect(answer.peers).toHaveLength(0)
    const other = await announce(tracker, { key, port: 9 })
    expect(text(other.peers)).toBe(compact(772))
    const listed = await announce(tracker, { key, port: 10, extra: '' })
    expect(listed.peers6.map((peer: Bdecoded) => text(peer.ip))).toContain('::1')
  })

  test.each([
    ['no info hash', '/announce?peer_id=x&port=1', 'missing required parameters'],
    ['an empty info hash', '/announce?info_hash=&peer_id=x&port=1', 'missing required parameters'],
    ['no peer id', `/announce?info_hash=${escapeBytes(key)}&port=1`, 'missing required parameters'],
    ['no port', `/announce?info_hash=${escapeBytes(key)}&peer_id=x`, 'missing required parameters'],
    ['nothing', '/announce', 'missing required parameters'],
    [
      'an info hash of 19 bytes',
      '/announce?info_hash=1234567890123456789&peer_id=x&port=1',
      'invalid info_hash',
    ],
    [
      '40 characters that are not hex',
      `/announce?info_hash=${'z'.repeat(40)}&peer_id=x&port=1`,
      'invalid info_hash',
    ],
    ['a v2 hash in full', `/announce?info_hash=${'%00'.repeat(32)}&peer_id=x&port=1`, 'invalid info_hash'],
    ['port 0', `/announce?info_hash=${escapeBytes(key)}&peer_id=x&port=0`, 'invalid port: 0'],
    ['port 65536', `/announce?info_hash=${escapeBytes(key)}&peer_id=x&port=65536`, 'invalid port: 65536'],
    ['a port in hex', `/announce?info_hash=${escapeBytes(key)}&peer_id=x&port=0x1`, 'invalid port: 0x1'],
    ['a negative port', `/announce?info_hash=${escapeBytes(key)}&peer_id=x&port=-1`, 'invalid port: -1'],
  ])('with %s fails in bencode, with status 200', async (_, target, reason) => {
    await using tracker = await testTracker()
    const answer = await rawRequest(tracker.url, target)
    expect(answer.status).toBe(200)
    expect(text((bencode.decode(answer.body) as Bdecoded)['failure reason'])).toBe(
      `invalid request: ${reason}`,
    )
  })

  test('can be sent with any method', async () => {
    await using tracker = await testTracker()
    const target = `/announce?info_hash=${escapeBytes(key)}&peer_id=x&port=1&left=0`
    const answer = await rawRequest(tracker.url, target, ['Content-Length: 0'], 'POST')
    expect(bencode.decode(answer.body)).toMatchObject({ complete: 1 })
  })
})

describe('the bytes of an info hash', () => {
  /** The swarm an announce went to is the one whose scrape counts it. */
  async function countOf(tracker: { url: string }, hex: string): Promise<number> {
    const { body } = await rawRequest(tracker.url, `/scrape?info_hash=${hex}`)
    return Number(/8:completei(\d+)e/.exec(text(body))?.[1])
  }

  test('any byte at any position arrives, escaped', async () => {
    await using tracker = await testTracker({ limits: { announceRate: { count: 100_000, windowMs: 1000 } } })
    const hashes: string[] = []
    // Every value in every position: 256 hashes, each with 20 consecutive values.
    for (let start = 0; start < 256; start++) {
      hashes.push(Buffer.from(Array.from({ length: 20 }, (_, i) => (start + i) & 0xff)).toString('hex'))
    }
    await Promise.all(
      hashes.map((hex, index) => {
        const escaped = index % 2 === 0 ? escapeBytes(hex) : escapeBytes(hex).toUpperCase()
        return rawRequest(tracker.url, `/announce?info_hash=${escaped}&peer_id=${escaped}&port=1&left=0`)
      }),
    )
    expect(await Promise.all(hashes.map((hex) => countOf(tracker, hex)))).toEqual(hashes.map(() => 1))
  })

  // Node refuses bytes below 0x21 and above 0x7e in a request line; these four mean something in a query.
  const separators = ['&', '%', '+', '#']
  const rawCharacters = Array.from({ length: 0x7e - 0x20 }, (_, i) => String.fromCharCode(0x21 + i))
  const literal = rawCharacters.filter((character) => !separators.includes(character))

  test('any character that needs no escape arrives unescaped, at any position', async () => {
    await using tracker = await testTracker()
    const hashes = literal.map((_, start) =>
      Array.from({ length: 20 }, (_, i) => literal[(start + i) % literal.length]).join(''),
    )
    for (const hash of hashes) {
      await rawRequest(tracker.url, `/announce?info_hash=${hash}&peer_id=${hash}&port=1&left=0`)
    }
    const counts = await Promise.all(
      hashes.map((hash) => countOf(tracker, Buffer.from(hash).toString('hex'))),
    )
    expect(counts).toEqual(hashes.map(() => 1))
  })

  test('+ is a space, and a stray % is itself', async () => {
    await using tracker = await testTracker()
    await rawRequest(tracker.url, `/announce?info_hash=+%zz%2${'z'.repeat(14)}&peer_id=x&port=1&left=0`)
    const expected = Buffer.from(` %zz%2${'z'.repeat(14)}`).toString('hex')
    expect(await countOf(tracker, expected)).toBe(1)
  })

  test('40 hex digits, in either case, mean the same as 20 bytes', async () => {
    await using tracker = await testTracker()
    await rawRequest(tracker.url, `/announce?info_hash=${key.toUpperCase()}&peer_id=x&port=1&left=0`)
    expect(await countOf(tracker, escapeBytes(key))).toBe(1)
  })
})

describe('a scrape', () => {
  test('answers for several torrents, keys sorted as bytes', async () => {
    await using tracker = await testTracker()
    // As decimal text, which is how the bencode package sorts binary keys, "10" is less than "9".
    const keys = ['0a'.repeat(20), '09'.repeat(20), 'ff'.repeat(20)]
    await announce(tracker, { key: '09'.repeat(20), left: 0 })
    const { body } = await rawRequest(
      tracker.url,
      `/scrape?${keys.map((k) => `info_hash=${escapeBytes(k)}`).join('&')}`,
    )
    const entry = (byte: string, complete: number): string =>
      `20:${byte.repeat(20)}d8:completei${complete}e10:downloadedi0e10:incompletei0ee`
    expect(text(body)).toBe(`d5:filesd${entry('\x09', 1)}${entry('\x0a', 0)}${entry('\xff', 0)}ee`)
  })

  test.each(['/scrape', '/scrape?info_hash=x'])('%s fails in bencode', async (target) => {
    await using tracker = await testTracker()
    expect(text((await rawRequest(tracker.url, target)).body)).toMatch(
      /^d14:failure reason\d+:invalid request: /,
    )
  })
})

describe('who is asking', () => {
  const liar = {
    extra: '&compact=1&ip=203.0.113.9',
    headers: ['X-Forwarded-For: 198.51.100.7', 'X-Real-IP: 198.51.100.8'],
  }
  const addresses = (answer: Bdecoded): string[] => answer.peers.map((peer: Bdecoded) => text(peer.ip))

  test('is whoever holds the connection, whatever the request says', async () => {
    await using tracker = await testTracker()
    await announce(tracker, { key, port: 1, ...liar })
    expect(addresses(await announce(tracker, { key, port: 2, extra: '' }))).toEqual(['127.0.0.1'])
  })

  test('behind our proxy is the last address it forwarded, not those the client wrote before', async () => {
    await using tracker = await testTracker({ trustProxy: true })
    const headers = ['X-Forwarded-For: 203.0.113.9, 198.51.100.7']
    await announce(tracker, { key, port: 1, extra: '&ip=203.0.113.10', headers })
    expect(addresses(await announce(tracker, { key, port: 2, extra: '' }))).toEqual(['198.51.100.7'])
  })

  test('behind our proxy, and inside its network, may say how it is reached from outside', async () => {
    await using tracker = await testTracker({ trustProxy: true })
    const headers = ['X-Forwarded-For: 192.168.1.7']
    await announce(tracker, { key, port: 1, extra: '&ip=203.0.113.10', headers })
    expect(addresses(await announce(tracker, { key, port: 2, extra: '' }))).toEqual(['203.0.113.10'])
  })

  test.each(['', 'nonsense', '1', '::ffff:198.51.100.7x'])(
    'behind our proxy, a forwarded %j is nobody',
    async (forwarded) => {
      await using tracker = await testTracker({ trustProxy: true })
      await announce(tracker, { key, port: 1, headers: [`X-Forwarded-For: ${forwarded}`] })
      expect(addresses(await announce(tracker, { key, port: 2, extra: '' }))).toEqual(['127.0.0.1'])
    },
  )

  test('cannot announce faster than the rate, over all torrents together', async () => {
    await using tracker = await testTracker({ limits: { announceRate: { count: 3, windowMs: 60_000 } } })
    for (let n = 0; n < 3; n++)
      expect(await announce(tracker, { key: `0${n}`.repeat(20) })).toHaveProperty('interval')
    const refused = await announce(tracker, { key })
    expect(text(refused['failure reason'])).toBe('Too many requests. Please slow down.')
  })
})
