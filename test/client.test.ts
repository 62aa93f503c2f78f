import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startHub } from '../src/demo/hub.ts'
import { TrackerClient } from '../src/tracker/client.ts'
import { startTracker } from '../src/tracker/server/main.ts'
import { checkCacheContract } from './support/cache-contract.ts'
import { sha256Of } from './support/digest.ts'
import { temporaryDirectory } from './support/temp-dir.ts'
import { newUser } from './support/users.ts'

const mebibyte = 1024 * 1024
const files = {
  'model.safetensors': { seed: 'client', sizeBytes: 2 * mebibyte + 5 },
  'sub dir/nested #1 %.txt': 'a name that is hard to quote',
  'config.json': '{"hidden_size": 8}',
  'copy.json': '{"hidden_size": 8}',
  'empty.txt': '',
}
const model = { repoType: 'model', repo: 'acme/tiny' } as const

describe('a snapshot', () => {
  test('is what Python would have written: every file, one blob for equal content, refs', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const got = await user.client.downloadSnapshot(model, 'main')
    expect(got.files.map(({ name }) => name)).toEqual(Object.keys(files).sort())
    for (const { name, path } of got.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })

  test('comes again from the cache, without asking for content', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const first = await user.client.downloadSnapshot(model, 'main')
    hub.resetStats()
    const again = await user.client.downloadSnapshot(model, 'main')
    expect(again.path).toBe(first.path)
    expect(again.bytes).toEqual({
      p2p: 0,
      http: 0,
      cache: again.files.reduce((sum, file) => sum + file.sizeBytes, 0),
    })
    expect(hub.requests().filter(({ url }) => url.includes('/resolve'))).toEqual([])
  })

  test('goes to a folder of the user when asked to', async () => {
    await using hub = await startHub(files)
    await using folder = await temporaryDirectory()
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const got = await user.client.downloadSnapshot(model, 'main', {
      localDir: folder.path,
      ignorePatterns: ['*.json'],
    })
    expect(got.path).toBe(folder.path)
    expect(await sha256Of(`${folder.path}/sub dir/nested #1 %.txt`)).toBe(
      hub.file('sub dir/nested #1 %.txt').sha256,
    )
    hub.resetStats()
    const again = await user.client.downloadSnapshot(model, 'main', {
      localDir: folder.path,
      ignorePatterns: ['*.json'],
    })
    expect(again.bytes.http).toBe(0)
  })

  test('says which file is missing', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const running = user.client.downloadSnapshot(model, 'main', { paths: ['nope.bin'] })
    await expect(running).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB', hubCode: 'EntryNotFound' })
  })

  test('ends with the first error, and the next call goes on with what was there', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const remove = hub.inject({ path: 'sub dir/nested #1 %.txt', status: 403, origin: 'hub' })
    await expect(user.client.downloadSnapshot(model, 'main')).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
    remove()
    const got = await user.client.downloadSnapshot(model, 'main')
    for (const { name, path } of got.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })
})

describe('without the Hub', () => {
  test('a commit that is cached costs no request at all', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const first = await user.client.downloadFile(hub.ref('model.safetensors'))
    hub.resetStats()
    const again = await user.client.downloadFile({ ...hub.ref('model.safetensors'), revision: first.commit })
    expect(again).toEqual({ ...first, bytes: { p2p: 0, http: 0, cache: first.sizeBytes } })
    expect(hub.stats().requests).toBe(0)
  })

  test('a branch comes from the cache when nobody answers', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const first = await user.client.downloadFile(hub.ref('config.json'))
    await hub.setAvailability('hub', 'refused')
    expect((await user.client.downloadFile(hub.ref('config.json'))).path).toBe(first.path)
    await expect(user.client.downloadFile(hub.ref('copy.json'))).rejects.toMatchObject({
      code: 'ERR_LLMPT_HUB',
    })
  })

  test('offline means no request, and an error that says so', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [], offline: true })
    await expect(user.client.downloadFile(hub.ref('config.json'))).rejects.toThrow(/HF_HUB_OFFLINE/)
    await expect(user.client.downloadSnapshot(model, 'main')).rejects.toThrow(/HF_HUB_OFFLINE/)
    expect(hub.stats().requests).toBe(0)
  })
})

test('a refusal of the Hub passes through with its own code', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  const missing = user.client.downloadFile({ ...hub.ref('config.json'), path: 'nope' })
  await expect(missing).rejects.toMatchObject({
    code: 'ERR_LLMPT_HUB',
    status: 404,
    hubCode: 'EntryNotFound',
  })
})

test('what needs a token is neither looked up, nor published, nor seeded', async () => {
  await using data = await temporaryDirectory()
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  await using hub = await startHub(
    [
      { repo: 'acme/secret', files, isPrivate: true },
      { repo: 'acme/gated', files, isGated: true },
    ],
    { tokens: { hf_reader: ['acme/secret', 'acme/gated'] } },
  )
  // A tracker that counts: every request to it would be a leak.
  const asked: string[] = []
  const { createServer } = await import('node:http')
  const spy = createServer((request, response) => {
    asked.push(request.url ?? '')
    response.writeHead(500).end()
  })
  await new Promise<void>((resolve) => spy.listen(0, '127.0.0.1', resolve))
  const address = spy.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`
  try {
    await using user = await newUser({ endpoint: hub.url, trackers: [url, tracker.url], token: 'hf_reader' })
    for (const repo of ['acme/secret', 'acme/gated']) {
      const got = await user.client.downloadSnapshot({ repoType: 'model', repo }, 'main')
      for (const { name, path } of got.files)
        expect(await sha256Of(path)).toBe(hub.file(name, { repo }).sha256)
    }
    await user.client.downloadFile({
      ...model,
      repo: 'acme/secret',
      revision: 'main',
      path: 'model.safetensors',
    })
    await user.client.seedingSettled()
    expect(await user.client.seedStatus()).toEqual([])
    expect(asked).toEqual([])
    expect(hub.stats('cdn').authorized).toBe(0)
  } finally {
    spy.closeAllConnections()
    await new Promise((resolve) => spy.close(resolve))
  }
})

test('a public file downloaded with a token is shared like any other', async () => {
  await using data = await temporaryDirectory()
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  await using hub = await startHub(files, { tokens: { hf_somebody: [] } })
  await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], token: 'hf_somebody' })
  await user.client.downloadFile(hub.ref('model.safetensors'))
  await user.client.seedingSettled()
  expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual(['seeding'])
})

test('a file of the cache is checked before it is seeded', async () => {
  await using data = await temporaryDirectory()
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], seed: false })
  const got = await user.client.downloadFile(hub.ref('model.safetensors'))
  const file = hub.file('model.safetensors')
  await writeFile(got.path, Buffer.alloc(file.sizeBytes))
  user.client.seedCached(file, got.path, Number.POSITIVE_INFINITY)
  await user.client.seedingSettled()
  expect(
    (await user.client.seedStatus()).map(({ state, error }) => [state, error?.includes('download it again')]),
  ).toEqual([['failed', true]])
})

test('a file of the cache that is found again is checked, too, before others are told of it', async () => {
  await using data = await temporaryDirectory()
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
  const file = hub.file('model.safetensors')
  const blob = `${user.cacheDir}/models--acme--tiny/blobs/${file.etag}`
  await mkdir(dirname(blob), { recursive: true })
  await writeFile(blob, Buffer.alloc(file.sizeBytes))
  await user.client.downloadFile(hub.ref('model.safetensors'))
  await user.client.seedingSettled()
  expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual(['failed'])
  expect((await new TrackerClient({ url: tracker.url }).lookup([file])).size).toBe(0)
})

test('a state folder that cannot be used costs the journal, not the download', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  await mkdir(dirname(user.stateDir), { recursive: true })
  await writeFile(user.stateDir, 'a file where a folder belongs')
  const got = await user.client.downloadFile(hub.ref('model.safetensors'))
  expect(await sha256Of(got.path)).toBe(hub.file('model.safetensors').sha256)
})

test('closing ends what is under way, with an abort', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [] })
  hub.inject({ origin: 'cdn', stallAfterBytes: 1000 })
  const running = user.client.downloadFile(hub.ref('model.safetensors'))
  const refused = expect(running).rejects.toMatchObject({ name: 'AbortError' })
  while (hub.stats('cdn').requests === 0) await new Promise((resolve) => setImmediate(resolve))
  await user.client.close()
  await refused
  await expect(user.client.downloadFile(hub.ref('config.json'))).rejects.toMatchObject({ name: 'AbortError' })
})
