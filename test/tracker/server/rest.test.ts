import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import type { RunningTracker } from '../../../src/tracker/server/main.ts'
import { temporaryDirectory } from '../../support/temp-dir.ts'
import {
  announce,
  lookup,
  post,
  publish,
  publishBody,
  rawRequest,
  type TestBlob,
  testBlob,
  testTracker,
} from '../fixtures/test-tracker.ts'

/** Different torrents that claim to be of one blob. A git etag proves nothing about a root, so all are valid. */
function candidates(count: number): ReturnType<typeof testBlob>[] {
  const etag = randomBytes(20).toString('hex')
  return Array.from({ length: count }, () => testBlob(randomBytes(40_000), etag))
}

const seed = (tracker: RunningTracker, infoHash: string, port = 6881, address?: string): Promise<unknown> =>
  announce(tracker, { key: infoHash.slice(0, 40), port, left: 0, headers: forwardedFor(address) })

const forwardedFor = (address: string | undefined): string[] =>
  address === undefined ? [] : [`X-Forwarded-For: ${address}`]

/** Publishes as if from `address`, at a tracker with `trustProxy`. */
const publishFrom = (address: string, tracker: RunningTracker, blob: TestBlob): ReturnType<typeof post> =>
  post(tracker, publishBody(blob), { 'x-forwarded-for': address })

describe('a published blob', () => {
  test('is found by its etag, with every documented field', async () => {
    const now = Date.parse('2026-03-20T08:15:30.123Z')
    await using tracker = await testTracker({ clock: () => now })
    const blob = testBlob()
    const key = blob.infoHash.slice(0, 40)
    expect((await publish(tracker, blob)).json).toEqual({
      announce_key: key,
      etag: blob.etag,
      info_hash: blob.infoHash,
      kind: 'blob',
      message: 'torrent metadata created',
      status: 'active',
    })
    await announce(tracker, { key, port: 1001, left: 0, event: 'completed' })
    await announce(tracker, { key, port: 1002, left: 7 })
    const [row, ...others] = await lookup(tracker, 'f'.repeat(64), blob.etag)
    expect(others).toEqual([])
    row.peers.sort((a: { port: number }, b: { port: number }) => a.port - b.port)
    expect(row).toEqual({
      kind: 'blob',
      etag: blob.etag,
      size: blob.sizeBytes,
      info_hash: blob.infoHash,
      announce_key: key,
      magnet_link: `magnet:?xt=urn:btmh:1220${blob.infoHash}&dn=${blob.etag}&xl=${blob.sizeBytes}&tr=${encodeURIComponent(tracker.announceUrl)}`,
      piece_length: 262144,
      status: 'active',
      created_at: '2026-03-20T08:15:30.123Z',
      publishers: 1,
      stats: { seeders: 1, leechers: 1, completed: 1 },
      peers: [
        { ip: '127.0.0.1', port: 1001 },
        { ip: '127.0.0.1', port: 1002 },
      ],
    })
  })

  test('is handed out byte for byte, by info hash, by announce key and by etag', async () => {
    await using tracker = await testTracker()
    const blob = testBlob(randomBytes(600_000), undefined, {
      outer: { comment: 'as published', announce: 'http://x/' },
    })
    await publish(tracker, blob)
    for (const query of [
      `info_hash=${blob.infoHash}`,
      `info_hash=${blob.infoHash.slice(0, 40)}`,
      `blob=${blob.etag}`,
    ]) {
      const response = await fetch(`${tracker.url}/api/v1/torrents/torrent?${query}`)
      expect(response.headers.get('content-type')).toBe('application/x-bittorrent')
      expect(Buffer.from(await response.arrayBuffer()).equals(blob.torrentFile)).toBe(true)
    }
  })

  test('may be published again, and counts its publishers by address', async () => {
    await using tracker = await testTracker({ trustProxy: true })
    const blob = testBlob()
    const from = (address: string): ReturnType<typeof post> => publishFrom(address, tracker, blob)
    await from('198.51.100.1')
    for (const address of ['198.51.100.1', '198.51.100.2', '2001:db8::1', '2001:db8::2']) {
      const { status, json } = await from(address)
      expect([status, json.message]).toEqual([200, 'torrent metadata already exists'])
    }
    expect(await lookup(tracker, blob.etag)).toMatchObject([{ publishers: 3 }])
  })

  test('may be a hybrid, whose two swarms count together', async () => {
    await using tracker = await testTracker()
    const blob = testBlob(randomBytes(1000), undefined, { format: 'hybrid' })
    await publish(tracker, blob)
    const [row] = await lookup(tracker, blob.etag)
    const v1 = /xt=urn:btih:([0-9a-f]{40})/.exec(row.magnet_link)?.[1] ?? ''
    await seed(tracker, blob.infoHash, 1)
    await seed(tracker, v1, 1)
    await seed(tracker, v1, 2)
    expect(await lookup(tracker, blob.etag)).toMatchObject([{ stats: { seeders: 2 }, peers: { length: 2 } }])
    const response = await fetch(`${tracker.url}/api/v1/torrents/torrent?info_hash=${v1}`)
    expect(response.status).toBe(200)
  })

  test('survives a restart, with its counts', async () => {
    await using directory = await temporaryDirectory()
    const blob = testBlob()
    for (let run = 0; run < 3; run++) {
      await using tracker = await testTracker({ dataDir: directory.path })
      if (run === 0) await publish(tracker, blob)
      expect(await lookup(tracker, blob.etag)).toMatchObject([{ stats: { completed: run, seeders: 0 } }])
      await announce(tracker, { key: blob.infoHash.slice(0, 40), left: 0, event: 'completed' })
    }
  })
})

describe('several torrents of one blob', () => {
  test('stand side by side, most seeders first, at most eight', async () => {
    let now = 0
    await using tracker = await testTracker({ clock: () => now, trustProxy: true })
    const all = candidates(9)
    for (const [n, blob] of all.entries()) {
      now += 1000
      expect((await publishFrom(`198.51.100.${n}`, tracker, blob)).status).toBe(200)
      if (blob === all[3]) await seed(tracker, blob.infoHash)
    }
    const rows = await lookup(tracker, all[0]?.etag ?? '')
    // The first one was unseeded longest: it made room for the ninth.
    expect(new Set(rows.map((row) => row.info_hash))).toEqual(
      new Set(all.slice(1).map((blob) => blob.infoHash)),
    )
    expect(rows[0].info_hash).toBe(all[3]?.infoHash)
  })

  test('that are all seeded are not displaced by one that is not', async () => {
    await using tracker = await testTracker({ trustProxy: true })
    const all = candidates(10)
    for (const [n, blob] of all.slice(0, 8).entries()) {
      await publishFrom(`198.51.100.${n}`, tracker, blob)
      await seed(tracker, blob.infoHash, 1, '203.0.113.1')
      if (blob !== all[5]) await seed(tracker, blob.infoHash, 1, '203.0.113.2')
    }
    const [newcomer, popular] = all.slice(8) as [(typeof all)[0], (typeof all)[0]]
    const refused = await publishFrom('192.0.2.1', tracker, newcomer)
    expect(refused).toMatchObject({ status: 409, json: { error: expect.stringContaining('seeded') } })
    // However many ports there are, it is one address.
    for (const port of [1, 2, 3]) await seed(tracker, newcomer.infoHash, port, '192.0.2.1')
    expect((await publishFrom('192.0.2.1', tracker, newcomer)).status).toBe(409)
    for (const address of ['203.0.113.1', '203.0.113.2']) await seed(tracker, popular.infoHash, 1, address)
    expect((await publishFrom('192.0.2.1', tracker, popular)).status).toBe(200)
    const kept = (await lookup(tracker, newcomer.etag)).map((row) => row.info_hash)
    expect(kept).toContain(popular.infoHash)
    expect(kept).not.toContain(all[5]?.infoHash)
  })

  test.each([
    ['an IPv4 address', () => '198.51.100.66'],
    ['an IPv6 /64', (n: number) => `2001:db8:0:66::${n + 1}`],
  ])('from %s are two at most, however many seeders it claims: others are served', async (_, addressOf) => {
    await using tracker = await testTracker({ trustProxy: true })
    const [honest, ...lies] = candidates(9) as [TestBlob, ...TestBlob[]]
    for (const [n, lie] of lies.entries()) {
      await publishFrom(addressOf(n), tracker, lie)
      for (const port of [1, 2, 3]) await seed(tracker, lie.infoHash, port, addressOf(port))
    }
    expect((await publishFrom('192.0.2.1', tracker, honest)).status).toBe(200)
    for (const address of ['192.0.2.1', '192.0.2.2']) await seed(tracker, honest.infoHash, 1, address)
    const rows = await lookup(tracker, honest.etag)
    expect(rows).toHaveLength(3)
    expect(rows[0].info_hash).toBe(honest.infoHash)
    const file = await fetch(`${tracker.url}/api/v1/torrents/torrent?blob=${honest.etag}`)
    expect(Buffer.from(await file.arrayBuffer()).equals(honest.torrentFile)).toBe(true)
  })

  test('from one address: the weakest makes room, not one that others seed or publish', async () => {
    await using tracker = await testTracker({ trustProxy: true })
    const all = candidates(5)
    const [here, there] = ['198.51.100.1', '192.0.2.1'] as const
    const of = (n: number): TestBlob => all[n] as TestBlob
    const publishedFrom = async (address: string, n: number): Promise<number> =>
      (await publishFrom(address, tracker, of(n))).status
    const expectListed = async (...numbers: number[]): Promise<void> => {
      const rows = await lookup(tracker, of(0).etag)
      expect(new Set(rows.map((row) => all.findIndex((blob) => blob.infoHash === row.info_hash)))).toEqual(
        new Set(numbers),
      )
    }
    await publishedFrom(here, 0)
    await publishedFrom(here, 1)
    await seed(tracker, of(0).infoHash, 1, here)
    expect(await publishedFrom(here, 2)).toBe(200)
    await expectListed(0, 2)
    // Its own seeders do not keep a torrent; one from elsewhere does, and so does another publisher.
    await seed(tracker, of(2).infoHash, 1, here)
    await seed(tracker, of(0).infoHash, 1, there)
    expect(await publishedFrom(here, 3)).toBe(200)
    await expectListed(0, 3)
    expect(await publishedFrom(there, 3)).toBe(200)
    const refused = await publishFrom(here, tracker, of(4))
    expect(refused).toMatchObject({ status: 409, json: { error: expect.stringContaining('your address') } })
    expect(await publishedFrom(there, 4)).toBe(200)
    await expectListed(0, 3, 4)
  })

  test('from a lab with one address: what is seeded most comes first, and nobody is locked out', async () => {
    await using tracker = await testTracker()
    const [right, ...lies] = candidates(4) as [TestBlob, ...TestBlob[]]
    for (const lie of lies) {
      expect((await publish(tracker, lie)).status).toBe(200)
      await seed(tracker, lie.infoHash, 1)
    }
    expect((await publish(tracker, right)).status).toBe(200)
    for (const port of [1, 2]) await seed(tracker, right.infoHash, port)
    const rows = await lookup(tracker, right.etag)
    expect(rows.map((row) => row.info_hash)).toEqual([right.infoHash, lies[2]?.infoHash])
    expect(rows[0].stats.seeders).toBe(2)
  })
})

describe('what nobody seeds', () => {
  test('is not listed after its time, and then deleted; what is seeded stays', async () => {
    let now = 1_000_000
    const limits = { intervalMs: 1000, unseededTtlMs: 10_000 }
    await using tracker = await testTracker({ clock: () => now, limits })
    const [lost, kept] = [testBlob(), testBlob()]
    await publish(tracker, lost)
    await publish(tracker, kept)
    for (let hour = 0; hour < 12; hour++) {
      now += 1000
      await seed(tracker, kept.infoHash)
    }
    expect((await lookup(tracker, lost.etag, kept.etag)).map((row) => row.etag)).toEqual([kept.etag])
    const file = await fetch(`${tracker.url}/api/v1/torrents/torrent?info_hash=${lost.infoHash}`)
    expect(file.status).toBe(404)
    tracker.sweep()
    now -= 12_000
    expect((await lookup(tracker, lost.etag, kept.etag)).map((row) => row.etag)).toEqual([kept.etag])
  })

  test('makes room when the tracker is full; what is seeded does not', async () => {
    let now = 0
    await using tracker = await testTracker({ clock: () => now, limits: { maxTorrents: 3 } })
    const blobs = Array.from({ length: 6 }, () => testBlob())
    const [first, second, third, fourth, fifth, sixth] = blobs as [
      ReturnType<typeof testBlob>,
      ...typeof blobs,
    ] &
      typeof blobs
    for (const blob of [first, second, third]) {
      now += 1000
      await publish(tracker, blob as typeof first)
    }
    await seed(tracker, first.infoHash)
    expect((await publish(tracker, fourth as typeof first)).status).toBe(200)
    const listed = async (): Promise<string[]> =>
      (await lookup(tracker, ...blobs.map((blob) => blob.etag))).map((row) => row.etag)
    expect(new Set(await listed())).toEqual(new Set([first.etag, third?.etag, fourth?.etag]))
    await seed(tracker, third?.infoHash ?? '')
    await seed(tracker, fourth?.infoHash ?? '')
    expect((await publish(tracker, fifth as typeof first)).status).toBe(503)
    await announce(tracker, { key: first.infoHash.slice(0, 40), event: 'stopped', left: 0 })
    expect((await publish(tracker, sixth as typeof first)).status).toBe(200)
    expect(await listed()).toHaveLength(3)
  })

  test('makes room when the torrents take too many bytes', async () => {
    const blobs = Array.from({ length: 4 }, () => testBlob())
    const bytes = blobs[0]?.torrentFile.length ?? 0
    await using tracker = await testTracker({ limits: { maxTorrentBytes: bytes * 2 } })
    for (const blob of blobs) expect((await publish(tracker, blob)).status).toBe(200)
    expect(await lookup(tracker, ...blobs.map((blob) => blob.etag))).toHaveLength(2)
  })
})

describe('a lookup', () => {
  test('without `blob` lists snapshot torrents only, of which there are none', async () => {
    await using tracker = await testTracker()
    await publish(tracker, testBlob())
    for (const query of ['', '?repo_id=a%2Fb&revision=c', '?limit=5']) {
      expect(await (await fetch(`${tracker.url}/api/v1/torrents${query}`)).json()).toEqual({
        data: [],
        total: 0,
      })
    }
  })

  test('takes 200 etags and refuses 201', async () => {
    await using tracker = await testTracker()
    const etags = Array.from({ length: 201 }, () => randomBytes(32).toString('hex'))
    expect(await lookup(tracker, ...etags.slice(1))).toEqual([])
    const refused = await fetch(`${tracker.url}/api/v1/torrents?blob=${etags.join(',')}`)
    expect([refused.status, await refused.json()]).toEqual([400, { error: expect.stringContaining('200') }])
  })

  test('takes escaped commas and repeated parameters, and lists a blob once', async () => {
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    for (const query of [`${blob.etag}%2C${blob.etag}`, `${blob.etag}&blob=${blob.etag}`, `,${blob.etag},`]) {
      const response = await fetch(`${tracker.url}/api/v1/torrents?blob=${query}`)
      expect(await response.json()).toMatchObject({ total: 1 })
    }
  })

  test.each(['x', 'A'.repeat(64), '0'.repeat(63), "'; drop table torrents; --"])(
    'of %j is refused',
    async (blob) => {
      await using tracker = await testTracker()
      const response = await fetch(`${tracker.url}/api/v1/torrents?blob=${encodeURIComponent(blob)}`)
      expect(response.status).toBe(400)
    },
  )

  test('lists at most 50 peers', async () => {
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    for (let port = 1; port <= 60; port++) await announce(tracker, { key: blob.infoHash.slice(0, 40), port })
    expect((await lookup(tracker, blob.etag))[0].peers).toHaveLength(50)
  })

  test('names the tracker in magnet links as it is told to', async () => {
    await using tracker = await testTracker({ publicUrl: 'https://tracker.example/' })
    const blob = testBlob()
    await publish(tracker, blob)
    const [row] = await lookup(tracker, blob.etag)
    expect(row.magnet_link).toContain(`tr=${encodeURIComponent('https://tracker.example/announce')}`)
  })
})

describe('a publish is refused', () => {
  const blob = testBlob(randomBytes(600_000))
  const body = publishBody(blob)
  const torrent = (name: string, options = {}): object => {
    const made = testBlob(randomBytes(600_000), name, options)
    return { info_hash: made.infoHash, torrent_data: made.torrentFile.toString('base64') }
  }

  test.each<[string, unknown, RegExp]>([
    ['that is no JSON', '{"kind":', /invalid request body/],
    ['that is no object', '[]', /kind must be "blob"|invalid request body/],
    ['that is null', 'null', /invalid request body/],
    ['of a snapshot', { ...body, kind: undefined, repo_id: 'a/b', revision: 'c' }, /kind must be "blob"/],
    ['of another kind', { ...body, kind: 'BLOB' }, /kind must be "blob"/],
    ['without etag', { ...body, etag: undefined }, /required/],
    ['without torrent', { ...body, torrent_data: undefined }, /required/],
    ['without info hash', { ...body, info_hash: 7 }, /required/],
    ['of an etag in upper case', { ...body, etag: blob.etag.toUpperCase() }, /etag must be/],
    ['with half an info hash', { ...body, info_hash: 'abc' }, /info_hash must be/],
    ['with a size that is text', { ...body, size: '600000' }, /invalid request body/],
    ['with a broken size', { ...body, size: 1.5 }, /invalid request body/],
    ['with another size', { ...body, size: 600_001 }, /600000 bytes, not 600001/],
    ['with base64 that is none', { ...body, torrent_data: `${body['torrent_data']}!` }, /base64/],
    ['with an empty torrent', { ...body, torrent_data: '' }, /base64/],
    ['with a torrent that is none', { ...body, torrent_data: 'aGVsbG8=' }, /invalid torrent bencode/],
    ['with another info hash', { ...body, info_hash: '0'.repeat(64) }, /info_hash mismatch/],
    ['with another announce key', { ...body, announce_key: '0'.repeat(40) }, /announce_key mismatch/],
    ['of another etag', { ...body, etag: '0'.repeat(64) }, /not a blob torrent: its name/],
    [
      'of a v1 torrent',
      { ...body, ...torrent(blob.etag, { format: 'v1' }) },
      /not a blob torrent: it is a v1 torrent/,
    ],
    ['of a private torrent', { ...body, ...torrent(blob.etag, { info: { private: 1 } }) }, /private/],
    ['with another piece length', { ...body, ...torrent(blob.etag, { pieceLength: 65536 }) }, /piece length/],
    ['without piece layers', { ...body, ...torrent(blob.etag, { outer: { 'piece layers': {} } }) }, /layer/],
  ])('%s', async (_, sent, reason) => {
    await using tracker = await testTracker()
    const { status, json } = await post(tracker, sent)
    expect([status, json]).toEqual([400, { error: expect.stringMatching(reason) }])
    expect(await lookup(tracker, blob.etag)).toEqual([])
  })

  test('whose body is too large, with a length or without, and the next one is served', async () => {
    await using tracker = await testTracker({ limits: { maxPublishBytes: 2000 } })
    expect(await post(tracker, { ...body, padding: 'x'.repeat(5000) })).toMatchObject({ status: 413 })
    const chunked = new ReadableStream({
      pull: (controller) => controller.enqueue(Buffer.alloc(1000, 'x')),
    })
    const response = await fetch(`${tracker.url}/api/v1/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: chunked,
      duplex: 'half',
    } as RequestInit).catch((error: unknown) => error)
    if (response instanceof Response) expect(response.status).toBe(413)
    expect((await publish(tracker, testBlob())).status).toBe(200)
  })

  test('that is not sent as JSON, as a web page could from anywhere', async () => {
    await using tracker = await testTracker()
    expect((await post(tracker, body, { 'content-type': 'text/plain' })).status).toBe(415)
  })

  test('without the token, where one is wanted', async () => {
    await using tracker = await testTracker({ publishToken: 'secret' })
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic secret' }]) {
      expect((await post(tracker, body, headers as Record<string, string>)).status).toBe(401)
    }
    expect((await post(tracker, body, { authorization: 'Bearer secret' })).status).toBe(200)
  })

  test('beyond the rate of one address; others go on', async () => {
    const limits = { publishRate: { count: 2, windowMs: 60_000 } }
    await using tracker = await testTracker({ limits, trustProxy: true })
    const from = async (address: string): Promise<number> =>
      (await post(tracker, publishBody(testBlob()), { 'x-forwarded-for': address })).status
    expect([await from('2001:db8::1'), await from('2001:db8::2'), await from('2001:db8::3')]).toEqual([
      200, 200, 429,
    ])
    expect(await from('198.51.100.1')).toBe(200)
  })
})

describe('everything else', () => {
  test('GET and HEAD of the health paths', async () => {
    await using tracker = await testTracker()
    for (const path of ['/health', '/api/v1/health']) {
      const got = await fetch(tracker.url + path)
      expect([got.status, await got.text()]).toEqual([200, 'OK'])
      expect((await fetch(tracker.url + path, { method: 'HEAD' })).status).toBe(200)
    }
  })

  test('HEAD is GET without the body', async () => {
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    for (const path of ['/api/v1/torrents', `/api/v1/torrents/torrent?blob=${blob.etag}`]) {
      const [get, head] = [
        await rawRequest(tracker.url, path),
        await rawRequest(tracker.url, path, [], 'HEAD'),
      ]
      expect(head.status).toBe(200)
      expect(head.body).toHaveLength(0)
      expect(/content-type: .*/i.exec(head.head)?.[0]).toBe(/content-type: .*/i.exec(get.head)?.[0])
    }
  })

  test('JSON ends with a newline, is escaped, and may be read by any page', async () => {
    await using tracker = await testTracker()
    const blob = testBlob()
    await publish(tracker, blob)
    const response = await fetch(`${tracker.url}/api/v1/torrents?blob=${blob.etag}`)
    const text = await response.text()
    expect(text).toMatch(/\}\n$/)
    expect(text).toContain('\\u0026dn=')
    expect(text).not.toMatch(/[<>&]/)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-allow-methods')).toBe('GET, POST, OPTIONS')
    expect(response.headers.get('access-control-allow-headers')).toBe('Content-Type, Authorization')
  })

  test.each([
    ['GET', '/', 404, 'text/plain', /404 page not found/],
    ['GET', '/api/v1/file-sources', 404, 'text/plain', /404/],
    ['GET', '/announcement', 404, 'text/plain', /404/],
    ['PUT', '/api/v1/torrents', 405, 'text/plain', /Method Not Allowed/],
    ['OPTIONS', '/api/v1/publish', 405, 'text/plain', /Method Not Allowed/],
    ['GET', '/api/v1/publish', 405, 'text/plain', /Method Not Allowed/],
    ['GET', '/api/v1/torrents/torrent', 400, 'application/json', /repo_id and revision/],
    ['GET', '/api/v1/torrents/torrent?repo_id=a&revision=b', 404, 'application/json', /torrent not found/],
    [
      'GET',
      `/api/v1/torrents/torrent?info_hash=${'0'.repeat(64)}`,
      404,
      'application/json',
      /torrent not found/,
    ],
    ['GET', '/api/v1/torrents/torrent?info_hash=x', 404, 'application/json', /torrent not found/],
    ['GET', '/api/v1/torrents/torrent?blob=x', 404, 'application/json', /torrent not found/],
  ])('%s %s is answered with %i', async (method, path, status, mediaType, body) => {
    await using tracker = await testTracker()
    const answer = await rawRequest(tracker.url, path, [], method)
    expect(answer.status).toBe(status)
    expect(answer.head.toLowerCase()).toContain(`content-type: ${mediaType}`)
    expect(answer.body.toString()).toMatch(body)
  })

  test('frames that are not HTTP end their connection and nothing else', async () => {
    await using tracker = await testTracker()
    const { port } = new URL(tracker.url)
    const frames = [
      '\0\0\0\0',
      '\x13BitTorrent protocol',
      'GET\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
      `GET /${'x'.repeat(40_000)} HTTP/1.1\r\n\r\n`,
    ]
    for (const frame of [
      ...frames,
      'GET / HTTP/1.1\r\nHost: a b c\r\n\r\n',
      'GET //[ HTTP/1.1\r\nHost: \xff\r\n\r\n',
    ]) {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1')
        socket.on('close', () => resolve()).on('error', () => {})
        socket.on('data', () => socket.end())
        socket.write(Buffer.from(frame, 'latin1'))
      })
    }
    expect((await fetch(`${tracker.url}/health`)).status).toBe(200)
  })
})
