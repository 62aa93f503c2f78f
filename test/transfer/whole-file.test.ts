import { readdir, rename, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import type { IntegrityError } from '../../src/errors.ts'
import type { FileDownload } from '../../src/transfer/download.ts'
import type { TorrentFinder } from '../../src/transfer/find-torrent.ts'
import { defaultRacePolicy } from '../../src/transfer/plan.ts'
import { sha256Of } from '../support/digest.ts'
import { raceScene } from '../support/race-scene.ts'
import { transferRig } from '../support/transfer-rig.ts'

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
const files = {
  'config.json': { content: { seed: 'config', sizeBytes: 3 * kibibyte }, storage: 'git' },
  'small.safetensors': { seed: 'small', sizeBytes: 600 * kibibyte },
  'largest.safetensors': { seed: 'largest', sizeBytes: mebibyte },
  'larger.safetensors': { seed: 'larger', sizeBytes: mebibyte + 1 },
} as const
const small = 'small.safetensors'

describe('a small file', () => {
  test.each(['config.json', small, 'largest.safetensors'])(
    '%s takes one request to resolve it and one for all of it, and leaves nothing but itself',
    async (path) => {
      await using hub = await startHub(files)
      await using rig = await transferRig(hub.url)
      const file = hub.file(path)
      const { path: blob, bytes } = await rig.fetch(file)
      expect(await sha256Of(blob)).toBe(file.sha256)
      expect(bytes).toEqual({ p2p: 0, http: file.sizeBytes, cache: 0 })
      expect(await readdir(dirname(blob))).toEqual([file.etag])
      expect((await stat(blob)).mode & 0o777).toBe(0o666 & ~process.umask())
      const ranges = hub.requests().map(({ range }) => range)
      expect(ranges).toEqual(Array(2).fill(`bytes=0-${file.sizeBytes - 1}`))
      // No journal was kept of it.
      expect(await readdir(rig.stateDir).catch(() => [])).toEqual([])
    },
  )

  test('a file of a byte more is fetched so that an interruption keeps what there is', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('larger.safetensors')
    const { path } = await rig.fetch(file)
    expect(await sha256Of(path)).toBe(file.sha256)
    expect(await readdir(`${rig.stateDir}/partial`)).toEqual([])
  })

  test('has no name and no partial file while it comes', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.setThrottle('cdn', 2 * mebibyte)
    const file = hub.file(small)
    const seen: string[] = []
    const heard: number[] = []
    await rig.fetch(file, {
      onProgress: (phase, { bytes }) => {
        expect(phase).toBe('downloading')
        heard.push(bytes.http)
        void readdir(`${rig.cacheDir}/models--acme--tiny/blobs`).then((names) => seen.push(...names))
      },
    })
    expect(heard[0]).toBe(0)
    expect(heard.length).toBeGreaterThan(3)
    expect(seen.filter((name) => name === file.etag)).toEqual([])
  })

  test('that a crash left half written is replaced', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file(small)
    const { path } = await rig.fetch(file)
    const partial = `${path}.llmpt.incomplete`
    await rename(path, partial)
    await writeFile(partial, 'what a crash left')
    const again = await rig.fetch(file)
    expect(await sha256Of(again.path)).toBe(file.sha256)
    expect(await readdir(dirname(path))).toEqual([file.etag])
  })

  test('of which a slow connection has brought a part is gone on with', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file(small)
    hub.inject({ origin: 'cdn', cutAfterBytes: 1000, times: 1 })
    hub.setThrottle('cdn', mebibyte)
    const controller = new AbortController()
    const onProgress: FileDownload['onProgress'] = (_phase, { bytes }) => {
      if (bytes.http > 300 * kibibyte) controller.abort(new Error('enough'))
    }
    await expect(rig.fetch(file, { signal: controller.signal, onProgress })).rejects.toThrow('enough')
    hub.setThrottle('cdn', 0)
    const again = await rig.fetch(file)
    expect(await sha256Of(again.path)).toBe(file.sha256)
    expect(again.bytes.cache).toBeGreaterThan(256 * kibibyte)
  })

  test('comes again when the first copy is wrong', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file(small)
    hub.inject({ origin: 'cdn', wrongByteAt: 1000, times: 1 })
    const { path } = await rig.fetch(file)
    expect(await sha256Of(path)).toBe(file.sha256)
    expect(hub.stats('cdn').bytesSent).toBe(2 * file.sizeBytes)
  })

  test('whose second copy is wrong too is an error, and nothing is left of it', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file(small)
    hub.inject({ origin: 'cdn', wrongByteAt: 1000 })
    const error = await rig.fetch(file).catch((thrown: unknown) => thrown as IntegrityError)
    expect(error).toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
    expect(hub.stats('cdn').bytesSent).toBe(2 * file.sizeBytes)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })

  test.each([
    ['is cut', { cutAfterBytes: 200_000 }],
    ['stalls', { stallAfterBytes: 200_000 }],
    ['ends early as if it were complete', { cutAfterBytes: 200_000, noLength: true }],
    ['is out of order', { status: 503 }],
  ])('comes all the same when the connection %s', async (_what, fault) => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url, { deps: { policy: { ...defaultRacePolicy, stallMs: 200 } } })
    const file = hub.file(small)
    hub.inject({ origin: 'cdn', ...fault, times: 1 })
    const began = performance.now()
    const { path } = await rig.fetch(file)
    // Long before the connection itself would lose patience.
    expect(performance.now() - began).toBeLessThan(8_000)
    expect(await sha256Of(path)).toBe(file.sha256)
  })

  test('comes from a server that ignores ranges', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'cdn', ignoreRange: true })
    const file = hub.file(small)
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
    expect(hub.stats('cdn').requests).toBe(1)
  })

  test('that the Hub refuses is refused once', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'hub', path: small, status: 403 })
    await expect(rig.fetch(hub.file(small))).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB', status: 403 })
    expect(hub.stats().requests).toBe(1)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })

  test.each([401, 403, 404])(
    'that the Hub refuses with a %i is asked of peers, and not of the Hub again',
    async (status) => {
      await using scene = await raceScene({ sizeBytes: 600 * kibibyte, httpRate: 0 })
      scene.hub.inject({ origin: 'hub', path: scene.file.path, status })
      let timesAsked = 0
      const finder = {
        find: async () => {
          timesAsked += 1
          return undefined
        },
      } as unknown as TorrentFinder
      await expect(scene.run({ peers: [], deps: { finder } })).rejects.toMatchObject({
        code: 'ERR_LLMPT_HUB',
        status,
      })
      expect([scene.hub.stats().requests, timesAsked]).toEqual([1, 1])
      expect(await readdir(`${scene.rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
    },
  )

  test('that the Hub refuses comes from peers who have it', async () => {
    await using scene = await raceScene({ sizeBytes: 600 * kibibyte, httpRate: 0 })
    await using seed = await scene.seeder()
    scene.hub.inject({ origin: 'hub', path: scene.file.path, status: 403 })
    const { fetched } = await scene.run({ peers: [seed.address] })
    expect(fetched.bytes).toEqual({ http: 0, p2p: 600 * kibibyte, cache: 0 })
    expect(scene.hub.stats().requests).toBe(1)
  })

  test('of which nothing is kept is not counted as if it were', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'cdn', stallAfterBytes: 200_000 })
    const controller = new AbortController()
    const heard: number[] = []
    const onProgress: FileDownload['onProgress'] = (_phase, { bytes }) => {
      heard.push(bytes.http)
      if (bytes.http > 0) controller.abort(new Error('enough'))
    }
    await expect(rig.fetch(hub.file(small), { signal: controller.signal, onProgress })).rejects.toThrow(
      'enough',
    )
    expect(heard.length).toBeGreaterThan(2)
    expect(heard.at(-1)).toBe(0)
  })

  test('that is cancelled leaves nothing, and ends with the reason', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'cdn', stallAfterBytes: 200_000 })
    const controller = new AbortController()
    const reason = new Error('enough')
    const onProgress: FileDownload['onProgress'] = (_phase, { bytes }) => {
      if (bytes.http > 0) controller.abort(reason)
    }
    await expect(rig.fetch(hub.file(small), { signal: controller.signal, onProgress })).rejects.toBe(reason)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })

  test('ends with the error of a listener that throws', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const enough = new Error('enough')
    const onProgress = (): never => {
      throw enough
    }
    await expect(rig.fetch(hub.file(small), { onProgress })).rejects.toBe(enough)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })

  test('comes from peers when the storage of the Hub is away', async () => {
    await using scene = await raceScene({ sizeBytes: 600 * kibibyte, httpRate: 0 })
    await using seed = await scene.seeder()
    await scene.hub.setAvailability('cdn', 'refused')
    const { fetched } = await scene.run({ peers: [seed.address] })
    expect(fetched.bytes).toEqual({ http: 0, p2p: 600 * kibibyte, cache: 0 })
    expect(await sha256Of(fetched.path)).toBe(scene.file.sha256)
  })

  test('is asked of peers as soon as the storage of the Hub has failed once', async () => {
    await using scene = await raceScene({ sizeBytes: 600 * kibibyte, httpRate: 0 })
    scene.hub.inject({ origin: 'cdn', stallAfterBytes: 1000, times: 1 })
    const requestsWhenAsked: number[] = []
    const finder = {
      find: async () => {
        requestsWhenAsked.push(scene.hub.stats('cdn').requests)
        return undefined
      },
    } as unknown as TorrentFinder
    const { fetched } = await scene.run({ peers: [], policy: { stallMs: 300 }, deps: { finder } })
    expect(requestsWhenAsked).toEqual([1])
    expect(await sha256Of(fetched.path)).toBe(scene.file.sha256)
  })
})
