/** A mirror as the configured endpoint: whatever it says, the Hub behind it is not asked. */
import { expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { atEndpoint } from '../../src/hub/endpoint-url.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { listRepoFiles, resolveRevision } from '../../src/hub/repo.ts'
import { type Mirror, type MirrorOptions, startMirror } from '../fakes/mirror.ts'
import { sha256Of } from '../support/digest.ts'
import { newUser } from '../support/users.ts'
import { access, errorOf, type LyingHub, lyingHub, readAll, tiny } from './fixtures.ts'

const files = {
  ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`odd #${i}.txt`, `text ${i}`])),
  'w.bin': { seed: 'mirror', sizeBytes: 300_000 },
  'x.bin': { content: { seed: 'mirrored xet', sizeBytes: 50_000 }, storage: 'xet' as const },
}
const token = 'hf_member'

interface World extends AsyncDisposable {
  readonly hub: HubServer
  /** What the mirror's answers name. Nobody is to ask it. */
  readonly elsewhere: LyingHub
  readonly mirror: Mirror
}

async function world(options: Omit<MirrorOptions, 'hubName'> = {}): Promise<World> {
  const spec = { repo: 'acme/tiny', files, renamedFrom: ['acme/old'], isPrivate: true }
  const hub = await startHub(spec, { pageSize: 5, tokens: { [token]: ['acme/tiny'] } })
  const elsewhere = await lyingHub((_req, res) => res.writeHead(500).end())
  const mirror = await startMirror(hub.url, { hubName: elsewhere.url, ...options })
  return {
    hub,
    elsewhere,
    mirror,
    async [Symbol.asyncDispose]() {
      await mirror[Symbol.asyncDispose]()
      await elsewhere[Symbol.asyncDispose]()
      await hub.close()
    },
  }
}

const prefixed = { pathPrefix: '/hub/of/ours' }
const worlds: [string, Omit<MirrorOptions, 'hubName'>][] = [
  ['names the Hub', {}],
  ['is below a path, and names the Hub', prefixed],
  ['is below a path, and knows nothing of it', { ...prefixed, keepsRelative: true }],
]

test.each(worlds)('a mirror that %s turns every page of a tree itself', async (_, options) => {
  await using w = await world(options)
  await using our = access(w.mirror.url, { token })
  const commit = await resolveRevision(our, tiny, 'main')
  expect(await listRepoFiles(our, tiny, commit)).toHaveLength(Object.keys(files).length)
  expect(w.mirror.seen).toHaveLength(1 + 3)
  expect(w.elsewhere.seen).toEqual([])
})

test.each(worlds)(
  'a mirror that %s gives small files itself, and large ones from storage',
  async (_, options) => {
    await using w = await world(options)
    await using our = access(w.mirror.url, { token })
    for (const path of Object.keys(files)) {
      const file = await fileMetadata(our, w.hub.ref(path))
      expect(file).toMatchObject({ etag: w.hub.file(path).etag, sizeBytes: w.hub.file(path).sizeBytes })
      for (const location of [file.location, undefined]) {
        const source = new FileSource(our, file, { location })
        const bytes = await readAll((await source.openRange({ start: 3 })).batches)
        expect(bytes.equals((await w.hub.file(path).bytes()).subarray(3)), path).toBe(true)
      }
    }
    expect(w.elsewhere.seen).toEqual([])
    expect(w.hub.stats('cas').requests).toBe(0)
  },
)

test.each(worlds)('a mirror that %s is asked for the new name of a repository, too', async (_, options) => {
  await using w = await world(options)
  await using our = access(w.mirror.url, { token })
  const old = { ...tiny, repo: 'acme/old' }
  const commit = await resolveRevision(our, old, 'main')
  expect(commit).toBe(w.hub.file('w.bin').commit)
  expect(await listRepoFiles(our, old, commit)).toHaveLength(Object.keys(files).length)
  expect(await fileMetadata(our, { ...old, revision: 'main', path: 'w.bin' })).toMatchObject({
    etag: w.hub.file('w.bin').etag,
  })
  expect(w.elsewhere.seen).toEqual([])
})

test('the token goes to the mirror that was configured, and nowhere else', async () => {
  await using w = await world()
  await using user = await newUser({ endpoint: w.mirror.url, token, p2p: false, seed: false })
  const snapshot = await user.client.downloadSnapshot(tiny, 'main')
  expect(snapshot.files).toHaveLength(Object.keys(files).length)
  for (const { name, path } of snapshot.files)
    expect(await sha256Of(path), name).toBe(w.hub.file(name).sha256)
  expect(new Set(w.mirror.seen.map(({ authorization }) => authorization))).toEqual(
    new Set([`Bearer ${token}`]),
  )
  expect(w.elsewhere.seen).toEqual([])
  expect(w.hub.stats('cdn')).toMatchObject({ requests: 2, authorized: 0 })
})

test('a mirror that has nothing but a reference to the Hub is an error that says what to do', async () => {
  await using elsewhere = await lyingHub((_req, res) => res.writeHead(500).end())
  await using mirror = await lyingHub((req, res) =>
    res.writeHead(308, { location: `${elsewhere.url}${req.url}` }).end(),
  )
  await using our = access(mirror.url, { token })
  const ref = { ...tiny, revision: 'main', path: 'w.bin' }
  for (const ask of [() => resolveRevision(our, tiny, 'main'), () => fileMetadata(our, ref)]) {
    const { message } = await errorOf(ask())
    expect(message).toContain(`refers to ${elsewhere.url}`)
    expect(message).toContain('HF_ENDPOINT')
  }
  expect(elsewhere.seen).toEqual([])
})

test('an API answer that is said to be on another site is an error, not an empty answer', async () => {
  await using elsewhere = await lyingHub((_req, res) => res.end('[]'))
  await using hub = await lyingHub((_req, res) =>
    res.writeHead(302, { location: `${elsewhere.url}/login?next=x` }).end(),
  )
  await using our = access(hub.url, { token })
  const error = await errorOf(resolveRevision(our, tiny, 'main'))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 302 })
  expect(error.message).toContain(`${elsewhere.url}/login`)
  expect(elsewhere.seen).toEqual([])
})

const hub = 'https://huggingface.co'
const cdn = 'https://cdn-lfs.hf.co'
test.each([
  // What the mirror's answer names, what is asked.
  [`${hub}/api/models/a/b/tree/main?cursor=x`, 'https://m.example/api/models/a/b/tree/main?cursor=x'],
  [`${hub}/api/resolve-cache/models/a/b/c/d?e=`, 'https://m.example/api/resolve-cache/models/a/b/c/d?e='],
  [`${hub}/a/b/resolve/main/x%23.txt`, 'https://m.example/a/b/resolve/main/x%23.txt'],
  [`${hub}/gpt2/resolve/main/x`, 'https://m.example/gpt2/resolve/main/x'],
  [`${hub}/datasets/a/b/resolve/refs%2Fpr%2F1/x`, 'https://m.example/datasets/a/b/resolve/refs%2Fpr%2F1/x'],
  ['http://m.example/a/b/resolve/main/x', 'https://m.example/a/b/resolve/main/x'],
  [`${cdn}/repos/ab/cd/${'e'.repeat(64)}?Signature=x`, undefined],
  [`${cdn}/xet-bridge-us/123/${'e'.repeat(64)}?X-Amz-Signature=x`, undefined],
  [`${hub}/login`, undefined],
  [`${hub}/api/whoami-v2`, undefined],
  ['https://m.example/anything?x=1', undefined],
])('%s is asked at the endpoint if it is a Hub’s, and left as it is if it is storage’s', (url, want) => {
  expect(atEndpoint('https://m.example', url)).toBe(want ?? url)
  const below = want?.replace('https://m.example', 'https://m.example/p/q')
  if (!url.startsWith('https://m.example'))
    expect(atEndpoint('https://m.example/p/q', url)).toBe(below ?? url)
})
