import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { xetHash } from '../../src/demo/hub-xet.ts'
import { listRepoFiles, resolveRevision } from '../../src/hub/repo.ts'
import type { RepoType } from '../../src/values.ts'
import { access, commitA, errorOf, lyingHub, tiny } from './fixtures.ts'

const tree = {
  'README.md': '# hi',
  'model.safetensors': 'lfs content',
  'sub/dir/x.bin': { content: 'xet content', storage: 'xet' as const },
  'sub/empty.txt': '',
  'odd #?% name.txt': 'odd',
}

test.each<RepoType>(['model', 'dataset', 'space'])(
  'a %s is listed with the identities of its contents',
  async (repoType) => {
    await using hub = await startHub({
      repo: 'acme/tiny',
      repoType,
      files: tree,
      branches: { 'feature/x': { a: 'a' } },
    })
    await using our = access(hub.url)
    const repo = { repoType, repo: 'acme/tiny' }
    const commit = await resolveRevision(our, repo, 'main')
    const listed = await listRepoFiles(our, repo, commit)
    const want = Object.keys(tree)
      .sort()
      .map((path) => {
        const { etag, sizeBytes, sha256 } = hub.file(path)
        const blobId = hub.repo().find('main')?.files.get(path)?.blob.oid
        const inXet = path === 'sub/dir/x.bin' ? { xetHash: xetHash(sha256) } : {}
        return { ...repo, path, commit, etag, sizeBytes, blobId, ...inXet }
      })
    expect(listed).toEqual(want)
    expect(await resolveRevision(our, repo, 'feature/x')).toBe(
      hub.file('a', { revision: 'feature/x' }).commit,
    )
  },
)

test('every page of a tree is turned', async () => {
  const files = Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`f${i}.txt`, `${i}`]))
  await using hub = await startHub(files, { pageSize: 10 })
  await using our = access(hub.url)
  const commit = hub.file('f0.txt').commit
  expect(await listRepoFiles(our, tiny, commit)).toHaveLength(25)
  expect(hub.requests()).toHaveLength(3)
})

test('a private repository is listed with a token of any form, which goes to the Hub only', async () => {
  await using hub = await startHub(
    { repo: 'acme/tiny', files: { a: 'a' }, isPrivate: true },
    { tokens: { 'not-hf-prefixed': ['acme/tiny'] } },
  )
  await using our = access(hub.url, { token: 'not-hf-prefixed' })
  const commit = await resolveRevision(our, tiny, 'main')
  expect(await listRepoFiles(our, tiny, commit)).toHaveLength(1)
  await using anonymous = access(hub.url)
  expect(await errorOf(resolveRevision(anonymous, tiny, 'main'))).toMatchObject({
    status: 401,
    hubCode: 'RepoNotFound',
  })
})

test('a revision that is not there, or cannot be, is an error', async () => {
  await using hub = await startHub({ a: 'a' })
  await using our = access(hub.url)
  expect(await errorOf(resolveRevision(our, tiny, 'nope'))).toMatchObject({ hubCode: 'RevisionNotFound' })
  expect(await errorOf(resolveRevision(our, tiny, '../../x'))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(await errorOf(resolveRevision(our, { ...tiny, repo: 'a/b/c' }, 'main'))).toMatchObject({
    code: 'ERR_LLMPT_HUB',
  })
  expect(hub.requests()).toHaveLength(1)
})

test('a busy Hub is asked again', async () => {
  await using hub = await startHub({ a: 'a' })
  await using our = access(hub.url)
  hub.inject({ origin: 'hub', status: 503, times: 1 })
  expect(await resolveRevision(our, tiny, 'main')).toBe(hub.file('a').commit)
  expect(our.pauses).toHaveLength(1)
})

const oid = 'd'.repeat(40)
const hostileTrees: [string, unknown][] = [
  ['a path that climbs out', [{ type: 'file', path: '../../.bashrc', size: 1, oid }]],
  ['an absolute path', [{ type: 'file', path: '/etc/passwd', size: 1, oid }]],
  ['a Windows path', [{ type: 'file', path: 'C:\\x', size: 1, oid }]],
  ['a network share', [{ type: 'file', path: '\\\\evil\\share', size: 1, oid }]],
  ['a path that is no text', [{ type: 'file', path: { x: 1 }, size: 1, oid }]],
  ['a negative size', [{ type: 'file', path: 'a', size: -1, oid }]],
  ['a size beyond counting', [{ type: 'file', path: 'a', size: 2 ** 60, oid }]],
  ['a size as text', [{ type: 'file', path: 'a', size: '1', oid }]],
  ['an oid that is a path', [{ type: 'file', path: 'a', size: 1, oid: '../x' }]],
  ['no oid', [{ type: 'file', path: 'a', size: 1 }]],
  [
    'an LFS file with a SHA-1',
    [{ type: 'file', path: 'a', size: 1, oid, lfs: { oid, size: 1, pointerSize: 1 } }],
  ],
  ['an object instead of a list', { error: 'x' }],
  ['null entries', [null]],
]
test.each(hostileTrees)('a tree with %s is refused', async (_, value) => {
  await using hub = await lyingHub((_req, res) => res.writeHead(200).end(JSON.stringify(value)))
  await using our = access(hub.url)
  expect(await errorOf(listRepoFiles(our, tiny, commitA))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
})

test.each([
  ['no JSON', '<html>captive portal</html>'],
  ['half a JSON', '[{"type":"fi'],
  ['no commit', '{"id":"acme/tiny","sha":"../../x"}'],
])('an answer that is %s is refused', async (_, body) => {
  await using hub = await lyingHub((_req, res) => res.writeHead(200).end(body))
  await using our = access(hub.url)
  expect(await errorOf(resolveRevision(our, tiny, 'main'))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(await errorOf(listRepoFiles(our, tiny, commitA))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
})

test('an LFS oid may carry the name of its algorithm', async () => {
  const lfs = { oid: `sha256:${'e'.repeat(64)}`, size: 7, pointerSize: 1 }
  await using hub = await lyingHub((_req, res) => {
    res.end(JSON.stringify([{ type: 'file', path: 'a', size: 7, oid, lfs }]))
  })
  await using our = access(hub.url)
  expect(await listRepoFiles(our, tiny, commitA)).toMatchObject([{ etag: 'e'.repeat(64), sizeBytes: 7 }])
})

test("a Xet entry without its LFS identity is asked for by itself: Xet's hash names nothing", async () => {
  const etag = 'e'.repeat(64)
  await using hub = await lyingHub((req, res) => {
    const tree = [{ type: 'file', path: 'a', size: 7, oid, xetHash: 'f'.repeat(64) }]
    if (req.method === 'GET') return void res.end(JSON.stringify(tree))
    const head = {
      'x-repo-commit': commitA,
      'x-linked-etag': etag,
      'x-linked-size': '7',
      location: 'http://cdn.invalid/',
    }
    res.writeHead(302, head).end()
  })
  await using our = access(hub.url)
  expect(await listRepoFiles(our, tiny, commitA)).toEqual([
    { ...tiny, path: 'a', commit: commitA, etag, sizeBytes: 7, blobId: oid, xetHash: 'f'.repeat(64) },
  ])
})

test('pages that lead to another site or in a circle end in an error, and the token stays', async () => {
  await using elsewhere = await lyingHub((_req, res) => res.end('[]'))
  let next = ''
  await using hub = await lyingHub((_req, res) =>
    res.writeHead(200, { link: `<${next}>; rel="next"` }).end('[]'),
  )
  await using our = access(hub.url, { token: 'hf_secret' })
  next = `${elsewhere.url}/page2`
  expect(await errorOf(listRepoFiles(our, tiny, commitA))).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(elsewhere.seen).toHaveLength(0)
  next = `${hub.url}/again`
  expect((await errorOf(listRepoFiles(our, tiny, commitA))).message).toContain('never end')
})
