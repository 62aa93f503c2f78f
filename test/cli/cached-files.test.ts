import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { cachedCommits, cachedRepos, sharableFiles } from '../../src/cli/cached-files.ts'
import type { RepoRef } from '../../src/values.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const repo: RepoRef = { repoType: 'model', repo: 'acme/tiny' }
const [older, newer] = ['a'.repeat(40), 'b'.repeat(40)] as [string, string]
const [small, large] = ['c'.repeat(40), 'd'.repeat(64)] as [string, string]

/** A cache with two revisions that share a blob. */
async function makeCache(cacheDir: string): Promise<string> {
  const folder = join(cacheDir, 'models--acme--tiny')
  const put = async (path: string, content: string): Promise<void> => {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
  const link = async (path: string, target: string): Promise<void> => {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await symlink(target, join(folder, path))
  }
  await put(`blobs/${small}`, 'config')
  await put(`blobs/${large}`, 'weights')
  await put('refs/main', newer)
  await link(`snapshots/${older}/config.json`, `../../blobs/${small}`)
  await link(`snapshots/${newer}/config.json`, `../../blobs/${small}`)
  await link(`snapshots/${newer}/sub/model.bin`, `../../../blobs/${large}`)
  return folder
}

test('every repository of the cache is found, and nothing else', async () => {
  await using temp = await temporaryDirectory()
  const names = [
    'models--acme--tiny',
    'datasets--one',
    'spaces--a--b',
    'models--a--b--c',
    '.locks',
    'other',
    'models--..',
  ]
  for (const name of names) await mkdir(join(temp.path, name))
  await writeFile(join(temp.path, 'models--file'), '')
  expect(await cachedRepos(temp.path)).toEqual([
    { repoType: 'dataset', repo: 'one' },
    { repoType: 'model', repo: 'acme/tiny' },
    { repoType: 'space', repo: 'a/b' },
  ])
  expect(await cachedRepos(join(temp.path, 'missing'))).toEqual([])
})

test('a revision is found through its ref, as a commit, or as all there are', async () => {
  await using temp = await temporaryDirectory()
  await makeCache(temp.path)
  expect(await cachedCommits(temp.path, repo)).toEqual([older, newer])
  expect(await cachedCommits(temp.path, repo, 'main')).toEqual([newer])
  expect(await cachedCommits(temp.path, repo, older)).toEqual([older])
  expect(await cachedCommits(temp.path, repo, 'v9')).toEqual([])
})

test('a content that several revisions have is shared once', async () => {
  await using temp = await temporaryDirectory()
  const folder = await makeCache(temp.path)
  const found = await sharableFiles(temp.path, repo, await cachedCommits(temp.path, repo))
  expect(found).toEqual([
    {
      file: { ...repo, path: 'config.json', commit: older, etag: small, sizeBytes: 6 },
      blobPath: join(folder, 'blobs', small),
    },
    {
      file: { ...repo, path: 'sub/model.bin', commit: newer, etag: large, sizeBytes: 7 },
      blobPath: join(folder, 'blobs', large),
    },
  ])
})

test('what only looks like a blob is not shared: links out of the cache, copies, empty and broken entries', async () => {
  await using temp = await temporaryDirectory()
  const folder = await makeCache(temp.path)
  const snapshot = join(folder, 'snapshots', older)
  const secret = join(temp.path, 'e'.repeat(64))
  await writeFile(secret, 'private key')
  await symlink(secret, join(snapshot, 'outside.bin'))
  await symlink('../../blobs/missing', join(snapshot, 'dangling.bin'))
  await symlink('../..', join(snapshot, 'folder'))
  await writeFile(join(snapshot, 'copy.bin'), 'a copy')
  await writeFile(join(folder, 'blobs', 'f'.repeat(40)), '')
  await symlink(`../../blobs/${'f'.repeat(40)}`, join(snapshot, 'empty.txt'))
  const found = await sharableFiles(temp.path, repo, await cachedCommits(temp.path, repo, older))
  expect(found.map(({ file }) => file.path)).toEqual(['config.json'])
})
