/** Who asks what, when downloads meet repositories that not everybody may see: one client and its wiring. */
import { readdir } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { type HubServer, startHub } from '../src/demo/hub.ts'
import { divertLog } from '../src/log.ts'
import type { SeederClock } from '../src/seeding/clock.ts'
import { TrackerClient } from '../src/tracker/client.ts'
import { startTracker } from '../src/tracker/server/main.ts'
import { sha256Of } from './support/digest.ts'
import { hookedFetch } from './support/hooked.ts'
import { temporaryDirectory } from './support/temp-dir.ts'
import { newUser } from './support/users.ts'
import { startWiretap, type Wiretap } from './support/wiretap.ts'

const token = 'hf_membertoken'
const files = {
  'model.safetensors': { seed: 'sharing', sizeBytes: 1_500_000 },
  'second.bin': { content: { seed: 'second', sizeBytes: 300_000 }, storage: 'lfs' },
  'config.json': '{"hidden_size": 8}',
} as const
const shared = { seed: 'shared', sizeBytes: 2_000_000 }
const own = { seed: 'own', sizeBytes: 1_500_000 }
const gated = { repoType: 'dataset', repo: 'acme/gated' } as const

interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly tap: Wiretap
  readonly tracker: TrackerClient
  readonly user: { readonly endpoint: string; readonly trackers: string[] }
  /** Requests to resolve URLs without a token, and with one. */
  resolves(): { anonymous: number; authorized: number }
}

async function scene(): Promise<Scene> {
  const folder = await temporaryDirectory()
  const tracker = await startTracker({ dataDir: folder.path, trustProxy: true })
  const tap = await startWiretap(tracker.url)
  const repos = [
    { repo: 'acme/tiny', files },
    { ...gated, files, isGated: true },
    { repo: 'acme/notes', files: { 'a.txt': 'a', 'b.txt': 'b', 'c.txt': 'c' } },
  ]
  const hub = await startHub(repos, { tokens: { [token]: [gated.repo] } })
  return {
    hub,
    tap,
    tracker: new TrackerClient({ url: tracker.url }),
    user: { endpoint: hub.url, trackers: [tap.url] },
    resolves: () => {
      const asked = hub.requests('hub').filter(({ url }) => /\/resolve\//.test(url))
      const authorized = asked.filter(({ authorization }) => authorization).length
      return { anonymous: asked.length - authorized, authorized }
    },
    [Symbol.asyncDispose]: async () => {
      await hub.close()
      await tap[Symbol.asyncDispose]()
      await tracker.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

describe('what it costs to know', () => {
  test('a snapshot with a token, seeded afterwards: one question, whose answer saves a request', async () => {
    await using s = await scene()
    await using user = await newUser({ ...s.user, token })
    await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    await user.client.seedingSettled()
    expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual([
      'seeding',
      'seeding',
      'seeding',
    ])
    expect(s.resolves()).toEqual({ anonymous: 1, authorized: 2 })
  })

  test('a snapshot without a token, seeded afterwards: no request more than its files', async () => {
    await using s = await scene()
    await using user = await newUser(s.user)
    await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    await user.client.seedingSettled()
    expect(await user.client.seedStatus()).toHaveLength(3)
    expect(s.resolves()).toEqual({ anonymous: 3, authorized: 0 })
  })

  test('small files only, without a token: each was shown when it was fetched', async () => {
    await using s = await scene()
    await using user = await newUser(s.user)
    await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/notes' }, 'main')
    await user.client.seedingSettled()
    expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual([
      'seeding',
      'seeding',
      'seeding',
    ])
    expect(s.hub.requests('hub').filter(({ method }) => method === 'HEAD')).toEqual([])
  })

  test('one file without a token, seeded afterwards: the one that was needed anyway', async () => {
    await using s = await scene()
    await using user = await newUser(s.user)
    await user.client.downloadFile(s.hub.ref('model.safetensors'))
    await user.client.seedingSettled()
    expect(await user.client.seedStatus()).toHaveLength(1)
    expect(s.resolves()).toEqual({ anonymous: 1, authorized: 0 })
  })

  test('a hooked fetch without a token, seeded afterwards: one question, whose answer saves a request', async () => {
    await using s = await scene()
    await using first = await newUser(s.user)
    await first.client.downloadFile(s.hub.ref('model.safetensors'))
    await first.client.seedingSettled()
    s.hub.resetStats()
    await using user = await newUser(s.user)
    const fetch = hookedFetch(user, s.hub.url)
    await (await fetch(`${s.hub.url}/acme/tiny/resolve/main/model.safetensors`)).arrayBuffer()
    while ((await user.client.seedStatus()).length === 0) await new Promise((next) => setImmediate(next))
    await user.client.seedingSettled()
    expect(s.resolves()).toEqual({ anonymous: 2, authorized: 0 })
    expect(s.hub.requests('hub').filter(({ method }) => method === 'HEAD')).toHaveLength(1)
  })

  test('files of a gated repository: one question, however many and however often', async () => {
    await using s = await scene()
    await using user = await newUser({ ...s.user, token })
    for (const path of ['model.safetensors', 'second.bin', 'config.json']) {
      await user.client.downloadFile(s.hub.ref(path, gated))
    }
    await user.client.downloadSnapshot(gated, 'main')
    await user.client.seedingSettled()
    expect(s.resolves().anonymous).toBe(1)
    expect(await user.client.seedStatus()).toEqual([])
  })

  test('a snapshot that is there, with a token: nothing before it is told, and one question afterwards', async () => {
    await using s = await scene()
    await using first = await newUser({ ...s.user, token, seed: false, trackers: [] })
    await first.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    await using user = await newUser({ ...s.user, token, cacheDir: first.cacheDir })
    s.hub.resetStats()
    await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
    expect(s.resolves()).toEqual({ anonymous: 0, authorized: 0 })
    await user.client.seedingSettled()
    expect(s.resolves()).toEqual({ anonymous: 1, authorized: 0 })
    expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual(Array(3).fill('seeding'))
  })
})

describe('a token that somebody adds below the hook', () => {
  const withTokenAt =
    (hubUrl: string): typeof fetch =>
    (input, init) => {
      const headers = new Headers(init?.headers)
      if (String(input).startsWith(hubUrl)) headers.set('authorization', `Bearer ${token}`)
      return fetch(input, { ...init, headers })
    }

  test('is not taken for the Hub showing the file to everybody: nothing is looked up, published or seeded', async () => {
    await using s = await scene()
    await using user = await newUser({ ...s.user, smallFileBytes: 100_000 })
    const hooked = hookedFetch(user, s.hub.url, withTokenAt(s.hub.url))
    for (const path of ['model.safetensors', 'second.bin']) {
      const url = `${s.hub.url}/datasets/acme/gated/resolve/main/${path}`
      const response = await hooked(url)
      expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([
        200,
        s.hub.file(path).sizeBytes,
      ])
    }
    expect(s.resolves()).toEqual({ anonymous: 1, authorized: 2 })
    await user.client.downloadFile(s.hub.ref('model.safetensors', gated)).catch(() => undefined)
    await user.client.seedingSettled()
    expect(await user.client.seedStatus()).toEqual([])
    expect(s.tap.said()).toBe('')
  })
})

test('a content that a public repository has, too, says nothing about the private one it is in', async () => {
  await using folder = await temporaryDirectory()
  await using hub = await startHub(
    [
      { repo: 'acme/public', files: { 'w.bin': shared } },
      { repo: 'umbra/vault', files: { 'shared.bin': shared, 'own.bin': own }, isPrivate: true },
    ],
    { tokens: { [token]: ['umbra/vault'] } },
  )
  // It would give it to everybody.
  await using mirror = await startHub([
    { repo: 'umbra/vault', files: { 'shared.bin': shared, 'own.bin': own } },
  ])
  await using tracker = await startTracker({ dataDir: folder.path, trustProxy: true })
  await using tap = await startWiretap(tracker.url)
  const options = { endpoint: hub.url, trackers: [tap.url], mirrors: [mirror.url], token, headStartMs: 0 }
  await using user = await newUser(options)
  await user.client.downloadFile(hub.ref('w.bin', { repo: 'acme/public' }))
  await user.client.seedingSettled()
  await user.client.stopSeeding()
  // The storage is out of order for longer than anybody waits for it; then the mirror's turn would come.
  hub.inject({ origin: 'cdn', status: 503, times: 8 })
  await user.client.downloadSnapshot({ repoType: 'model', repo: 'umbra/vault' }, 'main')
  await user.client.seedingSettled()
  const labels = (await user.client.seedStatus()).map(({ label }) => label)
  expect(labels).toContain('umbra/vault/shared.bin')
  expect(labels).not.toContain('umbra/vault/own.bin')
  const vault = { repo: 'umbra/vault' }
  expect(tap.said()).toContain(hub.file('shared.bin', vault).etag)
  expect(tap.said()).not.toContain(hub.file('own.bin', vault).etag)
  expect(mirror.requests()).toEqual([])
})

test('what a mirror shows to everybody is shared on the word of the Hub', async () => {
  await using s = await scene()
  await using mirror = await startHub([
    { ...gated, files },
    { repo: 'acme/tiny', files },
  ])
  await using user = await newUser({ ...s.user, mirrors: [mirror.url] })
  const fetch = hookedFetch(user, mirror.url)
  const get = async (repo: string): Promise<ArrayBuffer> =>
    await (await fetch(`${mirror.url}/${repo}/resolve/main/model.safetensors`)).arrayBuffer()
  await get('datasets/acme/gated')
  expect(s.tap.said()).toBe('')
  await get('acme/tiny')
  expect(s.tap.said()).toContain(s.hub.file('model.safetensors').etag)
  expect(s.resolves()).toEqual({ anonymous: 2, authorized: 0 })
  expect(mirror.requests('hub').filter(({ method }) => method === 'HEAD')).toEqual([])
})

test.each([
  ['no tracker', { trackers: [] }],
  ['no P2P', { p2p: false }],
] as const)('who shares nothing keeps no record of what could be: %s', async (_what, options) => {
  await using s = await scene()
  await using user = await newUser({ ...s.user, ...options })
  await user.client.downloadFile(s.hub.ref('model.safetensors'))
  const left = await readdir(user.stateDir, { recursive: true }).catch(() => [])
  expect(left.filter((name) => name.startsWith('visibility'))).toEqual([])
})

describe('a gated repository lists its files for everybody', () => {
  test('who may not have them asks no tracker for them', async () => {
    await using s = await scene()
    await using user = await newUser(s.user)
    await expect(user.client.downloadSnapshot(gated, 'main')).rejects.toMatchObject({ hubCode: 'GatedRepo' })
    expect(s.tap.said()).toBe('')
  })

  test('who has them from an earlier time, and no token now, does not seed them', async () => {
    await using s = await scene()
    await using member = await newUser({ ...s.user, token, seed: false })
    await member.client.downloadSnapshot(gated, 'main')
    await using user = await newUser({ ...s.user, cacheDir: member.cacheDir })
    const got = await user.client.downloadSnapshot(gated, 'main')
    expect(got.bytes.http).toBe(0)
    await user.client.seedingSettled()
    expect(await user.client.seedStatus()).toEqual([])
    expect(s.tap.said()).toBe('')
  })

  test('who named it shares it with somebody else who did, and the tracker hears no name', async () => {
    await using s = await scene()
    const options = { ...s.user, token, shareGated: ['datasets/acme/gated'] }
    await using first = await newUser(options)
    await first.client.downloadFile(s.hub.ref('model.safetensors', gated))
    await first.client.seedingSettled()
    await s.hub.setAvailability('cdn', 'refused')
    await using second = await newUser(options)
    const got = await second.client.downloadFile(s.hub.ref('model.safetensors', gated))
    expect(got.bytes).toEqual({ p2p: 1_500_000, http: 0, cache: 0 })
    expect(await sha256Of(got.path)).toBe(s.hub.file('model.safetensors').sha256)
    expect(s.tap.said()).toContain(got.infoHash?.slice(0, 40))
    expect(s.tap.said()).not.toMatch(/acme|gated|safetensors/)
  })

  test('who did not name it does not look for it, though it is there', async () => {
    await using s = await scene()
    await using first = await newUser({ ...s.user, token, shareGated: ['datasets/acme/gated'] })
    await first.client.downloadFile(s.hub.ref('model.safetensors', gated))
    await first.client.seedingSettled()
    await using second = await newUser({ ...s.user, token })
    const got = await second.client.downloadFile(s.hub.ref('model.safetensors', gated))
    expect(got.bytes).toEqual({ p2p: 0, http: 1_500_000, cache: 0 })
  })
})

test('the end of a download does not wait for a Hub that is slow to say whether it may be seeded', async () => {
  await using s = await scene()
  await using first = await newUser({ ...s.user, token, trackers: [] })
  await first.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
  await using user = await newUser({ ...s.user, token, cacheDir: first.cacheDir })
  s.hub.resetStats()
  s.hub.inject({ origin: 'hub', path: 'config.json', delayMs: 2_000, times: 1 })
  await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main', {
    paths: ['config.json'],
  })
  const questionsNow = () => s.hub.requests('hub').filter(({ method }) => method === 'HEAD')
  while (questionsNow().length === 0) await new Promise((next) => setImmediate(next))
  const questions = questionsNow()
  // Not answered yet.
  expect(questions.map(({ status }) => status)).toEqual([0])
  await user.client.seedingSettled()
  expect((await user.client.seedStatus()).map(({ state }) => state)).toEqual(['seeding'])
})

test('a repository that turns private while a client seeds it is asked about daily, and seeded no longer', async () => {
  await using s = await scene()
  let nowMs = Date.now()
  let hourly = (): void => undefined
  const clock: SeederClock = {
    now: () => nowMs,
    every: (_ms, work) => {
      hourly = work
      return () => undefined
    },
  }
  await using user = await newUser(s.user, { clock })
  for (const path of ['model.safetensors', 'second.bin']) await user.client.downloadFile(s.hub.ref(path))
  await user.client.seedingSettled()
  s.hub.setAccess('private', { repo: 'acme/tiny' })
  const before = s.resolves().anonymous
  const lines: string[] = []
  const restore = divertLog((level, message) => void (level === 'warn' && lines.push(message)))
  nowMs += 24 * 3_600_000
  hourly()
  while ((await user.client.seedStatus()).some(({ state }) => state !== 'withdrawn')) {
    await new Promise((next) => setImmediate(next))
  }
  while (lines.length === 0) await new Promise((next) => setImmediate(next))
  restore()
  expect(lines).toEqual([
    expect.stringMatching(/^acme\/tiny\/model.safetensors and 1 more: no longer seeded/),
  ])
  // One question for all files of the repository.
  expect(s.resolves().anonymous).toBe(before + 1)
  const blobs = ['model.safetensors', 'second.bin'].map((path) => s.hub.file(path))
  const seeders = async (): Promise<number> =>
    [...(await s.tracker.lookup(blobs)).values()].flat().reduce((sum, found) => sum + found.seeders, 0)
  while ((await seeders()) > 0) await new Promise((next) => setImmediate(next))
})
