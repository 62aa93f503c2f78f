/** Whole downloads while the Hub goes away, with a mirror to go to. */
import { expect, test } from 'vitest'
import { type Availability, type HubServer, startHub } from '../src/demo/hub.ts'
import type { DownloadProgress } from '../src/transfer/progress.ts'
import { errorOf } from './hub/fixtures.ts'
import { sha256Of } from './support/digest.ts'
import { newUser, type User } from './support/users.ts'

const mebibyte = 1024 * 1024
const sizeBytes = 12 * mebibyte
const token = 'hf_member'
const tiny = { repoType: 'model', repo: 'acme/tiny' } as const

interface World extends AsyncDisposable {
  readonly hub: HubServer
  readonly mirror: HubServer
  readonly user: User
  takeHubDown(availability?: Availability): Promise<void>
}

async function world(options: { token?: string; isPrivate?: boolean } = {}): Promise<World> {
  const { isPrivate = false } = options
  const files = { 'model.bin': { seed: 'mirrored', sizeBytes }, 'config.json': '{}' }
  const hub = await startHub({ repo: 'acme/tiny', files, isPrivate }, { tokens: { [token]: ['acme/tiny'] } })
  const mirror = await startHub({ repo: 'acme/tiny', files })
  const user = await newUser({
    endpoint: hub.url,
    mirrors: [mirror.url],
    p2p: false,
    ...(options.token !== undefined && { token: options.token }),
  })
  return {
    hub,
    mirror,
    user,
    async takeHubDown(availability = 'refused') {
      for (const origin of ['hub', 'cdn'] as const) await hub.setAvailability(origin, availability)
    },
    async [Symbol.asyncDispose]() {
      await user[Symbol.asyncDispose]()
      await hub.close()
      await mirror.close()
    },
  }
}

/** Takes the Hub down when a quarter of the file is there. */
function inTheMiddle(w: World, availability: Availability = 'refused'): (progress: DownloadProgress) => void {
  w.hub.setThrottle('cdn', 6 * mebibyte)
  let isDown = false
  return ({ bytes }) => {
    if (isDown || bytes.http < sizeBytes / 4) return
    isDown = true
    void w.takeHubDown(availability)
  }
}

test('a Hub that is down from the start: a snapshot comes from the mirror, right and complete', async () => {
  await using w = await world()
  await w.takeHubDown()
  const { commit, files } = await w.user.client.downloadSnapshot(tiny, 'main')
  expect(commit).toBe(w.hub.file('model.bin').commit)
  for (const { name, path } of files) expect(await sha256Of(path)).toBe(w.hub.file(name).sha256)
  expect(files).toHaveLength(2)
})

test('a Hub that dies in the middle of a file: the mirror gives the rest, and only that', async () => {
  await using w = await world()
  const onProgress = inTheMiddle(w)
  const { path } = await w.user.client.downloadFile(w.hub.ref('model.bin'), { onProgress })
  expect(await sha256Of(path)).toBe(w.hub.file('model.bin').sha256)
  expect(w.hub.stats('cdn').bytesSent).toBeGreaterThan(0)
  expect(w.mirror.stats('cdn').bytesSent).toBeLessThan(sizeBytes)
})

test('with a token, a public file is completed by the mirror, which never sees the token', async () => {
  await using w = await world({ token })
  const onProgress = inTheMiddle(w)
  const { path } = await w.user.client.downloadFile(w.hub.ref('model.bin'), { onProgress })
  expect(await sha256Of(path)).toBe(w.hub.file('model.bin').sha256)
  expect(w.mirror.stats().requests).toBeGreaterThan(0)
  expect(w.mirror.stats().authorized).toBe(0)
})

test('of a private file no mirror hears, also when the Hub fails in the middle of it', async () => {
  await using w = await world({ token, isPrivate: true })
  const giveUp = new AbortController()
  const onProgress = inTheMiddle(w, 'unavailable')
  const { signal } = giveUp
  let hasEnded = false
  const downloading = errorOf(w.user.client.downloadFile(w.hub.ref('model.bin'), { onProgress, signal }))
  void downloading.finally(() => {
    hasEnded = true
  })
  // Range after range fails, first at storage and then at the Hub.
  const failed = (): number => w.hub.requests('hub').filter(({ status }) => status === 503).length
  while (failed() < 4 && !hasEnded) await new Promise((resolve) => setImmediate(resolve))
  expect(failed()).toBeGreaterThanOrEqual(4)
  giveUp.abort()
  await downloading
  expect(w.mirror.requests()).toEqual([])
})

test('with the Hub and its mirror down the call fails, and names both', async () => {
  await using w = await world()
  await w.takeHubDown()
  await w.mirror.setAvailability('hub', 'refused')
  const { message } = await errorOf(w.user.client.downloadFile(w.hub.ref('model.bin')))
  for (const { url } of [w.hub, w.mirror]) expect(message).toContain(new URL(url).host)
})
