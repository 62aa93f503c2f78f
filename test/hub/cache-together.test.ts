/** One cache, several programs at the same moment: the JS client, a holder of Python's lock, and more of our own. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { downloadFileToCacheDir } from '@huggingface/hub'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { blobPath, blobsFolder, lockPath, partialBlobPath } from '../../src/hub/cache-layout.ts'
import type { Phase } from '../../src/transfer/progress.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { rounds } from '../support/rounds.ts'
import { holdLock } from '../support/talker.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'
import { tiny } from './fixtures.ts'

const mebibyte = 1024 * 1024
// The JS client announces every download.
beforeEach(() => void vi.spyOn(console, 'debug').mockImplementation(() => undefined))

async function startThrottledHub(sizeBytes: number, bytesPerSecond: number): Promise<HubServer> {
  const files = {
    'w.safetensors': { seed: 'together', sizeBytes },
    'x.bin': { content: { seed: 'xet', sizeBytes }, storage: 'xet' as const },
  }
  return await startHub(files, { throttleBytesPerSecond: bytesPerSecond })
}

/** Names in the cache that are only there while somebody works, and were left behind. */
async function leftovers(cacheDir: string): Promise<string[]> {
  const names = await readdir(cacheDir, { recursive: true })
  return names.filter((name) => /llmpt|\.incomplete$|\.tmp$/.test(name))
}

describe.each(['w.safetensors', 'x.bin'])('with the JS client after the same blob (%s)', (path) => {
  test('neither gets torn or wrong content, whoever begins and whoever ends first, and nothing of ours is left', async () => {
    await using hub = await startThrottledHub(400_000, 3 * mebibyte)
    const { sha256, etag, sizeBytes } = hub.file(path)
    let overlaps = 0
    for (let round = 0; round < rounds(8, 60); round++) {
      await using user = await newUser({ endpoint: hub.url, seed: false, trackers: [] })
      const { cacheDir } = user
      const places = { repo: 'acme/tiny', path, cacheDir, hubUrl: hub.url }
      const blobs = blobsFolder(cacheDir, tiny)
      const underWay = { js: false, ours: false }
      const js = async (): Promise<string> => {
        underWay.js = true
        return await downloadFileToCacheDir(places).finally(() => (underWay.js = false))
      }
      const ours = async (): Promise<string> => {
        underWay.ours = true
        return (await user.client.downloadFile(hub.ref(path)).finally(() => (underWay.ours = false))).path
      }
      // Each order, and head starts of up to the whole file.
      const [first, second] = round % 2 === 0 ? [js, ours] : [ours, js]
      const headStart = (sizeBytes * ((round >> 1) % 5)) / 4
      hub.resetStats()
      const running = first()
      await vi.waitFor(() => expect(hub.stats().bytesSent).toBeGreaterThanOrEqual(headStart), {
        interval: 2,
        timeout: 10_000,
      })
      if (underWay.js || underWay.ours) overlaps += 1
      const paths = await Promise.all([running, second()])
      for (const each of paths) {
        expect(await sha256Of(each)).toBe(sha256)
        expect(await realpath(each)).toBe(blobPath(cacheDir, tiny, etag))
      }
      expect(await readdir(blobs)).toEqual([etag])
      expect(await leftovers(cacheDir)).toEqual([])
      expect(await checkCacheContract(cacheDir)).toEqual([])
    }
    expect(overlaps).toBeGreaterThan(rounds(8, 60) / 4)
  }, 120_000)
})

describe('with a Python process that holds the lock', () => {
  const path = 'w.safetensors'

  async function scene() {
    const hub = await startThrottledHub(2 * mebibyte, 0)
    const user = await newUser({ endpoint: hub.url, seed: false, trackers: [] })
    const file = hub.file(path)
    const phases = new Set<Phase>()
    const download = () =>
      user.client.downloadFile(hub.ref(path), {
        onProgress: ({ active }) => {
          for (const { phase } of active) phases.add(phase)
        },
      })
    return {
      hub,
      file,
      phases,
      download,
      cacheDir: user.cacheDir,
      blob: blobPath(user.cacheDir, tiny, file.etag),
      lock: lockPath(user.cacheDir, tiny, file.etag),
      [Symbol.asyncDispose]: async () => {
        await user[Symbol.asyncDispose]()
        await hub.close()
      },
    }
  }

  test('before we start, we wait and take what it wrote, without any content of the Hub', async () => {
    await using s = await scene()
    await using python = await holdLock(s.lock)
    await python.says('held')
    const running = s.download()
    await vi.waitFor(() => expect(s.phases).toContain('waiting'), { timeout: 10_000 })
    await writeFile(s.blob, await s.file.bytes())
    python.goOn()
    const got = await running
    expect(got.bytes).toEqual({ http: 0, p2p: 0, cache: 2 * mebibyte })
    expect(s.hub.stats('cdn').requests).toBe(0)
    expect(await python.end()).toBe(0)
    expect(await leftovers(s.cacheDir)).toEqual([])
    expect(await checkCacheContract(s.cacheDir)).toEqual([])
  })

  test('and is killed, we download at once, and its half of the file is left alone', async () => {
    await using s = await scene()
    await using python = await holdLock(s.lock)
    await python.says('held')
    const running = s.download()
    await vi.waitFor(() => expect(s.phases).toContain('waiting'), { timeout: 10_000 })
    const half = `${s.blob}.0123abcd.incomplete`
    await writeFile(half, (await s.file.bytes()).subarray(0, 1000))
    python.kill()
    const { path: entry } = await running
    expect(await sha256Of(entry)).toBe(s.file.sha256)
    expect(s.hub.stats('cdn').bytesSent).toBe(2 * mebibyte)
    expect((await readFile(half)).length).toBe(1000)
    await rm(half)
    expect(await leftovers(s.cacheDir)).toEqual([])
  })

  test('after us, it has the lock only when the blob is there', async () => {
    await using s = await scene()
    s.hub.setThrottle('cdn', 4 * mebibyte)
    const running = s.download()
    await vi.waitFor(() => expect(s.hub.stats('cdn').bytesSent).toBeGreaterThan(0), {
      interval: 5,
      timeout: 10_000,
    })
    await using python = await holdLock(s.lock)
    await python.says('held')
    expect(python.output).toBe('waiting held')
    expect(await sha256Of(s.blob)).toBe(s.file.sha256)
    python.goOn()
    await running
    expect(await python.end()).toBe(0)
    expect(await checkCacheContract(s.cacheDir)).toEqual([])
  })

  test('after a process of ours that was killed, it has the lock by that alone, and a third goes on where the first was', async () => {
    await using home = await temporaryDirectory()
    await using hub = await startThrottledHub(4 * mebibyte, 4 * mebibyte)
    const cacheDir = join(home.path, 'hub')
    const { etag, sha256 } = hub.file(path)
    await using killed = startDownload(home.path, hub, path)
    await vi.waitFor(() => expect(hub.stats('cdn').bytesSent).toBeGreaterThan(2 * mebibyte), {
      interval: 20,
      timeout: 20_000,
    })
    await using python = await holdLock(lockPath(cacheDir, tiny, etag))
    await python.says('waiting')
    killed.kill()
    // Before anybody else comes who could free it.
    await python.says('held')
    expect(await readdir(blobsFolder(cacheDir, tiny))).toEqual([`${etag}.llmpt.incomplete`])
    await using third = startDownload(home.path, hub, path)
    hub.setThrottle('cdn', 0)
    python.goOn()
    const got = await third.result()
    expect(got.bytes.cache).toBeGreaterThan(mebibyte / 2)
    expect(got.bytes.cache + got.bytes.http).toBe(4 * mebibyte)
    expect(await sha256Of(got.file)).toBe(sha256)
    expect(await leftovers(cacheDir)).toEqual([])
    expect(await checkCacheContract(cacheDir)).toEqual([])
  })
})

describe('with more processes of ours', () => {
  test.each([
    [2, ''],
    [8, ''],
    [3, '1'],
  ])(
    '%i that want one file at once fetch it once together (HF_HUB_DISABLE_SYMLINKS=%j)',
    async (count, flag) => {
      await using home = await temporaryDirectory()
      await using hub = await startThrottledHub(2 * mebibyte, 2 * mebibyte)
      const cacheDir = join(home.path, 'hub')
      const file = hub.file('w.safetensors')
      const env = { HF_HUB_DISABLE_SYMLINKS: flag }
      const processes = Array.from({ length: count }, () =>
        startDownload(home.path, hub, 'w.safetensors', env),
      )
      await using _all = together(processes)
      const results = await Promise.all(processes.map((each) => each.result()))
      for (const { file: path } of results) expect(await sha256Of(path)).toBe(file.sha256)
      const brought = results.filter(({ bytes }) => bytes.http > 0)
      expect(brought).toHaveLength(1)
      expect(hub.stats('cdn').bytesSent).toBe(2 * mebibyte)
      expect(await leftovers(cacheDir)).toEqual([])
      expect(await checkCacheContract(cacheDir, { symlinks: flag === '' })).toEqual([])
    },
  )

  test('one that another one of ours deletes the partial file under fails, and the next call is right', async () => {
    await using hub = await startThrottledHub(2 * mebibyte, 4 * mebibyte)
    await using user = await newUser({ endpoint: hub.url, seed: false, trackers: [] })
    const file = hub.file('w.safetensors')
    const running = user.client.downloadFile(hub.ref('w.safetensors')).catch((error: unknown) => error)
    await vi.waitFor(() => expect(hub.stats('cdn').bytesSent).toBeGreaterThan(0), {
      interval: 5,
      timeout: 10_000,
    })
    // As somebody does who tidies a cache by hand.
    await rm(partialBlobPath(user.cacheDir, tiny, file.etag), { force: true })
    expect(await running).toMatchObject({ code: expect.stringMatching(/^ERR_LLMPT_/) })
    const got = await user.client.downloadFile(hub.ref('w.safetensors'))
    expect(await sha256Of(got.path)).toBe(file.sha256)
    expect(await checkCacheContract(user.cacheDir)).toEqual([])
  })
})

function together(all: readonly AsyncDisposable[]): AsyncDisposable {
  return {
    [Symbol.asyncDispose]: async () => void (await Promise.all(all.map((one) => one[Symbol.asyncDispose]()))),
  }
}

interface Result {
  readonly file: string
  readonly bytes: { readonly http: number; readonly p2p: number; readonly cache: number }
}

interface Download extends AsyncDisposable {
  kill(): void
  result(): Promise<Result>
}

const program = fileURLToPath(new URL('../e2e/fixtures/p2p-download.mjs', import.meta.url))

/** A program that downloads one file into the cache of this home. */
function startDownload(
  home: string,
  hub: HubServer,
  path: string,
  env: Readonly<Record<string, string>> = {},
): Download {
  const child = spawn(process.execPath, [program, 'acme/tiny', path], {
    env: { ...process.env, HF_HOME: home, HF_ENDPOINT: hub.url, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'close')
  const output = text(child.stdout)
  return {
    kill: () => void child.kill('SIGKILL'),
    result: async () => {
      await ended
      return JSON.parse(await output) as Result
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await ended
    },
  }
}
