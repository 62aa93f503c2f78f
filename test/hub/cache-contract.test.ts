/** The inspector of caches must find what it is there to find. */
import { chmod, mkdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { linkSnapshot, writeNoExist, writeRef } from '../../src/hub/cache-writer.ts'
import { openLocalFile } from '../../src/hub/local-dir.ts'
import { checkCacheContract, checkLocalDirContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, commitB, fakeLocks, hubFile, sha256, storeBlob, tiny } from './fixtures.ts'

const file = hubFile('sub/a.txt', 'hello')
const repo = 'models--acme--tiny'

async function goodCache(cacheDir: string): Promise<void> {
  await storeBlob(cacheDir, file, 'hello', { locks: fakeLocks() })
  await linkSnapshot(cacheDir, file)
  await writeRef(cacheDir, tiny, 'main', commitA)
  await writeNoExist(cacheDir, tiny, commitA, 'sub/none.txt')
  await putTree(`${cacheDir}/${tree}`, goodTree)
}

/** As Python writes it: for its owner only. */
async function putTree(path: string, content: unknown): Promise<void> {
  await put(path, typeof content === 'string' ? content : JSON.stringify(content))
  await chmod(path, 0o600)
}

async function put(path: string, text = ''): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}

async function relink(path: string, target: string): Promise<void> {
  await rm(path)
  await symlink(target, path)
}

const entry = `${repo}/snapshots/${commitA}/sub/a.txt`
const tree = `${repo}/trees/${commitA}.json`
const listed = {
  size: 5,
  blob_id: 'd'.repeat(40),
  lfs_sha256: file.etag,
  lfs_size: 5,
  xet_hash: 'e'.repeat(64),
}
const goodTree = {
  format_version: 1,
  files: { 'sub/a.txt': listed, 'b.json': { size: 0, blob_id: 'f'.repeat(40) } },
}
/** What becomes of the entry of `sub/a.txt`. */
const treeWith = (more: object): unknown => ({ ...goodTree, files: { 'sub/a.txt': { ...listed, ...more } } })
const spoilers: [string, (at: (path: string) => string) => Promise<unknown>][] = [
  ['a file in the cache folder', (at) => put(at('x'))],
  ['our own state in the cache folder', (at) => mkdir(at('llmpt'))],
  ['no tag', (at) => rm(at('CACHEDIR.TAG'))],
  ['another tag', (at) => writeFile(at('CACHEDIR.TAG'), 'Signature: 8a477f597d28d172789f06886806bc55')],
  ['a file in snapshots', (at) => put(at(`${repo}/snapshots/x`))],
  ['no snapshots', (at) => rm(at(`${repo}/snapshots`), { recursive: true })],
  ['an empty snapshot', (at) => mkdir(at(`${repo}/snapshots/${commitB}`))],
  ['a branch as snapshot', (at) => put(at(`${repo}/snapshots/main/x`))],
  ['a dangling link', (at) => rm(at(`${repo}/blobs/${file.etag}`))],
  ['an absolute link', (at) => relink(at(entry), at(`${repo}/blobs/${file.etag}`))],
  ['a link to elsewhere', (at) => relink(at(entry), '/etc/hostname')],
  ['a plain file as entry', (at) => rm(at(entry)).then(() => put(at(entry), 'hello'))],
  ['a ref with a line break', (at) => put(at(`${repo}/refs/main`), `${commitA}\n`)],
  ['a ref to nowhere', (at) => put(at(`${repo}/refs/v1`), commitB)],
  ['a ref for a commit', (at) => put(at(`${repo}/refs/${commitA}`), commitA)],
  ['a temporary ref', (at) => put(at(`${repo}/refs/main.0123abcd.tmp`), commitA)],
  ['a left-over partial file', (at) => put(at(`${repo}/blobs/${file.etag}.incomplete`), 'hel')],
  ['a journal among the blobs', (at) => put(at(`${repo}/blobs/${file.etag}.journal`), '')],
  ['wrong content', (at) => writeFile(at(`${repo}/blobs/${file.etag}`), 'HELLO')],
  ['a blob for its owner only', (at) => chmod(at(`${repo}/blobs/${file.etag}`), 0o600)],
  ['something unknown in the repository', (at) => put(at(`${repo}/.llmpt-0123abcd.tmp`))],
  ['a lock that is not empty', (at) => writeFile(at(`.locks/${repo}/${file.etag}.lock`), 'x')],
  ['a lock with another mode', (at) => chmod(at(`.locks/${repo}/${file.etag}.lock`), 0o600)],
  ['a lock with another name', (at) => put(at(`.locks/${repo}/${sha256('x')}`))],
  ['a marker that is not empty', (at) => put(at(`${repo}/.no_exist/${commitA}/x`), 'x')],
  ['a marker for a file that is there', (at) => put(at(`${repo}/.no_exist/${commitA}/sub/a.txt`))],
  ['a marker below a branch', (at) => put(at(`${repo}/.no_exist/main/x`))],
  ['a tag with other line ends', (at) => tagWith(at, (text) => text.replaceAll('\n', '\r\n'))],
  ['a tag without its last line end', (at) => tagWith(at, (text) => text.trimEnd())],
  ['a tree that others may read', (at) => chmod(at(tree), 0o644)],
  ['a tree under another name', (at) => putTree(at(`${repo}/trees/main.json`), goodTree)],
  ['a temporary tree', (at) => putTree(at(`${tree}.0123abcd.tmp`), goodTree)],
  ['a tree that is no JSON', (at) => putTree(at(tree), '{"format_version":1,')],
  ['a tree of another format', (at) => putTree(at(tree), { ...goodTree, format_version: 2 })],
  ['a tree with a field of its own', (at) => putTree(at(tree), { ...goodTree, commit: commitA })],
  ['a tree without a file that is there', (at) => putTree(at(tree), { format_version: 1, files: {} })],
  ['a tree with another content', (at) => putTree(at(tree), treeWith({ lfs_sha256: sha256('x') }))],
  ['a file in a tree without a size', (at) => putTree(at(tree), treeWith({ size: undefined }))],
  ['a file in a tree with a null', (at) => putTree(at(tree), treeWith({ xet_hash: null }))],
  [
    'a file in a tree with half of its LFS facts',
    (at) => putTree(at(tree), treeWith({ lfs_size: undefined })),
  ],
  ['a file in a tree with a field of its own', (at) => putTree(at(tree), treeWith({ path: 'sub/a.txt' }))],
]

async function tagWith(at: (path: string) => string, change: (text: string) => string): Promise<void> {
  const path = at('CACHEDIR.TAG')
  await writeFile(path, change(await readFile(path, 'utf8')))
}

test.each(spoilers)('%s is found', async (_, spoil) => {
  await using cache = await temporaryDirectory()
  await goodCache(cache.path)
  expect(await checkCacheContract(cache.path)).toEqual([])
  await spoil((path) => join(cache.path, path))
  expect(await checkCacheContract(cache.path)).not.toEqual([])
})

const notes = '.cache/huggingface'
const metadata = `${notes}/download/sub/a.txt.metadata`
const localSpoilers: [string, (at: (path: string) => string) => Promise<unknown>][] = [
  ['no tag', (at) => rm(at(`${notes}/CACHEDIR.TAG`))],
  ['another .gitignore', (at) => writeFile(at(`${notes}/.gitignore`), '*\n')],
  ['something unknown in the notes', (at) => put(at(`${notes}/journal`))],
  ['a left-over partial file', (at) => put(at(`${notes}/download/sub/x=.${file.etag}.llmpt.incomplete`))],
  ['a claim', (at) => put(at(`${notes}/download/sub/a.txt.lock.llmpt`), 'host')],
  ['a lock that is not empty', (at) => writeFile(at(`${notes}/download/sub/a.txt.lock`), 'x')],
  ['metadata without a time', (at) => writeFile(at(metadata), `${commitA}\n${file.etag}\n`)],
  ['metadata in whole seconds', (at) => writeFile(at(metadata), `${commitA}\n${file.etag}\n4000000000\n`)],
  ['metadata of a branch', (at) => writeFile(at(metadata), `main\n${file.etag}\n4000000000.0\n`)],
  [
    'metadata with a quoted etag',
    (at) => writeFile(at(metadata), `${commitA}\n"${file.etag}"\n4000000000.0\n`),
  ],
  [
    'metadata with a fourth line',
    (at) => writeFile(at(metadata), `${commitA}\n${file.etag}\n4000000000.0\n\n`),
  ],
  ['metadata without its file', (at) => rm(at('sub/a.txt'))],
  ['metadata older than its file', (at) => utimes(at('sub/a.txt'), 4e9, 4e9)],
  ['wrong content', (at) => writeFile(at('sub/a.txt'), 'HELLO')],
  ['a file for its owner only', (at) => chmod(at('sub/a.txt'), 0o600)],
  [
    'a tree that others may read',
    (at) => put(at(`${notes}/trees/${commitA}.json`), JSON.stringify(goodTree)),
  ],
]
test.each(localSpoilers)('in a folder of the user, %s is found', async (_, spoil) => {
  await using folder = await temporaryDirectory()
  const slot = await openLocalFile(folder.path, file, { locks: fakeLocks() })
  if (slot.state !== 'write') throw new Error('expected a slot to write to')
  await writeFile(slot.partialPath, 'hello')
  await slot.commit()
  expect(await checkLocalDirContract(folder.path)).toEqual([])
  await spoil((path) => join(folder.path, path))
  expect(await checkLocalDirContract(folder.path)).not.toEqual([])
})
