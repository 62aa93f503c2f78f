import { lstat, mkdir, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { expect, test } from 'vitest'
import { blobPath, damagedBlobPath, lockPath, repoFolder } from '../../src/hub/cache-layout.ts'
import { removeDamaged, setAside } from '../../src/hub/damaged-blob.ts'
import { takeLock } from '../../src/hub/partial-file.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { fakeLocks, sha256, tiny } from './fixtures.ts'

const etag = sha256('right')

/** A cache with a blob that is not what its name promises. */
async function wrongBlob() {
  const cache = await temporaryDirectory()
  const place = { cacheDir: cache.path, repo: tiny, etag }
  const path = blobPath(cache.path, tiny, etag)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, 'wrong')
  const old = new Date(0)
  await utimes(path, old, old)
  return {
    place,
    path,
    movedTo: damagedBlobPath(cache.path, tiny, etag),
    seen: await lstat(path),
    [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose](),
  }
}

test.each([
  ['with a lock', fakeLocks()],
  ['without locks', undefined],
])('a wrong blob goes aside %s, and its days are counted from then', async (_, locks) => {
  await using blob = await wrongBlob()
  const before = Date.now() - 1_000
  expect(await setAside(blob.place, blob.path, blob.seen, locks)).toEqual({ movedTo: blob.movedTo })
  expect(await readdir(dirname(blob.path))).toEqual([`${etag}.llmpt.damaged`])
  expect((await lstat(blob.movedTo)).mtimeMs).toBeGreaterThan(before)
})

test('a file that came in its place meanwhile stays', async () => {
  await using blob = await wrongBlob()
  await rm(blob.path)
  await writeFile(blob.path, 'right')
  expect(await setAside(blob.place, blob.path, blob.seen, fakeLocks())).toBe('changed')
  expect(await readFile(blob.path, 'utf8')).toBe('right')
})

test('nothing is moved or removed while somebody has the lock', async () => {
  await using blob = await wrongBlob()
  await writeFile(blob.movedTo, 'older')
  const locks = fakeLocks()
  const lock = await takeLock(lockPath(blob.place.cacheDir, tiny, etag), locks)
  expect(await setAside(blob.place, blob.path, blob.seen, locks)).toBe('busy')
  await removeDamaged(blob.place, locks)
  expect((await readdir(dirname(blob.path))).toSorted()).toEqual([etag, `${etag}.llmpt.damaged`])
  if (typeof lock !== 'object') throw new Error('no lock')
  await lock.release()
  await removeDamaged(blob.place, locks)
  expect(await readdir(dirname(blob.path))).toEqual([etag])
})

test('a link in the place of the folder of blobs does not lead it out of the cache', async () => {
  await using blob = await wrongBlob()
  await using outside = await temporaryDirectory()
  const folder = repoFolder(blob.place.cacheDir, tiny)
  const copy = `${folder}/copy`
  await writeFile(copy, 'wrong')
  await rm(dirname(blob.path), { recursive: true })
  await symlink(outside.path, dirname(blob.path))
  const moved = setAside(blob.place, copy, await lstat(copy), fakeLocks())
  await expect(moved).rejects.toThrow('leads out of')
  expect(await readdir(outside.path)).toEqual([])
})

test('a file that is reached through a link by now is not moved', async () => {
  await using blob = await wrongBlob()
  await using outside = await temporaryDirectory()
  const victim = `${outside.path}/victim`
  await writeFile(victim, 'precious')
  const snapshot = `${repoFolder(blob.place.cacheDir, tiny)}/snapshots`
  await symlink(outside.path, snapshot)
  expect(await setAside(blob.place, `${snapshot}/victim`, await lstat(victim), fakeLocks())).toBe('changed')
  expect(await readFile(victim, 'utf8')).toBe('precious')
})
