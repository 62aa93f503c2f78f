/** Torrents that lie, met by programs that wait for a file and by programs that read it while it comes. */
import { readdir, readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { Client } from '../../src/client.ts'
import { sha256 } from '../hook/support.ts'
import { sha256Of } from '../support/digest.ts'
import { BodyReader, hookedFetch } from '../support/hooked.ts'
import { modelPath, newWorld, startPeer, type World } from '../support/swarms.ts'
import { newUser, type User } from '../support/users.ts'

const mebibyte = 1024 * 1024
const twoPublishers = ['127.0.0.1', '127.0.0.77']

/** Flips one bit. */
const flip =
  (at: (sizeBytes: number) => number) =>
  (bytes: Buffer): void => {
    const place = at(bytes.length)
    bytes[place] = (bytes[place] ?? 0) ^ 1
  }
const lies: [string, (bytes: Buffer) => void][] = [
  ['its first piece', flip(() => 10)],
  ['a piece in the middle', flip((size) => Math.floor(size / 2))],
  ['its last piece', flip((size) => size - 10)],
  ['all of it', (bytes) => bytes.fill(7)],
]

async function condemnedOf(user: User): Promise<unknown> {
  return await readFile(`${user.stateDir}/condemned.json`, 'utf8').then(JSON.parse, () => [])
}

/** Which bytes a body gave before it ended, well or not. */
async function readAll(response: Response): Promise<{ content: Buffer; error: unknown }> {
  const body = new BodyReader(response)
  const error = await body.readTo(Number.POSITIVE_INFINITY).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  return { content: body.content, error }
}

async function isPrefixOf(content: Buffer, { file }: World): Promise<boolean> {
  return (await file.bytes()).subarray(0, content.length).equals(content)
}

describe('whoever waits for the whole file gets it without a word, from the Hub', () => {
  test.each(lies)('when a torrent lies about %s', async (_name, forge) => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge })
    await using user = await newUser(w.user)
    const got = await user.client.downloadFile(w.hub.ref(modelPath))
    expect(await sha256Of(got.path)).toBe(w.file.sha256)
    expect(got.bytes).toEqual({ p2p: 0, http: w.file.sizeBytes, cache: 0 })
    expect(await lie.uploadedBytes()).toBeGreaterThan(0)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes + mebibyte)
  })

  test('when two publishers vouch for the lie', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[3]?.[1], publishers: twoPublishers })
    await using user = await newUser(w.user)
    const got = await user.client.downloadFile(w.hub.ref(modelPath))
    expect(await sha256Of(got.path)).toBe(w.file.sha256)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
  })

  test('and what the Hub had sent before the lie was found is not fetched again', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[3]?.[1], bytesPerSecond: mebibyte })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    w.hub.setThrottle('cdn', 6 * mebibyte)
    const got = await user.client.downloadFile(w.hub.ref(modelPath))
    expect(await sha256Of(got.path)).toBe(w.file.sha256)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
    // The piece in dispute twice, and what was under way when the swarm was left.
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes + 4 * mebibyte)
  })
})

describe('whoever reads the file while it comes', () => {
  test.each(lies.filter(([name]) => !name.includes('middle')))(
    'gets all of it right when an untied torrent lies about %s: the samples show it',
    async (_name, forge) => {
      await using w = await newWorld()
      await using lie = await startPeer(w, { forge })
      await using user = await newUser(w.user)
      const { content, error } = await readAll(await hookedFetch(user, w.hub.url)(w.url))
      expect(error).toBeUndefined()
      expect(sha256(content)).toBe(w.file.sha256)
      expect(await lie.uploadedBytes()).toBeGreaterThan(0)
      expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
    },
  )

  test('has its untied liars left as soon as a sample shows them', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[3]?.[1], bytesPerSecond: 4 * mebibyte })
    await using user = await newUser(w.user, { policy: { probeAfterMs: 60_000 } })
    const { content, error } = await readAll(await hookedFetch(user, w.hub.url)(w.url))
    expect(error).toBeUndefined()
    expect(sha256(content)).toBe(w.file.sha256)
    expect(await lie.uploadedBytes()).toBeLessThan(w.file.sizeBytes * 0.75)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
  })

  test('gets an error or all of it right, nothing else, when an untied torrent lies where no sample is', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[1]?.[1] })
    await using user = await newUser(w.user)
    const fetchIt = hookedFetch(user, w.hub.url)
    const { content, error } = await readAll(await fetchIt(w.url))
    if (error === undefined) expect(sha256(content)).toBe(w.file.sha256)
    else expect(error).toMatchObject({ message: 'terminated', cause: { code: 'ERR_LLMPT_INTEGRITY' } })
    expect(content.length === w.file.sizeBytes).toBe(error === undefined)
    expect(sha256(await (await fetchIt(w.url)).arrayBuffer())).toBe(w.file.sha256)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
  })

  test.each(lies)(
    'gets an error, and never all of it, when two publishers vouch for a torrent that lies about %s',
    async (_name, forge) => {
      await using w = await newWorld()
      await using lie = await startPeer(w, { forge, publishers: twoPublishers })
      await using user = await newUser(w.user)
      const fetchIt = hookedFetch(user, w.hub.url)
      const { content, error } = await readAll(await fetchIt(w.url))
      if (error === undefined) {
        // Only where the lie was in what is kept back to the end.
        expect(_name).toBe('its last piece')
        expect(sha256(content)).toBe(w.file.sha256)
      } else {
        expect(error).toMatchObject({ message: 'terminated', cause: { code: 'ERR_LLMPT_INTEGRITY' } })
        expect(content.length).toBeLessThan(w.file.sizeBytes)
      }
      const again = await readAll(await fetchIt(w.url))
      expect(again.error).toBeUndefined()
      expect(sha256(again.content)).toBe(w.file.sha256)
      expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
    },
  )

  test('gets bytes of the Hub alone from an untied torrent of other content while HTTP is under way', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[3]?.[1], bytesPerSecond: 2 * mebibyte })
    await using user = await newUser({ ...w.user, headStartMs: 0 })
    w.hub.setThrottle('cdn', 4 * mebibyte)
    const { content, error } = await readAll(await hookedFetch(user, w.hub.url)(w.url))
    expect(await isPrefixOf(content, w)).toBe(true)
    expect(error).toBeUndefined()
    expect(content.length).toBe(w.file.sizeBytes)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
    expect(w.hub.stats('cdn').bytesSent).toBeLessThan(w.file.sizeBytes + 4 * mebibyte)
  })

  test('of a range gets right bytes from an untied torrent of other content', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[3]?.[1] })
    await using user = await newUser(w.user)
    const range = { start: 5 * mebibyte, end: 7 * mebibyte }
    const headers = { range: `bytes=${range.start}-${range.end - 1}` }
    const response = await hookedFetch(user, w.hub.url)(w.url, { headers })
    const got = Buffer.from(await response.arrayBuffer())
    expect(got.equals((await w.file.bytes()).subarray(range.start, range.end))).toBe(true)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
  })

  test('of a part up to the end gets an error, and never all of it, from a torrent that two publishers vouch for', async () => {
    await using w = await newWorld()
    await using lie = await startPeer(w, { forge: lies[1]?.[1], publishers: twoPublishers })
    await using user = await newUser(w.user)
    const headers = { range: `bytes=${mebibyte}-` }
    const { content, error } = await readAll(await hookedFetch(user, w.hub.url)(w.url, { headers }))
    expect(error).toMatchObject({ message: 'terminated', cause: { code: 'ERR_LLMPT_INTEGRITY' } })
    expect(content.length).toBeLessThan(w.file.sizeBytes - mebibyte)
    expect(await condemnedOf(user)).toEqual([[w.file.etag, lie.infoHash]])
  })
})

test('a condemned torrent is remembered by the next process, and its peers are not asked', async () => {
  await using w = await newWorld()
  await using lie = await startPeer(w, { forge: lies[3]?.[1] })
  await using user = await newUser({ ...w.user, seed: false })
  await user.client.downloadFile(w.hub.ref(modelPath))
  await user.client.close()
  const uploaded = await lie.uploadedBytes()
  w.hub.resetStats()
  await using next = new Client({ ...user.client.config, cacheDir: `${user.cacheDir}-next` })
  const response = await hookedFetch({ client: next }, w.hub.url)(w.url)
  expect(sha256(await response.arrayBuffer())).toBe(w.file.sha256)
  // Nobody honest has it: the program got the Hub's own answer.
  expect(await readdir(`${user.cacheDir}-next`).catch(() => [])).toEqual([])
  const got = await next.downloadFile(w.hub.ref(modelPath))
  expect(got.bytes).toEqual({ p2p: 0, http: w.file.sizeBytes, cache: 0 })
  expect(await lie.uploadedBytes()).toBe(uploaded)
})
