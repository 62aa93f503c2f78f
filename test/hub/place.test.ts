import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { blobPath, blobsFolder, noExistPath, repoFolder, snapshotPath } from '../../src/hub/cache-layout.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { cachePlace, localPlace, type Place } from '../../src/hub/place.ts'
import { listRepoFiles } from '../../src/hub/repo.ts'
import type { HubFile } from '../../src/values.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import {
  access,
  commitA,
  commitB,
  fakeLocks,
  hubFile,
  openForWriting,
  readAll,
  storeBlob,
  tiny,
} from './fixtures.ts'

const file = hubFile('sub/a.txt', 'hello')

/** The steps of a download. @returns whether the content had to be fetched */
async function download(
  place: Place,
  wanted: HubFile,
  fetchContent: () => Promise<Uint8Array>,
): Promise<boolean> {
  const slot = await place.open(wanted, {}, {})
  const isNew = slot.state === 'write'
  if (isNew) {
    await writeFile(slot.partialPath, await fetchContent())
    await slot.commit()
  }
  await place.settle(wanted, isNew)
  await place.noteRevision(wanted, 'main', wanted.commit)
  return isNew
}

async function expectMissing(place: Place, wanted: HubFile): Promise<void> {
  const slot = await place.open(wanted, {}, {})
  expect(slot.state).toBe('write')
  if (slot.state === 'write') await slot.discard()
}

const hello = async (): Promise<Uint8Array> => Buffer.from('hello')

describe('without links', () => {
  const deps = { symlinks: false, locks: fakeLocks() }

  test('a second download of a snapshot costs no content', async () => {
    await using hub = await startHub({ 'w.bin': { seed: 1, sizeBytes: 300_000 }, 'sub/c.json': '{}' })
    await using our = access(hub.url)
    await using cache = await temporaryDirectory()
    const files = await listRepoFiles(our, tiny, hub.file('w.bin').commit)
    const fetched: boolean[] = []
    for (const one of [...files, ...files]) {
      const place = cachePlace(cache.path, deps)
      const source = new FileSource(our, one)
      const fetchContent = async (): Promise<Buffer> =>
        readAll((await source.openRange({ start: 0 })).batches)
      fetched.push(await download(place, one, fetchContent))
      expect(await place.has(one)).toBe(snapshotPath(cache.path, one, one.commit, one.path))
    }
    expect(fetched).toEqual([true, true, false, false])
    expect(hub.stats('cdn').requests).toBe(1)
    expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([])
    for (const { path, commit } of files) {
      const entry = snapshotPath(cache.path, tiny, commit, path)
      expect((await readFile(entry)).equals(await hub.file(path).bytes())).toBe(true)
    }
    expect(await checkCacheContract(cache.path, { symlinks: false })).toEqual([])
  })

  test('a file is found by commit and by branch, and is nothing to share by its etag', async () => {
    await using cache = await temporaryDirectory()
    const place = cachePlace(cache.path, deps)
    await download(place, file, hello)
    const path = snapshotPath(cache.path, tiny, commitA, file.path)
    for (const revision of ['main', commitA]) {
      const found = await place.find({ ...tiny, revision, path: file.path })
      expect(found).toEqual({ path, commit: commitA, sizeBytes: 5, blob: undefined })
    }
  })

  test('whoever waited for the lock finds the file where its writer has moved it', async () => {
    await using cache = await temporaryDirectory()
    const first = await openForWriting(cache.path, file, deps)
    const place = cachePlace(cache.path, {
      ...deps,
      sleep: async () => {
        await writeFile(first.partialPath, 'hello')
        await first.commit()
        await place.settle(file, true)
      },
    })
    const path = snapshotPath(cache.path, tiny, commitA, file.path)
    expect(await place.open(file, {}, {})).toEqual({ state: 'present', path })
    expect(await place.settle(file, false)).toBe(path)
    expect(await readFile(path, 'utf8')).toBe('hello')
  })

  test('another file of the same content, which has seen the blob a moment before, is copied', async () => {
    await using cache = await temporaryDirectory()
    const place = cachePlace(cache.path, deps)
    await storeBlob(cache.path, file, 'hello', deps)
    const copy = hubFile('copy.txt', 'hello')
    expect(await place.open(copy, {}, {})).toMatchObject({ state: 'present' })
    await place.settle(file, true)
    expect(await readFile(await place.settle(copy, false), 'utf8')).toBe('hello')
    const third = hubFile('third.txt', 'hello')
    expect(await readFile(await place.settle(third, true), 'utf8')).toBe('hello')
    expect(await checkCacheContract(cache.path, { symlinks: false })).toEqual([])
  })

  test('an entry of another size, name or commit is not the file', async () => {
    await using cache = await temporaryDirectory()
    const place = cachePlace(cache.path, deps)
    await download(place, file, hello)
    for (const other of [
      hubFile(file.path, 'hello!'),
      hubFile('sub/b.txt', 'hello'),
      hubFile(file.path, 'hello', { commit: commitB }),
      hubFile('../a.txt', 'hello'),
    ]) {
      expect(await place.has(other)).toBeUndefined()
    }
    await expectMissing(place, hubFile(file.path, 'hello!'))
  })

  test.each([
    ['the file', '', 'victim'],
    ['its folder', '..', ''],
    ['the snapshot', '../..', ''],
  ])('an entry that a planted link leads elsewhere from %s is not the file', async (_, up, target) => {
    await using cache = await temporaryDirectory()
    await using outside = await temporaryDirectory()
    const place = cachePlace(cache.path, deps)
    for (const name of ['victim', 'a.txt', 'sub/a.txt']) {
      await mkdir(dirname(join(outside.path, name)), { recursive: true })
      await writeFile(join(outside.path, name), 'hello')
    }
    const link = join(snapshotPath(cache.path, tiny, commitA, file.path), up)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(outside.path, target), link)
    expect(await readFile(snapshotPath(cache.path, tiny, commitA, file.path), 'utf8')).toBe('hello')
    expect(await place.has(file)).toBeUndefined()
    await expectMissing(place, file)
  })
})

test('a snapshot of plain files stays good where links work, until its blob comes', async () => {
  await using cache = await temporaryDirectory()
  await download(cachePlace(cache.path, { symlinks: false }), file, hello)
  const place = cachePlace(cache.path, { symlinks: true })
  expect(await download(place, file, hello)).toBe(false)
  expect(await readFile(snapshotPath(cache.path, tiny, commitA, file.path), 'utf8')).toBe('hello')
  await download(place, hubFile('b.txt', 'hello'), hello)
  await download(place, file, hello)
  expect(await place.has(file)).toBe(blobPath(cache.path, tiny, file.etag))
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('a blob that nobody has a name for is not looked for in snapshots', async () => {
  await using cache = await temporaryDirectory()
  await download(cachePlace(cache.path, { symlinks: false }), file, hello)
  await (await openForWriting(cache.path, file)).discard()
})

test('what the Hub does not have is noted in the cache, per commit, and not in a folder of the user', async () => {
  await using folder = await temporaryDirectory()
  await localPlace(folder.path, {}).noteMissing(tiny, commitA, 'sub/none.txt')
  expect(await readdir(folder.path)).toEqual([])
  const place = cachePlace(folder.path, {})
  await place.noteMissing(tiny, commitA, 'sub/none.txt')
  expect(await readFile(noExistPath(folder.path, tiny, commitA, 'sub/none.txt'), 'utf8')).toBe('')
  expect(await readdir(join(repoFolder(folder.path, tiny), '.no_exist'))).toEqual([commitA])
  expect(await checkCacheContract(folder.path)).toEqual([])
})
