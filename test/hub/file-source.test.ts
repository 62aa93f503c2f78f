import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { access, errorOf, hubFile, lyingHub, readAll, type TestAccess } from './fixtures.ts'

const sizeBytes = 700_000
const files = {
  'w.bin': { seed: 1, sizeBytes },
  'config.json': '{"hidden": 1}'.repeat(100),
  'x.bin': { content: { seed: 2, sizeBytes: 50_000 }, storage: 'xet' as const },
  'empty.txt': '',
}

async function open(hub: HubServer, our: TestAccess, path = 'w.bin'): Promise<FileSource> {
  const file = await fileMetadata(our, hub.ref(path))
  hub.resetStats()
  return new FileSource(our, file, { location: file.location })
}

test.each(Object.keys(files))('%s comes whole, and in parts, with one request each', async (path) => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our, path)
  const want = await hub.file(path).bytes()
  const whole = await source.openRange({ start: 0 })
  expect([whole.start, whole.end, whole.totalBytes]).toEqual([0, want.length, want.length])
  expect((await readAll(whole.batches)).equals(want)).toBe(true)
  const middle = Math.floor(want.length / 2)
  const part = await source.openRange({ start: middle, end: Math.min(want.length, middle + 1000) })
  expect(part.start).toBe(middle)
  expect((await readAll(part.batches)).equals(want.subarray(middle, middle + 1000))).toBe(true)
  expect(hub.requests()).toHaveLength(want.length === 0 ? 0 : 2)
  expect(hub.stats('hub').requests).toBe(path === 'config.json' ? 2 : 0)
})

test('without a known location the first range asks the Hub, and the others do not', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = new FileSource(our, hub.file('w.bin'))
  for (const start of [0, 1000, 2000])
    await readAll((await source.openRange({ start, end: start + 10 })).batches)
  expect(hub.stats('hub').requests).toBe(1)
  expect(hub.stats('cdn').requests).toBe(3)
})

test('the token reaches the Hub and never the storage', async () => {
  const repo = { repo: 'acme/tiny', files, isPrivate: true }
  await using hub = await startHub(repo, { tokens: { hf_member: ['acme/tiny'] } })
  await using our = access(hub.url, { token: 'hf_member' })
  const source = new FileSource(our, hub.file('w.bin'))
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  await readAll((await source.openRange({ start: 10, end: 20 })).batches)
  expect(hub.stats('hub').authorized).toBe(1)
  expect(hub.stats('cdn')).toMatchObject({ requests: 2, authorized: 0 })
  const git = new FileSource(our, hub.file('config.json'))
  expect((await readAll((await git.openRange({ start: 0 })).batches)).length).toBe(1300)
})

test('an expired signature costs one more question, once for all ranges', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.expireSignatures()
  for (const start of [0, 10]) await readAll((await source.openRange({ start, end: start + 10 })).batches)
  expect(hub.stats('hub').requests).toBe(1)
  expect(hub.requests('cdn').map((request) => request.status)).toEqual([403, 206, 206])
})

test('a signature expires with the clock, and a storage that refuses for good is an error', async () => {
  let now = 1_800_000_000_000
  await using hub = await startHub(files, { now: () => now, signatureLifetimeMs: 60_000 })
  await using our = access(hub.url)
  const source = await open(hub, our)
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  now += 120_000
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  expect(hub.requests('cdn').map((request) => request.status)).toEqual([206, 403, 206])
  hub.inject({ origin: 'cdn', status: 403 })
  const error = await errorOf(source.openRange({ start: 0, end: 10 }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 403 })
  expect(`${error.message} ${error['url']}`).not.toContain('Signature')
  expect(error.message).toContain(new URL(hub.cdnUrl).host)
})

test('a server that ignores ranges is reported as starting at 0', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', ignoreRange: true })
  const body = await source.openRange({ start: 500, end: 600 })
  expect([body.start, body.end]).toEqual([0, sizeBytes])
  expect((await readAll(body.batches)).equals(await hub.file('w.bin').bytes())).toBe(true)
})

test('a cut connection ends the body with an error after what had come', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', cutAfterBytes: 200_000, times: 1 })
  const body = await source.openRange({ start: 0 })
  let got = 0
  const reading = (async () => {
    for await (const batch of body.batches) for (const chunk of batch) got += chunk.length
  })()
  expect(await errorOf(reading)).toMatchObject({ code: 'ERR_LLMPT_HUB', status: undefined })
  expect(got).toBe(200_000)
  const rest = await readAll((await source.openRange({ start: got })).batches)
  expect(rest.equals((await hub.file('w.bin').bytes()).subarray(got))).toBe(true)
})

test('a body without a length that ends early is an error, not a short file', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', noLength: true, cutAfterBytes: 1000, times: 1 })
  const body = await source.openRange({ start: 0 })
  expect((await errorOf(readAll(body.batches))).message).toContain('early')
  hub.inject({ origin: 'cdn', noLength: true, times: 1 })
  expect(await readAll((await source.openRange({ start: 0 })).batches)).toHaveLength(sizeBytes)
})

test('a stalled body is given up after the body timeout', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { bodyTimeoutMs: 150 })
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', stallAfterBytes: 100_000 })
  const body = await source.openRange({ start: 0 })
  expect((await errorOf(readAll(body.batches))).message).toContain('stalled')
})

test('a storage that is off, silent or busy is an error without a body', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { headersTimeoutMs: 150, retries: 1 })
  const source = await open(hub, our)
  for (const [state, status] of [
    ['unavailable', 503],
    ['refused', undefined],
    ['black-hole', undefined],
  ] as const) {
    await hub.setAvailability('cdn', state)
    const error = await errorOf(source.openRange({ start: 0 }))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status })
  }
  await hub.setAvailability('cdn', 'up')
  expect(await readAll((await source.openRange({ start: 0 })).batches)).toHaveLength(sizeBytes)
})

test('a pause that the storage asks for is kept, unless the caller does not want tries', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', status: 429, retryAfter: '2', times: 1 })
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  expect(our.pauses).toEqual([2000])
  hub.inject({ origin: 'cdn', status: 429, retryAfter: '2', times: 1 })
  expect(await errorOf(source.openRange({ start: 0, retries: 0 }))).toMatchObject({ status: 429 })
})

test('a body that nobody reads is cancelled, and the connections are free again', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { connectionsPerOrigin: 1 })
  const source = await open(hub, our)
  for (let i = 0; i < 3; i++) (await source.openRange({ start: 0 })).cancel()
  for await (const _ of (await source.openRange({ start: 0 })).batches) break
  expect(await readAll((await source.openRange({ start: 5, end: 15 })).batches)).toHaveLength(10)
})

test('no more connections than allowed go to one origin: the next range waits for its turn', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { connectionsPerOrigin: 1 })
  const source = await open(hub, our)
  const restore = hub.inject({ origin: 'cdn', stallAfterBytes: 1000 })
  const first = await source.openRange({ start: 0 })
  restore()
  const second = source.openRange({ start: 5, end: 15 })
  // The Hub's answer is proof that the second request had its chance to arrive.
  await fileMetadata(our, hub.ref('w.bin'))
  expect(hub.stats('cdn').requests).toBe(1)
  first.cancel()
  expect(await readAll((await second).batches)).toHaveLength(10)
})

test('readers that have paused do not hold up questions to the Hub', async () => {
  await using hub = await startHub({
    'big.txt': { content: { seed: 3, sizeBytes: 30_000_000 }, storage: 'git' },
  })
  await using our = access(hub.url, { connectionsPerOrigin: 2 })
  const file = await fileMetadata(our, hub.ref('big.txt'))
  const source = new FileSource(our, file, { location: file.location })
  const paused = [await source.openRange({ start: 0 }), await source.openRange({ start: 1 })]
  expect((await fileMetadata(our, hub.ref('big.txt'))).etag).toBe(file.etag)
  for (const body of paused) body.cancel()
})

test('an abort ends the request and the body with its reason', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  hub.inject({ origin: 'cdn', stallAfterBytes: 1000 })
  const controller = new AbortController()
  const body = await source.openRange({ start: 0, signal: controller.signal })
  const reason = new Error('enough')
  const reading = errorOf(
    (async () => {
      for await (const _ of body.batches) controller.abort(reason)
    })(),
  )
  expect(await reading).toBe(reason)
})

test('ranges outside of the file are a mistake of the caller', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  for (const range of [
    { start: -1 },
    { start: 5, end: 4 },
    { start: 0, end: sizeBytes + 1 },
    { start: 0.5 },
  ]) {
    await expect(source.openRange(range)).rejects.toThrow(RangeError)
  }
  expect(await readAll((await source.openRange({ start: sizeBytes })).batches)).toHaveLength(0)
})

const content = 'x'.repeat(100)
const partial = { 'content-range': 'bytes 10-19/100', 'content-length': '10' }
const lies: [string, number, Record<string, string>][] = [
  ['another part than asked for', 206, { ...partial, 'content-range': 'bytes 11-20/100' }],
  ['more than asked for', 206, { 'content-range': 'bytes 10-20/100', 'content-length': '11' }],
  ['a part of a longer file', 206, { ...partial, 'content-range': 'bytes 10-19/101' }],
  ['a part without saying which', 206, { 'content-length': '10' }],
  ['a part in words', 206, { ...partial, 'content-range': 'bytes ten-nineteen/100' }],
  ['a part backwards', 206, { ...partial, 'content-range': 'bytes 10-9/100' }],
  ['a length that is not the part', 206, { ...partial, 'content-length': '9' }],
  ['a whole of another length', 200, { 'content-length': '99' }],
  ['gzip although declined', 206, { ...partial, 'content-encoding': 'gzip' }],
  ['gzip of the whole', 200, { 'content-encoding': 'gzip', 'content-length': '100' }],
  [
    'brotli in a part without a length',
    206,
    { 'content-range': 'bytes 10-19/100', 'content-encoding': 'br' },
  ],
  ['several parts', 206, { 'content-type': 'multipart/byteranges; boundary=x', 'content-length': '10' }],
  ['several parts and a range', 206, { ...partial, 'content-type': 'multipart/byteranges; boundary=x' }],
  ['two ranges', 206, { ...partial, 'content-range': 'bytes 10-19/100, bytes 20-29/100' }],
  ['a negative range', 206, { ...partial, 'content-range': 'bytes -10-19/100' }],
  ['a negative total', 206, { ...partial, 'content-range': 'bytes 10-19/-100' }],
  ['a range beyond what numbers can count', 206, { 'content-range': 'bytes 10-9007199254740993/100' }],
  ['another unit', 206, { ...partial, 'content-range': 'items 10-19/100' }],
  ['a success without content', 204, {}],
  ['416', 416, { 'content-range': 'bytes */5' }],
]
test.each(lies)('an answer with %s is refused', async (_, status, headers) => {
  await using hub = await lyingHub((_req, res) => {
    res.writeHead(status, headers)
    res.flushHeaders()
    res.end(status === 204 || status === 416 ? '' : content.slice(0, Number(headers['content-length'] ?? 10)))
  })
  await using our = access(hub.url)
  const source = new FileSource(our, hubFile('f', content))
  const error = await errorOf(source.openRange({ start: 10, end: 20 }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status })
})

test('a gzip answer that does not say so is handed on as it is: nothing is decoded here', async () => {
  const zipped = gzipSync('hello'.repeat(50))
  const range = { 'content-range': `bytes 0-${zipped.length - 1}/${zipped.length}` }
  await using hub = await lyingHub((_req, res) => res.writeHead(206, range).end(zipped))
  await using our = access(hub.url)
  const source = new FileSource(our, hubFile('f', zipped))
  expect((await readAll((await source.openRange({ start: 0 })).batches)).equals(zipped)).toBe(true)
  expect(hub.seen[0]?.headers['accept-encoding']).toBe('identity')
})

test.each<[string, string]>([
  [
    'Content-Range sent twice',
    'Content-Range: bytes 10-19/100\r\nContent-Range: bytes 20-29/100\r\nContent-Length: 10',
  ],
  ['Content-Length sent twice', 'Content-Range: bytes 10-19/100\r\nContent-Length: 10\r\nContent-Length: 11'],
  ['a negative Content-Length', 'Content-Range: bytes 10-19/100\r\nContent-Length: -10'],
  [
    'a length and chunks',
    'Content-Range: bytes 10-19/100\r\nContent-Length: 10\r\nTransfer-Encoding: chunked',
  ],
  [
    'a header of 200 kB',
    `Content-Range: bytes 10-19/100\r\nContent-Length: 10\r\nX-Much: ${'x'.repeat(200_000)}`,
  ],
])('an answer with %s is an error, and its slot is free again', async (_, header) => {
  await using hub = await lyingHub((_req, res) => {
    res.socket?.end(`HTTP/1.1 206 Partial Content\r\n${header}\r\n\r\n${content.slice(10, 20)}`)
  })
  await using our = access(hub.url)
  const source = new FileSource(our, hubFile('f', content))
  const reading = async (): Promise<Buffer> =>
    readAll((await source.openRange({ start: 10, end: 20 })).batches)
  expect(await errorOf(reading())).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(our.http.freeSlots(hub.url)).toBe(4)
})

test('redirects in a circle end with an error that names the origin only', async () => {
  await using hub = await lyingHub((req, res, url) => {
    res.writeHead(307, { location: `${url}${req.url}&secret=1` }).end()
  })
  await using our = access(hub.url)
  const error = await errorOf(new FileSource(our, hubFile('f', content)).openRange({ start: 0 }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(error.message).toContain('redirects')
  expect(hub.seen.length).toBe(10)
  expect(our.http.freeSlots(hub.url)).toBe(4)
})

test('a circle over two origins ends as well, and the token is sent to the Hub only', async () => {
  let hubUrl = ''
  await using storage = await lyingHub((_req, res) =>
    res.writeHead(302, { location: `${hubUrl}/again` }).end(),
  )
  await using hub = await lyingHub((_req, res) => res.writeHead(302, { location: `${storage.url}/x` }).end())
  hubUrl = hub.url
  await using our = access(hub.url, { token: 'hf_secret' })
  const error = await errorOf(new FileSource(our, hubFile('f', content)).openRange({ start: 0 }))
  expect(error.message).toContain('redirects')
  expect(storage.seen.every((req) => req.headers.authorization === undefined)).toBe(true)
})

test('an answer of several parts is called that', async () => {
  await using hub = await lyingHub((_req, res) => {
    res.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=x' }).end('--x--')
  })
  await using our = access(hub.url)
  const error = await errorOf(new FileSource(our, hubFile('f', content)).openRange({ start: 10, end: 20 }))
  expect(error.message).toContain('several parts')
})

test('other content under the same commit is noticed before a byte of it', async () => {
  await using hub = await lyingHub((_req, res) => {
    res.writeHead(206, { ...partial, 'x-linked-etag': 'f'.repeat(64) }).end(content.slice(10, 20))
  })
  await using our = access(hub.url)
  const source = new FileSource(our, hubFile('f', content))
  expect((await errorOf(source.openRange({ start: 10, end: 20 }))).message).toContain('other content')
})

test('a name and password in a redirect are neither sent nor shown', async () => {
  let status = 206
  await using storage = await lyingHub((_req, res) =>
    res.writeHead(status, partial).end(content.slice(10, 20)),
  )
  await using hub = await lyingHub((_req, res) => {
    res.writeHead(302, { location: storage.url.replace('//', '//user:secret@') }).end()
  })
  await using our = access(hub.url, { token: 'hf_secret' })
  const source = new FileSource(our, hubFile('f', content))
  await readAll((await source.openRange({ start: 10, end: 20 })).batches)
  expect(storage.seen[0]?.headers.authorization).toBeUndefined()
  status = 418
  const error = await errorOf(source.openRange({ start: 10, end: 20 }))
  expect(`${error.message} ${error['url']}`).not.toMatch(/user|secret/)
  expect(hub.seen[0]?.headers.authorization).toBe('Bearer hf_secret')
})

test('a redirect to a file on this computer is refused', async () => {
  await using hub = await lyingHub((_req, res) =>
    res.writeHead(302, { location: 'file:///etc/passwd' }).end(),
  )
  await using our = access(hub.url)
  const error = await errorOf(new FileSource(our, hubFile('f', content)).openRange({ start: 0 }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(error.message).toContain('not a web address')
})
