import { mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import {
  blobPath,
  findCached,
  findCommit,
  hasBlob,
  isSafeOnWindows,
  lockPath,
  noExistPath,
  refPath,
  repoFolderName,
  snapshotPath,
} from '../../src/hub/cache-layout.ts'
import { linkSnapshot, writeRef } from '../../src/hub/cache-writer.ts'
import type { Commit, Etag } from '../../src/values.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, hubFile, sha256, storeBlob, tiny } from './fixtures.ts'

test('everything is where Python looks for it', () => {
  const etag = sha256('x')
  expect(repoFolderName(tiny)).toBe('models--acme--tiny')
  expect(repoFolderName({ repoType: 'dataset', repo: 'squad' })).toBe('datasets--squad')
  expect(repoFolderName({ repoType: 'space', repo: 'a/b' })).toBe('spaces--a--b')
  expect(blobPath('/c', tiny, etag)).toBe(`/c/models--acme--tiny/blobs/${etag}`)
  expect(lockPath('/c', tiny, etag)).toBe(`/c/.locks/models--acme--tiny/${etag}.lock`)
  expect(snapshotPath('/c', tiny, commitA, 'a/b#1')).toBe(`/c/models--acme--tiny/snapshots/${commitA}/a/b#1`)
  expect(refPath('/c', tiny, 'refs/pr/1')).toBe('/c/models--acme--tiny/refs/refs/pr/1')
  expect(noExistPath('/c', tiny, commitA, 'x')).toBe(`/c/models--acme--tiny/.no_exist/${commitA}/x`)
})

test.each([
  '../x',
  'a/../../x',
  '/etc/passwd',
  'C:\\x',
  'a/C:x',
  '\\\\host\\share\\x',
  'a\\..\\..\\x',
  '',
  '.',
  'a//b',
  'a\0',
])('the file name %j does not become a path', (path) => {
  expect(() => snapshotPath('/c', tiny, commitA, path)).toThrow(
    expect.objectContaining({ code: 'ERR_LLMPT_CACHE' }),
  )
  expect(() => noExistPath('/c', tiny, commitA, path)).toThrow(
    expect.objectContaining({ code: 'ERR_LLMPT_CACHE' }),
  )
})

test('impossible repositories, revisions, commits and etags do not become paths', () => {
  const bad = expect.objectContaining({ code: 'ERR_LLMPT_CACHE' })
  for (const repo of ['..', 'a/..', 'a/b/c', 'a--b', '', '.hidden']) {
    expect(() => repoFolderName({ ...tiny, repo })).toThrow(bad)
  }
  for (const revision of ['../main', '/x', 'a/../../b', ''])
    expect(() => refPath('/c', tiny, revision)).toThrow(bad)
  expect(() => snapshotPath('/c', tiny, 'main' as Commit, 'x')).toThrow(bad)
  expect(() => blobPath('/c', tiny, '../../x' as Etag)).toThrow(bad)
})

test.each([
  ['con', false],
  ['sub/NUL.txt', false],
  ['com1', false],
  ['a:stream', false],
  ['dot.', false],
  ['space ', false],
  ['a?b', false],
  ['a\\b', false],
  ['console.txt', true],
  ['CONIN$', false],
  ['lpt².txt', false],
  ['sub/con .txt', false],
  ['lpt', true],
  ['a b/c.txt', true],
])('%j on Windows: %s', (path, isSafe) => {
  expect(isSafeOnWindows(path)).toBe(isSafe)
})

test('a cached file is found by commit and by ref, with its blob', async () => {
  await using cache = await temporaryDirectory()
  const file = hubFile('sub/a.txt', 'hello')
  const ref = { ...tiny, path: file.path }
  await storeBlob(cache.path, file, 'hello')
  expect(await hasBlob(cache.path, tiny, file)).toBe(true)
  expect(await hasBlob(cache.path, tiny, { ...file, sizeBytes: 6 })).toBe(false)
  expect(await findCached(cache.path, { ...ref, revision: commitA })).toBeUndefined()
  const path = await linkSnapshot(cache.path, file)
  expect(await findCached(cache.path, { ...ref, revision: 'main' })).toBeUndefined()
  await writeRef(cache.path, tiny, 'main', commitA)
  const blob = { etag: file.etag, path: blobPath(cache.path, tiny, file.etag) }
  const found = { path, commit: commitA, sizeBytes: 5, blob }
  expect(await findCached(cache.path, { ...ref, revision: commitA })).toEqual(found)
  expect(await findCached(cache.path, { ...ref, revision: 'main' })).toEqual(found)
  expect(await findCached(cache.path, { ...ref, revision: 'main', path: 'other' })).toBeUndefined()
})

test('a link that leads anywhere but to a blob of the repository is readable, and nothing to share', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const secret = join(outside.path, sha256('secret'))
  await writeFile(secret, 'secret')
  const file = hubFile('a', 'hello')
  const blob = await storeBlob(cache.path, file, 'hello')
  const entry = await linkSnapshot(cache.path, file)
  for (const target of [secret, '/etc/hostname']) {
    await rm(entry)
    await symlink(target, entry)
    expect(await findCached(cache.path, { ...tiny, revision: commitA, path: 'a' })).toMatchObject({
      blob: undefined,
    })
  }
  await rm(entry)
  await symlink(`../../blobs/${file.etag}`, entry)
  await rm(blob)
  await symlink(secret, blob)
  expect(await findCached(cache.path, { ...tiny, revision: commitA, path: 'a' })).toMatchObject({
    blob: undefined,
  })
})

test('dangling links, folders and rubbish in refs are no cached files', async () => {
  await using cache = await temporaryDirectory()
  const ref = { ...tiny, revision: commitA, path: 'a' }
  const entry = snapshotPath(cache.path, tiny, commitA, 'a')
  await mkdir(dirname(entry), { recursive: true })
  await symlink(`../../blobs/${sha256('x')}`, entry)
  expect(await findCached(cache.path, ref)).toBeUndefined()
  await rm(entry)
  await mkdir(entry)
  expect(await findCached(cache.path, ref)).toBeUndefined()
  const main = refPath(cache.path, tiny, 'main')
  await mkdir(dirname(main), { recursive: true })
  for (const text of ['', 'main', '../../x', 'a'.repeat(41), 'x'.repeat(1_000_000)]) {
    await writeFile(main, text)
    expect(await findCommit(cache.path, tiny, 'main')).toBeUndefined()
  }
  await rm(main)
  await mkdir(main)
  expect(await findCommit(cache.path, tiny, 'main')).toBeUndefined()
})
