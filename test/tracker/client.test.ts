import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { RequestListener, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ConfigError, TrackerError } from '../../src/errors.ts'
import { divertLog } from '../../src/log.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import type { Etag, InfoHash } from '../../src/values.ts'
import { hostileServer, silentServer } from './fixtures/hostile-server.ts'
import { announce, publish, type TestBlob, testBlob, testTracker } from './fixtures/test-tracker.ts'

const blob = testBlob()
const timeoutMs = 300

const json =
  (body: unknown, status = 200): RequestListener =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }

function row(of: TestBlob, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    kind: 'blob',
    etag: of.etag,
    size: of.sizeBytes,
    info_hash: of.infoHash,
    stats: { seeders: 1, leechers: 2 },
    ...changes,
  }
}

describe('beside our own tracker', () => {
  test('publishes, looks up and fetches', async () => {
    await using tracker = await testTracker()
    const client = new TrackerClient({ url: tracker.url })
    expect(client.announceUrl).toBe(tracker.announceUrl)
    const { infoHash } = blob
    const published = await client.publish(blob)
    expect(published).toEqual({
      infoHash,
      trackerUrl: tracker.url,
      status: 'active',
      message: expect.any(String),
    })
    expect(await client.publish(blob)).toMatchObject({ message: 'torrent metadata already exists' })
    await announce(tracker, { key: infoHash.slice(0, 40), port: 1001, left: 0 })
    const found = await client.lookup([blob, testBlob()])
    expect([...found]).toEqual([
      [
        blob.etag,
        [
          {
            etag: blob.etag,
            sizeBytes: blob.sizeBytes,
            infoHash,
            magnetLink: expect.stringContaining(`urn:btmh:1220${infoHash}`),
            seeders: 1,
            leechers: 0,
            publishers: 1,
            peers: [{ host: '127.0.0.1', port: 1001 }],
            trackerUrl: tracker.url,
          },
        ],
      ],
    ])
    for (const wanted of [found.get(blob.etag)?.[0], infoHash]) {
      expect(
        Buffer.from((await client.fetchTorrent(wanted as InfoHash)) ?? []).equals(blob.torrentFile),
      ).toBe(true)
    }
    expect(await client.fetchTorrent(testBlob().infoHash)).toBeUndefined()
  })

  test('asks for 450 blobs in three requests, and finds every one', async () => {
    await using tracker = await testTracker()
    const blobs = Array.from({ length: 450 }, (_, n) => testBlob(Buffer.from(`blob ${n}`)))
    for (const one of [0, 199, 200, 449]) await publish(tracker, blobs[one] as TestBlob)
    const found = await new TrackerClient({ url: tracker.url }).lookup(blobs)
    expect(new Set(found.keys())).toEqual(new Set([0, 199, 200, 449].map((one) => blobs[one]?.etag)))
  })

  test('sends a publish token with publishes and with nothing else', async () => {
    await using tracker = await testTracker({ publishToken: 'secret' })
    await expect(new TrackerClient({ url: tracker.url }).publish(blob)).rejects.toThrow(
      /401: publishing here needs/,
    )
    const client = new TrackerClient({ url: tracker.url, publishToken: 'secret' })
    expect(await client.publish(blob)).toMatchObject({ status: 'active' })
    await using other = await hostileServer(json({ data: [] }))
    await new TrackerClient({ url: other.url, publishToken: 'secret' }).lookup([blob])
    expect(other.requests[0]?.headers).not.toHaveProperty('authorization')
    expect(other.requests[0]?.headers['user-agent']).toMatch(/^llmpt-native\/\d+\.\d+\.\d+/)
  })
})

describe('a lookup', () => {
  test('of nothing, or of empty files, asks nobody', async () => {
    await using server = await hostileServer(json({ data: [] }))
    const client = new TrackerClient({ url: server.url })
    expect((await client.lookup([])).size).toBe(0)
    expect((await client.lookup([{ etag: blob.etag, sizeBytes: 0 }])).size).toBe(0)
    expect(server.requests).toHaveLength(0)
  })

  test('asks at the origin, announces go below the path', async () => {
    await using server = await hostileServer(json({ data: [] }))
    const client = new TrackerClient({ url: `${server.url}/some/path/` })
    await client.lookup([blob])
    expect(server.requests[0]?.url).toBe(`/api/v1/torrents?blob=${blob.etag}`)
    expect(client.announceUrl).toBe(`${server.url}/some/path/announce`)
  })

  const good = row(blob)
  test.each<[string, unknown[]]>([
    ['another kind', [{ ...good, kind: 'snapshot' }]],
    ['no kind, as from a server that lists everything', [{ ...good, kind: undefined }]],
    ['an etag nobody asked for', [row(testBlob())]],
    ['another size', [row(blob, { size: blob.sizeBytes + 1 })]],
    ['a size that is text', [row(blob, { size: `${blob.sizeBytes}` })]],
    ['a v1 hash', [row(blob, { info_hash: '0'.repeat(40) })]],
    ['a hash that is none', [row(blob, { info_hash: '../../x' })]],
    ['a status that hides it', [row(blob, { status: 'pending' })]],
    ['negative seeders', [row(blob, { stats: { seeders: -1, leechers: 0 } })]],
    ['seeders beyond numbers', [row(blob, { stats: { seeders: 1e300, leechers: 0 } })]],
    ['no stats', [row(blob, { stats: undefined })]],
    ['null', [null, 1, 'x', [], {}]],
  ])('drops a row with %s, and keeps the others', async (_, rows) => {
    await using server = await hostileServer(json({ data: [...rows, good], total: 'many' }))
    const client = new TrackerClient({ url: server.url })
    expect((await client.lookup([blob])).get(blob.etag)).toHaveLength(1)
    await using bad = await hostileServer(json({ data: rows }))
    expect((await new TrackerClient({ url: bad.url }).lookup([blob])).size).toBe(0)
  })

  test('keeps at most eight candidates, each once, in the order of the tracker', async () => {
    const rows = Array.from({ length: 30 }, (_, n) =>
      row(blob, { info_hash: randomBytes(32).toString('hex'), stats: { seeders: n % 7, leechers: 0 } }),
    )
    await using server = await hostileServer(json({ data: [rows[0], rows[0], ...rows] }))
    const found = (await new TrackerClient({ url: server.url }).lookup([blob])).get(blob.etag) ?? []
    expect(found.map((candidate) => candidate.seeders)).toEqual([0, 1, 2, 3, 4, 5, 6, 0])
    expect(new Set(found.map((candidate) => candidate.infoHash)).size).toBe(8)
  })

  test('keeps peers that have an address and a port, at most 50', async () => {
    const bad = [
      { ip: 'example.org', port: 1 },
      { ip: '127.0.0.1', port: 0 },
      { ip: '127.0.0.1', port: 65536 },
      { ip: '127.0.0.1', port: '1' },
      { ip: '1', port: 1 },
      null,
      'x',
    ]
    const many = Array.from({ length: 100 }, (_, n) => ({ ip: '2001:db8::1', port: n + 1 }))
    await using server = await hostileServer(json({ data: [row(blob, { peers: [...bad, ...many] })] }))
    const [candidate] = (await new TrackerClient({ url: server.url }).lookup([blob])).get(blob.etag) ?? []
    expect(candidate?.peers).toHaveLength(43)
    expect(candidate?.peers[0]).toEqual({ host: '2001:db8::1', port: 1 })
  })
})

/** Each of these must be "no torrent" for a lookup and a fetch, and an error for a publish, soon. */
const troubles: [string, RequestListener][] = [
  ['a page with status 200', (_, response) => page(response)],
  ['JSON that is called a page', (_, response) => page(response, JSON.stringify({ data: [row(blob)] }))],
  ['JSON without a type', (_, response) => void response.end(JSON.stringify({ data: [row(blob)] }))],
  ['status 500', json({ error: 'Failed to fetch torrents' }, 500)],
  ['status 404 as text', (_, response) => void response.writeHead(404).end('404 page not found')],
  ['status 204', (_, response) => void response.writeHead(204).end()],
  ['half a JSON', json('{"data":[{"kind":"blob"')],
  ['an empty body', json('')],
  ['null', json('null')],
  ['a list', json('[]')],
  ['data that is an object', json('{"data":{}}')],
  ['JSON with a prototype', json('{"__proto__":{"data":[]},"info_hash":{}}')],
  ['JSON nested without end', json('['.repeat(1_000_000))],
  ['a body that is too large', (_, response) => flood(response, 'application/json')],
  ['a torrent that is too large', (_, response) => flood(response, 'application/x-bittorrent')],
  ['a body that never ends', (_, response) => drip(response)],
  ['a body that breaks off', (_, response) => breakOff(response)],
  ['a redirect', (_, response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
  ['nothing at all', () => {}],
  ['a closed connection', (request) => void request.socket.destroy()],
]

function page(response: ServerResponse, body = '<!doctype html><title>llmpt</title>'): void {
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(body)
}

function flood(response: ServerResponse, type: string): void {
  response.writeHead(200, { 'content-type': type })
  const chunk = Buffer.alloc(1_000_000, ' ')
  const more = (): void => {
    while (!response.destroyed && response.write(chunk));
    if (!response.destroyed) response.once('drain', more)
  }
  more()
}

function drip(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' })
  const timer = setInterval(() => response.write(' '), 20)
  response.on('close', () => clearInterval(timer))
}

function breakOff(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 })
  response.write('{"data":[', () => response.destroy())
}

describe.each(troubles)('a tracker that answers %s', (_, answer) => {
  test('has no torrent', async () => {
    await using server = await hostileServer(answer)
    // A flood ends at the size limit, long before this deadline.
    const client = new TrackerClient({
      url: server.url,
      timeoutMs: answer.toString().includes('flood') ? 20_000 : timeoutMs,
    })
    const warnings: string[] = []
    const restore = divertLog((level, message) => level === 'warn' && warnings.push(message))
    try {
      expect((await client.lookup([blob])).size).toBe(0)
      expect(await client.fetchTorrent(blob.infoHash)).toBeUndefined()
    } finally {
      restore()
    }
    expect(warnings).toEqual([])
  })

  test('has not taken a publish', async () => {
    await using server = await hostileServer(answer)
    const publishing = new TrackerClient({ url: server.url, timeoutMs: 2000 }).publish(blob)
    await expect(publishing).rejects.toThrow(TrackerError)
    await expect(publishing).rejects.toMatchObject({ code: 'ERR_LLMPT_TRACKER' })
  })
})

describe('a tracker that is not there', () => {
  test('has no torrent: nobody listens, or the name leads nowhere', async () => {
    for (const url of ['http://127.0.0.1:1', 'http://tracker.invalid', 'https://127.0.0.1:1']) {
      const client = new TrackerClient({ url, timeoutMs: 2000 })
      expect((await client.lookup([blob])).size).toBe(0)
      expect(await client.fetchTorrent(blob.infoHash)).toBeUndefined()
      await expect(client.publish(blob)).rejects.toThrow(TrackerError)
    }
  })

  test('costs its deadline, whether it is silent from the start or stops in the middle', async () => {
    const half = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{'
    for (const hello of ['', 'HTTP/1.1 200', half, '\0\0\0']) {
      // It never ends by itself: without a deadline of ours this test would run into its own.
      await using server = await silentServer(hello)
      expect((await new TrackerClient({ url: server.url, timeoutMs }).lookup([blob])).size).toBe(0)
    }
  })

  test('costs its deadline when no connection is made, and does not keep the process alive', async () => {
    const hole = spawn(process.execPath, [fileURLToPath(new URL('../fakes/black-hole.mjs', import.meta.url))])
    const fillers: Socket[] = []
    try {
      const [port] = await once(hole.stdout, 'data')
      for (let n = 0; n < 8; n++) fillers.push(connect(Number(port), '127.0.0.1').on('error', () => {}))
      await once(fillers[0] as Socket, 'connect')
      // The program runs what `npm test` has built. Left alone, the connection attempt goes on for 10 s: the lookup ends
      // before a timer of half of that, and leaves nothing that keeps the process alive.
      const script = `
        const { TrackerClient } = await import(process.argv[1])
        const client = new TrackerClient({ url: process.argv[2], timeoutMs: 200 })
        let isLate = false
        setTimeout(() => (isLate = true), 5000).unref()
        const { size } = await client.lookup([{ etag: '${blob.etag}', sizeBytes: 1 }])
        console.log(JSON.stringify({ size, isLate }))
        for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
        console.log(JSON.stringify(process.getActiveResourcesInfo().filter((name) => /^(TCP|Timeout)/.test(name))))`
      const module = new URL('../../dist/tracker/client.js', import.meta.url).href
      const url = `http://127.0.0.1:${Number(port)}`
      const child = spawn(process.execPath, ['--input-type=module', '-e', script, module, url])
      const [printed] = await Promise.all([text(child.stdout), once(child, 'exit')])
      const [answer, active] = printed.split('\n').map((line) => line && JSON.parse(line))
      expect(answer).toEqual({ size: 0, isLate: false })
      expect(active).toEqual([])
    } finally {
      for (const socket of fillers) socket.destroy()
      hole.kill('SIGKILL')
    }
  })
})

describe('a torrent file', () => {
  const send =
    (bytes: Uint8Array, type = 'application/x-bittorrent'): RequestListener =>
    (_, response) =>
      void response.writeHead(200, { 'content-type': type }).end(bytes)

  test('that is another than was asked for is none', async () => {
    const other = testBlob()
    await using server = await hostileServer(send(other.torrentFile))
    const client = new TrackerClient({ url: server.url })
    expect(await client.fetchTorrent(blob.infoHash)).toBeUndefined()
    expect(await client.fetchTorrent(other.infoHash)).toBeDefined()
  })

  test('that is not the blob of its candidate is none', async () => {
    const wrong = testBlob(randomBytes(1000), 'model.bin')
    await using server = await hostileServer(async (request, response) => {
      if (request.url?.includes('/torrent?')) send(wrong.torrentFile)(request, response)
      else json({ data: [row(wrong, { etag: blob.etag, size: 1000 })] })(request, response)
    })
    const client = new TrackerClient({ url: server.url })
    const [candidate] = (await client.lookup([{ etag: blob.etag, sizeBytes: 1000 }])).get(blob.etag) ?? []
    expect(candidate?.infoHash).toBe(wrong.infoHash)
    expect(await client.fetchTorrent(candidate as NonNullable<typeof candidate>)).toBeUndefined()
  })

  test('that comes as another type, or is broken, is none', async () => {
    for (const answer of [
      send(blob.torrentFile, 'text/html'),
      send(blob.torrentFile.subarray(1)),
      send(Buffer.alloc(0)),
    ]) {
      await using server = await hostileServer(answer)
      expect(await new TrackerClient({ url: server.url }).fetchTorrent(blob.infoHash)).toBeUndefined()
    }
  })
})

describe("the caller's signal", () => {
  const reason = new Error('changed my mind')

  test('ends whatever is under way, with its own reason', async () => {
    await using server = await silentServer()
    const client = new TrackerClient({ url: server.url, timeoutMs: 20_000 })
    const calls = [
      (signal: AbortSignal) => client.lookup([blob], { signal }),
      (signal: AbortSignal) => client.fetchTorrent(blob.infoHash, { signal }),
      (signal: AbortSignal) => client.publish(blob, { signal }),
    ]
    for (const call of calls) {
      await expect(call(AbortSignal.abort(reason))).rejects.toBe(reason)
      const controller = new AbortController()
      const calling = expect(call(controller.signal)).rejects.toBe(reason)
      setImmediate(() => controller.abort(reason))
      await calling
    }
  })
})

test.each(['', 'tracker.example', 'ftp://x', 'file:///etc', 'http://'])('the URL %j is refused', (url) => {
  expect(() => new TrackerClient({ url })).toThrow(ConfigError)
})

test('a git etag is looked up like any other', async () => {
  await using tracker = await testTracker()
  const git = testBlob(Buffer.from('text'), randomBytes(20).toString('hex') as Etag)
  const client = new TrackerClient({ url: tracker.url })
  await client.publish(git)
  expect((await client.lookup([git])).get(git.etag)).toHaveLength(1)
})
