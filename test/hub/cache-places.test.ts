/** Cache folders that are not as one wishes: read-only, full, behind a link, without locks, without a home. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import os from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { scanCacheDir } from '@huggingface/hub'
import { describe, expect, test } from 'vitest'
import { getConfig } from '../../src/config.ts'
import { startHub } from '../../src/demo/hub.ts'
import { lockPath, repoFolder } from '../../src/hub/cache-layout.ts'
import { type FileLocks, linkSnapshot } from '../../src/hub/cache-writer.ts'
import { cachePlace } from '../../src/hub/place.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { failingFolder, readOnlyFolders } from '../support/odd-folders.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'
import { errorOf, hubFile, openForWriting, storeBlob, tiny } from './fixtures.ts'

const mebibyte = 1024 * 1024
const files = { 'config.json': '{"a":1}', 'w.safetensors': { seed: 1, sizeBytes: 300_000 } }
const bad = { code: 'ERR_LLMPT_CACHE' }

describe.each(readOnlyFolders)('a cache that may only be read (%s)', (code, openFolder) => {
  test('gives what it has, online and offline, and is left as it is', async () => {
    await using hub = await startHub(files)
    await using folder = await openFolder()
    await using home = await temporaryDirectory()
    const options = { endpoint: hub.url, seed: false, trackers: [] }
    const filled = join(folder.path, 'hub')
    await using writer = await newUser({ ...options, cacheDir: filled })
    await writer.client.downloadSnapshot(tiny, 'main')
    // Under a name that this process does not know yet: nothing has been tried there.
    const cacheDir = join(home.path, 'hub')
    await symlink(filled, cacheDir)
    await using online = await newUser({ ...options, cacheDir })
    await using offline = await newUser({ ...options, cacheDir, offline: true })
    const before = await readdir(filled, { recursive: true })
    hub.resetStats()
    await chmod(home.path, 0o755)
    await using _frozen = await folder.freeze()
    for (const { client } of [online, offline]) {
      for (const path of Object.keys(files)) {
        expect(await sha256Of((await client.downloadFile(hub.ref(path))).path)).toBe(hub.file(path).sha256)
      }
      await client.downloadSnapshot(tiny, 'main')
    }
    expect(hub.stats('cdn').requests).toBe(0)
    expect(await readdir(filled, { recursive: true })).toEqual(before)
  })

  test('lacks what it lacks with an error that names it and says what to do', async () => {
    await using hub = await startHub(files)
    await using folder = await openFolder()
    const cacheDir = join(folder.path, 'hub')
    await using user = await newUser({ endpoint: hub.url, seed: false, trackers: [], cacheDir })
    await user.client.downloadFile(hub.ref('config.json'))
    await using _frozen = await folder.freeze()
    const error = await errorOf(user.client.downloadFile(hub.ref('w.safetensors')))
    expect(error).toMatchObject(bad)
    for (const part of [cacheDir, 'HF_HUB_CACHE', code]) expect(error.message).toContain(part)
    expect(hub.stats('cdn').bytesSent).toBe(0)
  })
})

describe('a disk', () => {
  test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE'])(
    'that says %s when we look whether links work has said nothing about links',
    async (code) => {
      const file = hubFile('a', 'hello')
      await using folder = await failingFolder('symlink', code)
      await storeBlob(folder.path, file, 'hello')
      expect(await errorOf(linkSnapshot(folder.path, file))).toMatchObject(bad)
      folder.mend()
      expect(await readlink(await linkSnapshot(folder.path, file))).toContain(file.etag)
      expect(await checkCacheContract(folder.path)).toEqual([])
    },
  )

  test('that takes no file as large as this one is an error that names the folder', async () => {
    await using hub = await startHub({ 'w.safetensors': { seed: 2, sizeBytes: 3 * mebibyte } })
    await using home = await temporaryDirectory()
    const program = fileURLToPath(new URL('../e2e/fixtures/p2p-download.mjs', import.meta.url))
    const limited = ['-c', 'ulimit -f 1024 && exec "$@"', 'bash', process.execPath, program]
    const child = spawn('bash', [...limited, 'acme/tiny', 'w.safetensors'], {
      env: { ...process.env, HF_HOME: home.path, HF_ENDPOINT: hub.url },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [message] = await Promise.all([text(child.stderr), once(child, 'close')])
    expect(message).toContain('ERR_LLMPT_CACHE')
    for (const part of ['EFBIG', join(home.path, 'hub'), 'HF_HUB_CACHE']) expect(message).toContain(part)
    expect(await readdir(join(home.path, 'hub/models--acme--tiny/snapshots'))).toEqual([])
  })
})

describe('a cache folder that is a link', () => {
  test('is as good as the folder it leads to, for us and for the JS client', async () => {
    await using hub = await startHub(files)
    await using disk = await temporaryDirectory()
    await using home = await temporaryDirectory()
    const cacheDir = join(home.path, 'hub')
    await symlink(disk.path, cacheDir)
    await using user = await newUser({ endpoint: hub.url, seed: false, trackers: [], cacheDir })
    const { path, files: got } = await user.client.downloadSnapshot(tiny, 'main')
    expect(path.startsWith(cacheDir)).toBe(true)
    for (const { name, path: entry } of got) expect(await sha256Of(entry)).toBe(hub.file(name).sha256)
    expect((await user.client.verifyCache()).isSound).toBe(true)
    expect((await user.client.downloadSnapshot(tiny, 'main')).bytes.http).toBe(0)
    for (const place of [cacheDir, disk.path]) {
      expect(await checkCacheContract(place)).toEqual([])
      expect((await scanCacheDir(place)).warnings).toEqual([])
    }
  })

  test('and leads nowhere is an error that names it, and makes nothing where it leads', async () => {
    await using home = await temporaryDirectory()
    const cacheDir = join(home.path, 'hub')
    await symlink(join(home.path, 'unplugged'), cacheDir)
    const error = await errorOf(cachePlace(cacheDir, {}).open(hubFile('a', 'hello'), {}, {}))
    expect(error).toMatchObject(bad)
    expect(error.message).toContain(cacheDir)
    expect(await readdir(home.path)).toEqual(['hub'])
  })
})

test.each(['ENOLCK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL'])(
  'a file system that answers %s to a lock costs the resumption and nothing else, and no lock file is left there',
  async (code) => {
    await using cache = await temporaryDirectory()
    const file = hubFile('a', 'hello')
    const locks: FileLocks = {
      tryLock: () => {
        throw Object.assign(new Error('no locks'), { code })
      },
      unlock: () => undefined,
    }
    const slots = await Promise.all([1, 2].map(() => openForWriting(cache.path, file, { locks })))
    expect(new Set(slots.map(({ partialPath }) => partialPath)).size).toBe(2)
    expect(slots.map(({ isResumable }) => isResumable)).toEqual([false, false])
    for (const slot of slots) await slot.release()
    await storeBlob(cache.path, file, 'hello', { locks })
    await linkSnapshot(cache.path, file)
    expect(await checkCacheContract(cache.path)).toEqual([])
    expect((await readdir(repoFolder(cache.path, tiny))).toSorted()).toEqual(['blobs', 'snapshots'])
    // Python takes such a file for a lock that somebody holds, where there are no others.
    expect(await readdir(dirname(lockPath(cache.path, tiny, file.etag)))).toEqual([])
  },
)

test('a lock file of somebody else stays as it is where there are no locks, and keeps us from nothing', async () => {
  await using cache = await temporaryDirectory()
  const file = hubFile('a', 'hello')
  const path = lockPath(cache.path, tiny, file.etag)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, '4711\nhost\n')
  const locks: FileLocks = {
    tryLock: () => {
      throw Object.assign(new Error('no locks'), { code: 'ENOSYS' })
    },
    unlock: () => undefined,
  }
  await storeBlob(cache.path, file, 'hello', { locks })
  expect(await readFile(path, 'utf8')).toBe('4711\nhost\n')
})

describe('a user without a home', () => {
  /** As in a container that runs under a number nobody has a name for. */
  async function withoutHome<T>(work: () => T): Promise<T> {
    const { homedir } = os
    os.homedir = () => {
      throw Object.assign(new Error('no such user'), { code: 'ERR_SYSTEM_ERROR' })
    }
    syncBuiltinESMExports()
    try {
      return work()
    } finally {
      os.homedir = homedir
      syncBuiltinESMExports()
    }
  }

  test('is told what to set', async () => {
    await withoutHome(() => {
      for (const env of [{}, { HOME: '' }, { HF_HOME: '~/x' }]) {
        expect(() => getConfig({}, env)).toThrow(
          expect.objectContaining({ code: 'ERR_LLMPT_CONFIG', message: expect.stringContaining('HF_HOME') }),
        )
      }
    })
  })

  test.each([
    { HOME: '/home/a' },
    { XDG_CACHE_HOME: '/cache' },
    { HF_HOME: '/hf' },
    { HF_HOME: '/hf', HF_HUB_CACHE: '/hub' },
  ])('is not, who has said where to keep things (%j)', async (env) => {
    const { cacheDir } = await withoutHome(() => getConfig({}, env))
    const expected = ['/home/a/.cache/huggingface/hub', '/cache/huggingface/hub', '/hf/hub', '/hub']
    expect(expected).toContain(cacheDir)
  })
})
