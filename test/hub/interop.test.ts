/** The JS client from the registry reads what we write, and we read what it writes. */

import { readFile, realpath } from 'node:fs/promises'
import { downloadFileToCacheDir, scanCacheDir, snapshotDownload } from '@huggingface/hub'
import { beforeEach, expect, test, vi } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { findCached, hasBlob } from '../../src/hub/cache-layout.ts'
import { linkSnapshot, openBlob, writeRef } from '../../src/hub/cache-writer.ts'
import { listRepoFiles } from '../../src/hub/repo.ts'
import type { HubFile } from '../../src/values.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { access, storeBlob, tiny } from './fixtures.ts'

const tree = {
  'config.json': '{"a":1}',
  'w.safetensors': { seed: 1, sizeBytes: 300_000 },
  'sub/x.bin': { content: 'xet content', storage: 'xet' as const },
  'sub/deep/odd name.txt': 'odd',
  'copy.json': '{"a":1}',
}
// The client announces every download.
beforeEach(() => void vi.spyOn(console, 'debug').mockImplementation(() => undefined))

const noFetch: typeof fetch = async (input) => {
  throw new Error(`no request expected: ${String(input)}`)
}

async function writeSnapshot(hub: HubServer, cacheDir: string): Promise<readonly HubFile[]> {
  await using our = access(hub.url)
  const files = await listRepoFiles(our, tiny, hub.file('config.json').commit)
  for (const file of files) {
    const isThere = await hasBlob(cacheDir, tiny, file)
    if (!isThere) await storeBlob(cacheDir, file, await hub.file(file.path).bytes())
    await linkSnapshot(cacheDir, file, {}, { isNewBlob: !isThere })
    await writeRef(cacheDir, tiny, 'main', file.commit)
  }
  return files
}

test('the JS client finds every file we wrote by its commit, without a request', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  const files = await writeSnapshot(hub, cache.path)
  expect(files).toHaveLength(5)
  for (const { path, commit } of files) {
    const found = await downloadFileToCacheDir({
      repo: 'acme/tiny',
      path,
      revision: commit,
      cacheDir: cache.path,
      hubUrl: hub.url,
      fetch: noFetch,
    })
    expect((await readFile(found)).equals(await hub.file(path).bytes())).toBe(true)
  }
  expect(await checkCacheContract(cache.path)).toEqual([])
})

test('the scan of the JS client has no complaints about our cache', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  const files = await writeSnapshot(hub, cache.path)
  const scan = await scanCacheDir(cache.path)
  expect(scan.warnings).toEqual([])
  expect(scan.repos).toMatchObject([
    { id: { name: 'acme/tiny', type: 'model' }, revisions: [{ refs: ['main'] }] },
  ])
  expect(scan.repos[0]?.revisions[0]?.commitOid).toBe(files[0]?.commit)
})

test('a snapshot that the JS client wrote is ours too: every blob is found and none fetched again', async () => {
  await using hub = await startHub(tree)
  await using cache = await temporaryDirectory()
  await snapshotDownload({ repo: 'acme/tiny', cacheDir: cache.path, hubUrl: hub.url })
  for (const path of Object.keys(tree)) {
    const file = hub.file(path)
    const found = await findCached(cache.path, hub.ref(path))
    expect(found).toMatchObject({ commit: file.commit, sizeBytes: file.sizeBytes, blob: { etag: file.etag } })
    expect(await realpath(found?.path ?? '')).toBe(found?.blob?.path)
    expect(await openBlob(cache.path, tiny, file)).toMatchObject({ state: 'present' })
  }
})
