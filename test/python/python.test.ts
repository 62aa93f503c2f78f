/**
 * Python's client and ours on one cache. With the real `huggingface_hub`: `npm run test:python -- --python PATH`. Else
 * with a stand-in, which proves no more than that these tests run and can fail.
 */
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import type { Client } from '../../src/client.ts'
import type { ConfigOptions } from '../../src/config.ts'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { checkCacheContract, checkLocalDirContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { newUser } from '../support/users.ts'
import { PythonLibrary, realPython } from './library.ts'

const files = {
  'config.json': '{"a":1}',
  'w.safetensors': { seed: 'python', sizeBytes: 700_000 },
  'sub/x.bin': { content: { seed: 'xet', sizeBytes: 300_000 }, storage: 'xet' as const },
  'sub/deep/odd name #1?.txt': 'odd',
  'copy.json': '{"a":1}',
  'ünï/模型.txt': 'unicode',
  'empty.txt': '',
}
const names = Object.keys(files)
const tiny = { repoType: 'model', repo: 'acme/tiny' } as const
const repo_id = 'acme/tiny'

interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly python: PythonLibrary
  readonly client: Client
  readonly cache_dir: string
  /** One more client of ours on the same cache. */
  another(options: ConfigOptions): Promise<Client>
}

async function newScene(env: Record<string, string> = {}, options: ConfigOptions = {}): Promise<Scene> {
  const hub = await startHub({
    repo: repo_id,
    files,
    branches: { next: { ...files, 'config.json': '{"a":2}' } },
    tags: { 'v1.0': 'main' },
    pulls: { 1: { 'config.json': '{"a":3}' } },
  })
  const user = await newUser({ endpoint: hub.url, seed: false, trackers: [], ...options })
  const python = await PythonLibrary.start(hub.url, env)
  const others: AsyncDisposable[] = []
  return {
    hub,
    python,
    client: user.client,
    cache_dir: user.cacheDir,
    another: async (more) => {
      const other = await newUser({
        endpoint: hub.url,
        seed: false,
        trackers: [],
        cacheDir: user.cacheDir,
        ...options,
        ...more,
      })
      others.push(other)
      return other.client
    },
    [Symbol.asyncDispose]: async () => {
      for (const each of [...others, python, user, hub]) await each[Symbol.asyncDispose]()
    },
  }
}

/** Requests for content. */
function contentRequests(hub: HubServer): string[] {
  const isContent = ({ origin, method, url }: { origin: string; method: string; url: string }): boolean =>
    method === 'GET' && (origin !== 'hub' || url.includes('/resolve'))
  return hub
    .requests()
    .filter(isContent)
    .map(({ method, url }) => `${method} ${url}`)
}

describe(`with ${realPython ?? 'a stand-in for'} huggingface_hub`, () => {
  describe('what we wrote', () => {
    test('it finds without the network, by branch, tag, pull request and commit', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      for (const revision of ['main', 'v1.0', 'next', 'refs/pr/1']) {
        const { commit, files: ours } = await client.downloadSnapshot(tiny, revision)
        hub.resetStats()
        for (const asked of [revision, commit]) {
          const args = { repo_id, revision: asked, cache_dir, local_files_only: true }
          const folder = await python.call('snapshot_download', args)
          for (const { name, path } of ours) {
            expect(await python.call('hf_hub_download', { ...args, filename: name })).toBe(path)
            expect(join(folder, name)).toBe(path)
            expect(await sha256Of(path)).toBe(hub.file(name, { revision }).sha256)
          }
        }
        expect(hub.requests()).toEqual([])
      }
    })

    test('it does not fetch again, online', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const { path } = await client.downloadSnapshot(tiny, 'main')
      hub.resetStats()
      expect(await python.call('snapshot_download', { repo_id, cache_dir })).toBe(path)
      expect(contentRequests(hub)).toEqual([])
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })

    test('its scan reports as it is, without a warning', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const commits: string[] = []
      for (const revision of ['main', 'next'])
        commits.push((await client.downloadSnapshot(tiny, revision)).commit)
      const { repos, warnings } = await python.call('scan_cache_dir', { cache_dir })
      expect(warnings).toEqual([])
      expect(repos).toEqual([
        {
          id: repo_id,
          type: 'model',
          refs: ['main', 'next'],
          revisions: commits.toSorted(),
          files: 2 * names.length,
        },
      ])
      expect(hub.requests().length).toBeGreaterThan(0)
    })

    test('it knows, what is there and what the Hub said is missing', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const { path, commit } = await client.downloadFile(hub.ref('sub/x.bin'))
      const missing = { ...hub.ref('sub/x.bin'), path: 'none.txt', revision: commit }
      await expect(client.downloadFile(missing)).rejects.toMatchObject({ hubCode: 'EntryNotFound' })
      const look = (filename: string) =>
        python.call('try_to_load_from_cache', { repo_id, cache_dir, filename, revision: 'main' })
      expect(await look('sub/x.bin')).toBe(path)
      expect(await look('none.txt')).toBe('known to be missing')
      expect(await look('config.json')).toBe(null)
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })

    test('to a folder of the user, it does not fetch again', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const local_dir = join(cache_dir, '..', 'mine')
      for (const path of names) await client.downloadFile(hub.ref(path), { localDir: local_dir })
      expect(await checkLocalDirContract(local_dir)).toEqual([])
      hub.resetStats()
      for (const filename of names) {
        const found = await python.call('hf_hub_download', { repo_id, filename, local_dir })
        expect(await sha256Of(found)).toBe(hub.file(filename).sha256)
      }
      expect(contentRequests(hub)).toEqual([])
      expect(await checkLocalDirContract(local_dir)).toEqual([])
    })

    test('without links it reads as well', async () => {
      await using scene = await newScene({ HF_HUB_DISABLE_SYMLINKS: '1' }, { symlinks: false })
      const { hub, python, client, cache_dir } = scene
      const { path } = await client.downloadSnapshot(tiny, 'main')
      hub.resetStats()
      expect(await python.call('snapshot_download', { repo_id, cache_dir })).toBe(path)
      expect(contentRequests(hub)).toEqual([])
      expect((await python.call('scan_cache_dir', { cache_dir })).warnings).toEqual([])
      expect(await checkCacheContract(cache_dir, { symlinks: false })).toEqual([])
    })
  })

  describe('what it wrote', () => {
    test('is as the inspector of caches expects it', async () => {
      await using scene = await newScene()
      const { python, cache_dir } = scene
      for (const revision of ['main', 'refs/pr/1']) {
        await python.call('snapshot_download', { repo_id, cache_dir, revision })
      }
      const missing = python.call('hf_hub_download', { repo_id, cache_dir, filename: 'none.txt' })
      await expect(missing).rejects.toThrow()
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })

    test('we find offline, and fetch none of online', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const folder = await python.call('snapshot_download', { repo_id, cache_dir })
      hub.resetStats()
      const offline = await scene.another({ offline: true })
      for (const path of names) {
        expect((await offline.downloadFile(hub.ref(path))).path).toBe(join(folder, path))
      }
      expect(hub.requests()).toEqual([])
      const { path, bytes } = await client.downloadSnapshot(tiny, 'main')
      expect([path, bytes.http, contentRequests(hub)]).toEqual([folder, 0, []])
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })

    test('we check as our own', async () => {
      await using scene = await newScene()
      const { python, client, cache_dir } = scene
      await python.call('snapshot_download', { repo_id, cache_dir })
      const report = await client.verifyCache()
      expect(report.isSound).toBe(true)
      expect(new Set(report.files.map(({ verdict }) => verdict))).toEqual(new Set(['right']))
    })

    test('to a folder of the user, we do not fetch again', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      const local_dir = join(cache_dir, '..', 'theirs')
      for (const filename of names) await python.call('hf_hub_download', { repo_id, filename, local_dir })
      expect(await checkLocalDirContract(local_dir)).toEqual([])
      hub.resetStats()
      for (const path of names) {
        const got = await client.downloadFile(hub.ref(path), { localDir: local_dir })
        expect(got.bytes.http).toBe(0)
      }
      expect(contentRequests(hub)).toEqual([])
      expect(await checkLocalDirContract(local_dir)).toEqual([])
    })

    test('without links we do not fetch again', async () => {
      await using scene = await newScene({ HF_HUB_DISABLE_SYMLINKS: '1' }, { symlinks: false })
      const { hub, python, client, cache_dir } = scene
      await python.call('snapshot_download', { repo_id, cache_dir })
      hub.resetStats()
      expect((await client.downloadSnapshot(tiny, 'main')).bytes.http).toBe(0)
      expect(contentRequests(hub)).toEqual([])
      expect(await checkCacheContract(cache_dir, { symlinks: false })).toEqual([])
    })
  })

  describe('at the same moment', () => {
    test.each(['it', 'we'])('a file is fetched once, when %s began', async (who) => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      hub.setThrottle('cdn', 2_000_000)
      const path = 'w.safetensors'
      const theirs = () => python.call('hf_hub_download', { repo_id, cache_dir, filename: path })
      const ours = async () => (await client.downloadFile(hub.ref(path))).path
      const [first, second] = who === 'it' ? [theirs, ours] : [ours, theirs]
      const running = first()
      await vi.waitFor(() => expect(hub.stats('cdn').bytesSent).toBeGreaterThan(0), {
        interval: 5,
        timeout: 10_000,
      })
      const [a, b] = await Promise.all([running, second()])
      expect(await realpath(a)).toBe(await realpath(b))
      expect(await sha256Of(a)).toBe(hub.file(path).sha256)
      expect(hub.stats('cdn').bytesSent).toBe(700_000)
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })

    test('a whole repository is right for both, and its cache in order', async () => {
      await using scene = await newScene()
      const { hub, python, client, cache_dir } = scene
      hub.setThrottle('cdn', 4_000_000)
      const [theirs, ours] = await Promise.all([
        python.call('snapshot_download', { repo_id, cache_dir }),
        client.downloadSnapshot(tiny, 'main'),
      ])
      expect(theirs).toBe(ours.path)
      for (const path of names) expect(await sha256Of(join(theirs, path))).toBe(hub.file(path).sha256)
      expect(hub.stats('cdn').bytesSent).toBe(1_000_000)
      expect((await python.call('scan_cache_dir', { cache_dir })).warnings).toEqual([])
      expect(await checkCacheContract(cache_dir)).toEqual([])
    })
  })
})
