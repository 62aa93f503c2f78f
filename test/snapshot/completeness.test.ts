/** Complete, or an error that says what is missing: with the Hub, without it, and with nobody to ask. */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { HubError } from '../../src/errors.ts'
import { type DryRunFile, p2pDownload, shutdown, snapshotDownload } from '../../src/index.ts'
import { divertLog } from '../../src/log.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import type { RepoRef } from '../../src/values.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser, type User } from '../support/users.ts'

const model: RepoRef = { repoType: 'model', repo: 'acme/tiny' }
const files = {
  'model.safetensors': { seed: 'complete', sizeBytes: 2_000_000 },
  'a.json': '{"a": 1}',
  'b.json': '{"b": 1}',
  'sub/c.json': '{"c": 1}',
  'sub/d.json': '{"d": 1}',
}
const names = Object.keys(files).sort()

/** Runs `work` and returns what was warned of meanwhile. */
async function warningsOf(work: () => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = []
  const restore = divertLog((level, message) => void (level === 'warn' && warnings.push(message)))
  try {
    await work()
  } finally {
    restore()
  }
  return warnings
}

/** Takes a file out of the cache, its name and its content. */
async function lose(user: User, hub: HubServer, ...lost: string[]): Promise<void> {
  for (const name of lost) {
    const { commit, etag } = hub.file(name)
    await rm(`${user.cacheDir}/models--acme--tiny/snapshots/${commit}/${name}`, { force: true })
    await rm(`${user.cacheDir}/models--acme--tiny/blobs/${etag}`, { force: true })
  }
}

describe('when files cannot be had', () => {
  test('the error names them, and keeps the class, the code and the cause of the first failure', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await user.client.downloadSnapshot(model, 'main', { allowPatterns: ['model.*', 'a.json'] })
    for (const path of ['b.json', 'sub/c.json', 'sub/d.json'])
      hub.inject({ path, status: 403, origin: 'hub' })
    const failure = await user.client.downloadSnapshot(model, 'main').catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(HubError)
    expect(failure).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 403 })
    const { message, cause } = failure as HubError
    expect(message).toContain(
      '3 of 5 files of acme/tiny@main ("b.json", "sub/c.json", "sub/d.json") are missing',
    )
    expect(cause).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 403 })
    expect(message).toContain((cause as HubError).message)
  })

  test('of many, the first three are named and the others counted', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    hub.inject({ origin: 'hub', path: 'model.safetensors', status: 403 })
    const running = user.client.downloadSnapshot(model, 'main', { maxWorkers: 1 })
    await expect(running).rejects.toThrow(
      '5 of 5 files of acme/tiny@main ("a.json", "b.json", "model.safetensors", 2 more) are missing',
    )
  })

  test('cancelling is no error of a file: the reason comes as it is', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    hub.inject({ origin: 'cdn', stallAfterBytes: 1000 })
    const controller = new AbortController()
    const reason = new Error('enough')
    const running = user.client.downloadSnapshot(model, 'main', { signal: controller.signal })
    const refused = expect(running).rejects.toBe(reason)
    while (hub.stats('cdn').requests === 0) await new Promise((resolve) => setImmediate(resolve))
    controller.abort(reason)
    await refused
  })

  test('a number of workers that is none is refused', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    for (const maxWorkers of [0, -1, 1.5, Number.NaN]) {
      const running = user.client.downloadSnapshot(model, 'main', { maxWorkers })
      await expect(running).rejects.toMatchObject({ code: 'ERR_LLMPT_CONFIG' })
    }
    expect(hub.stats().requests).toBe(0)
  })
})

describe.each([
  ['localFilesOnly', {}, { localFilesOnly: true }],
  ['HF_HUB_OFFLINE', { offline: true }, {}],
] as const)('with %s', (name, config, options) => {
  async function scene(): Promise<{ hub: HubServer; user: User; local: User } & AsyncDisposable> {
    const stack = new Held()
    const hub = stack.use(await startHub(files))
    const user = stack.use(await newUser({ endpoint: hub.url, trackers: [] }))
    await user.client.downloadSnapshot(model, 'main')
    const local = stack.use(
      await newUser({ endpoint: hub.url, trackers: [], cacheDir: user.cacheDir, ...config }),
    )
    hub.resetStats()
    return { hub, user, local, [Symbol.asyncDispose]: () => stack.dispose() }
  }

  test('a snapshot whose files are known is complete, without a request', async () => {
    await using its = await scene()
    for (const revision of ['main', its.hub.file('a.json').commit]) {
      const got = await its.local.client.downloadSnapshot(model, revision, options)
      expect(got.files.map((file) => file.name)).toEqual(names)
      expect(got.isUnchecked).toBe(true)
      for (const { path, name: of } of got.files) expect(await sha256Of(path)).toBe(its.hub.file(of).sha256)
    }
    expect(its.hub.stats().requests).toBe(0)
  })

  test('it is an error that names what is missing of what was asked for, and of that alone', async () => {
    await using its = await scene()
    await lose(its.user, its.hub, 'b.json', 'sub/c.json')
    await expect(its.local.client.downloadSnapshot(model, 'main', options)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CACHE',
      message: expect.stringContaining(
        '2 of 5 files of acme/tiny@main ("b.json", "sub/c.json") are not in the cache',
      ),
    })
    const part = { ...options, ignorePatterns: ['b.*', '*/c.*'] }
    expect((await its.local.client.downloadSnapshot(model, 'main', part)).files).toHaveLength(3)
    expect(its.hub.stats().requests).toBe(0)
  })

  test('without a list of files, a snapshot folder that is there counts, as in Python', async () => {
    await using its = await scene()
    const { commit } = its.hub.file('a.json')
    await rm(`${its.user.cacheDir}/models--acme--tiny/trees`, { recursive: true })
    await lose(its.user, its.hub, 'b.json')
    const got = await its.local.client.downloadSnapshot(model, 'main', options)
    expect(got).toMatchObject({ commit, files: [], isUnchecked: true })
    expect((await stat(got.path)).isDirectory()).toBe(true)
    await rm(got.path, { recursive: true })
    await expect(its.local.client.downloadSnapshot(model, commit, options)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CACHE',
    })
  })

  test('a single file comes from the cache, or not at all', async () => {
    await using its = await scene()
    await lose(its.user, its.hub, 'b.json')
    const got = await its.local.client.downloadFile(its.hub.ref('a.json'), options)
    expect(got).toMatchObject({ isUnchecked: true, bytes: { cache: 8 } })
    await expect(its.local.client.downloadFile(its.hub.ref('b.json'), options)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CACHE',
      message: expect.stringContaining(name === 'HF_HUB_OFFLINE' ? name : 'only local files'),
    })
    expect(its.hub.stats().requests).toBe(0)
  })

  test('nothing can be downloaded anew', async () => {
    await using its = await scene()
    const anew = { ...options, forceDownload: true }
    await expect(its.local.client.downloadSnapshot(model, 'main', anew)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CONFIG',
    })
    await expect(its.local.client.downloadFile(its.hub.ref('a.json'), anew)).rejects.toMatchObject({
      code: 'ERR_LLMPT_CONFIG',
    })
  })

  test('a plan says what would have to be fetched', async () => {
    await using its = await scene()
    await lose(its.user, its.hub, 'b.json')
    const plan = await its.local.client.planSnapshot(model, 'main', options)
    expect(plan.filter(({ willDownload }) => willDownload).map((file) => file.name)).toEqual(['b.json'])
    expect(await its.local.client.planFile(its.hub.ref('a.json'), options)).toMatchObject({ isCached: true })
    expect(its.hub.stats().requests).toBe(0)
  })
})

describe.each(['refused', 'unavailable'] as const)('while the Hub is %s', (availability) => {
  test('a branch is what it was when it was last seen, with one warning that says what was not checked', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const first = await user.client.downloadSnapshot(model, 'main')
    await hub.setAvailability('hub', availability)
    const warnings = await warningsOf(async () => {
      const again = await user.client.downloadSnapshot(model, 'main')
      expect(again).toMatchObject({ path: first.path, isUnchecked: true })
      expect(again.files.map(({ name }) => name)).toEqual(names)
    })
    expect(warnings).toEqual([
      expect.stringMatching(new RegExp(`"main" still is ${first.commit}, and .* still there and public \\(`)),
    ])
  })

  test('without a list of files, the one warning says that nobody knows whether they are all here', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit } = await user.client.downloadFile(hub.ref('a.json'))
    await hub.setAvailability('hub', availability)
    for (const revision of ['main', commit]) {
      const warnings = await warningsOf(async () => {
        const got = await user.client.downloadSnapshot(model, revision)
        expect(got).toMatchObject({ commit, files: [], isUnchecked: true })
      })
      expect(warnings).toEqual([expect.stringMatching(/public, and whether all of its files are here/)])
    }
  })

  test('what is missing is named, with the silence of the Hub as the reason', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit } = await user.client.downloadSnapshot(model, 'main')
    await lose(user, hub, 'b.json', 'model.safetensors')
    await hub.setAvailability('hub', availability)
    for (const revision of ['main', commit]) {
      const warnings = await warningsOf(async () => {
        await expect(user.client.downloadSnapshot(model, revision)).rejects.toMatchObject({
          code: 'ERR_LLMPT_HUB',
          status: availability === 'refused' ? undefined : 503,
          message: expect.stringContaining(
            `2 of 5 files of acme/tiny@${revision} ("b.json", "model.safetensors")`,
          ),
        })
      })
      expect(warnings).toHaveLength(1)
    }
    await warningsOf(async () => {
      await expect(user.client.downloadFile(hub.ref('b.json'))).rejects.toMatchObject({
        code: 'ERR_LLMPT_HUB',
        message: expect.stringContaining('"b.json"'),
      })
      expect(await user.client.downloadFile(hub.ref('a.json'))).toMatchObject({ isUnchecked: true })
    })
  })
})

describe('while nobody answers', () => {
  test('a commit that is there asks nobody and warns of nothing', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit, path } = await user.client.downloadSnapshot(model, 'main')
    await hub.setAvailability('hub', 'refused')
    const warnings = await warningsOf(async () => {
      expect(await user.client.downloadSnapshot(model, commit)).toMatchObject({ path, isUnchecked: false })
    })
    expect(warnings).toEqual([])
  })

  test('nothing comes anew, also where nobody knows what there is, and what is there stays', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit } = await user.client.downloadSnapshot(model, 'main')
    await hub.setAvailability('hub', 'refused')
    await warningsOf(async () => {
      for (const spoil of ['nothing', 'trees']) {
        await rm(`${user.cacheDir}/models--acme--tiny/${spoil}`, { recursive: true, force: true })
        for (const revision of ['main', commit]) {
          const forced = user.client.downloadSnapshot(model, revision, { forceDownload: true })
          await expect(forced).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
        }
      }
      const { path } = await user.client.downloadSnapshot(model, 'main')
      expect(await sha256Of(`${path}/a.json`)).toBe(hub.file('a.json').sha256)
    })
  })

  test('what was never seen is an error of the Hub', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    await hub.setAvailability('hub', 'refused')
    await expect(user.client.downloadSnapshot(model, 'main')).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
    await expect(user.client.planSnapshot(model, 'main')).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
    const forced = user.client.downloadFile(hub.ref('a.json'), { forceDownload: true })
    await expect(forced).rejects.toMatchObject({ code: 'ERR_LLMPT_HUB' })
  })
})

describe('what is missing while the Hub is away', () => {
  test.each(['main', 'commit'] as const)(
    'comes from peers, when everybody may have it (by its %s)',
    async (by) => {
      await using data = await temporaryDirectory()
      await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
      await using hub = await startHub(files)
      await using giver = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
      await giver.client.downloadSnapshot(model, 'main')
      await giver.client.seedingSettled()
      await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], seed: false })
      // All of it: that everybody may have the repository is told by the content of a large file, not by a list.
      const { commit } = await user.client.downloadSnapshot(model, 'main')
      await lose(user, hub, 'a.json', 'model.safetensors')
      await hub.setAvailability('hub', 'refused')
      await hub.setAvailability('cdn', 'refused')
      const warnings = await warningsOf(async () => {
        const got = await user.client.downloadSnapshot(model, by === 'main' ? 'main' : commit)
        expect(got.isUnchecked).toBe(true)
        expect(got.bytes).toMatchObject({ http: 0, p2p: 2_000_000 + 8 })
        for (const { name, path } of got.files) expect(await sha256Of(path)).toBe(hub.file(name).sha256)
      })
      expect(warnings).toHaveLength(1)
      await lose(user, hub, 'a.json')
      await warningsOf(async () => {
        const one = await user.client.downloadFile(hub.ref('a.json'))
        expect(one).toMatchObject({ isUnchecked: true, bytes: { p2p: 8, http: 0 } })
      })
    },
  )

  test('comes as far as peers have it, and the error names the rest', async () => {
    await using data = await temporaryDirectory()
    await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
    await using hub = await startHub(files)
    await using giver = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
    await giver.client.downloadSnapshot(model, 'main', { allowPatterns: ['a.json'] })
    await giver.client.seedingSettled()
    await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], seed: false })
    await user.client.downloadSnapshot(model, 'main')
    await lose(user, hub, 'model.safetensors', 'a.json')
    await hub.setAvailability('hub', 'refused')
    await warningsOf(async () => {
      // The large one, which nobody has, comes first.
      const running = user.client.downloadSnapshot(model, 'main', { maxWorkers: 1 })
      await expect(running).rejects.toMatchObject({
        code: 'ERR_LLMPT_HUB',
        message: expect.stringContaining('1 of 5 files of acme/tiny@main ("model.safetensors") is missing'),
      })
    })
    expect(
      await sha256Of((await user.client.downloadFile(hub.ref('a.json'), { localFilesOnly: true })).path),
    ).toBe(hub.file('a.json').sha256)
  })

  test('is not given on, nor is what is there, as nobody knows whether it may be', async () => {
    await using data = await temporaryDirectory()
    await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url], seed: false })
    await user.client.downloadSnapshot(model, 'main')
    await using giver = await newUser({
      endpoint: hub.url,
      trackers: [tracker.url],
      cacheDir: user.cacheDir,
    })
    await hub.setAvailability('hub', 'refused')
    await warningsOf(() => giver.client.downloadSnapshot(model, 'main'))
    await giver.client.seedingSettled()
    expect(await giver.client.seedStatus()).toEqual([])
    await hub.setAvailability('hub', 'up')
    await giver.client.downloadSnapshot(model, 'main')
    await giver.client.seedingSettled()
    expect(await giver.client.seedStatus()).toHaveLength(names.length)
  })

  test('is asked of nobody while a token is in play, and the tracker hears nothing', async () => {
    const asked: string[] = []
    const spy = createServer((request, response) => {
      asked.push(request.url ?? '')
      response.writeHead(500).end()
    })
    await new Promise<void>((resolve) => spy.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(spy.address() as AddressInfo).port}`
    try {
      await using hub = await startHub(
        { repo: 'acme/tiny', files, isPrivate: true },
        { tokens: { hf_reader: ['acme/tiny'] } },
      )
      await using user = await newUser({ endpoint: hub.url, trackers: [url], token: 'hf_reader' })
      await user.client.downloadSnapshot(model, 'main')
      await lose(user, hub, 'model.safetensors')
      await hub.setAvailability('hub', 'refused')
      await warningsOf(async () => {
        await expect(user.client.downloadSnapshot(model, 'main')).rejects.toThrow(/"model.safetensors"/)
        await expect(user.client.downloadFile(hub.ref('model.safetensors'))).rejects.toThrow(
          /"model.safetensors"/,
        )
      })
      expect(asked).toEqual([])
    } finally {
      spy.closeAllConnections()
      await new Promise((resolve) => spy.close(resolve))
    }
  })
})

describe('a plan', () => {
  test('says what a download would do, and writes nothing', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const plan = await user.client.planSnapshot(model, 'main', { ignorePatterns: ['sub/'] })
    const { commit } = hub.file('a.json')
    const folder = `${user.cacheDir}/models--acme--tiny/snapshots/${commit}`
    expect(plan).toEqual(
      ['a.json', 'b.json', 'model.safetensors'].map((name) => ({
        name,
        commit,
        sizeBytes: hub.file(name).sizeBytes,
        path: `${folder}/${name}`,
        isCached: false,
        willDownload: true,
      })),
    )
    expect(await user.client.planFile(hub.ref('a.json'))).toEqual(plan[0])
    await expect(user.client.planFile({ ...hub.ref('a.json'), path: 'none' })).rejects.toThrow('none')
    await expect(readdir(user.cacheDir)).rejects.toThrow('ENOENT')
    expect(
      hub.requests('hub').filter(({ method, url }) => method === 'GET' && url.includes('/resolve')),
    ).toEqual([])
  })

  test('tells what is there, what is not, and what is fetched anyway', async () => {
    await using hub = await startHub(files)
    await using user = await newUser({ endpoint: hub.url, trackers: [] })
    const { commit } = await user.client.downloadSnapshot(model, 'main', { allowPatterns: ['a.json'] })
    const planned = async (options: object): Promise<unknown[]> =>
      (await user.client.planSnapshot(model, 'main', { allowPatterns: ['?.json'], ...options })).map(
        ({ name, isCached, willDownload }) => [name, isCached, willDownload],
      )
    expect(await planned({})).toEqual([
      ['a.json', true, false],
      ['b.json', false, true],
    ])
    expect(await planned({ forceDownload: true })).toEqual([
      ['a.json', true, true],
      ['b.json', false, true],
    ])
    hub.resetStats()
    const one = await user.client.planFile(
      { ...hub.ref('a.json'), revision: commit },
      { forceDownload: true },
    )
    expect(one).toMatchObject({ isCached: true, willDownload: true, sizeBytes: 8 })
    expect(hub.stats().requests).toBe(0)
  })
})

test('the public functions plan and download by the same options', async () => {
  await using hub = await startHub(files)
  await using home = await temporaryDirectory()
  const config = {
    endpoint: hub.url,
    cacheDir: `${home.path}/hub`,
    stateDir: `${home.path}/llmpt`,
    trackers: [],
  }
  const asked = { ...config, repo: 'acme/tiny', allowPatterns: '?.json' }
  try {
    const plan: readonly DryRunFile[] = await snapshotDownload({ ...asked, dryRun: true })
    expect(plan.map(({ name, willDownload }) => [name, willDownload])).toEqual([
      ['a.json', true],
      ['b.json', true],
    ])
    const folder: string = await snapshotDownload({ ...asked, maxWorkers: 1 })
    expect(await readdir(folder)).toEqual(['a.json', 'b.json'])
    const one = { ...config, repo: 'acme/tiny', path: 'a.json' }
    const planned: DryRunFile = await p2pDownload({ ...one, dryRun: true, forceDownload: true })
    expect(planned).toMatchObject({ isCached: true, willDownload: true, path: `${folder}/a.json` })
    const local = await p2pDownload({ ...one, localFilesOnly: true })
    expect(local).toMatchObject({ path: `${folder}/a.json`, isUnchecked: true })
  } finally {
    await shutdown()
  }
})

test('an empty folder, or a file, that is called like a snapshot is none', async () => {
  await using hub = await startHub(files)
  await using user = await newUser({ endpoint: hub.url, trackers: [], offline: true })
  const { commit } = hub.file('a.json')
  const snapshot = `${user.cacheDir}/models--acme--tiny/snapshots/${commit}`
  await mkdir(snapshot, { recursive: true })
  await expect(user.client.downloadSnapshot(model, commit)).rejects.toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  await rm(snapshot, { recursive: true })
  await writeFile(snapshot, 'a file')
  await expect(user.client.downloadSnapshot(model, commit)).rejects.toMatchObject({ code: 'ERR_LLMPT_CACHE' })
})

/** `await using` ends with its block; what a scene holds ends with the test. */
class Held {
  readonly #held: AsyncDisposable[] = []

  use<T extends AsyncDisposable>(it: T): T {
    this.#held.push(it)
    return it
  }

  async dispose(): Promise<void> {
    for (const it of this.#held.reverse()) await it[Symbol.asyncDispose]()
  }
}
