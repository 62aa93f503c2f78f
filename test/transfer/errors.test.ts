/**
 * What each failure looks like to the caller of the public API: its code, and a message that says what is wrong, which
 * file it is about and what to do next. Those that become HTTP silently are in download-swarm.test.ts, the lack of the
 * addon is in e2e/process.test.ts, cancelling is in cancel.test.ts.
 */
import { execFile } from 'node:child_process'
import { chmod, readdir } from 'node:fs/promises'
import { inspect, promisify } from 'node:util'
import { afterEach, describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import type { HubError } from '../../src/errors.ts'
import { type ConfigOptions, p2pDownload, shutdown } from '../../src/index.ts'
import { sha256Of } from '../support/digest.ts'
import { raceScene } from '../support/race-scene.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { transferRig } from '../support/transfer-rig.ts'

const mebibyte = 1024 * 1024
const files = { 'model.safetensors': { seed: 'errors', sizeBytes: 6 * mebibyte } }
const repo = 'acme/tiny'
const path = 'model.safetensors'
const token = 'hf_abcdefghijklmnopqrstuvwxyz'

afterEach(shutdown)

/** How a download of the model fails. Nothing about it, however deep, shows the token. */
async function failure(options: ConfigOptions & { repo?: string; path?: string }): Promise<Error> {
  await using home = await temporaryDirectory()
  const places = { cacheDir: `${home.path}/hub`, stateDir: `${home.path}/llmpt`, seed: false }
  const error = await p2pDownload({ repo, path, trackers: [], ...places, ...options }).then(
    () => new Error('it did not fail'),
    (thrown: Error) => thrown,
  )
  expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(token.slice(3))
  return error
}

describe('a configuration that cannot be used', () => {
  test.each([
    ['an endpoint', { endpoint: 'huggingface.co' }, ['endpoint', '"huggingface.co"', 'https://']],
    ['a tracker', { trackers: ['udp://tracker:80'] }, ['tracker', '"udp://tracker:80"', 'http://']],
    ['a peer', { peers: [{ host: 'example.org', port: 1 }] }, ['peer', '"example.org"', 'IP address']],
  ])('names %s and what it must be', async (_what, options, said) => {
    const error = await failure(options)
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CONFIG' })
    for (const text of said) expect(error.message).toContain(text)
  })

  test('that leaves no source says which file needs one, and how to have one', async () => {
    await using hub = await startHub(files)
    const error = await failure({ endpoint: hub.url, http: false })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CONFIG' })
    for (const text of [path, repo, 'HF_P2P_WEBSEED', 'HF_P2P_TRACKER']) expect(error.message).toContain(text)
  })
})

describe('the Hub', () => {
  test('that does not know the token says where to make a new one', async () => {
    await using hub = await startHub({ repo, files, isPrivate: true }, { tokens: { hf_other: [repo] } })
    const error = await failure({ endpoint: hub.url, token })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 401 })
    expect(error.message).toContain('settings/tokens')
  })

  test('that has no such file names it', async () => {
    await using hub = await startHub(files)
    const error = await failure({ endpoint: hub.url, path: 'missing.bin', token: undefined })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 404, hubCode: 'EntryNotFound' })
    for (const text of ['missing.bin', repo]) expect(error.message).toContain(text)
  })

  test('that is not there names its address', async () => {
    await using hub = await startHub(files)
    await hub.setAvailability('hub', 'refused')
    const error = await failure({ endpoint: hub.url })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: undefined })
    expect(error.message).toContain(new URL(hub.url).host)
    expect(error.message).toContain('refused')
  })

  test('whose storage refuses is named with the file, without the signature of its address', async () => {
    await using hub = await startHub(files)
    hub.inject({ origin: 'cdn', status: 451 })
    const error = await failure({ endpoint: hub.url })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 451 })
    for (const text of [path, repo, '451']) expect(error.message).toContain(text)
    expect(inspect(error, { depth: 10 })).not.toContain('Signature=')
  })

  test('whose storage wants a pause that nobody has the patience for says how long it is, at once', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'cdn', status: 429, retryAfter: '1800' })
    const controller = new AbortController()
    // Cap of the test: whoever waits for `timeoutMs` instead is stopped here.
    const timer = setTimeout(() => controller.abort(new Error('it waits')), 10_000)
    const error = await rig
      .fetch(hub.file(path), { signal: controller.signal }, { timeoutMs: 60_000 })
      .catch((thrown: unknown) => thrown as HubError)
    clearTimeout(timer)
    expect(error).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 429 })
    const { retryAfterMs, message } = error as HubError
    expect(retryAfterMs).toBeGreaterThan(1_790_000)
    expect(retryAfterMs).toBeLessThanOrEqual(1_800_000)
    expect(message).toContain('30 min')
  })

  test('whose storage wants such a pause leaves the file to peers', async () => {
    await using scene = await raceScene({ sizeBytes: 3 * mebibyte, httpRate: 0 })
    await using seed = await scene.seeder()
    scene.hub.inject({ origin: 'cdn', status: 429, retryAfter: '1800' })
    const { fetched } = await scene.run({ peers: [seed.address] })
    expect(fetched.bytes).toEqual({ http: 0, p2p: 3 * mebibyte, cache: 0 })
    expect(await sha256Of(fetched.path)).toBe(scene.file.sha256)
  })

  test('whose content is never what its etag promises is told from a bad connection', async () => {
    await using hub = await startHub(files)
    hub.inject({ origin: 'cdn', wrongByteAt: mebibyte })
    const error = await failure({ endpoint: hub.url })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
    for (const text of [path, repo, hub.file(path).etag, 'nothing was kept'])
      expect(error.message).toContain(text)
  })
})

describe('the swarm', () => {
  test('in which nobody sends anything, without HTTP, is said with the file and what may help', async () => {
    await using scene = await raceScene({ sizeBytes: 3 * mebibyte, httpRate: 0 })
    const deps = { canUseHttp: false, timeoutMs: 300 }
    const error = (await scene.run({ peers: [], deps }).catch((thrown: unknown) => thrown)) as Error
    expect(error).toMatchObject({ code: 'ERR_LLMPT_SWARM' })
    for (const text of [path, repo, 'no peer', 'HF_P2P_WEBSEED']) expect(error.message).toContain(text)
  })

  test('of a torrent that libtorrent refuses becomes HTTP', async () => {
    await using scene = await raceScene({ sizeBytes: 3 * mebibyte, httpRate: 0 })
    const torrentFile = Buffer.from('d4:infod4:name1:xee')
    const finder = { find: async () => ({ ...scene.offer, torrentFile }) } as never
    const { fetched } = await scene.run({ peers: [], deps: { finder } })
    expect(fetched.bytes).toEqual({ http: fetched.bytes.http, p2p: 0, cache: 0 })
    expect(await sha256Of(fetched.path)).toBe(scene.file.sha256)
  })

  test('of a torrent that libtorrent refuses is said as it is when there is no HTTP', async () => {
    await using scene = await raceScene({ sizeBytes: 3 * mebibyte, httpRate: 0 })
    const torrentFile = Buffer.from('d4:infod4:name1:xee')
    const finder = { find: async () => ({ ...scene.offer, torrentFile }) } as never
    const running = scene.run({ peers: [], deps: { finder, canUseHttp: false } })
    await expect(running).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE', operation: 'addTorrent' })
  })
})

/** A folder on a file system with little room: a tmpfs of its own where we may mount one. */
async function smallDisk(
  sizeBytes: number,
): Promise<AsyncDisposable & { path: string; grow(sizeBytes: number): Promise<void> }> {
  const folder = await temporaryDirectory()
  const mount = (...options: string[]) =>
    promisify(execFile)('mount', ['-t', 'tmpfs', '-o', options.join(','), 'tmpfs', folder.path])
  await mount(`size=${sizeBytes}`)
  return {
    path: folder.path,
    grow: async (bytes) => {
      await mount('remount', `size=${bytes}`)
    },
    [Symbol.asyncDispose]: async () => {
      await promisify(execFile)('umount', ['-l', folder.path])
      await folder[Symbol.asyncDispose]()
    },
  }
}

describe('the disk', () => {
  test('that is full in the middle names the folder and what to do, and the next call goes on', async () => {
    await using hub = await startHub(files)
    await using disk = await smallDisk(4 * mebibyte)
    const places = { cacheDir: `${disk.path}/hub`, stateDir: `${disk.path}/llmpt` }
    const error = await failure({ endpoint: hub.url, ...places })
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
    for (const text of [places.cacheDir, 'no space', 'free some', 'HF_HUB_CACHE'])
      expect(error.message).toContain(text)
    expect(await readdir(`${disk.path}/hub/models--acme--tiny/snapshots`)).toEqual([])
    await disk.grow(16 * mebibyte)
    const got = await p2pDownload({ repo, path, trackers: [], endpoint: hub.url, seed: false, ...places })
    expect(await sha256Of(got.path)).toBe(hub.file(path).sha256)
    expect(got.bytes.cache).toBeGreaterThan(0)
  })

  test('that is full while peers bring the file is the same error', async () => {
    await using disk = await smallDisk(4 * mebibyte)
    await using scene = await raceScene({ sizeBytes: 6 * mebibyte, httpRate: 0, folder: disk.path })
    const seed = await scene.seeder()
    const running = scene.run({ peers: [seed.address], deps: { canUseHttp: false } })
    const error = (await running.catch((thrown: unknown) => thrown)) as Error
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
    for (const text of [disk.path, 'no space', 'free some']) expect(error.message).toContain(text)
  })

  test('on which we may not write names the folder and whose it must be', async () => {
    await using hub = await startHub(files)
    await using home = await temporaryDirectory()
    await chmod(home.path, 0o555)
    // Root may write anywhere, so be somebody who may not.
    const isRoot = process.getuid?.() === 0
    if (isRoot) process.seteuid?.(65534)
    try {
      const error = await failure({ endpoint: hub.url, cacheDir: `${home.path}/hub` })
      expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
      expect(error.message).toContain(`make ${home.path}/hub yours`)
    } finally {
      if (isRoot) process.seteuid?.(0)
    }
  })
})
