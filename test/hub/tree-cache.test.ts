import { spawnSync } from 'node:child_process'
import { mkdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import {
  parseTree,
  readTree,
  serializeTree,
  type TreeFile,
  treePath,
  writeTree,
} from '../../src/hub/tree-cache.ts'
import { divertLog } from '../../src/log.ts'
import type { Etag } from '../../src/values.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, tiny } from './fixtures.ts'

const git = 'd'.repeat(40)
const pointer = 'e'.repeat(40)
const sha256 = 'f'.repeat(64)
const xet = '0'.repeat(64)

const small = (path: string): TreeFile => ({
  ...tiny,
  path,
  commit: commitA,
  etag: git as Etag,
  sizeBytes: 3,
  blobId: git,
})
const large = (path: string): TreeFile => ({
  ...small(path),
  etag: sha256 as Etag,
  sizeBytes: 9,
  blobId: pointer,
})

/** What `json.dump(…, indent=1)` of Python 3 makes of these files, sorted by code points. */
const fromPython = `{
 "format_version": 1,
 "files": {
  "10": {
   "size": 3,
   "blob_id": "${git}"
  },
  "9": {
   "size": 3,
   "blob_id": "${git}"
  },
  "a \\"b\\"/\\u6a21\\u578b\\u007f.bin": {
   "size": 9,
   "blob_id": "${pointer}",
   "lfs_sha256": "${sha256}",
   "lfs_size": 9,
   "xet_hash": "${xet}"
  },
  "w.bin": {
   "size": 9,
   "blob_id": "${pointer}",
   "lfs_sha256": "${sha256}",
   "lfs_size": 9
  },
  "\\uffe6": {
   "size": 3,
   "blob_id": "${git}"
  },
  "\\ud83d\\ude00": {
   "size": 3,
   "blob_id": "${git}"
  }
 }
}`
const files: TreeFile[] = [
  small('😀'),
  small('￦'),
  small('9'),
  large('w.bin'),
  small('10'),
  { ...large('a "b"/模型\x7f.bin'), xetHash: xet },
]

test('a tree is written byte for byte as Python writes it, and read again', () => {
  expect(serializeTree(files)).toBe(fromPython)
  expect(serializeTree([])).toBe('{\n "format_version": 1,\n "files": {}\n}')
  expect(serializeTree(parseTree(fromPython, tiny, commitA))).toBe(fromPython)
  expect(parseTree(fromPython, tiny, commitA)).toContainEqual(large('w.bin'))
})

test('a kept tree is for its owner only, and leaves no temporary file', async () => {
  await using folder = await temporaryDirectory()
  await writeTree(folder.path, commitA, files)
  const path = treePath(folder.path, commitA)
  expect(await readFile(path, 'utf8')).toBe(fromPython)
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  expect(await readTree(folder.path, tiny, commitA)).toHaveLength(6)
})

test('a name that JavaScript has plans with is a name like any other', () => {
  const [only] = parseTree(serializeTree([small('__proto__')]), tiny, commitA)
  expect(only?.path).toBe('__proto__')
})

test('a file whose content only Xet can name makes the tree none', () => {
  const text = JSON.stringify({
    format_version: 1,
    files: { a: { size: 3, blob_id: git, xet_hash: xet } },
  })
  expect(() => parseTree(text, tiny, commitA)).toThrow('nothing usable about "a"')
})

const entry = { size: 3, blob_id: git }
const tree = (of: unknown): string => JSON.stringify({ format_version: 1, files: of })
test.each<[string, string]>([
  ['no JSON', '<html>'],
  ['half a JSON', fromPython.slice(0, 100)],
  ['nothing', ''],
  ['null', 'null'],
  ['of a newer format', JSON.stringify({ format_version: 2, files: {} })],
  ['without files', JSON.stringify({ format_version: 1 })],
  ['a list', tree([entry])],
  ['with an entry that is null', tree({ a: null })],
  ['with a path that climbs out', tree({ '../../x': entry })],
  ['with an absolute path', tree({ '/etc/passwd': entry })],
  ['with an empty path', tree({ '': entry })],
  ['with a negative size', tree({ a: { ...entry, size: -1 } })],
  ['with a size beyond counting', tree({ a: { ...entry, size: 2 ** 60 } })],
  ['with a size as text', tree({ a: { ...entry, size: '3' } })],
  ['with a blob that is a path', tree({ a: { ...entry, blob_id: '../x' } })],
  ['without a blob', tree({ a: { size: 3 } })],
  ['with a blob in a list', tree({ a: { ...entry, blob_id: [git] } })],
  ['with a size of large-file storage as text', tree({ a: { ...entry, lfs_sha256: sha256, lfs_size: '3' } })],
  [
    'with a hash of Xet that is none',
    tree({ a: { ...entry, lfs_sha256: sha256, lfs_size: 3, xet_hash: 'x' } }),
  ],
  ['with a short digest', tree({ a: { ...entry, lfs_sha256: git } })],
  ['with one good and one bad entry', tree({ a: entry, b: { ...entry, lfs_sha256: 7 } })],
])('a tree that is %s is no tree, and no error', async (_, text) => {
  await using folder = await temporaryDirectory()
  await put(treePath(folder.path, commitA), text)
  const warnings: string[] = []
  const restore = divertLog((level, message) => void (level === 'warn' && warnings.push(message)))
  try {
    expect(await readTree(folder.path, tiny, commitA)).toBeUndefined()
  } finally {
    restore()
  }
  expect(warnings).toEqual([expect.stringContaining(commitA)])
})

test('a pipe, a folder, a file beyond all measure and nothing are no trees either', async () => {
  await using folder = await temporaryDirectory()
  const restore = divertLog(() => undefined)
  try {
    const path = treePath(folder.path, commitA)
    expect(await readTree(folder.path, tiny, commitA)).toBeUndefined()
    await mkdir(dirname(path), { recursive: true })
    for (const spoil of [
      () => spawnSync('mkfifo', [path]),
      () => mkdir(path),
      () => put(path, '').then(() => truncate(path, 2 ** 30)),
    ]) {
      await spoil()
      expect(await readTree(folder.path, tiny, commitA)).toBeUndefined()
      spawnSync('rm', ['-r', path])
    }
  } finally {
    restore()
  }
})

test('a folder of trees that leads elsewhere is not written to', async () => {
  await using folder = await temporaryDirectory()
  await using elsewhere = await temporaryDirectory()
  await symlink(elsewhere.path, join(folder.path, 'trees'))
  await writeTree(folder.path, commitA, files)
  await expect(stat(join(elsewhere.path, `${commitA}.json`))).rejects.toThrow('ENOENT')
})

async function put(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}
