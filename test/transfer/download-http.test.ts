import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { sha256, sha256Of } from '../support/digest.ts'
import { openLocks, transferRig } from '../support/transfer-rig.ts'
import { newUser } from '../support/users.ts'

const mebibyte = 1024 * 1024
const files = {
  'model.safetensors': { seed: 'a model', sizeBytes: 3 * mebibyte + 17 },
  'config.json': '{"hidden_size": 8}',
  'empty.txt': '',
  'large.safetensors': { seed: 'a large model', sizeBytes: 24 * mebibyte + 5 },
}

describe('without a swarm, HTTP alone', () => {
  test.each(Object.keys(files))('brings %s with the content its etag promises', async (path) => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file(path)
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(fetched.bytes).toEqual({ p2p: 0, http: file.sizeBytes, cache: 0 })
    expect(await readdir(dirname(fetched.path))).toEqual([file.etag])
  })

  test('brings a large file with several requests, and no byte twice', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('large.safetensors')
    // What a single request brings in a second is not worth dividing.
    hub.setThrottle('cdn', 16 * mebibyte)
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(hub.stats('cdn').requests).toBeGreaterThan(4)
    expect(hub.stats('cdn').bytesSent).toBe(file.sizeBytes)
  })

  test('asks for a file of a few mebibytes once and as one range', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    await rig.fetch(hub.file('model.safetensors'))
    expect(hub.stats('cdn').requests).toBe(1)
  })

  test('a file that is there already costs nothing', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    await rig.fetch(file)
    hub.resetStats()
    const again = await rig.fetch(file)
    expect(hub.stats().requests).toBe(0)
    expect(again.bytes).toEqual({ p2p: 0, http: 0, cache: file.sizeBytes })
  })

  test('a cut connection costs the rest of a piece, not the file', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', cutAfterBytes: 1_500_000, times: 1 })
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(hub.stats('cdn').bytesSent).toBeLessThan(file.sizeBytes + 2 * 262_144)
  })

  test('an origin that cuts every connection within a piece is read to the end all the same', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', cutAfterBytes: 200_000 })
    const policy = { ...rig.deps.policy }
    expect(await sha256Of((await rig.fetch(file, {}, { policy })).path)).toBe(file.sha256)
    expect(hub.stats('cdn').bytesSent).toBeLessThan(file.sizeBytes * 1.5)
  }, 60_000)

  test('a body that ends early without an error is no complete file', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', cutAfterBytes: 900_000, noLength: true, times: 1 })
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
  })

  test('a stall is left behind after the body timeout', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url, { http: { bodyTimeoutMs: 500 } })
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', stallAfterBytes: 700_000, times: 1 })
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
  })

  test('a server that ignores ranges still serves the rest of a file', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', cutAfterBytes: 1_500_000, times: 1 })
    hub.inject({ origin: 'cdn', ignoreRange: true })
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
  })

  test('one wrong byte is found, and the file fetched again', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', wrongByteAt: 2_000_000, times: 1 })
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
    expect(hub.stats('cdn').requests).toBe(2)
  })

  test('content that stays wrong is an IntegrityError, and nothing of it is kept', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', wrongByteAt: 2_000_000 })
    await expect(rig.fetch(file)).rejects.toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
    expect(hub.stats('cdn').bytesSent).toBe(2 * file.sizeBytes)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
    expect(await readdir(`${rig.stateDir}/partial`)).toEqual([])
  })

  test('an empty file whose etag is not that of nothing is refused', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = { ...hub.file('model.safetensors'), sizeBytes: 0 }
    await expect(rig.fetch(file)).rejects.toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
  })

  test('lets a reader have what is there while the rest is on its way', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    const remove = hub.inject({ origin: 'cdn', stallAfterBytes: 1_500_000 })
    const enough = new AbortController()
    let there: Promise<Buffer> | undefined
    const running = rig.fetch(file, {
      signal: enough.signal,
      onLive: (live) => {
        const readable = live.reader(0, file.sizeBytes).advance(file.sizeBytes, enough.signal)
        there = readable.then(async (end) => (await readFile(live.path)).subarray(0, end))
      },
    })
    running.catch(() => {})
    await vi.waitFor(() => expect(there).toBeDefined())
    const prefix = (await there) ?? Buffer.alloc(0)
    enough.abort(new Error('enough'))
    await expect(running).rejects.toThrow('enough')
    remove()
    const whole = await readFile((await rig.fetch(file)).path)
    expect(prefix.length).toBeGreaterThan(0)
    expect(sha256(prefix)).toBe(sha256(whole.subarray(0, prefix.length)))
  })

  test('needs no journal', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    // No folder can be made in it.
    await writeFile(rig.stateDir, '')
    const file = hub.file('model.safetensors')
    expect(await sha256Of((await rig.fetch(file)).path)).toBe(file.sha256)
  })

  test('storage that refuses ends the download with its status', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    hub.inject({ origin: 'cdn', status: 451 })
    await expect(rig.fetch(hub.file('model.safetensors'))).rejects.toMatchObject({
      code: 'ERR_LLMPT_HUB',
      status: 451,
    })
  })
})

describe('an interrupted download', () => {
  async function interruptedAt(
    bytes: number,
    rig: Awaited<ReturnType<typeof transferRig>>,
    hub: Awaited<ReturnType<typeof startHub>>,
  ) {
    const file = hub.file('model.safetensors')
    const controller = new AbortController()
    const remove = hub.inject({ origin: 'cdn', stallAfterBytes: bytes })
    const running = rig.fetch(file, {
      signal: controller.signal,
      onProgress: (_phase, { bytes: { http } }) => {
        if (http > bytes - 262_144) controller.abort(new Error('enough'))
      },
    })
    await expect(running).rejects.toThrow('enough')
    remove()
    hub.resetStats()
    return file
  }

  test('goes on where it stopped, and says so', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = await interruptedAt(2 * mebibyte, rig, hub)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([
      `${file.etag}.llmpt.incomplete`,
    ])
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(fetched.bytes.cache).toBeGreaterThanOrEqual(2 * mebibyte - 262_144)
    expect(hub.stats('cdn').bytesSent).toBe(file.sizeBytes - fetched.bytes.cache)
    expect(await readdir(`${rig.stateDir}/partial`)).toEqual([])
  })

  test('goes on in the middle of a piece', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = hub.file('model.safetensors')
    hub.inject({ origin: 'cdn', cutAfterBytes: 700_000, times: 1 })
    const { signal } = new AbortController()
    let remove: () => void = () => {}
    const failing = rig.fetch(file, {
      onLive: (live) =>
        void live
          .reader(0, file.sizeBytes)
          .advance(1, signal)
          .then(() => {
            remove = hub.inject({ origin: 'cdn', status: 451 })
          }),
    })
    await expect(failing).rejects.toMatchObject({ status: 451 })
    remove()
    hub.resetStats()
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(fetched.bytes.cache).toBeGreaterThan(2 * 262_144)
    expect(fetched.bytes.cache % 262_144).toBeGreaterThan(0)
    expect(hub.stats('cdn').bytesSent).toBe(file.sizeBytes - fetched.bytes.cache)
  })

  test('starts anew when the partial file is shorter than its journal says', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = await interruptedAt(2 * mebibyte, rig, hub)
    await writeFile(`${rig.cacheDir}/models--acme--tiny/blobs/${file.etag}.llmpt.incomplete`, 'short')
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
    expect(fetched.bytes).toEqual({ p2p: 0, http: file.sizeBytes, cache: 0 })
  })

  test('whose partial file was damaged meanwhile is found out by the digest', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = await interruptedAt(2 * mebibyte, rig, hub)
    const partial = `${rig.cacheDir}/models--acme--tiny/blobs/${file.etag}.llmpt.incomplete`
    const { size } = await stat(partial)
    await writeFile(partial, Buffer.alloc(size, 1))
    const fetched = await rig.fetch(file)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
  })

  test('with a journal that is rubbish starts anew', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url)
    const file = await interruptedAt(2 * mebibyte, rig, hub)
    for (const name of await readdir(`${rig.stateDir}/partial`)) {
      await writeFile(`${rig.stateDir}/partial/${name}`, '{"version":1,"pieces":7}')
    }
    const fetched = await rig.fetch(file)
    expect(fetched.bytes.cache).toBe(0)
    expect(await sha256Of(fetched.path)).toBe(file.sha256)
  })

  test('leaves nothing behind when there is no lock to own a partial file by', async () => {
    await using hub = await startHub(files)
    await using rig = await transferRig(hub.url, { locks: undefined })
    await interruptedAt(2 * mebibyte, rig, hub)
    expect(await readdir(`${rig.cacheDir}/models--acme--tiny/blobs`)).toEqual([])
  })
})

test('two downloads of one blob in two places at once both end with the right file', async () => {
  await using hub = await startHub(files)
  await using rig = await transferRig(hub.url, { locks: openLocks })
  const file = hub.file('model.safetensors')
  await using other = await transferRig(hub.url)
  const both = await Promise.all([rig.fetch(file), other.fetch(file)])
  for (const { path } of both) expect(await sha256Of(path)).toBe(file.sha256)
})

test('small files of a snapshot come eight at a time', async () => {
  const names = Array.from({ length: 12 }, (_, index) => `part-${index}.bin`)
  await using hub = await startHub(
    Object.fromEntries(names.map((name) => [name, { seed: name, sizeBytes: 100_000 }])),
  )
  await using user = await newUser({ endpoint: hub.url, p2p: false })
  hub.inject({ origin: 'cdn', delayMs: 50 })
  let most = 0
  const { repo, repoType } = hub.ref('part-0.bin')
  const got = await user.client.downloadSnapshot({ repo, repoType }, 'main', {
    onProgress: ({ active }) => {
      most = Math.max(most, active.length)
    },
  })
  expect(got.files).toHaveLength(12)
  expect(most).toBe(8)
})
