import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { parseEtag, parseSize } from '../../src/hub/header-values.ts'
import type { HubHttpOptions } from '../../src/hub/http.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { access, commitA, errorOf, lyingHub, tiny } from './fixtures.ts'

const names = [
  'config.json',
  'sub/deep/weights.bin',
  'a#1?.txt',
  '100%.txt',
  'with space.bin',
  'ünï/模型.bin',
  'empty.txt',
]
const files = Object.fromEntries(names.map((name, i) => [name, name === 'empty.txt' ? '' : `content ${i}`]))

test.each(names)('%j has the identity that the Hub computed, for one or two HEAD requests', async (path) => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const found = await fileMetadata(our, hub.ref(path))
  const { bytes: _, sha256: __, gitSha1: ___, ...want } = hub.file(path)
  expect(found).toMatchObject(want)
  expect(hub.requests().every((request) => request.method === 'HEAD')).toBe(true)
  expect(hub.requests()).toHaveLength(path.endsWith('.bin') ? 1 : 2)
})

test('a Xet file looks like an LFS file, with the SHA-256 as its identity', async () => {
  await using hub = await startHub({ 'x.bin': { content: 'xet', storage: 'xet' } })
  await using our = access(hub.url)
  expect((await fileMetadata(our, hub.ref('x.bin'))).etag).toBe(hub.file('x.bin').sha256)
})

test('branches, tags, pull requests, commits, datasets and spaces resolve to their commit', async () => {
  const other = { 'f.txt': 'other' }
  await using hub = await startHub([
    {
      repo: 'acme/tiny',
      files: { 'f.txt': 'main' },
      branches: { 'feature/x': other },
      tags: { 'v1.0': 'main' },
      pulls: { 1: other },
    },
    { repo: 'acme/data', repoType: 'dataset', files: { 'f.txt': 'data' } },
    { repo: 'plain', repoType: 'space', files: { 'f.txt': 'space' } },
  ])
  await using our = access(hub.url)
  const main = hub.file('f.txt').commit
  for (const revision of ['main', 'v1.0', main, main.slice(0, 8)]) {
    expect((await fileMetadata(our, hub.ref('f.txt', { revision }))).commit).toBe(main)
  }
  for (const revision of ['feature/x', 'refs/pr/1']) {
    const { commit } = hub.file('f.txt', { revision })
    expect((await fileMetadata(our, hub.ref('f.txt', { revision }))).commit).toBe(commit)
  }
  for (const repo of ['acme/data', 'plain']) {
    expect((await fileMetadata(our, hub.ref('f.txt', { repo }))).etag).toBe(hub.file('f.txt', { repo }).etag)
  }
})

test('a renamed repository is found under its old name', async () => {
  await using hub = await startHub({ repo: 'acme/new', files: { 'w.bin': 'x' }, renamedFrom: ['acme/old'] })
  await using our = access(hub.url)
  const found = await fileMetadata(our, { ...tiny, repo: 'acme/old', revision: 'main', path: 'w.bin' })
  expect(found).toMatchObject({ repo: 'acme/old', etag: hub.file('w.bin').etag })
})

test('an endpoint with a path prefix works, redirects included', async () => {
  await using hub = await startHub({ 'a.txt': 'a' }, { pathPrefix: '/mirror' })
  await using our = access(hub.url)
  expect((await fileMetadata(our, hub.ref('a.txt'))).etag).toBe(hub.file('a.txt').etag)
})

const refused = [
  {
    repo: 'acme/gated',
    token: undefined,
    status: 401,
    hubCode: 'GatedRepo',
    says: 'accept its conditions at',
  },
  { repo: 'acme/gated', token: 'hf_other', status: 403, hubCode: 'GatedRepo', says: 'ask for it at' },
  { repo: 'acme/private', token: undefined, status: 401, hubCode: 'RepoNotFound', says: 'set HF_TOKEN' },
  { repo: 'acme/private', token: 'hf_other', status: 404, hubCode: 'RepoNotFound', says: 'may not read it' },
  { repo: 'acme/tiny', token: 'hf_bad', status: 401, hubCode: undefined, says: 'does not accept the token' },
  { repo: 'acme/disabled', token: undefined, status: 403, hubCode: undefined, says: 'disabled' },
  { repo: 'acme/tiny', revision: 'nope', status: 404, hubCode: 'RevisionNotFound', says: '"nope"' },
  {
    repo: 'acme/tiny',
    path: 'missing.txt',
    status: 404,
    hubCode: 'EntryNotFound',
    says: 'no file "missing.txt"',
  },
]
test.each(refused)(
  '$repo $path $revision with token $token is refused with $status $hubCode',
  async (row) => {
    const spec = { files: { 'f.txt': 'x' } }
    await using hub = await startHub(
      [
        { repo: 'acme/tiny', ...spec },
        { repo: 'acme/gated', ...spec, isGated: true },
        { repo: 'acme/private', ...spec, isPrivate: true },
        { repo: 'acme/disabled', ...spec, isDisabled: true },
      ],
      { tokens: { hf_other: [], hf_good: ['acme/gated', 'acme/private'] } },
    )
    await using our = access(hub.url, row.token === undefined ? {} : { token: row.token })
    const ref = { ...tiny, repo: row.repo, revision: row.revision ?? 'main', path: row.path ?? 'f.txt' }
    const error = await errorOf(fileMetadata(our, ref))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: row.status, hubCode: row.hubCode })
    expect(error.message).toContain(row.says)
    expect(error.message).not.toContain('hf_')
    expect(our.pauses).toEqual([])
  },
)

test('a member reads gated and private files, whatever the token looks like', async () => {
  const tokens = { 'corp-token-without-prefix': ['acme/gated', 'acme/private'] }
  const files = { 'w.bin': 'x' }
  await using hub = await startHub(
    [
      { repo: 'acme/gated', files, isGated: true },
      { repo: 'acme/private', files, isPrivate: true },
    ],
    { tokens },
  )
  await using our = access(hub.url, { token: 'corp-token-without-prefix' })
  for (const { repo } of hub.repos) {
    expect((await fileMetadata(our, hub.ref('w.bin', { repo }))).etag).toBe(hub.file('w.bin', { repo }).etag)
  }
})

test('a pause that the Hub asks for is kept, and a long one is an error at once', async () => {
  await using hub = await startHub({ 'w.bin': 'x' })
  await using our = access(hub.url)
  hub.inject({ origin: 'hub', status: 429, retryAfter: '3', times: 1 })
  await fileMetadata(our, hub.ref('w.bin'))
  expect(our.pauses).toEqual([3000])
  hub.inject({ origin: 'hub', status: 429, retryAfter: '600' })
  const error = await errorOf(fileMetadata(our, hub.ref('w.bin')))
  expect(error).toMatchObject({ status: 429 })
  expect(error).toMatchObject({ retryAfterMs: 600_000 })
  expect(error.message).toContain('10 min')
  expect(our.pauses).toEqual([3000])
})

test('a rate limit says when it ends, and an abort ends the pause', async () => {
  await using hub = await startHub({ 'w.bin': 'x' })
  await using our = access(hub.url)
  hub.inject({ origin: 'hub', status: 429, headers: { ratelimit: '"resolvers";r=0;t=7' }, times: 1 })
  await fileMetadata(our, hub.ref('w.bin'))
  expect(our.pauses).toEqual([7000])
  hub.inject({ origin: 'hub', status: 429, retryAfter: '9' })
  const controller = new AbortController()
  const reason = new Error('enough')
  const sleep: HubHttpOptions['sleep'] = (ms, signal) => {
    setImmediate(() => controller.abort(reason))
    return delay(ms, undefined, { signal: signal ?? controller.signal })
  }
  await using patient = access(hub.url, { sleep })
  expect(await errorOf(fileMetadata(patient, hub.ref('w.bin'), { signal: controller.signal }))).toBe(reason)
})

test('a 503 is tried three times, then the Hub is called out of order', async () => {
  await using hub = await startHub({ 'w.bin': 'x' })
  await using our = access(hub.url)
  hub.inject({ status: 503, times: 2 })
  await fileMetadata(our, hub.ref('w.bin'))
  hub.inject({ status: 503 })
  expect(await errorOf(fileMetadata(our, hub.ref('w.bin')))).toMatchObject({ status: 503 })
  expect(hub.requests()).toHaveLength(6)
})

test('a Hub that is off, or silent, is an error without a status that names the host', async () => {
  await using hub = await startHub({ 'w.bin': 'x' })
  await using our = access(hub.url, { headersTimeoutMs: 200 })
  for (const state of ['refused', 'black-hole'] as const) {
    await hub.setAvailability('hub', state)
    const error = await errorOf(fileMetadata(our, hub.ref('w.bin')))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: undefined })
    expect(error.message).toContain(new URL(hub.url).host)
  }
  await hub.setAvailability('hub', 'up')
  expect((await fileMetadata(our, hub.ref('w.bin'))).sizeBytes).toBe(1)
})

test("an abort ends the request with the signal's own reason", async () => {
  await using hub = await startHub({ 'w.bin': 'x' })
  await using our = access(hub.url)
  await hub.setAvailability('hub', 'black-hole')
  const reason = new Error('enough')
  const controller = new AbortController()
  const pending = errorOf(fileMetadata(our, hub.ref('w.bin'), { signal: controller.signal }))
  controller.abort(reason)
  expect(await pending).toBe(reason)
})

const honest = {
  'x-repo-commit': commitA,
  'x-linked-etag': `"${'e'.repeat(64)}"`,
  'x-linked-size': '5',
  location: 'http://cdn.invalid/x',
}
const lies: [string, Record<string, string>][] = [
  ['a path as etag', { 'x-linked-etag': '"../../../etc/passwd"' }],
  ['an md5 as etag', { 'x-linked-etag': `"${'e'.repeat(32)}"` }],
  ['an empty etag', { 'x-linked-etag': '""' }],
  ['a negative size', { 'x-linked-size': '-1' }],
  ['a size beyond counting', { 'x-linked-size': '9007199254740993' }],
  ['a size in words', { 'x-linked-size': '5 bytes' }],
  ['a short commit', { 'x-repo-commit': 'abc' }],
  ['a commit that is a path', { 'x-repo-commit': '../../x' }],
]
test.each(lies)('%s is refused', async (_, lie) => {
  await using hub = await lyingHub((_req, res) => res.writeHead(302, { ...honest, ...lie }).end())
  await using our = access(hub.url)
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB' })
})

test("storage's own etag is never taken for the content's", async () => {
  await using hub = await lyingHub((_req, res) => res.writeHead(200, { etag: `"${'e'.repeat(64)}"` }).end())
  await using our = access(hub.url)
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error.message).toContain('HF_ENDPOINT')
})

test('an etag of a page that does not know the commit is not taken either', async () => {
  await using hub = await lyingHub((req, res) => {
    if (req.url === '/storage')
      res.writeHead(200, { etag: `"${'e'.repeat(64)}"`, 'content-length': '5' }).end()
    else res.writeHead(307, { 'x-repo-commit': commitA, location: '/storage' }).end()
  })
  await using our = access(hub.url)
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error.message).toContain('X-Linked-ETag')
})

test('a redirect to another site without the Hub headers is not followed', async () => {
  await using elsewhere = await lyingHub((_req, res) => res.writeHead(200, honest).end())
  await using hub = await lyingHub((_req, res) =>
    res.writeHead(302, { location: `${elsewhere.url}/x?secret=1` }).end(),
  )
  await using our = access(hub.url, { token: 'hf_secret' })
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error.message).not.toContain('secret')
  expect(elsewhere.seen).toHaveLength(0)
})

test('redirects in a circle end', async () => {
  await using hub = await lyingHub((req, res) => res.writeHead(307, { location: `${req.url}x` }).end())
  await using our = access(hub.url)
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error.message).toContain('redirects')
  expect(hub.seen.length).toBeLessThan(20)
})

test('a header without end is an error, not a heap', async () => {
  await using hub = await lyingHub((_req, res) =>
    res.writeHead(200, { ...honest, 'x-junk': 'x'.repeat(100_000) }).end(),
  )
  await using our = access(hub.url)
  const error = await errorOf(fileMetadata(our, { ...tiny, revision: 'main', path: 'f' }))
  expect(error.message).toContain('too large')
})

test('a length of compressed bytes is not taken for the size: a range tells it', async () => {
  const etag = 'c'.repeat(40)
  await using hub = await lyingHub((req, res) => {
    const head = { 'x-repo-commit': commitA, etag: `W/"${etag}"` }
    if (req.headers.range)
      res.writeHead(206, { ...head, 'content-range': 'bytes 0-0/1234', 'content-length': '1' }).end('x')
    else res.writeHead(200, { ...head, 'content-encoding': 'gzip', 'content-length': '77' }).end()
  })
  await using our = access(hub.url)
  expect(await fileMetadata(our, { ...tiny, revision: 'main', path: 'f' })).toMatchObject({
    etag,
    sizeBytes: 1234,
  })
})

test('etags and sizes are read strictly', () => {
  const hex = 'ab'.repeat(32)
  for (const text of [`"${hex}"`, hex, `W/"${hex}"`, `"${hex.toUpperCase()}"`])
    expect(parseEtag(text)).toBe(hex)
  for (const text of [undefined, '', '""', `"${hex}-7"`, hex.slice(1), 'W/W/x'])
    expect(parseEtag(text)).toBeUndefined()
  expect([parseSize('0'), parseSize('12')]).toEqual([0, 12])
  for (const text of [undefined, '', '-1', '1e3', '0x10', '99999999999999999'])
    expect(parseSize(text)).toBeUndefined()
})
