/** The Hub with mirrors: who is asked when, and what is told to whom. */
import { expect, test } from 'vitest'
import { type Availability, type HubServer, startHub } from '../../src/demo/hub.ts'
import { Endpoints, restMs } from '../../src/hub/endpoints.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { listRepoFiles, resolveRevision } from '../../src/hub/repo.ts'
import type { HubFile } from '../../src/values.ts'
import { access, errorOf, lyingHub, readAll, type TestAccess, tiny } from './fixtures.ts'

const sizeBytes = 300_000
const files = {
  ...Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`f${i}.txt`, `text ${i}`])),
  'w.bin': { seed: 'w', sizeBytes },
}

interface World extends AsyncDisposable {
  readonly hub: HubServer
  readonly mirror: HubServer
  readonly our: TestAccess
  /** Switches the Hub and its storage. */
  hubIs(availability: Availability): Promise<void>
}

async function world(options: { token?: string } = {}): Promise<World> {
  const spec = { repo: 'acme/tiny', files }
  const settings = { pageSize: 3, tokens: { hf_member: [] } }
  const hub = await startHub(spec, settings)
  const mirror = await startHub(spec, settings)
  const our = access(hub.url, { mirrors: [mirror.url], retries: 0, ...options })
  return {
    hub,
    mirror,
    our,
    async hubIs(availability) {
      for (const origin of ['hub', 'cdn'] as const) await hub.setAvailability(origin, availability)
    },
    async [Symbol.asyncDispose]() {
      await our[Symbol.asyncDispose]()
      await hub.close()
      await mirror.close()
    },
  }
}

async function readFrom(source: FileSource, start: number, end: number): Promise<Buffer> {
  return await readAll((await source.openRange({ start, end })).batches)
}

/** One question of each kind. */
async function askAll(w: World): Promise<void> {
  const commit = await resolveRevision(w.our, tiny, 'main')
  expect(commit).toBe(w.hub.file('w.bin').commit)
  expect(await listRepoFiles(w.our, tiny, commit)).toHaveLength(Object.keys(files).length)
  for (const path of ['f0.txt', 'w.bin']) {
    const file = await fileMetadata(w.our, w.hub.ref(path))
    expect(file.etag).toBe(w.hub.file(path).etag)
    for (const location of [file.location, undefined]) {
      const bytes = await readFrom(new FileSource(w.our, file, { location }), 2, file.sizeBytes)
      expect(bytes.equals((await w.hub.file(path).bytes()).subarray(2))).toBe(true)
    }
  }
}

test('while the Hub answers, no mirror is asked anything', async () => {
  await using w = await world()
  await askAll(w)
  expect(w.mirror.requests()).toEqual([])
})

test('no more is asked of the Hub than without mirrors', async () => {
  await using w = await world()
  await askAll(w)
  const asked = w.hub.requests().length
  w.hub.resetStats()
  await using alone = access(w.hub.url, { retries: 0 })
  await askAll({ ...w, our: alone })
  expect(w.hub.requests()).toHaveLength(asked)
})

test.each<Availability>(['refused', 'unavailable'])(
  'a Hub that is %s from the start: the mirror answers questions and gives content',
  async (availability) => {
    await using w = await world()
    await w.hubIs(availability)
    await askAll(w)
  },
)

test('a Hub that answers 503 is asked once more than it has retries, and then left alone for a while', async () => {
  await using w = await world()
  await using our = access(w.hub.url, { mirrors: [w.mirror.url], retries: 2 })
  await w.hubIs('unavailable')
  for (let i = 0; i < 3; i++) await resolveRevision(our, tiny, 'main')
  expect(w.hub.requests()).toHaveLength(3)
  expect(w.mirror.requests()).toHaveLength(3)
  our.advance(restMs)
  await resolveRevision(our, tiny, 'main')
  expect(w.hub.requests()).toHaveLength(6)
})

test('a Hub that has come back is asked again, and the mirror no longer', async () => {
  await using w = await world()
  await w.hubIs('unavailable')
  await resolveRevision(w.our, tiny, 'main')
  await w.hubIs('up')
  await resolveRevision(w.our, tiny, 'main')
  expect(w.hub.requests()).toHaveLength(1)
  w.our.advance(restMs)
  w.mirror.resetStats()
  for (let i = 0; i < 3; i++) await resolveRevision(w.our, tiny, 'main')
  expect(w.hub.requests()).toHaveLength(4)
  expect(w.mirror.requests()).toHaveLength(0)
})

test('after its rest one question tries the Hub, while the others leave it alone', async () => {
  await using w = await world()
  await w.hubIs('unavailable')
  await resolveRevision(w.our, tiny, 'main')
  w.our.advance(restMs)
  w.hub.resetStats()
  await Promise.all(Array.from({ length: 4 }, () => resolveRevision(w.our, tiny, 'main')))
  expect(w.hub.requests()).toHaveLength(1)
})

test('a Hub that dies in the middle of a listing: the mirror gives all of it', async () => {
  await using w = await world()
  await using dying = await lyingHub((req, res, url) => {
    if (req.url?.includes('cursor')) return void req.socket.destroy()
    const next = `<${url}${req.url}&cursor=3>; rel="next"`
    res
      .writeHead(200, { link: next })
      .end(JSON.stringify([{ type: 'file', path: 'half', size: 1, oid: 'd'.repeat(40) }]))
  })
  await using our = access(dying.url, { mirrors: [w.mirror.url] })
  const listed = await listRepoFiles(our, tiny, w.mirror.file('w.bin').commit)
  expect(listed.map(({ path }) => path).toSorted()).toEqual(Object.keys(files).toSorted())
})

test.each(['f0.txt', 'w.bin'])(
  'a Hub that dies in the middle of %s: the rest comes from the mirror',
  async (path) => {
    await using w = await world()
    const file = await fileMetadata(w.our, w.hub.ref(path))
    const source = new FileSource(w.our, file, { location: file.location })
    const head = await readFrom(source, 0, 3)
    await w.hubIs('refused')
    const tail = await readFrom(source, 3, file.sizeBytes)
    expect(Buffer.concat([head, tail]).equals(await w.hub.file(path).bytes())).toBe(true)
  },
)

test('storage that is down rests, too: the mirror gives the content, the Hub still answers questions', async () => {
  await using w = await world()
  const file = await fileMetadata(w.our, w.hub.ref('w.bin'))
  await w.hub.setAvailability('cdn', 'unavailable')
  const source = new FileSource(w.our, file, { location: file.location })
  for (const start of [0, 1000, 2000]) await readFrom(source, start, start + 10)
  expect(w.hub.stats('cdn').requests).toBe(1)
  w.mirror.resetStats()
  await resolveRevision(w.our, tiny, 'main')
  expect(w.mirror.requests()).toEqual([])
})

test('what the Hub refuses is refused, and no mirror is asked', async () => {
  await using w = await world()
  expect(await errorOf(fileMetadata(w.our, w.hub.ref('nope')))).toMatchObject({ hubCode: 'EntryNotFound' })
  expect(await errorOf(resolveRevision(w.our, tiny, 'nope'))).toMatchObject({ hubCode: 'RevisionNotFound' })
  w.hub.inject({ origin: 'hub', status: 403 })
  expect(await errorOf(resolveRevision(w.our, tiny, 'main'))).toMatchObject({ status: 403 })
  expect(await errorOf(new FileSource(w.our, w.hub.file('w.bin')).openRange({ start: 0 }))).toMatchObject({
    status: 403,
  })
  expect(w.mirror.requests()).toEqual([])
})

test.each([401, 403, 404, 429])('a %i of a mirror ends nothing: the next one is asked', async (status) => {
  await using w = await world()
  await using refusing = await lyingHub((_req, res) => res.writeHead(status).end())
  await using our = access(w.hub.url, { mirrors: [refusing.url, w.mirror.url], retries: 0 })
  await w.hubIs('refused')
  expect(await resolveRevision(our, tiny, 'main')).toBe(w.hub.file('w.bin').commit)
  await readFrom(new FileSource(our, w.hub.file('w.bin')), 0, 10)
  expect(refusing.seen).toHaveLength(2)
})

test('a Hub that rests is asked all the same when no mirror has it', async () => {
  await using w = await world()
  await w.hubIs('unavailable')
  await resolveRevision(w.our, tiny, 'main')
  await w.hubIs('up')
  await w.hub.commit({ 'new.txt': 'the mirror is behind' })
  expect(await fileMetadata(w.our, w.hub.ref('new.txt'))).toMatchObject({ etag: w.hub.file('new.txt').etag })
})

test('when nobody answers, the error names all and is no refusal', async () => {
  await using w = await world()
  await w.hubIs('refused')
  await w.mirror.setAvailability('hub', 'unavailable')
  const hosts = [w.hub.url, w.mirror.url].map((url) => new URL(url).host)
  const source = new FileSource(w.our, w.hub.file('w.bin'))
  for (const ask of [
    () => resolveRevision(w.our, tiny, 'main'),
    () => source.openRange({ start: 0, end: 9 }),
  ]) {
    const error = await errorOf(ask())
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: undefined })
    for (const host of hosts) expect(error.message).toContain(host)
    expect(error.message).toContain('connection refused')
    expect(error.message).toContain('503')
  }
})

test('a mirror that does not know a file of a Hub that is down does not say that there is none', async () => {
  await using w = await world()
  await w.hubIs('refused')
  const error = await errorOf(fileMetadata(w.our, w.hub.ref('nope')))
  expect(error).toMatchObject({ status: undefined, hubCode: undefined })
  expect(error.message).toContain('connection refused')
})

test.each([
  ['says nothing of', {}],
  ['has other', { 'x-linked-etag': 'e'.repeat(64) }],
])('a mirror that %s content does not give any of it', async (_, headers) => {
  await using w = await world()
  await using storage = await lyingHub((_req, res) => res.end())
  await using lying = await lyingHub((_req, res) => {
    res.writeHead(302, { ...headers, location: storage.url, 'x-repo-commit': 'a'.repeat(40) }).end()
  })
  await using our = access(w.hub.url, { mirrors: [lying.url], retries: 0 })
  await w.hubIs('refused')
  const error = await errorOf(new FileSource(our, w.hub.file('w.bin')).openRange({ start: 0, end: 9 }))
  expect(error.message).toContain(new URL(lying.url).host)
  expect(storage.seen).toEqual([])
})

// Tokens

test('a call with a token puts no question to a mirror: the names of private things are private', async () => {
  await using w = await world({ token: 'hf_member' })
  await w.hubIs('refused')
  expect(await errorOf(resolveRevision(w.our, tiny, 'main'))).toMatchObject({ status: undefined })
  expect((await errorOf(fileMetadata(w.our, w.hub.ref('w.bin')))).message).toContain('connection refused')
  expect(w.mirror.requests()).toEqual([])
})

test('a call with a token asks a mirror for the content of a public file, without the token', async () => {
  await using w = await world({ token: 'hf_member' })
  const file = w.hub.file('w.bin')
  const source = new FileSource(w.our, file, { isPublic: async () => true })
  await readFrom(source, 0, 10)
  await w.hubIs('refused')
  await readFrom(source, 10, 20)
  expect(w.hub.stats('hub').authorized).toBe(1)
  expect(w.mirror.stats()).toMatchObject({ requests: 2, authorized: 0 })
})

const unknown: [string, ((file: HubFile) => Promise<boolean>) | undefined][] = [
  ['not public', async () => false],
  ['not known to be public', undefined],
]
test.each(unknown)('no mirror hears of a file that is %s', async (_, isPublic) => {
  await using w = await world({ token: 'hf_member' })
  const file = w.hub.file('w.bin')
  const source = new FileSource(w.our, file, { isPublic: isPublic && (() => isPublic(file)) })
  await w.hubIs('refused')
  await errorOf(source.openRange({ start: 0, end: 10 }))
  expect(w.mirror.requests()).toEqual([])
})

// The order

test('endpoints that rest come last, in their order, and a clock that is set back ends all rests', () => {
  let nowMs = 1_000_000
  const endpoints = new Endpoints('http://a', ['http://b', 'http://c/x'], () => nowMs)
  const order = (): readonly string[] => endpoints.inOrder((endpoint) => [new URL(endpoint).origin])
  endpoints.noteFailure('http://a')
  endpoints.noteFailure('http://c')
  expect(order()).toEqual(['http://b', 'http://a', 'http://c/x'])
  nowMs -= 10
  expect(order()).toEqual(['http://a', 'http://b', 'http://c/x'])
  nowMs += 10
  endpoints.noteAnswer(['http://a'])
  expect(order()).toEqual(['http://a', 'http://b', 'http://c/x'])
})
