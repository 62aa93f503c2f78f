import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { signatureExpiryMs } from '../../src/hub/signed-url.ts'
import { access, errorOf, hubFile, lyingHub, readAll } from './fixtures.ts'

const at = Date.UTC(2026, 10, 5, 12, 0, 0)
const cases: [string, string, number | undefined][] = [
  ['CloudFront', `Expires=${at / 1000}&Signature=x&Key-Pair-Id=K`, at],
  ['S3', 'X-Amz-Algorithm=A&X-Amz-Date=20261105T110000Z&X-Amz-Expires=3600&X-Amz-Signature=x', at],
  ['Google', 'X-Goog-Date=20261105T110000Z&X-Goog-Expires=3600', at],
  ['Azure', 'sv=2024&se=2026-11-05T12%3A00%3A00Z&sig=x', at],
  [
    'two clocks: the earlier one',
    `Expires=${at / 1000 + 9}&X-Amz-Date=20261105T110000Z&X-Amz-Expires=3600`,
    at,
  ],
  ['a date without a duration', 'X-Amz-Date=20261105T110000Z', undefined],
  ['a date that is none', 'X-Amz-Date=20269905T110000Z&X-Amz-Expires=3600', undefined],
  ['words', 'Expires=soon&se=tomorrow', undefined],
  ['a negative number', 'Expires=-5', undefined],
  ['nothing', '', undefined],
]
test.each(cases)('the expiry of a URL signed as by %s is read', (_, query, expected) => {
  expect(signatureExpiryMs(`https://cdn.example/x?${query}`)).toBe(expected)
})

const files = { 'w.bin': { seed: 1, sizeBytes: 100_000 } }

test('four ranges that are refused at the same time cost one question', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const file = await fileMetadata(our, hub.ref('w.bin'))
  const source = new FileSource(our, file, { location: file.location })
  hub.expireSignatures()
  hub.resetStats()
  // Slow enough that all four are under way before the first refusal.
  hub.inject({ origin: 'cdn', delayMs: 100, times: 4 })
  const bodies = await Promise.all(
    [0, 1, 2, 3].map((n) => source.openRange({ start: n * 10, end: n * 10 + 10 })),
  )
  for (const body of bodies) expect(await readAll(body.batches)).toHaveLength(10)
  expect(hub.stats('hub').requests).toBe(1)
  expect(hub.requests('cdn').map((request) => request.status)).toEqual([
    403, 403, 403, 403, 206, 206, 206, 206,
  ])
})

test('four ranges of a file whose place is not known cost one question', async () => {
  await using hub = await startHub({ ...files, 'small.json': '{"a":1}'.repeat(10) })
  await using our = access(hub.url)
  for (const [path, questions] of [
    ['w.bin', 1],
    // Here the Hub itself serves the bytes: one more request for the redirect, of the first range.
    ['small.json', 5],
  ] as const) {
    hub.resetStats()
    const source = new FileSource(our, hub.file(path))
    const bodies = await Promise.all([0, 1, 2, 3].map((n) => source.openRange({ start: n, end: n + 10 })))
    for (const body of bodies) expect(await readAll(body.batches)).toHaveLength(10)
    expect(hub.stats('hub').requests).toBe(questions)
  }
})

test('when the range that asks is given up, the next one asks instead', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = new FileSource(our, hub.file('w.bin'))
  const restore = hub.inject({ origin: 'hub', delayMs: 10_000 })
  const controller = new AbortController()
  const first = errorOf(source.openRange({ start: 0, end: 10, signal: controller.signal }))
  const second = source.openRange({ start: 10, end: 20 })
  while (hub.stats('hub').requests === 0) await new Promise(setImmediate)
  restore()
  controller.abort(new Error('enough'))
  expect((await first).message).toBe('enough')
  expect(await readAll((await second).batches)).toHaveLength(10)
})

test('a range that waits for the answer of another can be given up at once', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = new FileSource(our, hub.file('w.bin'))
  hub.inject({ origin: 'hub', delayMs: 500, times: 1 })
  const first = source.openRange({ start: 0, end: 10 })
  const controller = new AbortController()
  let waits = 0
  const second = errorOf(source.openRange({ start: 0, signal: controller.signal, onWait: () => waits++ }))
  const since = performance.now()
  controller.abort(new Error('enough'))
  expect((await second).message).toBe('enough')
  expect([waits, performance.now() - since < 50]).toEqual([1, true])
  ;(await first).cancel()
})

test('a URL that is about to expire is not used: the Hub is asked first', async () => {
  await using our0 = access('http://127.0.0.1')
  await using hub = await startHub(files, { now: our0.http.now, signatureLifetimeMs: 60_000 })
  await using our = access(hub.url, { now: our0.http.now })
  const file = await fileMetadata(our, hub.ref('w.bin'))
  const source = new FileSource(our, file, { location: file.location })
  hub.resetStats()
  our0.advance(54_000)
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  expect(hub.stats('hub').requests).toBe(0)
  our0.advance(2_500)
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  expect(hub.stats('hub').requests).toBe(1)
  expect(hub.requests('cdn').map((request) => request.status)).toEqual([206, 206])
})

test('with a clock that is wrong, every new URL looks expired, and is used all the same', async () => {
  await using hub = await startHub(files, { signatureLifetimeMs: 60_000 })
  await using our = access(hub.url)
  our.advance(3_600_000)
  const source = new FileSource(our, hub.file('w.bin'))
  for (const start of [0, 10, 20]) await readAll((await source.openRange({ start, end: start + 5 })).batches)
  expect([hub.stats('hub').requests, hub.stats('cdn').requests]).toEqual([1, 3])
})

test('after a body that an expired signature has cut, the next range asks anew', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const file = await fileMetadata(our, hub.ref('w.bin'))
  const source = new FileSource(our, file, { location: file.location })
  hub.resetStats()
  hub.inject({ origin: 'cdn', cutAfterBytes: 30_000, times: 1 })
  const parts: Uint8Array[] = []
  const body = await source.openRange({ start: 0 })
  await errorOf(
    (async () => {
      for await (const batch of body.batches) parts.push(...batch)
    })(),
  )
  hub.expireSignatures()
  const got = Buffer.concat(parts)
  const rest = await readAll((await source.openRange({ start: got.length })).batches)
  expect(Buffer.concat([got, rest]).equals(await hub.file('w.bin').bytes())).toBe(true)
  expect(hub.stats('hub').requests).toBe(1)
})

test.each([
  [undefined, 1],
  ['/old', 2],
])(
  'a storage that refuses the URL it was just given is not asked again (known before: %s)',
  async (old, asked) => {
    await using storage = await lyingHub((_req, res) => res.writeHead(403).end())
    await using hub = await lyingHub((_req, res) => res.writeHead(302, { location: storage.url }).end())
    await using our = access(hub.url)
    const location = old && storage.url + old
    const source = new FileSource(our, hubFile('f', 'x'.repeat(100)), { location })
    expect(await errorOf(source.openRange({ start: 0 }))).toMatchObject({ status: 403 })
    expect([hub.seen.length, storage.seen.length]).toEqual([1, asked])
  },
)
