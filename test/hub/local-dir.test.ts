import { mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { PartialFile } from '../../src/hub/cache-writer.ts'
import { openLocalFile, readLocalMetadata, writeLocalMetadata } from '../../src/hub/local-dir.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, commitB, errorOf, fakeLocks, hubFile, sha256 } from './fixtures.ts'

const file = hubFile('sub/a#1.txt', 'hello')

async function openForWriting(folder: string, deps = {}): Promise<PartialFile> {
  const slot = await openLocalFile(folder, file, deps)
  if (slot.state !== 'write') throw new Error('expected a slot to write to')
  return slot
}

async function download(folder: string, deps = {}): Promise<string> {
  const slot = await openForWriting(folder, deps)
  await writeFile(slot.partialPath, 'hello')
  return await slot.commit()
}

test("a file lands under its name, with Python's bookkeeping beside it", async () => {
  await using folder = await temporaryDirectory()
  const path = await download(folder.path, { locks: fakeLocks(), now: () => Date.now() })
  expect(path).toBe(join(folder.path, 'sub/a#1.txt'))
  expect(await readFile(path, 'utf8')).toBe('hello')
  const notes = join(folder.path, '.cache/huggingface')
  expect((await readdir(notes)).toSorted()).toEqual(['.gitignore', 'CACHEDIR.TAG', 'download'])
  expect(await readFile(join(notes, '.gitignore'), 'utf8')).toBe('*')
  expect(await readFile(join(notes, 'CACHEDIR.TAG'), 'utf8')).toMatch(
    /^Signature: 8a477f597d28d172789f06886806bc55\n/,
  )
  expect((await readdir(join(notes, 'download/sub'))).toSorted()).toEqual([
    'a#1.txt.lock',
    'a#1.txt.metadata',
  ])
  const text = await readFile(join(notes, 'download/sub/a#1.txt.metadata'), 'utf8')
  expect(text).toMatch(new RegExp(`^${commitA}\n${file.etag}\n\\d+\\.\\d+\n$`))
})

test('the partial file is named as Python names it, apart from the part that says whose it is', async () => {
  await using folder = await temporaryDirectory()
  // urlsafe_b64encode(sha1(b"a#1.txt.metadata").digest())
  const hash = 'p2EyGFaBXb0b33ckrKF-HmJ6ISQ='
  await using slot = await openForWriting(folder.path, { locks: fakeLocks() })
  const below = join(folder.path, '.cache/huggingface/download/sub')
  expect(slot.partialPath.replace(hash, 'HASH')).toBe(join(below, `HASH.${file.etag}.llmpt.incomplete`))
  await slot.release()
  await using unlocked = await openForWriting(folder.path)
  expect(unlocked.partialPath).toMatch(/=\.[0-9a-f]{64}\.[0-9a-f]{8}\.incomplete$/)
})

test('a file that is there is not fetched again, and its commit is brought up to date', async () => {
  await using folder = await temporaryDirectory()
  await download(folder.path)
  const again = await openLocalFile(folder.path, { ...file, commit: commitB })
  expect(again).toEqual({ state: 'present', path: join(folder.path, file.path) })
  expect(await readLocalMetadata(folder.path, file.path)).toEqual({ commit: commitB, etag: file.etag })
})

test('a file that was changed, deleted or has another content is fetched', async () => {
  await using folder = await temporaryDirectory()
  const path = await download(folder.path)
  const other = hubFile(file.path, 'HELLO')
  expect((await openLocalFile(folder.path, other)).state).toBe('write')
  const { mtimeMs } = await stat(path)
  const later = new Date(mtimeMs + 60_000)
  await utimes(path, later, later)
  expect(await readLocalMetadata(folder.path, file.path)).toBeUndefined()
  expect((await openLocalFile(folder.path, file)).state).toBe('write')
  await rm(path)
  expect((await openLocalFile(folder.path, file)).state).toBe('write')
})

test('a file of the user without metadata is not taken for ours, and metadata makes it so', async () => {
  await using folder = await temporaryDirectory()
  await mkdir(join(folder.path, 'sub'))
  await writeFile(join(folder.path, file.path), 'hello')
  expect((await openLocalFile(folder.path, file)).state).toBe('write')
  await writeLocalMetadata(folder.path, file)
  expect((await openLocalFile(folder.path, file)).state).toBe('present')
})

test.each([
  '',
  'x',
  `${commitA}\n`,
  `${commitA}\n${sha256('hello')}\nsoon\n`,
  `main\n${sha256('hello')}\n1e12\n`,
])('metadata %j is no metadata', async (text) => {
  await using folder = await temporaryDirectory()
  await download(folder.path)
  await writeFile(join(folder.path, '.cache/huggingface/download/sub/a#1.txt.metadata'), text)
  expect(await readLocalMetadata(folder.path, file.path)).toBeUndefined()
})

test.each([
  '.cache/huggingface/trees/x.json',
  '.cache/huggingface/download/model.bin.metadata',
  '.Cache/HuggingFace/x',
  '.cache/huggingface',
  '.cache./huggingface/x',
])('%s would be among the bookkeeping, and is refused with nothing written', async (path) => {
  await using folder = await temporaryDirectory()
  const forged = { ...file, path }
  for (const work of [
    openLocalFile(folder.path, forged),
    writeLocalMetadata(folder.path, forged),
    readLocalMetadata(folder.path, path),
  ]) {
    const error = await errorOf(work)
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE', message: expect.stringContaining(path) })
  }
  expect(await readdir(folder.path)).toEqual([])
})

test('other names in a folder called .cache are files like any', async () => {
  await using folder = await temporaryDirectory()
  for (const path of ['.cache/huggingface2/x', 'sub/.cache/huggingface/x', '.cache/x']) {
    const slot = await openLocalFile(folder.path, { ...file, path })
    expect(slot.state).toBe('write')
    if (slot.state === 'write') await slot.discard()
  }
})

test('a name or a link that leads out of the folder is refused', async () => {
  await using folder = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  for (const path of ['../x', '/etc/x', 'C:\\x', 'a/../../x']) {
    expect(await errorOf(openLocalFile(folder.path, { ...file, path }))).toMatchObject({
      code: 'ERR_LLMPT_CACHE',
    })
  }
  await symlink(outside.path, join(folder.path, 'sub'))
  expect(await errorOf(openLocalFile(folder.path, file))).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  expect(await readdir(outside.path)).toEqual([])
})
