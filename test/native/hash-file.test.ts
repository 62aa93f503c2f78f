import { createHash } from 'node:crypto'
import { appendFileSync, truncateSync } from 'node:fs'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { hashFile } from '../../src/native/hash-file.ts'
import { requireAddon } from '../../src/native/load.ts'
import { someBytes } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const both = { sha256: true, gitSha1: true }
const mebibyte = 1024 * 1024

test('the digests are those of node:crypto and git, for every size around the length of a read', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  for (const size of [0, 1, 63, 64, mebibyte - 1, mebibyte, mebibyte + 1, 3 * mebibyte + 17]) {
    const bytes = someBytes(size)
    await writeFile(path, bytes)
    expect(await hashFile(requireAddon(), path, both)).toEqual({
      sizeBytes: size,
      sha256: createHash('sha256').update(bytes).digest('hex'),
      gitSha1: createHash('sha1').update(`blob ${size}\0`).update(bytes).digest('hex'),
      readBytes: size,
    })
  }
})

test('only the digests asked for are there', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, 'x')
  expect(Object.keys(await hashFile(requireAddon(), path, { sha256: true, gitSha1: false }))).toEqual([
    'sizeBytes',
    'sha256',
    'readBytes',
  ])
  expect(Object.keys(await hashFile(requireAddon(), path, { sha256: false, gitSha1: true }))).toEqual([
    'sizeBytes',
    'gitSha1',
    'readBytes',
  ])
})

/** Takes long enough to be in the middle of it. */
async function sparseFile(folder: string): Promise<string> {
  const path = join(folder, 'sparse')
  await writeFile(path, '')
  await truncate(path, 512 * mebibyte)
  return path
}

test('progress counts the bytes up to the last one, and the event loop turns meanwhile', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  const heard: number[] = []
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  await hashFile(requireAddon(), path, both, { onProgress: (done) => heard.push(done) })
  clearInterval(timer)
  expect(heard.at(-1)).toBe(512 * mebibyte)
  expect(heard.length).toBeGreaterThan(10)
  expect(turns).toBeGreaterThan(10)
})

test('aborting ends it with the reason of the signal', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  const controller = new AbortController()
  const reason = new Error('enough')
  const hashing = hashFile(requireAddon(), path, both, {
    signal: controller.signal,
    onProgress: () => controller.abort(reason),
  })
  await expect(hashing).rejects.toBe(reason)
})

test('a file that shrinks or grows meanwhile is a NativeError', async () => {
  await using folder = await temporaryDirectory()
  const changes = [
    (path: string) => truncateSync(path, mebibyte),
    (path: string) => appendFileSync(path, 'more'),
  ]
  for (const change of changes) {
    const path = await sparseFile(folder.path)
    let changed = false
    const hashing = hashFile(requireAddon(), path, both, {
      onProgress: () => {
        if (!changed) change(path)
        changed = true
      },
    })
    await expect(hashing).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE', operation: 'hashFile' })
  }
})

test('a file that is not there is a NativeError with the number of the system and the stack of the caller', async () => {
  async function whoAsked(): Promise<unknown> {
    return await hashFile(requireAddon(), '/nonexistent/file', both).catch((error: unknown) => error)
  }
  expect(await whoAsked()).toMatchObject({
    name: 'NativeError',
    operation: 'hashFile',
    category: 'system',
    value: 2,
    message: expect.stringContaining('/nonexistent/file'),
    stack: expect.stringContaining('whoAsked'),
  })
})

test('many files are hashed at once', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, someBytes(mebibyte))
  const all = await Promise.all(Array.from({ length: 24 }, () => hashFile(requireAddon(), path, both)))
  expect(new Set(all.map(({ sha256 }) => sha256)).size).toBe(1)
})
