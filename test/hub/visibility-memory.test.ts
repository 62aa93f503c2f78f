import { spawnSync } from 'node:child_process'
import { mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { VisibilityMemory } from '../../src/hub/visibility-memory.ts'
import type { RepoRef } from '../../src/values.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, commitB, hubFile, tiny } from './fixtures.ts'

const hub = 'https://hub.example'
const file = hubFile('w.bin', 'weights')
const at = 1_700_000_000_000

async function only(folder: string): Promise<string> {
  const [name = ''] = await readdir(folder)
  return join(folder, name)
}

test('an answer about a repository is there for the next process', async () => {
  await using temp = await temporaryDirectory()
  const said = { openness: 'gated', atMs: at } as const
  await new VisibilityMemory(temp.path).noteRepo(hub, tiny, said)
  const later = new VisibilityMemory(temp.path)
  expect(await later.repo(hub, tiny)).toEqual(said)
  for (const other of [
    { ...tiny, repoType: 'dataset' },
    { ...tiny, repo: 'acme/other' },
  ] as RepoRef[]) {
    expect(await later.repo(hub, other)).toBeUndefined()
  }
  expect(await later.repo('https://mirror.example', tiny)).toBeUndefined()
})

test('a later answer takes the place of an earlier one, never the other way round', async () => {
  await using temp = await temporaryDirectory()
  const memory = new VisibilityMemory(temp.path)
  await memory.noteRepo(hub, tiny, { openness: 'private', atMs: at })
  await memory.noteRepo(hub, tiny, { openness: 'public', atMs: at - 1 })
  expect((await memory.repo(hub, tiny))?.openness).toBe('private')
  await memory.noteRepo(hub, tiny, { openness: 'public', atMs: at + 1 })
  expect((await memory.repo(hub, tiny))?.openness).toBe('public')
})

test('what was said in the future, by a wrong clock, gives way to what is said now', async () => {
  await using temp = await temporaryDirectory()
  let now = at + 1_000
  const memory = new VisibilityMemory(temp.path, () => now)
  await memory.noteRepo(hub, tiny, { openness: 'public', atMs: now })
  now = at
  await memory.noteRepo(hub, tiny, { openness: 'private', atMs: now })
  expect(await memory.repo(hub, tiny)).toEqual({ openness: 'private', atMs: now })
})

test('a content remembers the last sight in each repository, the latest first, and eight at most', async () => {
  await using temp = await temporaryDirectory()
  const memory = new VisibilityMemory(temp.path)
  for (let n = 0; n < 10; n++) await memory.noteWitness(hub, { ...file, repo: `acme/r${n}` }, at + n)
  const written = await readFile(await only(join(temp.path, 'visibility', 'blobs')), 'utf8')
  expect(JSON.parse(written)).toHaveLength(8)
  await memory.noteWitness(hub, { ...file, repo: 'acme/r5', commit: commitB, path: 'sub/ü #.bin' }, at + 20)
  const witnesses = await memory.witnesses(hub, file.etag)
  const last = { repoType: 'model', repo: 'acme/r5', commit: commitB, path: 'sub/ü #.bin', atMs: at + 20 }
  expect(witnesses[0]).toEqual(last)
  expect(witnesses.map(({ repo }) => repo)).toEqual(
    ['r5', 'r9', 'r8', 'r7', 'r6', 'r4', 'r3', 'r2'].map((name) => `acme/${name}`),
  )
  expect(await memory.witnesses('https://mirror.example', file.etag)).toEqual([])
})

test('nobody else on this machine reads which repositories there are', async () => {
  await using temp = await temporaryDirectory()
  const memory = new VisibilityMemory(temp.path)
  await memory.noteRepo(hub, tiny, { openness: 'private', atMs: at })
  await memory.noteWitness(hub, file, at)
  for (const kind of ['repos', 'blobs']) {
    const folder = join(temp.path, 'visibility', kind)
    expect((await stat(folder)).mode & 0o777).toBe(0o700)
    expect((await stat(await only(folder))).mode & 0o777).toBe(0o600)
  }
})

test.runIf(process.platform !== 'win32')(
  'folders above its own are made as the user wants them',
  async () => {
    await using temp = await temporaryDirectory()
    const home = join(temp.path, 'home')
    await new VisibilityMemory(join(home, 'llmpt')).noteRepo(hub, tiny, { openness: 'private', atMs: at })
    const modes = [home, join(home, 'llmpt'), join(home, 'llmpt', 'visibility')].map(
      async (folder) => (await stat(folder)).mode & 0o777,
    )
    const usual = 0o777 & ~process.umask()
    expect(await Promise.all(modes)).toEqual([usual, usual, 0o700])
  },
)

describe('a file that is not what was written', () => {
  const repoRecord = { endpoint: hub, repo: 'acme/tiny', openness: 'public', at }
  test.each([
    ['nothing', ''],
    ['half of it', JSON.stringify(repoRecord).slice(0, 40)],
    ['another type', '"public"'],
    ['null', 'null'],
    ['a list', JSON.stringify([repoRecord])],
    ['no time', JSON.stringify({ ...repoRecord, at: undefined })],
    ['a time that is no number', JSON.stringify({ ...repoRecord, at: `${at}` })],
    ['a time before time', JSON.stringify({ ...repoRecord, at: -1 })],
    ['an endless time', JSON.stringify({ ...repoRecord, at: 1e308 })],
    ['an unknown answer', JSON.stringify({ ...repoRecord, openness: 'open' })],
    ['another repository', JSON.stringify({ ...repoRecord, repo: 'acme/other' })],
    ['another Hub', JSON.stringify({ ...repoRecord, endpoint: 'https://mirror.example' })],
    ['a very long one', JSON.stringify({ ...repoRecord, more: 'x'.repeat(70_000) })],
    ['depth without end', '['.repeat(60_000)],
    ['no text', Buffer.from([0xff, 0xfe, 0, 1, 2]).toString('latin1')],
  ])('says nothing about a repository: %s', async (_what, text) => {
    await using temp = await temporaryDirectory()
    const memory = new VisibilityMemory(temp.path)
    await memory.noteRepo(hub, tiny, { openness: 'public', atMs: at })
    const path = await only(join(temp.path, 'visibility', 'repos'))
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual(repoRecord)
    await writeFile(path, text)
    expect(await memory.repo(hub, tiny)).toBeUndefined()
    await memory.noteRepo(hub, tiny, { openness: 'private', atMs: at })
    expect((await memory.repo(hub, tiny))?.openness).toBe('private')
  })

  const witness = { endpoint: hub, repo: 'acme/tiny', commit: commitA, path: 'w.bin', at }
  test.each([
    ['an object', witness],
    ['entries of other types', [1, null, 'x', [], {}]],
    ['a path that leaves', [{ ...witness, path: '../../etc/passwd' }]],
    ['an absolute path', [{ ...witness, path: '/etc/passwd' }]],
    ['no commit', [{ ...witness, commit: 'main' }]],
    ['a repository that leaves', [{ ...witness, repo: '../x' }]],
    ['a repository with a host', [{ ...witness, repo: 'https://evil.example/x' }]],
    ['a time that is none', [{ ...witness, at: 'now' }]],
    ['a prototype', JSON.parse('[{"__proto__": {"repo": "acme/tiny"}}]')],
  ])('says nothing about a content: %s', async (_what, value) => {
    await using temp = await temporaryDirectory()
    const memory = new VisibilityMemory(temp.path)
    const folder = join(temp.path, 'visibility', 'blobs')
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, `${file.etag}.json`), JSON.stringify(value))
    expect(await memory.witnesses(hub, file.etag)).toEqual([])
    await memory.noteWitness(hub, file, at)
    expect(await memory.witnesses(hub, file.etag)).toHaveLength(1)
  })

  test('among good ones is left out, and no more than eight are read', async () => {
    await using temp = await temporaryDirectory()
    const folder = join(temp.path, 'visibility', 'blobs')
    await mkdir(folder, { recursive: true })
    const many = Array.from({ length: 20 }, (_, n) => ({ ...witness, repo: `acme/r${n}`, at: at + n }))
    await writeFile(join(folder, `${file.etag}.json`), JSON.stringify([{ repo: 7 }, ...many]))
    const witnesses = await new VisibilityMemory(temp.path).witnesses(hub, file.etag)
    expect(witnesses.map(({ repo }) => repo).slice(0, 2)).toEqual(['acme/r19', 'acme/r18'])
    expect(witnesses).toHaveLength(8)
  })

  test.runIf(process.platform !== 'win32')('a link or a pipe in its place is not opened', async () => {
    await using temp = await temporaryDirectory()
    const memory = new VisibilityMemory(temp.path)
    const folder = join(temp.path, 'visibility', 'blobs')
    await mkdir(folder, { recursive: true })
    await writeFile(join(temp.path, 'elsewhere.json'), JSON.stringify([witness]))
    await symlink(join(temp.path, 'elsewhere.json'), join(folder, `${file.etag}.json`))
    expect(await memory.witnesses(hub, file.etag)).toEqual([])
    const other = hubFile('p.bin', 'pipe')
    spawnSync('mkfifo', [join(folder, `${other.etag}.json`)])
    expect(await memory.witnesses(hub, other.etag)).toEqual([])
  })
})

test('a folder that cannot be written to costs nothing but the memory', async () => {
  await using temp = await temporaryDirectory()
  await writeFile(join(temp.path, 'visibility'), 'in the way')
  const memory = new VisibilityMemory(temp.path)
  await memory.noteRepo(hub, tiny, { openness: 'public', atMs: at })
  await memory.noteWitness(hub, file, at)
  expect(await memory.repo(hub, tiny)).toBeUndefined()
})

test('many writers at once leave one whole answer, and nothing else', async () => {
  await using temp = await temporaryDirectory()
  const memories = Array.from({ length: 20 }, () => new VisibilityMemory(temp.path))
  await Promise.all(
    memories.flatMap((memory, n) => [
      memory.noteRepo(hub, tiny, { openness: 'public', atMs: at + n }),
      memory.noteWitness(hub, { ...file, repo: `acme/r${n}` }, at + n),
    ]),
  )
  const [memory] = memories
  expect((await memory?.repo(hub, tiny))?.openness).toBe('public')
  expect((await memory?.witnesses(hub, file.etag))?.length).toBeGreaterThan(0)
  for (const kind of ['repos', 'blobs']) {
    expect(await readdir(join(temp.path, 'visibility', kind))).toHaveLength(1)
  }
})

test('what nobody has written for a month goes, once in a process', async () => {
  await using temp = await temporaryDirectory()
  await new VisibilityMemory(temp.path).noteRepo(hub, tiny, { openness: 'public', atMs: at })
  const old = await only(join(temp.path, 'visibility', 'repos'))
  const past = new Date(Date.now() - 31 * 24 * 3_600_000)
  await utimes(old, past, past)
  await new VisibilityMemory(temp.path).noteRepo(
    hub,
    { ...tiny, repo: 'acme/other' },
    { openness: 'public', atMs: at },
  )
  expect(await readdir(join(temp.path, 'visibility', 'repos'))).toHaveLength(1)
  expect(await only(join(temp.path, 'visibility', 'repos'))).not.toBe(old)
})

test('whoever deletes the folder can wait until nothing is being written', async () => {
  await using temp = await temporaryDirectory()
  const memory = new VisibilityMemory(temp.path)
  for (let n = 0; n < 5; n++) {
    void memory.noteRepo(hub, { ...tiny, repo: `acme/r${n}` }, { openness: 'public', atMs: at })
    void memory.noteWitness(hub, hubFile('w.bin', `content ${n}`), at)
  }
  await memory.idle()
  for (const kind of ['repos', 'blobs']) {
    expect(await readdir(join(temp.path, 'visibility', kind))).toHaveLength(5)
  }
})
