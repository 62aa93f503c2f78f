/** Caches in file systems without links: each kind of call works, and nothing is fetched twice that is there. */
import fs, { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { downloadFileToCacheDir, scanCacheDir, snapshotDownload } from '@huggingface/hub'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { getConfig } from '../../src/config.ts'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { blobsFolder, repoFolder, snapshotPath } from '../../src/hub/cache-layout.ts'
import { linkSnapshot } from '../../src/hub/cache-writer.ts'
import { cachePlace } from '../../src/hub/place.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { flipBit } from '../cache-check/fixtures.ts'
import { type ContractOptions, checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { failingFolder, fatFolders, linklessFolders } from '../support/odd-folders.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'
import { newUser, type User } from '../support/users.ts'
import { commitA, commitB, errorOf, gitSha1, hubFile, tiny } from './fixtures.ts'

const mebibyte = 1024 * 1024
const files = {
  'config.json': '{"a":1}',
  'w.safetensors': { seed: 1, sizeBytes: 300_000 },
  'sub/x.bin': { content: 'xet content', storage: 'xet' as const },
  'sub/copy.safetensors': { seed: 1, sizeBytes: 300_000 },
  'empty.txt': '',
}
const contentBytes = 300_000 + 'xet content'.length

beforeEach(() => {
  // The JS client announces every download, and every link that it cannot make.
  vi.spyOn(console, 'debug').mockImplementation(() => undefined)
  vi.spyOn(console, 'info').mockImplementation(() => undefined)
})

const switchedOff = 'a folder in which HF_HUB_DISABLE_SYMLINKS forbids links'
const kinds = [[switchedOff, temporaryDirectory] as const, ...linklessFolders]
const fatNames = new Set(fatFolders.map(([name]) => name))
/** Where the JS client makes no links that it then cannot follow. */
const kindsForBoth = kinds.filter(([name]) => name !== switchedOff && !name.includes('follow'))

interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly user: User
  readonly cacheDir: string
  /** Another one who uses the same cache. */
  another(options?: object): Promise<User>
  entry(path: string, revision?: string): string
}

async function newScene(
  openFolder: () => Promise<TemporaryDirectory>,
  name: string,
  options: object = {},
): Promise<Scene> {
  const hub = await startHub(files)
  const folder = await openFolder()
  const cacheDir = join(folder.path, 'hub')
  const env = name === switchedOff ? { HF_HUB_DISABLE_SYMLINKS: '1' } : {}
  const { symlinks } = getConfig({}, env)
  const another = (more: object = {}): Promise<User> =>
    newUser({ endpoint: hub.url, seed: false, trackers: [], cacheDir, symlinks, ...options, ...more })
  const user = await another()
  return {
    hub,
    user,
    cacheDir,
    another,
    entry: (path, revision = 'main') => {
      const file = hub.file(path, { revision })
      return snapshotPath(cacheDir, file, file.commit, path)
    },
    [Symbol.asyncDispose]: async () => {
      await user[Symbol.asyncDispose]()
      await hub.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

async function expectContent(scene: Scene, paths: readonly string[], revision = 'main'): Promise<void> {
  for (const path of paths) {
    const expected = scene.hub.file(path, { revision }).sha256
    expect([path, await sha256Of(scene.entry(path, revision))]).toEqual([path, expected])
  }
}

describe.each(kinds)('in %s', (name, openFolder) => {
  const contract: ContractOptions = { symlinks: false, modes: !fatNames.has(name) }

  test('a snapshot is files, every content is fetched once, and a second call fetches none', async () => {
    await using scene = await newScene(openFolder, name)
    const { client } = scene.user
    await client.downloadSnapshot(tiny, 'main', { maxWorkers: 1 })
    await expectContent(scene, Object.keys(files))
    expect(scene.hub.stats('cdn').bytesSent).toBe(contentBytes)
    expect(await readdir(blobsFolder(scene.cacheDir, tiny))).toEqual([])
    expect(await checkCacheContract(scene.cacheDir, contract)).toEqual([])
    scene.hub.resetStats()
    const again = await client.downloadSnapshot(tiny, 'main')
    expect(again.bytes).toEqual({ http: 0, p2p: 0, cache: 2 * 300_000 + 18 })
    expect(scene.hub.stats('cdn').requests).toBe(0)
  })

  test('a second name of a content, and a later commit that did not change it, cost no content', async () => {
    await using scene = await newScene(openFolder, name)
    const { client } = scene.user
    await client.downloadFile(scene.hub.ref('w.safetensors'))
    await client.downloadFile(scene.hub.ref('sub/copy.safetensors'))
    await scene.hub.commit({ ...files, 'config.json': '{"a":2}' }, { revision: 'next' })
    await client.downloadFile(scene.hub.ref('w.safetensors', { revision: 'next' }))
    expect(scene.hub.stats('cdn').requests).toBe(1)
    await expectContent(scene, ['w.safetensors', 'sub/copy.safetensors'])
    await expectContent(scene, ['w.safetensors'], 'next')
    expect(await checkCacheContract(scene.cacheDir, contract)).toEqual([])
  })

  test('a file that is asked for under all its names at once is fetched once', async () => {
    await using scene = await newScene(openFolder, name)
    const names = ['w.safetensors', 'sub/copy.safetensors', 'w.safetensors']
    await Promise.all(names.map((path) => scene.user.client.downloadFile(scene.hub.ref(path))))
    await expectContent(scene, names)
    expect(scene.hub.stats('cdn').bytesSent).toBe(300_000)
  })

  test('a check finds what is right and what is wrong, and repairs it', async () => {
    await using scene = await newScene(openFolder, name)
    const { client } = scene.user
    await client.downloadSnapshot(tiny, 'main')
    expect((await client.verifyCache()).isSound).toBe(true)
    await flipBit(scene.entry('w.safetensors'), 100)
    const report = await client.verifyCache({ repair: true })
    const verdicts = report.files.map(({ verdict }) => verdict).toSorted()
    expect(verdicts).toEqual(['repaired', 'right', 'right', 'right', 'right'])
    await expectContent(scene, Object.keys(files))
    expect(await checkCacheContract(scene.cacheDir, contract)).toEqual([])
  })
})

describe.each(kinds)('a large file in %s', (name, openFolder) => {
  const large = { 'model.gguf': { seed: 'linkless', sizeBytes: 5 * mebibyte + 3 } }

  test('is resumed after an interruption, then given to another such folder', async () => {
    await using folder = await temporaryDirectory()
    await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: folder.path })
    await using scene = await newScene(openFolder, name, { trackers: [tracker.url], seed: true })
    const { hub } = scene
    await hub.commit(large)
    hub.setThrottle('cdn', 8 * mebibyte)
    const stop = new AbortController()
    const interrupted = scene.user.client.downloadFile(hub.ref('model.gguf'), {
      signal: stop.signal,
      onProgress: ({ bytes }) => {
        if (bytes.http > 2 * mebibyte) stop.abort()
      },
    })
    expect((await errorOf(interrupted)).name).toBe('AbortError')
    hub.setThrottle('cdn', 0)
    const got = await scene.user.client.downloadFile(hub.ref('model.gguf'))
    expect(got.bytes.cache).toBeGreaterThan(mebibyte)
    expect(await sha256Of(got.path)).toBe(hub.file('model.gguf').sha256)
    await scene.user.client.seedingSettled()
    await using place = await openFolder()
    const { symlinks } = scene.user.client.config
    const cacheDir = join(place.path, 'hub')
    await using peer = await newUser({
      endpoint: hub.url,
      trackers: [tracker.url],
      http: false,
      cacheDir,
      symlinks,
    })
    const given = await peer.client.downloadFile(hub.ref('model.gguf'))
    expect(given.bytes).toEqual({ http: 0, p2p: 5 * mebibyte + 3, cache: 0 })
    expect(await sha256Of(given.path)).toBe(hub.file('model.gguf').sha256)
  })
})

describe.each(kindsForBoth)('with the JS client in %s', (name, openFolder) => {
  const modes = !fatNames.has(name)

  test('what it downloaded is not fetched again by us', async () => {
    await using scene = await newScene(openFolder, name)
    const { hub, cacheDir } = scene
    await snapshotDownload({
      repo: 'acme/tiny',
      cacheDir,
      hubUrl: hub.url,
      revision: await withoutEmpty(hub),
    })
    hub.resetStats()
    await scene.user.client.downloadSnapshot(tiny, 'main')
    expect(hub.stats('cdn').requests + hub.stats('cas').requests).toBe(0)
    const paths = Object.keys(files).filter((path) => path !== 'empty.txt')
    await expectContent(scene, paths)
    expect(await checkCacheContract(cacheDir, { symlinks: false, modes })).toEqual([])
  })

  test('what we downloaded it finds by its commit without a request, and its scan has no complaints', async () => {
    await using scene = await newScene(openFolder, name)
    const { hub, cacheDir } = scene
    const { commit } = await scene.user.client.downloadSnapshot(tiny, 'main')
    const noFetch: typeof fetch = async (input) => {
      throw new Error(`no request expected: ${String(input)}`)
    }
    for (const path of Object.keys(files)) {
      const repo = 'acme/tiny'
      const found = await downloadFileToCacheDir({ repo, path, revision: commit, cacheDir, fetch: noFetch })
      expect(await sha256Of(found)).toBe(hub.file(path).sha256)
    }
    expect((await scanCacheDir(cacheDir)).warnings).toEqual([])
  })
})

/** The JS client cannot download empty files: makes a commit without, and returns its id. */
async function withoutEmpty(hub: HubServer): Promise<string> {
  const { 'empty.txt': _, ...rest } = files
  return await hub.commit(rest)
}

/** A file in a snapshot as another process has left it: nobody here was told. */
async function leave(path: string, content: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, content)
}

test('a blob that another process has moved after our look is copied from where it went', async () => {
  await using cache = await temporaryDirectory()
  const deps = { symlinks: false }
  const file = hubFile('a', 'hello')
  await leave(snapshotPath(cache.path, tiny, commitA, 'sub/b'), 'hello')
  await leave(snapshotPath(cache.path, tiny, commitA, 'sub/c'), 'HELLO')
  expect(await readFile(await linkSnapshot(cache.path, file, deps), 'utf8')).toBe('hello')
  const gone = hubFile('c', 'gone')
  expect(await errorOf(linkSnapshot(cache.path, gone, deps))).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
})

test('a file that another process left in another commit is used when its digest is right, and only then', async () => {
  await using cache = await temporaryDirectory()
  const place = cachePlace(cache.path, { symlinks: false })
  const file = hubFile('sub/a', 'hello', { commit: commitB, etag: gitSha1('hello') })
  await leave(snapshotPath(cache.path, tiny, commitA, 'sub/a'), 'HELLO')
  const slot = await place.open(file, {}, {})
  expect(slot.state).toBe('write')
  if (slot.state === 'write') await slot.discard()
  await leave(snapshotPath(cache.path, tiny, commitA, 'sub/a'), 'hello')
  const path = snapshotPath(cache.path, tiny, commitB, 'sub/a')
  expect(await place.open(file, {}, {})).toEqual({ state: 'present', path })
  expect(await readFile(await place.settle(file, false), 'utf8')).toBe('hello')
  expect(await readdir(repoFolder(cache.path, tiny))).toEqual(['blobs', 'snapshots'])
})

test('a file of another commit with other content is not worth a copy', async () => {
  await using cache = await failingFolder('copyFile', 'ENOSPC')
  await leave(snapshotPath(cache.path, tiny, commitA, 'a'), 'HELLO')
  const place = cachePlace(cache.path, { symlinks: false })
  const slot = await place.open(hubFile('a', 'hello', { commit: commitB }), {}, {})
  expect(slot.state).toBe('write')
  if (slot.state === 'write') await slot.discard()
})

test('a file of another commit that changes after our look is not used', async () => {
  await using cache = await temporaryDirectory()
  const other = snapshotPath(cache.path, tiny, commitA, 'a')
  await leave(other, 'hello')
  const { copyFile } = fs
  fs.copyFile = async (...args) => {
    await writeFile(other, 'HELLO')
    await copyFile(...args)
  }
  syncBuiltinESMExports()
  try {
    const place = cachePlace(cache.path, { symlinks: false })
    const slot = await place.open(hubFile('a', 'hello', { commit: commitB }), {}, {})
    expect(slot.state).toBe('write')
    if (slot.state === 'write') await slot.discard()
  } finally {
    fs.copyFile = copyFile
    syncBuiltinESMExports()
  }
  expect(await readdir(repoFolder(cache.path, tiny))).toEqual(['blobs', 'snapshots'])
})

test('a file of another commit is no reason for a copy where links work', async () => {
  await using cache = await temporaryDirectory()
  await leave(snapshotPath(cache.path, tiny, commitA, 'a'), 'hello')
  const slot = await cachePlace(cache.path, {}).open(hubFile('a', 'hello', { commit: commitB }), {}, {})
  expect(slot.state).toBe('write')
  if (slot.state === 'write') await slot.discard()
})
