import { lutimes, mkdir, readdir, rename, symlink, utimes, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { blobPath, blobsFolder, lockPath } from '../../src/hub/cache-layout.ts'
import { type CacheDeps, openBlob } from '../../src/hub/cache-writer.ts'
import { openLocalFile } from '../../src/hub/local-dir.ts'
import { claimPathOf } from '../../src/hub/partial-claim.ts'
import { resumableKeptMs, sweepPartials, uniqueKeptMs } from '../../src/hub/partial-sweep.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'
import { fakeLocks, gitSha1, hubFile, openForWriting, sha256, tiny } from './fixtures.ts'

const old = { etag: sha256('old'), sizeBytes: 3 }
const file = hubFile('a', 'hello')

/** A blob folder with these files, all last written `ageMs` ago. */
async function folderWith(cacheDir: string, names: readonly string[], ageMs: number): Promise<string> {
  const folder = blobsFolder(cacheDir, tiny)
  await mkdir(folder, { recursive: true })
  await mkdir(dirname(lockPath(cacheDir, tiny, old.etag)), { recursive: true })
  const time = new Date(Date.now() - ageMs)
  for (const name of names) {
    await writeFile(join(folder, name), 'old')
    await utimes(join(folder, name), time, time)
  }
  return folder
}

const lockOf = (cacheDir: string) => (name: string) =>
  lockPath(cacheDir, tiny, name.slice(0, name.indexOf('.')) as typeof old.etag)

test.each([
  [`${old.etag}.llmpt.incomplete`, resumableKeptMs],
  [`${old.etag}.llmpt.damaged`, resumableKeptMs],
  [`${old.etag}.0123abcd.incomplete`, uniqueKeptMs],
  [`${gitSha1('x')}.0123abcd.incomplete`, uniqueKeptMs],
  ['.llmpt-0123abcd.tmp', uniqueKeptMs],
])('%s goes when nobody has touched it for %d ms, and not a minute before', async (name, keptMs) => {
  await using cache = await temporaryDirectory()
  const folder = await folderWith(cache.path, [name], keptMs - 60_000)
  const options = { locks: fakeLocks(), lockPathOf: lockOf(cache.path) }
  expect(await sweepPartials(folder, options)).toEqual([])
  const later = { ...options, now: () => Date.now() + 120_000 }
  expect(await sweepPartials(folder, later)).toEqual([join(folder, name)])
  expect(await readdir(folder)).toEqual([])
})

test('what belongs to others, or only looks like ours, stays however old it is', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const names = [
    old.etag,
    `${old.etag}.incomplete`,
    `${old.etag}.part`,
    `${old.etag}.0123ABCD.incomplete`,
    'x.llmpt.incomplete',
    `${old.etag}.llmpt.incomplete.bak`,
    'notes.txt',
  ]
  const folder = await folderWith(cache.path, names, 10 * resumableKeptMs)
  const hostile = [
    `${sha256('1')}.llmpt.incomplete`,
    `${sha256('2')}.llmpt.incomplete`,
    `${sha256('3')}.0123abcd.incomplete`,
  ]
  await writeFile(join(outside.path, 'victim'), 'precious')
  await symlink(join(outside.path, 'victim'), join(folder, hostile[0] ?? ''))
  await mkdir(join(folder, hostile[1] ?? ''))
  await symlink(outside.path, join(folder, hostile[2] ?? ''))
  const options = { locks: fakeLocks(), lockPathOf: lockOf(cache.path) }
  const future = { ...options, now: () => Date.now() + 10 * resumableKeptMs }
  expect(await sweepPartials(folder, future)).toEqual([])
  expect((await readdir(folder)).toSorted()).toEqual([...names, ...hostile].toSorted())
  expect(await readdir(outside.path)).toEqual(['victim'])
})

test('a partial file whose lock somebody holds stays', async () => {
  await using cache = await temporaryDirectory()
  const deps: CacheDeps = { locks: fakeLocks() }
  await using slot = await openForWriting(cache.path, file, deps)
  const unique = `${file.etag}.0123abcd.incomplete`
  const folder = await folderWith(cache.path, [basename(slot.partialPath), unique], 10 * resumableKeptMs)
  expect(await sweepPartials(folder, { ...deps, lockPathOf: lockOf(cache.path) })).toEqual([])
  await slot.release()
  expect(await sweepPartials(folder, { ...deps, lockPathOf: lockOf(cache.path) })).toHaveLength(2)
})

test('without locks a partial file that can be resumed stays, because its owner may be alive', async () => {
  await using cache = await temporaryDirectory()
  const kept = `${old.etag}.llmpt.incomplete`
  const names = [kept, `${old.etag}.llmpt.damaged`, `${old.etag}.0123abcd.incomplete`]
  const folder = await folderWith(cache.path, names, 10 * resumableKeptMs)
  await sweepPartials(folder, { lockPathOf: lockOf(cache.path) })
  expect(await readdir(folder)).toEqual([kept])
})

test('where the file system knows no locks the same goes as without them', async () => {
  await using cache = await temporaryDirectory()
  const kept = `${old.etag}.llmpt.incomplete`
  const names = [kept, `${old.etag}.llmpt.damaged`, `${old.etag}.0123abcd.incomplete`]
  const folder = await folderWith(cache.path, names, 10 * resumableKeptMs)
  const locks = {
    tryLock: (): boolean => {
      throw new Error('ENOLCK')
    },
    unlock: (): void => {},
  }
  await sweepPartials(folder, { locks, lockPathOf: lockOf(cache.path) })
  expect(await readdir(folder)).toEqual([kept])
})

test('the claim of a dead owner goes with its partial file, and the lock file stays', async () => {
  await using cache = await temporaryDirectory()
  const folder = await folderWith(cache.path, [`${old.etag}.llmpt.incomplete`], 10 * resumableKeptMs)
  const lock = lockPath(cache.path, tiny, old.etag)
  await writeFile(lock, '')
  await writeFile(claimPathOf(lock), 'host\n1\nid\n')
  await sweepPartials(folder, { locks: fakeLocks(), lockPathOf: lockOf(cache.path) })
  expect(await readdir(dirname(lock))).toEqual([basename(lock)])
})

test('opening a blob to write sweeps its folder once, and tells what went', async () => {
  await using cache = await temporaryDirectory()
  const name = `${old.etag}.llmpt.incomplete`
  const folder = await folderWith(cache.path, [name], 2 * resumableKeptMs)
  let tell: (path: string) => void = () => undefined
  const told = new Promise<string>((resolve) => {
    tell = resolve
  })
  const deps: CacheDeps = { locks: fakeLocks(), onSwept: (path) => tell(path) }
  await using slot = await openForWriting(cache.path, file, deps)
  expect(await told).toBe(join(folder, name))
  await slot.release()
  await folderWith(cache.path, [name], 2 * resumableKeptMs)
  await using _again = await openForWriting(cache.path, file, deps)
  // A sweep that had begun would have come to its end within a few of these.
  for (let round = 0; round < 50; round++) expect(await readdir(folder)).toEqual([name])
})

test.each([
  ['cache', 'models--acme--tiny'],
  ['folder of the user', '.cache/huggingface'],
])('a call that finds everything in its place tidies the %s, where names are made', async (kind, below) => {
  await using hub = await startHub({ 'a.txt': 'hello' })
  await using home = await temporaryDirectory()
  const cacheDir = join(home.path, 'hub')
  const localDir = kind === 'cache' ? undefined : join(home.path, 'mine')
  const options = { endpoint: hub.url, trackers: [], seed: false, cacheDir }
  await using first = await newUser(options)
  await first.client.downloadSnapshot(tiny, 'main', { localDir })
  // Under a name that this process does not know yet: nothing has been swept there.
  await using again = await temporaryDirectory()
  await rename(home.path, again.path)
  const folder = join(again.path, localDir === undefined ? 'hub' : 'mine', below)
  const old = new Date(Date.now() - 2 * uniqueKeptMs)
  const names = ['.llmpt-0123abcd.tmp', '.llmpt-4567abcd.tmp', '.llmpt-89ababcd.tmp'].map((name) =>
    join(folder, name),
  )
  const [file = '', link = '', young = ''] = names
  await writeFile(file, '')
  await symlink('nowhere', link)
  await writeFile(young, '')
  for (const name of [file, link]) await lutimes(name, old, old)
  await using user = await newUser({ ...options, cacheDir: join(again.path, 'hub') })
  const got = await user.client.downloadSnapshot(tiny, 'main', {
    localDir: localDir && join(again.path, 'mine'),
  })
  expect(got.bytes.cache).toBe(5)
  const left = async (): Promise<string[]> =>
    (await readdir(folder)).filter((name) => name.startsWith('.llmpt'))
  await vi.waitFor(async () => expect(await left()).toEqual([basename(young)]), { timeout: 10_000 })
})

test('an old partial file is there for whoever comes back for it', async () => {
  await using cache = await temporaryDirectory()
  const folder = await folderWith(cache.path, [`${file.etag}.llmpt.incomplete`], 2 * resumableKeptMs)
  const deps: CacheDeps = { locks: fakeLocks() }
  await using _slot = await openForWriting(cache.path, file, deps)
  await sweepPartials(folder, { ...deps, lockPathOf: lockOf(cache.path) })
  expect(await readdir(folder)).toEqual([`${file.etag}.llmpt.incomplete`])
})

test('a folder that cannot be read, or a listener that fails, costs the download nothing', async () => {
  await using cache = await temporaryDirectory()
  await folderWith(cache.path, [`${old.etag}.llmpt.incomplete`], 2 * resumableKeptMs)
  let called: () => void = () => undefined
  const told = new Promise<void>((resolve) => {
    called = resolve
  })
  const onSwept = (): never => {
    called()
    throw new Error('no')
  }
  const slot = await openForWriting(cache.path, file, { locks: fakeLocks(), onSwept })
  await told
  await writeFile(slot.partialPath, 'hello')
  expect(await slot.commit()).toBe(blobPath(cache.path, tiny, file.etag))
  await expect(sweepPartials(join(cache.path, 'none'), { lockPathOf: () => undefined })).rejects.toThrow()
})

test('a local folder is swept as well, with the lock of each file found by its name', async () => {
  await using folder = await temporaryDirectory()
  const locks = fakeLocks()
  const slot = await openLocalFile(folder.path, hubFile('w.bin', 'hello'), { locks })
  if (slot.state !== 'write') throw new Error('expected a slot')
  await writeFile(slot.partialPath, 'hel')
  await slot.release()
  const old = new Date(Date.now() - 2 * resumableKeptMs)
  await utimes(slot.partialPath, old, old)
  // The same folder by another name has not been swept by this process.
  const again = `${folder.path}-again`
  await rename(folder.path, again)
  await mkdir(folder.path)
  const told = new Promise<string>((resolve) => {
    void openLocalFile(again, hubFile('x.bin', 'x'), { locks, onSwept: resolve }).then(async (other) => {
      if (other.state === 'write') await other.release()
    })
  })
  expect(await told).toBe(slot.partialPath.replace(folder.path, again))
  await rename(again, join(folder.path, 'again'))
})

test('a blob that is there is found although the sweep has not come to its end', async () => {
  await using cache = await temporaryDirectory()
  const deps: CacheDeps = { locks: fakeLocks(), onSwept: () => new Promise(() => undefined) }
  await folderWith(cache.path, [`${old.etag}.llmpt.incomplete`], 2 * resumableKeptMs)
  const slot = await openForWriting(cache.path, file, deps)
  await writeFile(slot.partialPath, 'hello')
  await slot.commit()
  expect((await openBlob(cache.path, tiny, file, deps)).state).toBe('present')
})
