import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { askedPauseMs, longestPauseMs, OriginPauses } from '../../src/hub/origin-pauses.ts'
import { access, errorOf, hubFile, lyingHub, readAll } from './fixtures.ts'

const nowMs = Date.UTC(2026, 10, 5, 12, 0, 0)
const cases: [string, number, Record<string, string>, number | undefined][] = [
  ['seconds', 429, { 'retry-after': '7' }, 7000],
  ['seconds with spaces, on a 503', 503, { 'retry-after': ' 7 ' }, 7000],
  ['a date', 503, { 'retry-after': 'Thu, 05 Nov 2026 12:00:30 GMT' }, 30_000],
  ['a date in the past', 429, { 'retry-after': 'Thu, 05 Nov 2020 12:00:30 GMT' }, 0],
  ['a date that is none', 429, { 'retry-after': 'Foo, 99 Bar 2026 77:00:30 GMT' }, undefined],
  ['NaN', 429, { 'retry-after': 'NaN' }, undefined],
  ['Infinity', 429, { 'retry-after': 'Infinity' }, undefined],
  ['a negative number', 429, { 'retry-after': '-5' }, undefined],
  ['a fraction', 429, { 'retry-after': '1.5' }, undefined],
  ['nothing', 429, { 'retry-after': '' }, undefined],
  ['a list', 429, { 'retry-after': '5, 6' }, undefined],
  ['a year', 429, { 'retry-after': '31536000' }, longestPauseMs],
  ['more digits than a number has', 429, { 'retry-after': '9'.repeat(400) }, longestPauseMs],
  ['the window of the Hub', 429, { ratelimit: '"resolvers";r=0;t=120' }, 120_000],
  ['the window that is used up', 429, { ratelimit: '"api";r=10;t=300, "resolvers";r=0;t=20' }, 20_000],
  ['a window beside seconds', 429, { 'retry-after': '3', ratelimit: '"api";r=0;t=120' }, 3000],
  ['a window beside nonsense', 429, { 'retry-after': 'soon', ratelimit: '"api";r=0;t=120' }, 120_000],
  ['a negative window', 429, { ratelimit: '"api";r=0;t=-120' }, undefined],
  ['a window of a success', 200, { ratelimit: '"api";r=0;t=120', 'retry-after': '5' }, undefined],
  ['a window of a 503', 503, { ratelimit: '"api";r=0;t=120' }, undefined],
]
test.each(cases)('a pause given as %s is understood or ignored', (_, status, headers, expected) => {
  expect(askedPauseMs({ status, headers }, nowMs)).toBe(expected)
})

/** Real waiting, to see who else waits. */
const patient = { sleep: undefined, now: undefined }
const files = { 'a.bin': { seed: 1, sizeBytes: 50_000 }, 'b.json': '{}', 'c.json': '{"c":1}' }

test('other requests to the same origin wait as well, and those to others do not', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, patient)
  const file = await fileMetadata(our, hub.ref('a.bin'))
  const source = new FileSource(our, file, { location: file.location })
  hub.resetStats()
  hub.inject({ origin: 'hub', status: 429, retryAfter: '1', times: 1 })
  const since = performance.now()
  const refused = fileMetadata(our, hub.ref('b.json'))
  while (hub.stats('hub').requests === 0)
    await readAll((await source.openRange({ start: 0, end: 1 })).batches)
  await readAll((await source.openRange({ start: 0, end: 10 })).batches)
  expect(performance.now() - since).toBeLessThan(900)
  await Promise.all([refused, fileMetadata(our, hub.ref('c.json'))])
  expect(performance.now() - since).toBeGreaterThan(950)
  expect(hub.requests('hub').map((request) => request.status)[0]).toBe(429)
  expect(hub.stats('hub').requests).toBe(5)
})

test('a request that waits for a pause can be given up at once', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { ...patient, retries: 0 })
  hub.inject({ origin: 'hub', status: 503, retryAfter: '9', times: 1 })
  expect(await errorOf(fileMetadata(our, hub.ref('b.json')))).toMatchObject({
    status: 503,
    retryAfterMs: 9000,
  })
  const controller = new AbortController()
  const waiting = errorOf(fileMetadata(our, hub.ref('b.json'), { signal: controller.signal }))
  const reason = new Error('enough')
  const since = performance.now()
  controller.abort(reason)
  expect(await waiting).toBe(reason)
  expect(performance.now() - since).toBeLessThan(50)
  expect(hub.stats('hub').requests).toBe(1)
})

test('a pause longer than anybody waits is an error for everybody, at once and without a request', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  hub.inject({ origin: 'hub', status: 429, headers: { ratelimit: '"resolvers";r=0;t=200' }, times: 1 })
  const first = await errorOf(fileMetadata(our, hub.ref('b.json')))
  expect(first).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 429, retryAfterMs: 200_000 })
  our.advance(50_000)
  const second = await errorOf(fileMetadata(our, hub.ref('c.json')))
  expect(second).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 429, retryAfterMs: 150_000 })
  expect(second.message).toContain('try again')
  expect([hub.stats('hub').requests, our.pauses]).toEqual([1, []])
  our.advance(145_000)
  expect((await fileMetadata(our, hub.ref('b.json'))).sizeBytes).toBe(2)
  expect(our.pauses).toEqual([5000])
})

test.each([
  ['without a token', 'with one', undefined, 'hf_member'],
  ['with a token', 'without one', 'hf_member', undefined],
])('a pause for questions %s is none for those %s', async (_what, _other, refused, other) => {
  await using hub = await startHub(files, { tokens: { hf_member: [] } })
  await using our = access(hub.url)
  const ask = (token: string | undefined) => fileMetadata({ ...our, token }, hub.ref('b.json'))
  hub.inject({ origin: 'hub', status: 429, retryAfter: '200', times: 1 })
  expect(await errorOf(ask(refused))).toMatchObject({ status: 429, retryAfterMs: 200_000 })
  expect((await ask(other)).sizeBytes).toBe(2)
  expect(await errorOf(ask(refused))).toMatchObject({ status: 429, retryAfterMs: 200_000 })
  const free = [refused, other].map((token) => our.http.freeSlots(hub.url, token !== undefined))
  expect(free).toEqual([0, 4])
  expect(hub.requests('hub').filter(({ status }) => status === 429)).toHaveLength(1)
})

test('no slots are free at an origin that wants a pause', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const file = await fileMetadata(our, hub.ref('a.bin'))
  const source = new FileSource(our, file, { location: file.location })
  hub.inject({ origin: 'cdn', status: 429, retryAfter: '60', times: 1 })
  expect(await errorOf(source.openRange({ start: 0 }))).toMatchObject({ status: 429, retryAfterMs: 60_000 })
  expect(source.freeSlots()).toBe(0)
  our.advance(60_000)
  expect(source.freeSlots()).toBe(4)
  expect(await readAll((await source.openRange({ start: 0 })).batches)).toHaveLength(50_000)
  expect(hub.stats('cdn').requests).toBe(2)
})

test('a range says that it waits during a pause, and before another try', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const file = await fileMetadata(our, hub.ref('a.bin'))
  const source = new FileSource(our, file, { location: file.location })
  for (const retryAfter of ['2', undefined]) {
    const said: string[] = []
    hub.inject({ origin: 'cdn', status: 503, times: 1, ...(retryAfter !== undefined && { retryAfter }) })
    const hooks = { onWait: () => said.push('wait'), onStart: () => said.push('start') }
    await readAll((await source.openRange({ start: 0, ...hooks })).batches)
    expect(said).toEqual(['start', 'wait', 'start'])
  }
})

test('a budget that a success says is used up slows the next question down, and never forbids it', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  hub.inject({ origin: 'hub', path: 'a.bin', headers: { ratelimit: '"resolvers";r=0;t=4' }, times: 1 })
  await fileMetadata(our, hub.ref('a.bin'))
  expect(our.pauses).toEqual([])
  await fileMetadata(our, hub.ref('a.bin'))
  expect(our.pauses).toEqual([4000])
  hub.inject({ origin: 'hub', path: 'a.bin', headers: { ratelimit: '"resolvers";r=0;t=290' }, times: 1 })
  for (let i = 0; i < 2; i++) await fileMetadata(our, hub.ref('a.bin'))
  expect(our.pauses).toEqual([4000, 10_000])
  hub.inject({ origin: 'hub', path: 'a.bin', headers: { ratelimit: '"resolvers";r=1;t=290' }, times: 1 })
  for (let i = 0; i < 2; i++) await fileMetadata(our, hub.ref('a.bin'))
  expect(our.pauses).toHaveLength(2)
})

test.each([undefined, new AbortController().signal])(
  'closing ends a pause that somebody waits for',
  async (signal) => {
    await using server = await lyingHub((_req, res) => res.writeHead(429, { 'retry-after': '9' }).end())
    const our = access(server.url, patient)
    const source = new FileSource(our, hubFile('f', 'x'))
    const onWait = (): void => void our.http.close()
    const since = performance.now()
    const error = await errorOf(source.openRange({ start: 0, signal, onWait }))
    expect(error.message).toContain('closed')
    expect(performance.now() - since).toBeLessThan(2000)
  },
)

test('a longer pause that comes up while somebody waits is waited for as well', async () => {
  const slept: number[] = []
  const pauses: OriginPauses = new OriginPauses({
    now: () => nowMs,
    maxRetryDelayMs: 10_000,
    sleep: async (ms) => {
      if (slept.push(ms) === 1) pauses.note('http://o', { status: 429, headers: { 'retry-after': '8' } })
    },
  })
  pauses.note('http://o', { status: 429, headers: { 'retry-after': '5' } })
  pauses.note('http://o', { status: 429, headers: { 'retry-after': '3' } })
  await pauses.wait('http://o', 'http://o/x')
  expect(slept).toEqual([5000, 8000])
  expect(pauses.isPaused('http://o')).toBe(false)
})

test('a connection that is cut before the answer is tried once more, and the range says that it waits', async () => {
  let cuts = 1
  await using server = await lyingHub((_req, res) => {
    if (cuts-- > 0) res.socket?.destroy()
    else res.writeHead(200, { 'content-length': '1' }).end('x')
  })
  await using our = access(server.url)
  const source = new FileSource(our, hubFile('f', 'x'))
  const said: string[] = []
  const hooks = { onWait: () => said.push('wait'), onStart: () => said.push('start') }
  expect(String(await readAll((await source.openRange({ start: 0, ...hooks })).batches))).toBe('x')
  expect(said).toEqual(['start', 'wait', 'start'])
  cuts = 9
  expect(await errorOf(source.openRange({ start: 0 }))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(server.seen).toHaveLength(4)
})
