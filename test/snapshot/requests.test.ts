/** What a snapshot costs the Hub: as counted by the Hub. */
import { createHash } from 'node:crypto'
import { symlinkSync, writeFileSync } from 'node:fs'
import { lstat, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { HubError, IntegrityError } from '../../src/errors.ts'
import { cachePlace } from '../../src/hub/place.ts'
import { parseTree, serializeTree, treePath } from '../../src/hub/tree-cache.ts'
import { divertLog } from '../../src/log.ts'
import type { CallDeps } from '../../src/snapshot/call.ts'
import { downloadSnapshot } from '../../src/snapshot/download.ts'
import type { Commit, Etag, RepoRef, RepoType } from '../../src/values.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'

const model: RepoRef = { repoType: 'model', repo: 'acme/tiny' }
const folder = 'models--acme--tiny'
const files = {
  'model.safetensors': { seed: 'requests', sizeBytes: 300_000 },
  'xet.bin': { content: { seed: 'xet', sizeBytes: 70_000 }, storage: 'xet' as const },
  'config.json': '{"hidden_size": 8}',
  'copy.json': '{"hidden_size": 8}',
  'empty.txt': '',
}
/** Contents there are to fetch: two names share one, and an empty file has nothing to fetch. */
const contents = ['model.safetensors', 'xet.bin', 'config.json']

/** Requests at the Hub's own origin, without the redirects that stay there: revision, trees, and one for each content. */
function asked(hub: HubServer): { revision: number; tree: number; resolve: number; all: number } {
  const urls = hub.requests('hub').map(({ url }) => url)
  const count = (part: RegExp): number => urls.filter((url) => part.test(url)).length
  const redirected = count(/^\/api\/resolve-cache\//)
  return {
    revision: count(/^\/api\/models\/[^?]*\/revision\//),
    tree: count(/^\/api\/models\/[^?]*\/tree\//),
    resolve: count(/\/resolve\//),
    all: urls.length - redirected,
  }
}

describe('at the Hub, a snapshot costs', () => {
  test('cold, the revision, the tree, and one question for each content', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await user.client.downloadSnapshot(model, 'main')
    expect(asked(hub)).toEqual({ revision: 1, tree: 1, resolve: contents.length, all: 2 + contents.length })
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })

  test('one more for each further page of a large tree', async () => {
    await using hub = await startHub(files, { pageSize: 2 })
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await user.client.downloadSnapshot(model, 'main')
    expect(asked(hub)).toMatchObject({ revision: 1, tree: 3, resolve: contents.length })
  })

  test('warm, the revision of a branch and nothing for a commit', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit, path } = await user.client.downloadSnapshot(model, 'main')
    hub.resetStats()
    expect(await user.client.downloadSnapshot(model, 'main')).toMatchObject({ path, isUnchecked: false })
    expect(asked(hub)).toEqual({ revision: 1, tree: 0, resolve: 0, all: 1 })
    hub.resetStats()
    expect(await user.client.downloadSnapshot(model, commit)).toMatchObject({ path, isUnchecked: false })
    expect(hub.stats().requests).toBe(0)
  })

  test('resumed, one question for each content that is missing', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit, path } = await user.client.downloadSnapshot(model, 'main')
    for (const revision of ['main', commit]) {
      await rm(`${path}/xet.bin`)
      await rm(`${user.cacheDir}/${folder}/blobs/${hub.file('xet.bin').etag}`)
      hub.resetStats()
      await user.client.downloadSnapshot(model, revision)
      // Before anything is fetched for a commit, one question tells whether the Hub is there and shows the repository.
      expect(asked(hub)).toEqual({ revision: 1, tree: 0, resolve: 1, all: 2 })
    }
  })

  test('a commit, cold, the tree without the revision', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await user.client.downloadSnapshot(model, hub.file('config.json').commit)
    expect(asked(hub)).toEqual({ revision: 0, tree: 1, resolve: contents.length, all: 1 + contents.length })
  })

  test('a single file of a commit that is there, nothing, and of a branch one question', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit } = await user.client.downloadFile(hub.ref('model.safetensors'))
    for (const [revision, requests] of [
      [commit, 0],
      ['main', 1],
    ] as const) {
      hub.resetStats()
      await user.client.downloadFile({ ...hub.ref('model.safetensors'), revision })
      expect(hub.stats().requests).toBe(requests)
    }
  })
})

test('a warm call changes nothing on disk', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const { commit, path } = await user.client.downloadSnapshot(model, 'main')
  const root = `${user.cacheDir}/${folder}`
  const looked = [
    `${root}/refs/main`,
    `${root}/refs`,
    `${root}/trees/${commit}.json`,
    path,
    `${path}/config.json`,
  ]
  const state = async (): Promise<unknown> =>
    await Promise.all(
      looked.map(async (each) => ({ each, at: (await lstat(each, { bigint: true })).ctimeNs })),
    )
  const before = await state()
  await user.client.downloadSnapshot(model, 'main')
  await user.client.downloadFile(hub.ref('config.json'))
  expect(await state()).toEqual(before)
})

test('a tree that Python has kept is believed, and one that is spoilt is asked for again and mended', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const { commit } = await user.client.downloadSnapshot(model, 'main')
  const kept = treePath(`${user.cacheDir}/${folder}`, commit)
  const whole = await readFile(kept, 'utf8')
  expect(parseTree(whole, model, commit).map(({ path }) => path)).toEqual(Object.keys(files).sort())
  const { files: entries, ...head } = JSON.parse(whole) as { files: Record<string, unknown> }
  await writeFile(kept, JSON.stringify({ ...head, files: { 'config.json': entries['config.json'] } }))
  const part = await user.client.downloadSnapshot(model, 'main')
  expect(part.files.map(({ name }) => name)).toEqual(['config.json'])
  await writeFile(kept, whole.slice(0, 50))
  hub.resetStats()
  expect((await user.client.downloadSnapshot(model, 'main')).files).toHaveLength(5)
  expect(asked(hub)).toMatchObject({ tree: 1, resolve: 0 })
  expect(await readFile(kept, 'utf8')).toBe(whole)
})

test('a tree that says something else than the Hub is forgotten when that comes out', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const { path, commit } = await user.client.downloadSnapshot(model, 'main')
  const kept = treePath(`${user.cacheDir}/${folder}`, commit)
  const whole = await readFile(kept, 'utf8')
  const { etag } = hub.file('config.json')
  await writeFile(kept, whole.replaceAll(etag, 'd'.repeat(40)))
  await rm(`${path}/config.json`)
  await expect(user.client.downloadSnapshot(model, 'main')).rejects.toMatchObject({
    code: 'ERR_LLMPT_INTEGRITY',
  })
  await user.client.downloadSnapshot(model, 'main')
  expect(await readFile(kept, 'utf8')).toBe(whole)
  expect(await checkCacheContract(user.cacheDir)).toEqual([])
})

test('a tree that the Hub has just given is kept when its storage sends something else', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  hub.inject({ path: 'config.json', wrongByteAt: 1 })
  await expect(user.client.downloadSnapshot(model, 'main')).rejects.toMatchObject({
    code: 'ERR_LLMPT_INTEGRITY',
  })
  const { commit } = hub.file('config.json')
  expect(await readFile(treePath(`${user.cacheDir}/${folder}`, commit), 'utf8')).toContain('config.json')
})

test.each([
  ['is forgotten when the Hub sends something else', true, false, true],
  ['is kept when peers do while the Hub does not answer', true, true, false],
  ['is kept when peers do and nothing comes over HTTP', false, false, false],
])('a tree that was noted %s', async (_, usesHttp, isAway, isForgotten) => {
  await using cache = await temporaryDirectory()
  const commit = 'a'.repeat(40) as Commit
  const etag = 'b'.repeat(40) as Etag
  const noted = { ...model, path: 'a.txt', commit, etag, sizeBytes: 4, blobId: etag }
  const place = cachePlace(cache.path, {})
  await place.keepTree(model, commit, [noted])
  await place.noteRevision(model, 'main', commit)
  const answer = async (): Promise<Commit> => {
    if (isAway) throw new HubError('refused', { url: '' })
    return commit
  }
  const deps: CallDeps = {
    place,
    usesHttp,
    signal: new AbortController().signal,
    stop: () => undefined,
    whyLocal: '',
    hub: {
      resolveRevision: answer,
      listFiles: () => Promise.reject(new Error('asked for what is known')),
      identify: () => Promise.reject(new Error('asked for a file')),
    },
    downloader: () => ({
      askAhead: async () => undefined,
      fetch: () => Promise.reject(new IntegrityError('something else')),
      present: () => Promise.reject(new Error('nothing is there')),
    }),
  }
  const restore = divertLog(() => undefined)
  await expect(downloadSnapshot(model, 'main', {}, deps)).rejects.toMatchObject({
    code: 'ERR_LLMPT_INTEGRITY',
  })
  restore()
  expect((await place.tree(model, commit)) === undefined).toBe(isForgotten)
})

test('2,000 files that are there are looked at without a request and without a lock', async () => {
  await using hub = await startHub({})
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const root = `${user.cacheDir}/${folder}`
  const commit = 'a'.repeat(40) as Commit
  const many = Array.from({ length: 2_000 }, (_, at) => {
    const etag = createHash('sha1')
      .update(`blob 4\0${at + 1000}`)
      .digest('hex') as Etag
    return {
      ...model,
      path: `d${at % 20}/${at}.txt`,
      commit,
      etag,
      sizeBytes: 4,
      blobId: etag,
      text: `${at + 1000}`,
    }
  })
  await mkdir(`${root}/blobs`, { recursive: true })
  await mkdir(`${root}/trees`)
  for (let at = 0; at < 20; at++) await mkdir(`${root}/snapshots/${commit}/d${at}`, { recursive: true })
  for (const { path, etag, text } of many) {
    writeFileSync(`${root}/blobs/${etag}`, text)
    symlinkSync(`../../../blobs/${etag}`, `${root}/snapshots/${commit}/${path}`)
  }
  await writeFile(treePath(root, commit), serializeTree(many))
  const got = await user.client.downloadSnapshot(model, commit)
  expect(got.bytes).toEqual({ cache: 8_000, http: 0, p2p: 0 })
  expect(await readdir(user.cacheDir)).toEqual([folder])
  expect(hub.stats().requests).toBe(0)
})

test('of 10,000 files, patterns choose few, and nothing is asked about the others', async () => {
  const many = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, at) => [`part-${at % 100}/${at}.txt`, `${at}`]),
  )
  await using hub = await startHub(many)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const chosen = { allowPatterns: ['part-7/?07.txt'], ignorePatterns: ['*/1*'] }
  const got = await user.client.downloadSnapshot(model, 'main', chosen)
  expect(got.files.map(({ name }) => name)).toEqual(
    [2, 3, 4, 5, 6, 7, 8, 9].map((at) => `part-7/${at}07.txt`),
  )
  // A tree lists its 100 folders, too.
  expect(asked(hub)).toMatchObject({ revision: 1, tree: 11, resolve: got.files.length })
  hub.resetStats()
  const again = await user.client.downloadSnapshot(model, 'main', chosen)
  expect(again.files).toHaveLength(got.files.length)
  expect(asked(hub)).toMatchObject({ revision: 1, all: 1 })
})

describe('names of revisions and repositories', () => {
  test.each<[RepoType, string]>([
    ['dataset', 'datasets--acme--tiny'],
    ['space', 'spaces--acme--tiny'],
  ])('a %s has a folder of its own', async (repoType, name) => {
    await using hub = await startHub({ repo: 'acme/tiny', repoType, files })
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { path, commit } = await user.client.downloadSnapshot({ ...model, repoType }, 'main')
    expect(path).toBe(`${user.cacheDir}/${name}/snapshots/${commit}`)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })

  test('tags, pull requests and branches with slashes are remembered as they are called', async () => {
    await using hub = await startHub({
      repo: 'acme/tiny',
      files,
      branches: { 'feature/x': { a: 'a' } },
      tags: { 'v1.0': 'main' },
      pulls: { 1: { b: 'b' } },
    })
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    for (const revision of ['v1.0', 'refs/pr/1', 'feature/x']) {
      const { commit } = await user.client.downloadSnapshot(model, revision)
      expect(await readFile(`${user.cacheDir}/${folder}/refs/${revision}`, 'utf8')).toBe(commit)
      const single = await user.client.downloadFile({
        ...model,
        revision,
        path: Object.keys(tree(hub, revision))[0] ?? '',
      })
      expect(single.commit).toBe(commit)
    }
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })

  test('a renamed repository is kept under the name that was asked for, and is warm under it', async () => {
    await using hub = await startHub({ repo: 'acme/new', files, renamedFrom: ['acme/old'] })
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { path } = await user.client.downloadSnapshot({ ...model, repo: 'acme/old' }, 'main')
    expect(path).toContain('/models--acme--old/snapshots/')
    hub.resetStats()
    const again = await user.client.downloadSnapshot({ ...model, repo: 'acme/old' }, 'main')
    expect(again.bytes.http).toBe(0)
    expect(hub.requests().map(({ status }) => status)).toEqual([307, 200])
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })

  test('every legal name arrives, in the cache and in a folder', async () => {
    const odd = {
      'a#b.txt': '#',
      'what?.txt': '?',
      '100%25 %.txt': '%',
      'with space/and more.txt': ' ',
      'ünï/模型 😀.bin': { content: 'unicode', storage: 'lfs' as const },
      '.gitattributes': 'dot',
      'semi;colon&amp=.txt': ';',
    }
    await using hub = await startHub(odd)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using local = await temporaryDirectory()
    for (const localDir of [undefined, local.path]) {
      const got = await user.client.downloadSnapshot(model, 'main', { localDir })
      expect(got.files.map(({ name }) => name).sort()).toEqual(Object.keys(odd).sort())
      for (const { name, path } of got.files) {
        expect((await readFile(path)).equals(await hub.file(name).bytes())).toBe(true)
      }
    }
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })
})

describe('what a commit does not have', () => {
  test('is remembered for the commit of a branch, with its ref when there is a snapshot', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const missing = { ...hub.ref('config.json'), path: 'sub/adapter.json' }
    const root = `${user.cacheDir}/${folder}`
    await expect(user.client.downloadFile(missing)).rejects.toMatchObject({ hubCode: 'EntryNotFound' })
    const { commit } = hub.file('config.json')
    expect(await readFile(`${root}/.no_exist/${commit}/sub/adapter.json`, 'utf8')).toBe('')
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
    await user.client.downloadFile({ ...hub.ref('config.json'), revision: commit })
    await expect(user.client.downloadFile(missing)).rejects.toMatchObject({ hubCode: 'EntryNotFound' })
    expect(await readFile(`${root}/refs/main`, 'utf8')).toBe(commit)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })
})

function tree(hub: HubServer, revision: string): Record<string, true> {
  const commit = hub.repo().find(revision)
  return Object.fromEntries([...(commit?.files.keys() ?? [])].map((path) => [path, true]))
}
