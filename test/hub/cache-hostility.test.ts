/** A cache folder is shared with other programs, and a repository's owner chooses the names in it. */
import { link, lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import {
  blobPath,
  blobsFolder,
  repoFolder,
  snapshotFolder,
  snapshotPath,
} from '../../src/hub/cache-layout.ts'
import { linkSnapshot, openBlob, writeNoExist, writeRef } from '../../src/hub/cache-writer.ts'
import { divertLog } from '../../src/log.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, errorOf, fakeLocks, hubFile, openForWriting, storeBlob, tiny } from './fixtures.ts'

const file = hubFile('a', 'hello')
const bad = { code: 'ERR_LLMPT_CACHE' }

test('a link planted as partial file is removed, not written through', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const victim = join(outside.path, 'victim')
  await writeFile(victim, 'precious')
  const partial = `${blobPath(cache.path, tiny, file.etag)}.llmpt.incomplete`
  await mkdir(dirname(partial), { recursive: true })
  for (const plant of [symlink, link]) {
    await plant(victim, partial)
    const slot = await openForWriting(cache.path, file, { locks: fakeLocks() })
    await writeFile(slot.partialPath, 'hello')
    await slot.release()
    expect(await readFile(victim, 'utf8')).toBe('precious')
    await (await openForWriting(cache.path, file, { locks: fakeLocks() })).discard()
  }
})

test('a link that replaces the partial file while it is written is not committed', async () => {
  await using cache = await temporaryDirectory()
  const slot = await openForWriting(cache.path, file)
  await symlink('/etc/hostname', slot.partialPath)
  expect(await errorOf(slot.commit())).toMatchObject(bad)
  await slot.discard()
  expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([])
})

test('a folder in place of a blob, its partial file or its snapshot entry is an error that names it', async () => {
  await using cache = await temporaryDirectory()
  const blob = blobPath(cache.path, tiny, file.etag)
  await mkdir(`${blob}.llmpt.incomplete`, { recursive: true })
  expect((await errorOf(openBlob(cache.path, tiny, file, { locks: fakeLocks() }))).message).toContain(
    '.llmpt.incomplete',
  )
  await storeBlob(cache.path, file, 'hello')
  const entry = snapshotPath(cache.path, tiny, commitA, 'a')
  await mkdir(entry, { recursive: true })
  const error = await errorOf(linkSnapshot(cache.path, file))
  expect(error).toMatchObject(bad)
  expect(error.message).toContain('in the way')
  const other = hubFile('b', 'other')
  await mkdir(blobPath(cache.path, tiny, other.etag))
  expect(await errorOf(openBlob(cache.path, tiny, other))).toMatchObject(bad)
  expect((await readdir(repoFolder(cache.path, tiny))).filter((name) => name.startsWith('.llmpt'))).toEqual(
    [],
  )
})

test('a link in the snapshot does not lead a file out of it, and no folder is made behind it', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const inner = hubFile('sub/deep/a', 'hello')
  await storeBlob(cache.path, inner, 'hello')
  await mkdir(snapshotFolder(cache.path, tiny, commitA), { recursive: true })
  await symlink(outside.path, join(snapshotFolder(cache.path, tiny, commitA), 'sub'))
  const error = await errorOf(linkSnapshot(cache.path, inner))
  expect(error).toMatchObject(bad)
  expect(error.message).toContain('link')
  expect(await readdir(outside.path)).toEqual([])
})

test('a dangling link on the way to an entry is an error, not a new folder somewhere', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  await storeBlob(cache.path, hubFile('sub/a', 'hello'), 'hello')
  await mkdir(snapshotFolder(cache.path, tiny, commitA), { recursive: true })
  await symlink(join(outside.path, 'new'), join(snapshotFolder(cache.path, tiny, commitA), 'sub'))
  expect(await errorOf(linkSnapshot(cache.path, hubFile('sub/a', 'hello')))).toMatchObject(bad)
  expect(await readdir(outside.path)).toEqual([])
})

test('a file where a folder belongs is an error that names it', async () => {
  await using cache = await temporaryDirectory()
  const inner = hubFile('a/b', 'hello')
  await storeBlob(cache.path, inner, 'hello')
  await linkSnapshot(cache.path, hubFile('a', 'hello'))
  expect(await errorOf(linkSnapshot(cache.path, inner))).toMatchObject(bad)
})

test('a ref or a marker behind a planted link is not written', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  await storeBlob(cache.path, file, 'hello')
  await mkdir(join(repoFolder(cache.path, tiny), 'refs'))
  await symlink(outside.path, join(repoFolder(cache.path, tiny), 'refs', 'pr'))
  const restore = divertLog(() => undefined)
  await writeRef(cache.path, tiny, 'pr/1', commitA)
  await symlink(outside.path, join(repoFolder(cache.path, tiny), '.no_exist'))
  await writeNoExist(cache.path, tiny, commitA, 'x')
  restore()
  expect(await readdir(outside.path)).toEqual([])
})

test('a ref that is a link is replaced, its target left alone', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const victim = join(outside.path, 'victim')
  await writeFile(victim, 'precious')
  await storeBlob(cache.path, file, 'hello')
  const ref = join(repoFolder(cache.path, tiny), 'refs', 'main')
  await mkdir(dirname(ref))
  await symlink(victim, ref)
  await writeRef(cache.path, tiny, 'main', commitA)
  expect(await readFile(victim, 'utf8')).toBe('precious')
  expect((await lstat(ref)).isFile()).toBe(true)
})

test('a blob of the wrong size, as a client without checks leaves it, is written anew', async () => {
  await using cache = await temporaryDirectory()
  const blob = blobPath(cache.path, tiny, file.etag)
  await mkdir(dirname(blob), { recursive: true })
  await writeFile(blob, 'hel')
  expect(await storeBlob(cache.path, file, 'hello')).toBe(blob)
  expect(await readFile(blob, 'utf8')).toBe('hello')
})

test('a dangling link as blob is replaced by the blob', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const blob = blobPath(cache.path, tiny, file.etag)
  await mkdir(dirname(blob), { recursive: true })
  await symlink(join(outside.path, 'gone'), blob)
  await storeBlob(cache.path, file, 'hello')
  expect((await lstat(blob)).isFile()).toBe(true)
  expect(await readdir(outside.path)).toEqual([])
})

test('a cache on another disk through a link is as good as any', async () => {
  await using cache = await temporaryDirectory()
  await using disk = await temporaryDirectory()
  await symlink(disk.path, repoFolder(cache.path, tiny))
  await storeBlob(cache.path, file, 'hello')
  expect(await readFile(await linkSnapshot(cache.path, file), 'utf8')).toBe('hello')
})
