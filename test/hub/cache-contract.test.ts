/** The inspector of caches must find what it is there to find. */
import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { linkSnapshot, writeRef } from '../../src/hub/cache-writer.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { commitA, commitB, fakeLocks, hubFile, sha256, storeBlob, tiny } from './fixtures.ts'

const file = hubFile('sub/a.txt', 'hello')
const repo = 'models--acme--tiny'

async function goodCache(cacheDir: string): Promise<void> {
  await storeBlob(cacheDir, file, 'hello', { locks: fakeLocks() })
  await linkSnapshot(cacheDir, file)
  await writeRef(cacheDir, tiny, 'main', commitA)
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
]
test.each(spoilers)('%s is found', async (_, spoil) => {
  await using cache = await temporaryDirectory()
  await goodCache(cache.path)
  expect(await checkCacheContract(cache.path)).toEqual([])
  await spoil((path) => join(cache.path, path))
  expect(await checkCacheContract(cache.path)).not.toEqual([])
})
