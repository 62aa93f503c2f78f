/** `forceDownload`: fetched again, and never a moment without the old file. */
import { lstat, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { divertLog } from '../../src/log.ts'
import type { RepoRef } from '../../src/values.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'

const model: RepoRef = { repoType: 'model', repo: 'acme/tiny' }
const files = {
  'model.safetensors': { seed: 'anew', sizeBytes: 1_500_000 },
  'config.json': '{"hidden_size": 8}',
  'copy.json': '{"hidden_size": 8}',
}

/** Runs `work` and returns what was warned of meanwhile. */
async function warningsOf(work: () => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = []
  const restore = divertLog((level, message) => void (level === 'warn' && warnings.push(message)))
  try {
    await work()
  } finally {
    restore()
  }
  return warnings
}

describe.each([
  ['with links', {}],
  ['without links', { symlinks: false }],
])('in a cache %s', (_, config) => {
  test('every content comes again, once, and replaces what was there', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [], ...config })
    const first = await user.client.downloadSnapshot(model, 'main')
    // Damage that names and sizes do not show.
    for (const { path, sizeBytes } of first.files) await writeFile(path, Buffer.alloc(sizeBytes, 'x'))
    hub.resetStats()
    expect((await user.client.downloadSnapshot(model, 'main')).bytes.http).toBe(0)
    const again = await user.client.downloadSnapshot(model, 'main', { forceDownload: true })
    expect(again.path).toBe(first.path)
    for (const { name, path } of again.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
    expect(again.bytes.http).toBe(1_500_000 + 18)
    expect(await checkCacheContract(user.cacheDir, config)).toEqual([])
  })

  test('the old file stays in its place until the new one is verified', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [], ...config })
    const { path, commit } = await user.client.downloadFile(hub.ref('model.safetensors'))
    const before = await lstat(path)
    hub.inject({ origin: 'cdn', wrongByteAt: 700_000 })
    for (const revision of ['main', commit]) {
      const running = user.client.downloadFile(
        { ...hub.ref('model.safetensors'), revision },
        { forceDownload: true },
      )
      await expect(running).rejects.toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
      expect((await lstat(path)).ino).toBe(before.ino)
      expect(await sha256Of(path)).toBe(hub.file('model.safetensors').sha256)
    }
  })
})

describe('in a folder', () => {
  test('every name gets its content anew', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const options = { localDir: folder.path }
    const first = await user.client.downloadSnapshot(model, 'main', options)
    for (const { path, sizeBytes } of first.files) {
      await writeFile(path, Buffer.alloc(sizeBytes, 'x'))
      await utimes(path, 1, 1)
    }
    expect((await user.client.downloadSnapshot(model, 'main', options)).bytes.http).toBe(0)
    const again = await user.client.downloadSnapshot(model, 'main', { ...options, forceDownload: true })
    for (const { name, path } of again.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
  })
})

describe('one content under several names', () => {
  const twins = Object.fromEntries(
    ['a', 'b', 'c', 'd'].map((name) => [`${name}.bin`, { seed: 'twin', sizeBytes: 400_000 }]),
  )

  test.each([
    ['the cache', false, {}],
    ['a cache without links', false, { symlinks: false }],
    ['a folder', true, {}],
  ])('is fetched once for %s', async (_, isLocal, config) => {
    await using hub = await startHub(twins)
    await using user = await newUser({ endpoint: hub.url, trackers: [], ...config })
    await using folder = await temporaryDirectory()
    const options = isLocal ? { localDir: folder.path } : {}
    const got = await user.client.downloadSnapshot(model, 'main', options)
    expect(got.bytes).toEqual({ http: 400_000, p2p: 0, cache: 1_200_000 })
    expect(hub.stats('cdn').bytesSent).toBe(400_000)
    for (const { name, path } of got.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
    await rm(`${got.path}/c.bin`)
    const mended = await user.client.downloadSnapshot(model, 'main', options)
    expect(mended.bytes.http).toBe(0)
    if (!isLocal) expect(await checkCacheContract(user.cacheDir, config)).toEqual([])
  })

  test('is fetched once also when both are asked for at the same time', async () => {
    await using hub = await startHub(twins)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const got = await Promise.all(['a.bin', 'b.bin'].map((path) => user.client.downloadFile(hub.ref(path))))
    expect(hub.stats('cdn').bytesSent).toBe(400_000)
    for (const { path } of got) expect(await sha256Of(path)).toBe(hub.file('a.bin').sha256)
  })
})

describe('a folder of the user', () => {
  test('has the tree among its bookkeeping, and is warm by it', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const options = { localDir: folder.path }
    const { commit } = await user.client.downloadSnapshot(model, 'main', options)
    const bookkeeping = `${folder.path}/.cache/huggingface`
    const tree = JSON.parse(await readFile(`${bookkeeping}/trees/${commit}.json`, 'utf8')) as {
      files: object
    }
    expect(Object.keys(tree.files)).toEqual(Object.keys(files).sort())
    expect((await lstat(`${bookkeeping}/trees/${commit}.json`)).mode & 0o777).toBe(0o600)
    const metadata = `${bookkeeping}/download/config.json.metadata`
    const before = await readFile(metadata, 'utf8')
    hub.resetStats()
    await user.client.downloadSnapshot(model, commit, options)
    expect(hub.stats().requests).toBe(0)
    expect(await readFile(metadata, 'utf8')).toBe(before)
  })

  test('without the Hub it is complete or says what is missing', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const options = { localDir: folder.path, localFilesOnly: true }
    await expect(user.client.downloadSnapshot(model, 'main', options)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CACHE',
    })
    const { commit } = await user.client.downloadSnapshot(model, 'main', { localDir: folder.path })
    expect(await user.client.downloadSnapshot(model, 'main', options)).toMatchObject({
      path: folder.path,
      commit,
      isUnchecked: true,
    })
    await rm(`${folder.path}/copy.json`)
    await expect(user.client.downloadSnapshot(model, 'main', options)).rejects.toThrow(
      '1 of 3 files of acme/tiny@main ("copy.json") is not in the cache',
    )
    // Folders that an older Python filled have no tree.
    await rm(`${folder.path}/.cache/huggingface/trees`, { recursive: true })
    expect(await user.client.downloadSnapshot(model, 'main', options)).toMatchObject({ commit, files: [] })
  })

  test('is not taken for another repository while the Hub is away, nor for a branch that the cache knows nothing of', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const options = { localDir: folder.path }
    const { commit } = await user.client.downloadSnapshot(model, 'main', options)
    await hub.setAvailability('hub', 'refused')
    for (const repo of ['acme/other', 'acme/tiny']) {
      const snapshot = user.client.downloadSnapshot({ ...model, repo }, 'main', options)
      await expect(snapshot).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
      const one = user.client.downloadFile({ ...hub.ref('config.json'), repo }, options)
      await expect(one).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
    }
    await hub.setAvailability('hub', 'up')
    await user.client.downloadFile(hub.ref('config.json'))
    await hub.setAvailability('hub', 'refused')
    await warningsOf(async () => {
      expect(await user.client.downloadSnapshot(model, 'main', options)).toMatchObject({
        commit,
        isUnchecked: true,
      })
      const one = await user.client.downloadFile(hub.ref('config.json'), options)
      expect(one).toMatchObject({ path: `${folder.path}/config.json`, isUnchecked: true })
    })
  })

  test('is taken for what is asked for when nobody may be asked, with a warning when nothing says that it is', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    await user.client.downloadFile(hub.ref('config.json'))
    await user.client.downloadSnapshot(model, 'main', { localDir: folder.path })
    const options = { localDir: folder.path, localFilesOnly: true }
    const work = async (repo: string): Promise<string[]> =>
      await warningsOf(async () => {
        await user.client.downloadSnapshot({ ...model, repo }, 'main', options)
        await user.client.downloadFile({ ...hub.ref('config.json'), repo }, options)
      })
    expect(await work('acme/tiny')).toEqual([])
    const warning = expect.stringMatching(/acme\/other@main.*does not remember/)
    expect(await work('acme/other')).toEqual([warning, warning])
  })

  test('of one commit is no snapshot of another one', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const { commit } = await user.client.downloadSnapshot(model, 'main', { localDir: folder.path })
    await rm(`${folder.path}/.cache/huggingface/trees`, { recursive: true })
    const options = { localDir: folder.path, localFilesOnly: true }
    expect(await user.client.downloadSnapshot(model, commit, options)).toMatchObject({ commit })
    await expect(user.client.downloadSnapshot(model, 'f'.repeat(40), options)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CACHE',
    })
  })

  test('takes from the cache what is there, without a request for content', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    await user.client.downloadSnapshot(model, 'main')
    hub.resetStats()
    const options = { localDir: folder.path }
    expect((await user.client.planSnapshot(model, 'main', options)).every((file) => !file.willDownload)).toBe(
      true,
    )
    const got = await user.client.downloadSnapshot(model, 'main', options)
    expect(got.bytes.http).toBe(0)
    expect(hub.requests().filter(({ url }) => url.includes('/resolve/'))).toEqual([])
    for (const { name, path } of got.files) {
      expect((await lstat(path)).isFile()).toBe(true)
      expect(await sha256Of(path)).toBe(hub.file(name).sha256)
    }
  })

  test("takes the user's own copy of a large file for it when it has its content, and no other", async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await using folder = await temporaryDirectory()
    const ref = hub.ref('model.safetensors')
    const options = { localDir: folder.path }
    const path = `${folder.path}/model.safetensors`
    await writeFile(path, await hub.file('model.safetensors').bytes())
    expect((await user.client.downloadFile(ref, options)).bytes).toEqual({
      cache: 1_500_000,
      http: 0,
      p2p: 0,
    })
    expect(hub.stats('cdn').requests).toBe(0)
    await rm(`${folder.path}/.cache`, { recursive: true })
    await truncate(path, 0)
    await truncate(path, 1_500_000)
    expect((await user.client.downloadFile(ref, options)).bytes.http).toBe(1_500_000)
    expect(await sha256Of(path)).toBe(hub.file('model.safetensors').sha256)
  })
})
