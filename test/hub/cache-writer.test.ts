import { chmod, lstat, readdir, readFile, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { asCacheError } from '../../src/hub/cache-files.ts'
import { blobPath, blobsFolder, findCached, refPath, repoFolder } from '../../src/hub/cache-layout.ts'
import { linkSnapshot, openBlob, writeNoExist, writeRef } from '../../src/hub/cache-writer.ts'
import { divertLog } from '../../src/log.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import {
  commitA,
  commitB,
  errorOf,
  fakeLocks,
  gitSha1,
  hubFile,
  openForWriting,
  storeBlob,
  tiny,
} from './fixtures.ts'

async function download(
  cacheDir: string,
  file = hubFile('a.txt', 'hello'),
  content = 'hello',
): Promise<string> {
  await storeBlob(cacheDir, file, content)
  const path = await linkSnapshot(cacheDir, file, {}, { isNewBlob: true })
  await writeRef(cacheDir, file, 'main', file.commit)
  return path
}

test.each(['a.txt', 'sub/dir/nested file#1.txt', 'q?%.bin', 'ünï/模型.txt', '.gitattributes'])(
  '%j is written as Python writes it',
  async (name) => {
    await using cache = await temporaryDirectory()
    const file = hubFile(name, 'hello', { etag: gitSha1('hello') })
    const path = await download(cache.path, file)
    expect(await readFile(path, 'utf8')).toBe('hello')
    const up = '../'.repeat(name.split('/').length + 1)
    expect(await readlink(path)).toBe(`${up}blobs/${file.etag}`)
    expect(await readFile(refPath(cache.path, tiny, 'main'), 'latin1')).toBe(commitA)
    expect(await checkCacheContract(cache.path)).toEqual([])
    expect((await readdir(repoFolder(cache.path, tiny))).toSorted()).toEqual(['blobs', 'refs', 'snapshots'])
  },
)

test('no name appears before commit, and a discarded blob leaves nothing', async () => {
  await using cache = await temporaryDirectory()
  const file = hubFile('a', 'hello')
  const slot = await openForWriting(cache.path, file)
  await writeFile(slot.partialPath, 'hello')
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([
    expect.stringMatching(/^[0-9a-f]{64}\.[0-9a-f]{8}\.incomplete$/),
  ])
  await slot.discard()
  await slot.discard()
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([])
  await expect(slot.commit()).rejects.toThrow(TypeError)
})

test('a blob of another length than promised is not committed', async () => {
  await using cache = await temporaryDirectory()
  const file = hubFile('a', 'hello')
  for (const content of ['hell', 'hello!']) {
    await using slot = await openForWriting(cache.path, file)
    await writeFile(slot.partialPath, content)
    expect(await errorOf(slot.commit())).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  }
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([])
})

test('an empty file needs no partial file', async () => {
  await using cache = await temporaryDirectory()
  const file = hubFile('empty.txt', '')
  const slot = await openForWriting(cache.path, file)
  await slot.commit()
  expect((await lstat(await linkSnapshot(cache.path, file))).isSymbolicLink()).toBe(true)
  expect(await openBlob(cache.path, tiny, file)).toMatchObject({ state: 'present' })
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('one blob under several names and commits is stored once', async () => {
  await using cache = await temporaryDirectory()
  await storeBlob(cache.path, hubFile('a', 'hello'), 'hello')
  for (const commit of [commitA, commitB]) {
    for (const path of ['a', 'b', 'sub/c']) await linkSnapshot(cache.path, hubFile(path, 'hello', { commit }))
  }
  expect(await readdir(blobsFolder(cache.path, tiny))).toHaveLength(1)
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('modes follow the umask, whatever mode the partial file had', async () => {
  await using cache = await temporaryDirectory()
  const before = process.umask(0o027)
  try {
    const file = hubFile('a', 'hello')
    const slot = await openForWriting(cache.path, file)
    await writeFile(slot.partialPath, 'hello', { mode: 0o600 })
    await slot.commit()
    await linkSnapshot(cache.path, file)
    await writeRef(cache.path, tiny, 'main', commitA)
    expect(await checkCacheContract(cache.path)).toEqual([])
    expect((await lstat(blobPath(cache.path, tiny, file.etag))).mode & 0o777).toBe(0o640)
  } finally {
    process.umask(before)
  }
})

test('a ref is rewritten when the branch moves, and only then', async () => {
  await using cache = await temporaryDirectory()
  await download(cache.path)
  const path = refPath(cache.path, tiny, 'main')
  const { ino } = await lstat(path)
  await writeRef(cache.path, tiny, 'main', commitA)
  expect((await lstat(path)).ino).toBe(ino)
  await linkSnapshot(cache.path, hubFile('a.txt', 'hello', { commit: commitB }))
  await writeRef(cache.path, tiny, 'main', commitB)
  await writeRef(cache.path, tiny, 'refs/pr/1', commitB)
  await writeRef(cache.path, tiny, commitB, commitB)
  expect(await readFile(path, 'latin1')).toBe(commitB)
  expect((await readdir(dirname(path))).toSorted()).toEqual(['main', 'refs'])
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('a ref that cannot be written costs a warning, not the download', async () => {
  await using cache = await temporaryDirectory()
  await download(cache.path)
  const said: string[] = []
  const restore = divertLog((level, message) => said.push(`${level} ${message}`))
  await writeRef(cache.path, tiny, 'main/x', commitA)
  restore()
  expect(said).toEqual([expect.stringContaining('warn the cache cannot remember')])
  expect(await findCached(cache.path, { ...tiny, revision: 'main', path: 'a.txt' })).toBeDefined()
})

test('a marker for a missing file is empty and harmless to a scan', async () => {
  await using cache = await temporaryDirectory()
  await writeNoExist(cache.path, tiny, commitA, 'sub/none.txt')
  await writeNoExist(cache.path, tiny, commitA, 'sub/none.txt')
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('without links a new blob is moved to the snapshot and an old one copied, as Python does it', async () => {
  await using cache = await temporaryDirectory()
  const deps = { symlinks: false }
  const file = hubFile('a', 'hello')
  await storeBlob(cache.path, file, 'hello', deps)
  const moved = await linkSnapshot(cache.path, file, deps, { isNewBlob: true })
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([])
  expect(await readFile(moved, 'utf8')).toBe('hello')
  await storeBlob(cache.path, file, 'hello', deps)
  const copied = await linkSnapshot(cache.path, hubFile('b', 'hello'), deps)
  expect((await lstat(copied)).isFile()).toBe(true)
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([file.etag])
  expect(await checkCacheContract(cache.path, { symlinks: false })).toEqual([])
  expect(await findCached(cache.path, { ...tiny, revision: commitA, path: 'b' })).toMatchObject({
    blob: undefined,
  })
})

test('a snapshot entry with the wrong target is replaced, one with the right target stays', async () => {
  await using cache = await temporaryDirectory()
  const entry = await download(cache.path)
  const { ino } = await lstat(entry)
  await linkSnapshot(cache.path, hubFile('a.txt', 'hello'))
  expect((await lstat(entry)).ino).toBe(ino)
  for (const wrong of ['/etc/passwd', '../../blobs/nothing']) {
    await rm(entry)
    await symlink(wrong, entry)
    await linkSnapshot(cache.path, hubFile('a.txt', 'hello'))
    expect(await readFile(entry, 'utf8')).toBe('hello')
  }
  await rm(entry)
  await writeFile(entry, 'a copy made without links')
  await linkSnapshot(cache.path, hubFile('a.txt', 'hello'))
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('the move to the final name can be done by somebody else', async () => {
  await using cache = await temporaryDirectory()
  const moves: string[][] = []
  const deps = {
    rename: async (from: string, to: string) => {
      moves.push([from, to])
      await writeFile(to, await readFile(from))
      await rm(from)
    },
  }
  const file = hubFile('a', 'hello')
  await storeBlob(cache.path, file, 'hello', deps)
  expect(moves).toEqual([[expect.stringContaining('.incomplete'), blobPath(cache.path, tiny, file.etag)]])
})

test('a move that fails leaves the slot open and the partial file in place', async () => {
  await using cache = await temporaryDirectory()
  let isBroken = true
  const deps = {
    rename: async (from: string, to: string) => {
      if (isBroken) throw Object.assign(new Error('no space'), { code: 'ENOSPC', path: to })
      await rename(from, to)
    },
  }
  const slot = await openForWriting(cache.path, hubFile('a', 'hello'), deps)
  await writeFile(slot.partialPath, 'hello')
  const error = await errorOf(slot.commit())
  expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  expect(error.message).toContain(cache.path)
  expect(error.message).toContain('HF_HUB_CACHE')
  isBroken = false
  expect(await readFile(await slot.commit(), 'utf8')).toBe('hello')
})

test('parallel writers of one blob without locks all succeed', async () => {
  await using cache = await temporaryDirectory()
  const paths = await Promise.all(Array.from({ length: 8 }, () => download(cache.path)))
  expect(new Set(paths).size).toBe(1)
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test.each([
  ['ENOSPC', 'free some'],
  ['EDQUOT', 'free some'],
  ['EACCES', 'make /cache yours'],
  ['EROFS', 'read-only'],
  ['ENOTDIR', 'in the way'],
  ['ENAMETOOLONG', 'shorter folder'],
  ['EMFILE', 'ulimit'],
  ['EFBIG', 'as large as this'],
  ['EINVAL', 'for a name'],
  ['EIO', 'EIO'],
])('%s becomes a CacheError that says %j', (code, text) => {
  const error = asCacheError(Object.assign(new Error('x'), { code, path: '/cache/x' }), '/cache') as Error
  expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  expect(error.message).toContain(text)
  expect(error.message).toContain('/cache')
})

test('a bug or an abort is not dressed up as a problem of the cache', () => {
  for (const error of [
    new TypeError('bug'),
    Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG_TYPE' }),
    'text',
  ]) {
    expect(asCacheError(error, '/cache')).toBe(error)
  }
})

test('a cache folder without permission is an error that names it', async () => {
  await using cache = await temporaryDirectory()
  await chmod(cache.path, 0o555)
  // Root may write anywhere, so be somebody who may not.
  const isRoot = process.getuid?.() === 0
  if (isRoot) process.seteuid?.(65534)
  try {
    const error = await errorOf(openBlob(cache.path, tiny, hubFile('a', 'hello')))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
    expect(error.message).toContain(`make ${cache.path} yours`)
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
})

test('a file in place of the cache folder is an error that names it', async () => {
  await using cache = await temporaryDirectory()
  await writeFile(join(cache.path, 'file'), '')
  const error = await errorOf(openBlob(join(cache.path, 'file', 'cache'), tiny, hubFile('a', 'hello')))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  expect(error.message).toContain('in the way')
})

test('a finished blob is seen without a lock, and its lock is not even tried', async () => {
  await using cache = await temporaryDirectory()
  const locks = fakeLocks()
  await download(cache.path)
  expect(await openBlob(cache.path, tiny, hubFile('a.txt', 'hello'), { locks })).toMatchObject({
    state: 'present',
  })
  expect(locks.calls).toEqual([])
})
