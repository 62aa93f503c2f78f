/** The demo Hub is only worth something if the clients from the registry cannot tell it from the real one. */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import {
  downloadFile,
  fileDownloadInfo,
  listFiles,
  modelInfo,
  parseSafetensorsMetadata,
  pathsInfo,
  snapshotDownload,
} from '@huggingface/hub'
import { expect, test, vi } from 'vitest'
import { type HubServer, makeSafetensors, startHub } from '../../src/demo/hub.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { errorOf } from './fixtures.ts'

const tree = {
  'config.json': '{"hidden_size": 64}',
  'README.md': '# demo\n'.repeat(500),
  'sub/vocab.txt': 'a\nb\n',
  'weights.bin': { seed: 1, sizeBytes: 2_500_000 },
  'model.safetensors': { content: { seed: 2, sizeBytes: 20_000_000 }, storage: 'xet' as const },
}
const params = (hub: HubServer, path: string): { repo: string; path: string; hubUrl: string } => ({
  repo: 'acme/tiny',
  path,
  hubUrl: hub.url,
})

async function entries<T>(tree: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const entry of tree) all.push(entry)
  return all
}

test('the JS client downloads every kind of file, right to the last byte', async () => {
  await using hub = await startHub(tree)
  for (const path of Object.keys(tree)) {
    const blob = await downloadFile(params(hub, path))
    const bytes = Buffer.from((await blob?.arrayBuffer()) ?? new ArrayBuffer(0))
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(hub.file(path).sha256)
  }
  expect(hub.stats('cas').requests).toBeGreaterThan(1)
})

test('parts of files come from git, from storage and from Xet', async () => {
  await using hub = await startHub(tree)
  for (const [path, start, end] of [
    ['README.md', 10, 700],
    ['weights.bin', 65_000, 1_200_000],
    ['model.safetensors', 16_700_000, 16_900_000],
  ] as const) {
    const part = (await downloadFile(params(hub, path)))?.slice(start, end)
    const want = (await hub.file(path).bytes()).subarray(start, end)
    expect(Buffer.from((await part?.arrayBuffer()) ?? new ArrayBuffer(0)).equals(want)).toBe(true)
  }
})

test('a snapshot of five files costs the JS client the requests that were counted at the real one', async () => {
  const debug = vi.spyOn(console, 'debug').mockImplementation(() => undefined)
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  const folder = await snapshotDownload({ repo: 'acme/tiny', hubUrl: hub.url, cacheDir: cache.path })
  debug.mockRestore()
  for (const path of Object.keys(tree)) {
    expect((await readFile(join(folder, path))).equals(await hub.file(path).bytes())).toBe(true)
  }
  // Revision, tree, five times paths-info; git: probe 2 and body 1; LFS: probe 1, body 1; Xet: probe 1, token 1.
  expect(hub.stats('hub').requests).toBe(2 + 5 + 3 * 3 + 2 + 2)
  expect(hub.stats('cdn').requests).toBe(2)
})

test('names and identities in the API are those of the files', async () => {
  await using hub = await startHub(tree, { pageSize: 2 })
  const repo = { repo: 'acme/tiny', hubUrl: hub.url }
  const listed = await entries(listFiles({ ...repo, recursive: true }))
  const files = listed.filter((entry) => entry.type === 'file')
  expect(files.map((entry) => entry.path).toSorted()).toEqual(Object.keys(tree).toSorted())
  for (const entry of files) {
    const file = hub.file(entry.path)
    expect(entry.lfs?.oid ?? entry.oid).toBe(file.etag)
    expect(entry.size).toBe(file.sizeBytes)
  }
  const top = await entries(listFiles(repo))
  expect(top.map((entry) => entry.path)).toContain('sub')
  expect(top.map((entry) => entry.path)).not.toContain('sub/vocab.txt')
  const [info] = await pathsInfo({ ...repo, paths: ['weights.bin'], expand: true })
  expect(info?.lastCommit.id).toBe(hub.file('weights.bin').commit)
  const { sha } = await modelInfo({ name: 'acme/tiny', hubUrl: hub.url, additionalFields: ['sha'] })
  expect(sha).toBe(hub.file('weights.bin').commit)
})

test("git's own digests are the ones git would compute", async () => {
  await using hub = await startHub({ 'hello.txt': 'hello\n', 'empty.txt': '' })
  expect(hub.file('hello.txt').gitSha1).toBe('ce013625030ba8dba906f756967f9e9ca394464a')
  expect(hub.file('empty.txt').gitSha1).toBe('e69de29bb2d1d6434b8b29ae775ad8c2e48c5391')
})

test('an empty file is 416 to a probe of its first byte, as at the real one', async () => {
  await using hub = await startHub({ 'empty.txt': '' })
  expect(await errorOf(fileDownloadInfo(params(hub, 'empty.txt')))).toMatchObject({ statusCode: 416 })
})

test('small git files are compressed for who wants that, with a weak etag and no length', async () => {
  await using hub = await startHub(tree)
  const answer = await fetch(`${hub.url}/acme/tiny/resolve/main/README.md`)
  expect(answer.headers.get('content-encoding')).toBe('gzip')
  expect(answer.headers.get('etag')).toBe(`W/"${hub.file('README.md').etag}"`)
  expect(await answer.text()).toBe(tree['README.md'])
})

test('storage refuses tokens, wrong signatures and old ones, and has an etag that is no digest', async () => {
  let now = Date.now()
  await using hub = await startHub(tree, { now: () => now, signatureLifetimeMs: 10_000 })
  const resolve = `${hub.url}/acme/tiny/resolve/main/weights.bin`
  const location = (await fetch(resolve, { redirect: 'manual' })).headers.get('location') ?? ''
  const status = async (url: string, headers: Record<string, string> = {}): Promise<number> => {
    const answer = await fetch(url, { headers: { range: 'bytes=0-9', ...headers } })
    await answer.arrayBuffer()
    return answer.status
  }
  expect(await status(location)).toBe(206)
  expect(await status(location, { authorization: 'Bearer hf_x' })).toBe(400)
  expect(await status(location.replace(/Signature=[^&]+/, 'Signature=x'))).toBe(403)
  now += 20_000
  expect(await status(location)).toBe(403)
  expect(hub.stats('cdn')).toEqual({ requests: 4, bytesSent: expect.any(Number), authorized: 1 })
  expect(hub.fileStats('weights.bin', 'cdn').requests).toBe(4)
})

test('a commit moves the branch and keeps the old files at the old commit', async () => {
  await using hub = await startHub({ 'a.txt': 'one', 'b.txt': 'same' })
  const before = hub.file('a.txt')
  const commit = await hub.commit({ 'a.txt': 'two', 'b.txt': 'same' })
  expect(hub.file('a.txt')).toMatchObject({ commit })
  expect(hub.file('a.txt', { revision: before.commit }).etag).toBe(before.etag)
  const [entry] = await pathsInfo({ repo: 'acme/tiny', hubUrl: hub.url, paths: ['b.txt'], expand: true })
  expect(entry?.lastCommit.id).toBe(before.commit)
})

test('a throttle is shared by the connections of an origin', async () => {
  await using hub = await startHub(
    { 'w.bin': { seed: 1, sizeBytes: 100_000 } },
    { throttleBytesPerSecond: 400_000 },
  )
  const started = performance.now()
  const get = async (): Promise<ArrayBuffer> =>
    await (await fetch(`${hub.url}/acme/tiny/resolve/main/w.bin`)).arrayBuffer()
  await Promise.all([get(), get()])
  expect(performance.now() - started).toBeGreaterThan(450)
})

test('a wrong byte is at the offset of the file, also within a range, and goes away by itself', async () => {
  await using hub = await startHub(tree)
  hub.inject({ path: 'weights.bin', wrongByteAt: 1_000_000, times: 1 })
  const want = await hub.file('weights.bin').bytes()
  const get = async (): Promise<Buffer> => {
    const headers = { range: 'bytes=999990-1000009' }
    return Buffer.from(
      await (await fetch(`${hub.url}/acme/tiny/resolve/main/weights.bin`, { headers })).arrayBuffer(),
    )
  }
  const wrong = await get()
  expect(wrong[10]).toBe((want[1_000_000] ?? 0) ^ 0xff)
  expect((await get()).equals(want.subarray(999_990, 1_000_010))).toBe(true)
})

test.each([256, 1000, 123_457, 5_000_000])(
  'a safetensors file of %i bytes is valid, and served from disk',
  async (sizeBytes) => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'model.safetensors')
    await makeSafetensors({ path, sizeBytes, seed: 7 })
    expect((await stat(path)).size).toBe(sizeBytes)
    await using hub = await startHub({ 'model.safetensors': { filePath: path }, 'config.json': '{}' })
    const { header } = (await parseSafetensorsMetadata({ repo: 'acme/tiny', hubUrl: hub.url })) as {
      header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>
    }
    const tensors = Object.entries(header).filter(([name]) => name !== '__metadata__')
    const prefix = (await readFile(path)).readBigUInt64LE(0)
    const end = Math.max(...tensors.map(([, tensor]) => tensor.data_offsets[1]))
    expect(tensors.length).toBeGreaterThan(0)
    expect(8 + Number(prefix) + end).toBe(sizeBytes)
  },
)
