/**
 * A call can be cancelled wherever it waits: it rejects with the signal's own reason at once, leaves nothing open, and
 * what it had brought is there for the next one.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type DemoHubFile, startHub } from '../../src/demo/hub.ts'
import { lockPath } from '../../src/hub/cache-layout.ts'
import { tryLock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import type { DownloadProgress } from '../../src/transfer/progress.ts'
import { silentServer } from '../fakes/silent-server.ts'
import { sha256Of } from '../support/digest.ts'
import { until } from '../support/native-rig.ts'
import { raceScene } from '../support/race-scene.ts'
import { newUser, type User } from '../support/users.ts'

const mebibyte = 1024 * 1024
const files = {
  'model.safetensors': { seed: 'cancel', sizeBytes: 8 * mebibyte + 99 },
  ...Object.fromEntries(
    Array.from({ length: 5 }, (_, n) => [`part-${n}.bin`, { seed: n, sizeBytes: 2 * mebibyte }]),
  ),
}
const name = 'model.safetensors'
/** Generous: what counts is that nobody waits for a timeout (5 s is the shortest) or for the other side. */
const promptMs = 1_000

class Cancelled extends Error {}

interface Cancelling {
  readonly signal: AbortSignal
  cancel(): void
}

/** Runs `call`, which cancels itself sooner or later, and checks how it ends. */
async function expectCancelled(call: (cancelling: Cancelling) => Promise<unknown>): Promise<void> {
  const controller = new AbortController()
  const reason = new Cancelled()
  let cancelledMs = Number.NaN
  const cancel = (): void => {
    if (controller.signal.aborted) return
    cancelledMs = performance.now()
    controller.abort(reason)
  }
  const error = await call({ signal: controller.signal, cancel }).then(
    () => 'it was not cancelled',
    (thrown: unknown) => thrown,
  )
  const tookMs = performance.now() - cancelledMs
  expect(error).toBe(reason)
  expect(tookMs).toBeLessThan(promptMs)
}

/** Files below `folder` that this process has open. */
function openFiles(folder: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(folder) ? [path] : []
    } catch {
      return [] // Closed since it was listed, as the one that listed them.
    }
  })
}

/** The digest's own thread closes what it reads when it gets there; nobody waits for it. */
async function expectNothingOpen(folder: string): Promise<void> {
  await until(async () => openFiles(folder).length === 0, 2_000)
}

/** Nothing is open that the cancelled call opened, and the next call brings the rest. */
async function expectResumes(user: User, file: DemoHubFile, leastBytes = 0): Promise<void> {
  await expectNothingOpen(dirname(user.cacheDir))
  let waited = false
  const onProgress = ({ active }: DownloadProgress): void => {
    if (active.some(({ phase }) => phase === 'waiting')) waited = true
  }
  const got = await user.client.downloadFile({ ...file, revision: 'main' }, { onProgress })
  expect(waited).toBe(false)
  expect(got.bytes.cache).toBeGreaterThanOrEqual(leastBytes)
  expect(await sha256Of(got.path)).toBe(file.sha256)
}

describe('over HTTP', () => {
  async function world() {
    const hub = await startHub(files)
    const user = await newUser({ endpoint: hub.url, trackers: [], seed: false })
    return {
      hub,
      user,
      file: hub.file(name),
      ref: hub.ref(name),
      [Symbol.asyncDispose]: async () => {
        await user[Symbol.asyncDispose]()
        await hub.close()
      },
    }
  }

  test('while the Hub says nothing about the file', async () => {
    await using w = await world()
    await w.hub.setAvailability('hub', 'black-hole')
    await expectCancelled(async ({ signal, cancel }) => {
      const running = w.user.client.downloadFile(w.ref, { signal })
      void until(async () => w.hub.requests('hub').length > 0).then(cancel)
      await running
    })
    await w.hub.setAvailability('hub', 'up')
    await expectResumes(w.user, w.file)
  })

  test('while somebody else holds the lock', async () => {
    await using w = await world()
    const holder = await lockOf(w.user, w.file)
    await expectCancelled(({ signal, cancel }) =>
      w.user.client.downloadFile(w.ref, {
        signal,
        onProgress: ({ active }) => {
          if (active[0]?.phase === 'waiting') cancel()
        },
      }),
    )
    await holder.close()
    await expectResumes(w.user, w.file)
  })

  test('while storage does not answer', async () => {
    await using w = await world()
    await w.hub.setAvailability('cdn', 'black-hole')
    await expectCancelled(async ({ signal, cancel }) => {
      const running = w.user.client.downloadFile(w.ref, { signal })
      void until(async () => w.hub.requests('cdn').length > 0).then(cancel)
      await running
    })
    await w.hub.setAvailability('cdn', 'up')
    await expectResumes(w.user, w.file)
  })

  test('while a body is silent', async () => {
    await using w = await world()
    const remove = w.hub.inject({ origin: 'cdn', stallAfterBytes: 2 * mebibyte })
    await expectCancelled(({ signal, cancel }) =>
      w.user.client.downloadFile(w.ref, {
        signal,
        onProgress: ({ bytes }) => {
          if (bytes.http > 1.5 * mebibyte) cancel()
        },
      }),
    )
    remove()
    await expectResumes(w.user, w.file, mebibyte)
  })

  test('while storage refuses and the next try waits', async () => {
    await using w = await world()
    const remove = w.hub.inject({ origin: 'cdn', status: 503, retryAfter: '9' })
    await expectCancelled(async ({ signal, cancel }) => {
      const running = w.user.client.downloadFile(w.ref, { signal })
      void until(async () => w.hub.requests('cdn').some(({ status }) => status === 503)).then(cancel)
      await running
    })
    remove()
    await expectResumes(w.user, w.file)
  })

  test('while files wait for a connection', async () => {
    await using w = await world()
    await w.hub.setAvailability('cdn', 'black-hole')
    await expectCancelled(async ({ signal, cancel }) => {
      const { repo, repoType } = w.ref
      const running = w.user.client.downloadSnapshot({ repo, repoType }, 'main', { signal, maxWorkers: 6 })
      // Of six files four have a connection.
      void until(async () => w.hub.requests('cdn').length === 4).then(cancel)
      await running
    })
    await w.hub.setAvailability('cdn', 'up')
    await expectResumes(w.user, w.file)
  })

  test('while the digest is finished', async () => {
    await using w = await world()
    let brought = 0
    await expectCancelled(({ signal, cancel }) =>
      w.user.client.downloadFile(w.ref, {
        signal,
        onProgress: ({ active, bytes }) => {
          if (active[0]?.phase !== 'verifying') return
          brought = bytes.http
          cancel()
        },
      }),
    )
    expect(brought).toBe(w.file.sizeBytes)
    w.hub.resetStats()
    await expectResumes(w.user, w.file, w.file.sizeBytes)
    expect(w.hub.stats('cdn').requests).toBe(0)
  })
})

/** The lock that another process would hold while it downloads. */
async function lockOf(user: User, file: DemoHubFile): Promise<FileHandle> {
  const path = lockPath(user.cacheDir, file, file.etag)
  await mkdir(dirname(path), { recursive: true })
  const handle = await open(path, 'w')
  if (!tryLock(requireAddon(), handle.fd)) throw new Error('somebody has the lock')
  return handle
}

describe('with a swarm', () => {
  test('while the tracker says nothing', async () => {
    await using hub = await startHub(files)
    await using tracker = await silentServer()
    await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], http: false })
    await expectCancelled(async ({ signal, cancel }) => {
      const running = user.client.downloadFile(hub.ref(name), { signal })
      void tracker.asked.then(cancel)
      await running
    })
    await using other = await newUser({
      endpoint: hub.url,
      trackers: [],
      cacheDir: user.cacheDir,
      stateDir: user.stateDir,
    })
    await expectResumes(other, hub.file(name))
  })

  const scene = () => raceScene({ sizeBytes: 8 * mebibyte + 99, httpRate: 0 })

  test('while it is being joined', async () => {
    await using s = await scene()
    const seed = await s.seeder()
    const noHttp = { canUseHttp: false }
    await expectCancelled(async ({ signal, cancel }) => {
      const swarm = new Proxy(s.swarm, {
        get: (target, key) => {
          const value = Reflect.get(target, key)
          if (typeof value !== 'function') return value
          if (key === 'join') cancel()
          return value.bind(target)
        },
      })
      await s.run({ peers: [seed.address], deps: { ...noHttp, swarm }, change: { signal } })
    })
    await expectNothingOpen(s.rig.cacheDir)
    // Joining again shows that the torrent was left: a session has each once.
    const { fetched } = await s.run({ peers: [seed.address], deps: noHttp })
    expect(await sha256Of(fetched.path)).toBe(s.file.sha256)
  })

  test('while nobody is there', async () => {
    await using s = await scene()
    const noHttp = { canUseHttp: false }
    await expectCancelled(({ signal, cancel }) =>
      s.run({ peers: [], deps: noHttp, change: { signal }, onProgress: cancel }),
    )
    await expectNothingOpen(s.rig.cacheDir)
    const seed = await s.seeder()
    const { fetched } = await s.run({ peers: [seed.address], deps: noHttp })
    expect(await sha256Of(fetched.path)).toBe(s.file.sha256)
  })

  test('while peers deliver', async () => {
    await using s = await scene()
    const seed = await s.seeder(4 * mebibyte)
    const noHttp = { canUseHttp: false }
    await expectCancelled(({ signal, cancel }) =>
      s.run({ peers: [seed.address], deps: noHttp, change: { signal }, at: 0.4, fault: cancel }),
    )
    await expectNothingOpen(s.rig.cacheDir)
    seed.setRate(0)
    const { fetched } = await s.run({ peers: [seed.address], deps: noHttp })
    expect(fetched.bytes.cache).toBeGreaterThan(0.35 * s.file.sizeBytes)
    expect(await sha256Of(fetched.path)).toBe(s.file.sha256)
  })

  test('while a peer that was frozen says nothing', async () => {
    await using s = await scene()
    const seed = await s.seeder(4 * mebibyte)
    const noHttp = { canUseHttp: false }
    await expectCancelled(({ signal, cancel }) =>
      s.run({
        peers: [seed.address],
        deps: noHttp,
        change: { signal },
        at: 0.4,
        fault: () => {
          seed.freeze()
          cancel()
        },
      }),
    )
    seed.thaw()
    const { fetched } = await s.run({ peers: [seed.address] })
    expect(fetched.bytes.cache).toBeGreaterThan(0.35 * s.file.sizeBytes)
    expect(await sha256Of(fetched.path)).toBe(s.file.sha256)
  })

  test('by closing the client while it hashes what it is to seed', async () => {
    await using hub = await startHub({ [name]: { seed: 'cancel', sizeBytes: 64 * mebibyte } })
    await using tracker = await silentServer()
    await using user = await newUser({ endpoint: hub.url, trackers: [], seed: false })
    const { path } = await user.client.downloadFile(hub.ref(name))
    await using seeding = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
    seeding.client.seedCached(hub.file(name), path, Number.POSITIVE_INFINITY)
    await until(async () => (await seeding.client.seedStatus())[0]?.state === 'hashing')
    const began = performance.now()
    await seeding.client.close()
    expect(performance.now() - began).toBeLessThan(promptMs)
    await expectNothingOpen(dirname(user.cacheDir))
  })
})
