/** What a program on the hook reads while its file is on the way, with real peers, a real Hub and a real tracker. */
import { type FileHandle, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Client } from '../../src/client.ts'
import { tryLock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import { sha256 } from '../hook/support.ts'
import { sha256Of } from '../support/digest.ts'
import { BodyReader, hookedFetch } from '../support/hooked.ts'
import { newWorld, startPeer, type World } from '../support/swarms.ts'
import { newUser, type User } from '../support/users.ts'

const mebibyte = 1024 * 1024
const twoPublishers = ['127.0.0.1', '127.0.0.77']

/** HTTP leaves a swarm alone that brings anything at all. */
const patient = { policy: { probeAfterMs: 60_000 } }

/** Until `isSo`, at most 20 s. */
async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 20_000
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error('it never happens')
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function blobsOf(user: User): Promise<string[]> {
  return await readdir(join(user.cacheDir, 'models--acme--tiny/blobs')).catch(() => [])
}

async function isInCache(user: User, { file }: World): Promise<boolean> {
  return (await blobsOf(user)).includes(file.etag)
}

/** The file's lock, as soon as it is to be had. */
async function lockOf(user: User, { file }: World): Promise<FileHandle> {
  const addon = requireAddon()
  const handle = await open(`${user.cacheDir}/.locks/models--acme--tiny/${file.etag}.lock`, 'r+')
  await until(() => tryLock(addon, handle.fd))
  return handle
}

describe('the body of a large file', () => {
  test('starts with what the Hub has sent, long before the file is complete', async () => {
    await using w = await newWorld()
    await using _torrent = await startPeer(w, { isServed: false })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    w.hub.setThrottle('cdn', 4 * mebibyte)
    const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
    await body.readTo(1)
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes / 2)
    w.hub.setThrottle('cdn', 0)
    expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
    expect(await isInCache(user, w)).toBe(true)
  })

  test('starts with what peers have sent when two publishers tie their torrent to it, and needs nothing from storage', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 6 * mebibyte })
    await using user = await newUser(w.user, patient)
    const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
    await body.readTo(1)
    expect(await peer.uploadedBytes()).toBeLessThan(w.file.sizeBytes / 2)
    expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
    expect(w.hub.stats('cdn').requests).toBe(0)
  })

  test('starts with what peers have sent when this machine has verified their torrent before', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { bytesPerSecond: 6 * mebibyte })
    await using user = await newUser({ ...w.user, seed: false })
    await user.client.downloadFile(w.hub.ref('model.safetensors'))
    const cacheDir = join(user.cacheDir, '../other')
    w.hub.resetStats()
    await using again = new Client({ ...user.client.config, cacheDir }, patient)
    const before = await peer.uploadedBytes()
    const body = new BodyReader(await hookedFetch({ client: again }, w.hub.url)(w.url))
    await body.readTo(1)
    expect((await peer.uploadedBytes()) - before).toBeLessThan(w.file.sizeBytes / 2)
    expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
    expect(w.hub.stats('cdn').requests).toBe(0)
  })

  test('starts with what peers have sent once eight samples of it were the same at the Hub', async () => {
    await using w = await newWorld(32 * mebibyte)
    await using peer = await startPeer(w, { bytesPerSecond: 6 * mebibyte })
    await using user = await newUser(w.user, patient)
    const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
    await body.readTo(1)
    expect(await peer.uploadedBytes()).toBeLessThan(w.file.sizeBytes)
    expect(w.hub.requests('cdn').map(({ bytesSent }) => bytesSent <= 16_384)).toEqual(Array(8).fill(true))
    expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
    expect(w.hub.stats('cdn').requests).toBe(8)
  })

  test('from an untied torrent comes when all is verified while the storage cannot be asked', async () => {
    await using w = await newWorld()
    await using _peer = await startPeer(w)
    await using user = await newUser(w.user)
    await w.hub.setAvailability('cdn', 'refused')
    const response = await hookedFetch(user, w.hub.url)(w.url)
    expect(sha256(await response.arrayBuffer())).toBe(w.file.sha256)
  })

  test('keeps its last bytes back until the digest has matched', async () => {
    await using w = await newWorld()
    await using _torrent = await startPeer(w, { isServed: false })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    w.hub.inject({ origin: 'cdn', wrongByteAt: 6 * mebibyte })
    // Slow enough for the reader to keep up.
    w.hub.setThrottle('cdn', 6 * mebibyte)
    const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
    await expect(body.readTo(w.file.sizeBytes)).rejects.toMatchObject({
      message: 'terminated',
      cause: { code: 'ERR_LLMPT_INTEGRITY' },
    })
    expect(body.bytes).toBeLessThan(w.file.sizeBytes)
    expect(body.bytes).toBeGreaterThan(6 * mebibyte)
    expect(await isInCache(user, w)).toBe(false)
  })

  test('is read slowly without holding up the download, and without taking memory', async () => {
    await using w = await newWorld(32 * mebibyte)
    await using _peer = await startPeer(w, { publishers: twoPublishers })
    await using user = await newUser(w.user, patient)
    const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
    await body.readTo(1)
    globalThis.gc?.()
    const before = process.memoryUsage().arrayBuffers
    await until(() => isInCache(user, w))
    globalThis.gc?.()
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * mebibyte)
    expect(body.bytes).toBeLessThan(mebibyte)
    expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
  })
})

describe('a range in the middle', () => {
  const range = { start: 9 * mebibyte + 5, end: 10 * mebibyte + 6 }
  const init = { headers: { range: `bytes=${range.start}-${range.end - 1}` } }

  test('comes first from peers, before most of the file', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 4 * mebibyte })
    await using user = await newUser(w.user, patient)
    const response = await hookedFetch(user, w.hub.url)(w.url, init)
    const got = Buffer.from(await response.arrayBuffer())
    expect(got.equals((await w.file.bytes()).subarray(range.start, range.end))).toBe(true)
    expect(await peer.uploadedBytes()).toBeLessThan(w.file.sizeBytes)
    expect(w.hub.stats('cdn').requests).toBe(0)
  })

  test('is where HTTP begins', async () => {
    await using w = await newWorld()
    await using _torrent = await startPeer(w, { isServed: false })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    w.hub.setThrottle('cdn', 4 * mebibyte)
    const response = await hookedFetch(user, w.hub.url)(w.url, init)
    const got = Buffer.from(await response.arrayBuffer())
    expect(got.equals((await w.file.bytes()).subarray(range.start, range.end))).toBe(true)
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes)
  })

  test('does not wait for its turn while somebody else reads from the beginning', async () => {
    await using w = await newWorld(48 * mebibyte)
    await using _torrent = await startPeer(w, { isServed: false })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    const fetchIt = hookedFetch(user, w.hub.url)
    w.hub.setThrottle('cdn', 4 * mebibyte)
    const first = new BodyReader(await fetchIt(w.url))
    await first.readTo(2 * mebibyte)
    const far = { headers: { range: `bytes=${40 * mebibyte}-${42 * mebibyte}` } }
    const second = new BodyReader(await fetchIt(w.url, far))
    const before = w.hub.stats('cdn').bytesSent
    await second.readTo(1)
    // It did not wait for one of the four requests that were under way.
    expect(w.hub.stats('cdn').bytesSent - before).toBeLessThan(4 * mebibyte)
    await Promise.all([first.cancel(), second.cancel()])
  })

  test('that has been read is no reason to download the rest', async () => {
    await using w = await newWorld()
    await using _peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 2 * mebibyte })
    await using user = await newUser(w.user, patient)
    w.hub.setThrottle('cdn', 2 * mebibyte)
    await (await hookedFetch(user, w.hub.url)(w.url, init)).arrayBuffer()
    w.hub.setThrottle('cdn', 0)
    // Given up: whoever wants all of it next gets the lock, and goes on from there.
    const left = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(left.bytes.cache).toBeGreaterThan(mebibyte)
    expect(left.bytes.cache).toBeLessThan(w.file.sizeBytes)
    expect(await sha256Of(left.path)).toBe(w.file.sha256)
  })
})

describe('readers of the same file', () => {
  test('share one download', async () => {
    await using w = await newWorld()
    await using _torrent = await startPeer(w, { isServed: false })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    const fetchIt = hookedFetch(user, w.hub.url)
    w.hub.setThrottle('cdn', 16 * mebibyte)
    const middle = { headers: { range: `bytes=${4 * mebibyte}-${8 * mebibyte - 1}` } }
    const [one, two, part] = await Promise.all([fetchIt(w.url), fetchIt(w.url), fetchIt(w.url, middle)])
    const bodies = await Promise.all([one.arrayBuffer(), two.arrayBuffer(), part.arrayBuffer()])
    expect(bodies.map((body) => sha256(body))).toEqual([
      w.file.sha256,
      w.file.sha256,
      sha256((await w.file.bytes()).subarray(4 * mebibyte, 8 * mebibyte)),
    ])
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes * 1.1)
  })

  test('do not take it from each other when one cancels', async () => {
    await using w = await newWorld()
    await using _peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 10 * mebibyte })
    await using user = await newUser(w.user)
    const fetchIt = hookedFetch(user, w.hub.url)
    const one = new BodyReader(await fetchIt(w.url))
    const two = new BodyReader(await fetchIt(w.url))
    await Promise.all([one.readTo(1), two.readTo(1)])
    await one.cancel()
    expect(sha256(await two.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
  })

  test('end the download when the last one cancels, and what is there is gone on from', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 4 * mebibyte })
    await using user = await newUser(w.user)
    const fetchIt = hookedFetch(user, w.hub.url)
    const controller = new AbortController()
    const one = new BodyReader(await fetchIt(w.url, { signal: controller.signal }))
    const two = new BodyReader(await fetchIt(w.url))
    await Promise.all([one.readTo(3 * mebibyte), two.readTo(1)])
    controller.abort()
    await two.cancel()
    const uploaded = await peer.uploadedBytes()
    // It is free again when the download has ended.
    const lock = await lockOf(user, w)
    expect((await peer.uploadedBytes()) - uploaded).toBeLessThan(2 * mebibyte)
    await lock.close()
    expect(await blobsOf(user)).toEqual([`${w.file.etag}.llmpt.incomplete`])
    const got = await user.client.downloadFile(w.hub.ref('model.safetensors'))
    expect(got.bytes.cache).toBeGreaterThan(2 * mebibyte)
    expect(await sha256Of(got.path)).toBe(w.file.sha256)
    expect(await peer.uploadedBytes()).toBeLessThan(w.file.sizeBytes * 1.3)
  })
})

test('a body that is dropped, neither read to its end nor cancelled, ends the download when it is collected', async () => {
  await using w = await newWorld()
  await using _peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 2 * mebibyte })
  await using user = await newUser(w.user)
  await (async () => {
    await new BodyReader(await hookedFetch(user, w.hub.url)(w.url)).readTo(1)
  })()
  const file = await open(`${user.cacheDir}/.locks/models--acme--tiny/${w.file.etag}.lock`, 'r+')
  await until(() => {
    globalThis.gc?.()
    return tryLock(requireAddon(), file.fd)
  })
  await file.close()
  expect(await blobsOf(user)).toEqual([`${w.file.etag}.llmpt.incomplete`])
})

describe('a look at a few bytes', () => {
  const look = { headers: { range: 'bytes=1000-1999' } }

  test('goes to the Hub, and starts no download', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers })
    await using user = await newUser(w.user)
    const response = await hookedFetch(user, w.hub.url)(w.url, look)
    expect(
      Buffer.from(await response.arrayBuffer()).equals((await w.file.bytes()).subarray(1000, 2000)),
    ).toBe(true)
    expect(w.hub.stats('cdn').bytesSent).toBe(1000)
    expect(await peer.uploadedBytes()).toBe(0)
    expect(await blobsOf(user)).toEqual([])
  })

  test('is answered from a download that is under way and has them', async () => {
    await using w = await newWorld()
    await using _peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 4 * mebibyte })
    await using user = await newUser(w.user, patient)
    const fetchIt = hookedFetch(user, w.hub.url)
    const body = new BodyReader(await fetchIt(w.url))
    await body.readTo(2000)
    const response = await fetchIt(w.url, look)
    expect(
      Buffer.from(await response.arrayBuffer()).equals((await w.file.bytes()).subarray(1000, 2000)),
    ).toBe(true)
    expect(w.hub.stats('cdn').requests).toBe(0)
    // What has not come yet is not waited for.
    const last = w.file.sizeBytes - 1
    const far = await fetchIt(w.url, { headers: { range: `bytes=${last}-${last}` } })
    expect((await far.arrayBuffer()).byteLength).toBe(1)
    expect(w.hub.stats('cdn').bytesSent).toBe(1)
    await body.cancel()
  })
})

describe('while another process is bringing the file', () => {
  /** Somebody else's download, which has the lock and goes on when it is told to. */
  async function elsewhere(w: World, user: User) {
    const remove = w.hub.inject({ origin: 'cdn', stallAfterBytes: 2 * mebibyte })
    const other = new Client({ ...user.client.config, p2p: false, stateDir: `${user.stateDir}-other` })
    const running = other.downloadFile(w.hub.ref('model.safetensors'))
    await until(() => w.hub.stats('cdn').bytesSent > 0)
    remove()
    return {
      running,
      [Symbol.asyncDispose]: async () => {
        await running.catch(() => {})
        await other.close()
      },
    }
  }

  test('whoever reads all of it gets it when the other has finished, and nothing is fetched twice', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers })
    await using user = await newUser(w.user)
    await using other = await elsewhere(w, user)
    const response = await hookedFetch(user, w.hub.url)(w.url)
    expect(sha256(await response.arrayBuffer())).toBe(w.file.sha256)
    expect((await other.running).bytes.http).toBe(w.file.sizeBytes)
    expect(await peer.uploadedBytes()).toBe(0)
  })

  test('whoever reads a part of it gets that part from the Hub', async () => {
    await using w = await newWorld()
    await using peer = await startPeer(w, { publishers: twoPublishers })
    await using user = await newUser(w.user)
    w.hub.setThrottle('cdn', 4 * mebibyte)
    await using other = await elsewhere(w, user)
    let isDone = false
    const done = other.running.then(() => {
      isDone = true
    })
    const headers = { range: `bytes=${9 * mebibyte}-${10 * mebibyte - 1}` }
    const response = await hookedFetch(user, w.hub.url)(w.url, { headers })
    const got = Buffer.from(await response.arrayBuffer())
    expect(isDone).toBe(false)
    expect(got.equals((await w.file.bytes()).subarray(9 * mebibyte, 10 * mebibyte))).toBe(true)
    expect(await peer.uploadedBytes()).toBe(0)
    w.hub.setThrottle('cdn', 0)
    await done
  })
})

test('a body whose download ends in the middle goes on with the original, from where it is', async () => {
  await using w = await newWorld()
  await using _peer = await startPeer(w, { publishers: twoPublishers, bytesPerSecond: 4 * mebibyte })
  await using user = await newUser(w.user, patient)
  const body = new BodyReader(await hookedFetch(user, w.hub.url)(w.url))
  await body.readTo(2 * mebibyte)
  await user.client.close()
  expect(sha256(await body.readTo(w.file.sizeBytes + 1))).toBe(w.file.sha256)
  const sent = w.hub.stats('cdn').bytesSent
  expect(sent).toBeGreaterThan(0)
  expect(sent).toBeLessThanOrEqual(w.file.sizeBytes - 2 * mebibyte)
})
