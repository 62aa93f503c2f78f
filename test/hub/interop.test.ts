/** The JS client from the registry reads what we write, and we read what it writes, mixed in one folder. */
import { mkdir, readdir, readFile, realpath, truncate, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { downloadFileToCacheDir, scanCacheDir, snapshotDownload } from '@huggingface/hub'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { findCached, hasBlob } from '../../src/hub/cache-layout.ts'
import { linkSnapshot, openBlob, writeRef } from '../../src/hub/cache-writer.ts'
import { listRepoFiles } from '../../src/hub/repo.ts'
import type { HubFile } from '../../src/values.ts'
import { flipBit } from '../cache-check/fixtures.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser, type User } from '../support/users.ts'
import { access, errorOf, storeBlob, tiny } from './fixtures.ts'

const tree = {
  'config.json': '{"a":1}',
  'w.safetensors': { seed: 1, sizeBytes: 300_000 },
  'sub/x.bin': { content: 'xet content', storage: 'xet' as const },
  'sub/deep/odd name.txt': 'odd',
  'copy.json': '{"a":1}',
}
// The client announces every download.
beforeEach(() => void vi.spyOn(console, 'debug').mockImplementation(() => undefined))

const noFetch: typeof fetch = async (input) => {
  throw new Error(`no request expected: ${String(input)}`)
}

async function writeSnapshot(hub: HubServer, cacheDir: string): Promise<readonly HubFile[]> {
  await using our = access(hub.url)
  const files = await listRepoFiles(our, tiny, hub.file('config.json').commit)
  for (const file of files) {
    const isThere = await hasBlob(cacheDir, tiny, file)
    if (!isThere) await storeBlob(cacheDir, file, await hub.file(file.path).bytes())
    await linkSnapshot(cacheDir, file, {}, { isNewBlob: !isThere })
    await writeRef(cacheDir, tiny, 'main', file.commit)
  }
  return files
}

test('the JS client finds every file we wrote by its commit, without a request', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  const files = await writeSnapshot(hub, cache.path)
  expect(files).toHaveLength(5)
  for (const { path, commit } of files) {
    const found = await downloadFileToCacheDir({
      repo: 'acme/tiny',
      path,
      revision: commit,
      cacheDir: cache.path,
      hubUrl: hub.url,
      fetch: noFetch,
    })
    expect((await readFile(found)).equals(await hub.file(path).bytes())).toBe(true)
  }
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('the scan of the JS client has no complaints about our cache', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  const files = await writeSnapshot(hub, cache.path)
  const scan = await scanCacheDir(cache.path)
  expect(scan.warnings).toEqual([])
  expect(scan.repos).toMatchObject([
    { id: { name: 'acme/tiny', type: 'model' }, revisions: [{ refs: ['main'] }] },
  ])
  expect(scan.repos[0]?.revisions[0]?.commitOid).toBe(files[0]?.commit)
})

test('a snapshot that the JS client wrote is ours too: every blob is found and none fetched again', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  await snapshotDownload({ repo: 'acme/tiny', cacheDir: cache.path, hubUrl: hub.url })
  for (const path of Object.keys(tree)) {
    const file = hub.file(path)
    const found = await findCached(cache.path, hub.ref(path))
    expect(found).toMatchObject({ commit: file.commit, sizeBytes: file.sizeBytes, blob: { etag: file.etag } })
    expect(await realpath(found?.path ?? '')).toBe(found?.blob?.path)
    expect(await openBlob(cache.path, tiny, file)).toMatchObject({ state: 'present' })
  }
})

/** One file of each kind; every one of them is a file of its own commit, as single-file downloads of the JS client see it. */
const kinds = [
  ['git', 'config.json'],
  ['LFS', 'w.safetensors'],
  ['Xet', 'sub/x.bin'],
] as const

interface Mixed extends AsyncDisposable {
  readonly hub: HubServer
  readonly user: User
  readonly cacheDir: string
  /** The JS client's download of one file; its path. */
  js(path: string, revision?: string): Promise<string>
}

/** A Hub whose last commit left all of `tree` as it was, and a cache for two clients. */
async function newMixed(): Promise<Mixed> {
  const hub = await startHub(tree)
  await hub.commit({ ...tree, 'later.txt': 'later' })
  const user = await newUser({ endpoint: hub.url, seed: false, trackers: [] })
  const { cacheDir } = user
  return {
    hub,
    user,
    cacheDir,
    js: (path, revision) =>
      downloadFileToCacheDir({
        repo: 'acme/tiny',
        path,
        cacheDir,
        hubUrl: hub.url,
        ...(revision !== undefined && { revision }),
      }),
    [Symbol.asyncDispose]: async () => {
      await user[Symbol.asyncDispose]()
      await hub.close()
    },
  }
}

/** Requests for content: of storage, of Xet, and of what the Hub itself keeps. */
function contentRequests(hub: HubServer): string[] {
  return hub
    .requests()
    .filter(({ origin, url, method }) => method === 'GET' && (origin !== 'hub' || url.includes('/resolve')))
    .map(({ method, url }) => `${method} ${url}`)
}

describe.each(kinds)('a %s file', (_, path) => {
  test('that we downloaded by its branch is found by the JS client, which names another commit, without content', async () => {
    await using mixed = await newMixed()
    const { hub, user, cacheDir } = mixed
    const ours = await user.client.downloadFile(hub.ref(path))
    hub.resetStats()
    const theirs = await mixed.js(path)
    expect(contentRequests(hub)).toEqual([])
    expect(theirs).not.toBe(ours.path)
    expect(await realpath(theirs)).toBe(await realpath(ours.path))
    expect(await sha256Of(theirs)).toBe(hub.file(path).sha256)
    expect(await checkCacheContract(cacheDir)).toEqual([])
  })

  test('that the JS client downloaded by its branch is not fetched again by us, and Python then finds it by the branch', async () => {
    await using mixed = await newMixed()
    const { hub, user, cacheDir } = mixed
    const theirs = await mixed.js(path)
    hub.resetStats()
    const ours = await user.client.downloadFile(hub.ref(path))
    expect(contentRequests(hub)).toEqual([])
    expect(ours.bytes).toEqual({ http: 0, p2p: 0, cache: hub.file(path).sizeBytes })
    expect(await realpath(ours.path)).toBe(await realpath(theirs))
    expect(await readFile(join(cacheDir, 'models--acme--tiny/refs/main'), 'utf8')).toBe(ours.commit)
    // What the JS client lacks, the tag and the ref, is there now.
    expect(await checkCacheContract(cacheDir)).toEqual([])
    expect((await scanCacheDir(cacheDir)).warnings).toEqual([])
  })

  test('of a commit is found by either client without any request, whoever downloaded it', async () => {
    await using mixed = await newMixed()
    const { hub } = mixed
    const { commit } = hub.file(path)
    for (const isOursFirst of [true, false]) {
      await using cache = await temporaryDirectory()
      await using other = await newUser({
        endpoint: hub.url,
        seed: false,
        trackers: [],
        cacheDir: cache.path,
      })
      const ours = () => other.client.downloadFile({ ...hub.ref(path), revision: commit })
      const theirs = () =>
        downloadFileToCacheDir({
          repo: 'acme/tiny',
          path,
          revision: commit,
          cacheDir: cache.path,
          hubUrl: hub.url,
        })
      await (isOursFirst ? ours() : theirs())
      hub.resetStats()
      const [a, b] = [(await ours()).path, await theirs()]
      expect(a).toBe(b)
      expect(hub.requests()).toEqual([])
    }
  })

  test('that an interrupted JS client left half of is downloaded whole, and the half is left to its owner', async () => {
    await using mixed = await newMixed()
    const { hub, user, cacheDir } = mixed
    const { etag } = hub.file(path)
    const half = join(cacheDir, 'models--acme--tiny/blobs', `${etag}.incomplete`)
    await mkdir(dirname(half), { recursive: true })
    await writeFile(half, 'ha')
    const { path: entry } = await user.client.downloadFile(hub.ref(path))
    expect(await sha256Of(entry)).toBe(hub.file(path).sha256)
    expect(await readFile(half, 'utf8')).toBe('ha')
    expect((await readdir(dirname(half))).toSorted()).toEqual([etag, `${etag}.incomplete`])
  })

  test('that the JS client kept short, as it does when a body ends early, is downloaded again', async () => {
    await using mixed = await newMixed()
    const { hub, user, cacheDir } = mixed
    const theirs = await mixed.js(path)
    await truncate(await realpath(theirs), 3)
    const { path: entry } = await user.client.downloadFile(hub.ref(path))
    for (const each of [entry, theirs]) expect(await sha256Of(each)).toBe(hub.file(path).sha256)
    expect(await checkCacheContract(cacheDir)).toEqual([])
  })
})

test('files of both clients in one folder are one snapshot, and each finds the whole of it', async () => {
  await using mixed = await newMixed()
  const { hub, user, cacheDir } = mixed
  const { commit } = hub.file('config.json')
  await user.client.downloadFile(hub.ref('config.json'))
  await mixed.js('w.safetensors', commit)
  await user.client.downloadFile(hub.ref('sub/x.bin'))
  hub.resetStats()
  await snapshotDownload({ repo: 'acme/tiny', cacheDir, hubUrl: hub.url })
  const fetched = hub.requests().filter(({ origin }) => origin !== 'hub')
  expect(fetched).toEqual([])
  hub.resetStats()
  const { bytes } = await user.client.downloadSnapshot(tiny, 'main')
  expect([bytes.http, contentRequests(hub)]).toEqual([0, []])
  expect(await checkCacheContract(cacheDir)).toEqual([])
  const { repos, warnings } = await scanCacheDir(cacheDir)
  expect(warnings).toEqual([])
  expect(repos[0]?.revisions.map(({ commitOid, refs }) => [commitOid, refs])).toEqual([[commit, ['main']]])
})

test('offline we find what the JS client noted a branch for, and by its commit what it noted none for', async () => {
  await using mixed = await newMixed()
  const { hub, cacheDir } = mixed
  await using offline = await newUser({ endpoint: hub.url, trackers: [], offline: true, cacheDir })
  const single = await mixed.js('config.json')
  const touched = basename(dirname(single))
  const found = await offline.client.downloadFile({ ...hub.ref('config.json'), revision: touched })
  expect(found.path).toBe(single)
  const error = await errorOf(offline.client.downloadFile(hub.ref('config.json')))
  expect(error).toMatchObject({
    code: 'ERR_LLMPT_CACHE',
    message: expect.stringContaining('not in the cache'),
  })
  const folder = await snapshotDownload({ repo: 'acme/tiny', cacheDir, hubUrl: hub.url })
  for (const path of Object.keys(tree)) {
    expect((await offline.client.downloadFile(hub.ref(path))).path).toBe(join(folder, path))
  }
})

test('a cache of the JS client is checked as our own is, and what it kept wrong is found and repaired', async () => {
  await using mixed = await newMixed()
  const { hub, user } = mixed
  await snapshotDownload({ repo: 'acme/tiny', cacheDir: user.cacheDir, hubUrl: hub.url })
  expect((await user.client.verifyCache()).isSound).toBe(true)
  const entry = await mixed.js('w.safetensors', hub.file('w.safetensors').commit)
  await flipBit(await realpath(entry), 99)
  const report = await user.client.verifyCache({ repair: true })
  expect(report.files.filter(({ verdict }) => verdict !== 'right')).toMatchObject([
    { verdict: 'repaired', names: ['w.safetensors'] },
  ])
  expect(await sha256Of(entry)).toBe(hub.file('w.safetensors').sha256)
})
