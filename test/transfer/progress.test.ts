import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import {
  type DownloadProgress,
  noBytes,
  ProgressTally,
  sumOf,
  type TransferProgress,
} from '../../src/transfer/progress.ts'
import { newUser } from '../support/users.ts'

const files = [{ sizeBytes: 1_000_000 }, { sizeBytes: 3_000_000 }]

function transfer(sizeBytes: number, bytes: Partial<TransferProgress['bytes']>): TransferProgress {
  return { sizeBytes, bytes: { ...noBytes(), ...bytes }, httpRate: 0, p2pRate: 0, peers: 0 }
}

/** A tally with a clock of its own, and all it has told. */
function listening(of: readonly { sizeBytes: number }[] = files): {
  tally: ProgressTally
  events: DownloadProgress[]
  wait: (ms: number) => void
} {
  let now = 0
  const events: DownloadProgress[] = []
  const tally = new ProgressTally(
    of,
    (progress) => events.push(progress),
    () => now,
  )
  return {
    tally,
    events,
    wait: (ms) => {
      now += ms
    },
  }
}

describe('the events of a call', () => {
  test('come ten times a second at most while nothing but bytes changes', () => {
    const { tally, events, wait } = listening()
    for (let at = 0; at < 1_000; at++, wait(1))
      tally.update('a', 'downloading', transfer(1_000_000, { http: at }))
    expect(events).toHaveLength(10)
  })

  test('come at once when a file is begun, goes on to its next phase, or has been brought', () => {
    const { tally, events } = listening()
    tally.update('a', 'waiting', transfer(1_000_000, {}))
    tally.update('b', 'downloading', transfer(3_000_000, {}))
    tally.update('a', 'downloading', transfer(1_000_000, {}))
    tally.update('a', 'verifying', transfer(1_000_000, {}))
    tally.finish('a', { ...noBytes(), p2p: 1_000_000 })
    expect(events.map(({ active }) => active.map(({ path, phase }) => `${path} ${phase}`))).toEqual([
      ['a waiting'],
      ['a waiting', 'b downloading'],
      ['a downloading', 'b downloading'],
      ['a verifying', 'b downloading'],
      ['b downloading'],
    ])
  })

  test('name each finished file once, with where its bytes came from, also those that were not told of at once', () => {
    const many = Array.from({ length: 10_000 }, () => ({ sizeBytes: 10 }))
    const { tally, events, wait } = listening(many)
    for (const at of many.keys()) {
      tally.finish(`file ${at}`, { ...noBytes(), cache: 10 })
      wait(0.1)
    }
    expect(events.length).toBeLessThan(15)
    const finished = events.flatMap((event) => event.finished)
    expect(new Set(finished.map(({ path }) => path)).size).toBe(10_000)
    expect(finished[5]).toEqual({ path: 'file 5', sizeBytes: 10, bytes: { p2p: 0, http: 0, cache: 10 } })
  })

  test('end with one that is complete, however soon it comes after the one before', () => {
    const { tally, events } = listening()
    tally.finish('a', { ...noBytes(), cache: 1_000_000 })
    tally.finish('b', { p2p: 1_000_000, http: 1_500_000, cache: 500_000 })
    expect(events.at(-1)).toMatchObject({
      files: { done: 2, total: 2 },
      bytes: { p2p: 1_000_000, http: 1_500_000, cache: 1_500_000 },
      sizeBytes: 4_000_000,
      secondsLeft: 0,
      active: [],
    })
  })

  test('tell rates by source over the last seconds, and how long the rest takes at them', () => {
    const { tally, events, wait } = listening()
    tally.update('b', 'downloading', transfer(3_000_000, {}))
    expect(events.at(-1)).toMatchObject({ rate: 0, secondsLeft: undefined })
    for (let at = 1; at <= 20; at++) {
      wait(100)
      const bytes = { http: at * 10_000, p2p: at * 40_000 }
      tally.update('b', 'downloading', { ...transfer(3_000_000, bytes), httpRate: 100_000, p2pRate: 400_000 })
    }
    expect(events.at(-1)).toMatchObject({
      httpRate: 100_000,
      p2pRate: 400_000,
      rate: 500_000,
      secondsLeft: 6,
    })
    expect(events.at(-1)?.active[0]?.secondsLeft).toBe(4)
  })

  test('do not count what was there before as speed', () => {
    const { tally, events, wait } = listening()
    for (let at = 0; at <= 20; at++, wait(100)) {
      tally.update('b', 'waiting', transfer(3_000_000, { cache: at * 100_000 }))
    }
    expect(events.at(-1)).toMatchObject({ rate: 0, secondsLeft: undefined })
  })

  test('forget a rate that is over', () => {
    const { tally, events, wait } = listening()
    for (let at = 0; at <= 10; at++, wait(100))
      tally.update('b', 'downloading', transfer(3_000_000, { http: at * 50_000 }))
    for (let at = 0; at <= 40; at++, wait(100))
      tally.update('b', 'downloading', transfer(3_000_000, { http: 500_000 }))
    expect(events.at(-1)).toMatchObject({ rate: 0, secondsLeft: undefined })
  })

  test('leave out a file that has failed, and count what is kept of it', () => {
    const { tally, events } = listening()
    tally.update('a', 'downloading', { ...transfer(1_000_000, { http: 500 }), peers: 2 })
    tally.fail('a')
    expect(events.at(-1)).toMatchObject({ active: [], peers: 0, bytes: { http: 500 }, finished: [] })
    tally.finish('b', { ...noBytes(), p2p: 3_000_000 })
    expect(events.at(-1)).toMatchObject({
      active: [],
      files: { done: 1, total: 2 },
      bytes: { http: 500, p2p: 3_000_000 },
    })
  })

  test('hold nothing back when a file fails', () => {
    const { tally, events } = listening()
    tally.update('a', 'downloading', transfer(1_000_000, { http: 5 }))
    tally.update('a', 'downloading', transfer(1_000_000, { http: 500 }))
    expect(events.at(-1)?.bytes.http).toBe(5)
    tally.fail('a')
    tally.fail('a')
    expect(events.map(({ bytes }) => bytes.http)).toEqual([5, 500])
  })

  test('are not told to a listener that has thrown', () => {
    let calls = 0
    const tally = new ProgressTally(files, () => {
      calls += 1
      throw new Error('enough')
    })
    expect(() => tally.finish('a', { ...noBytes(), http: 1_000_000 })).toThrow('enough')
    tally.finish('b', { ...noBytes(), http: 3_000_000 })
    expect(calls).toBe(1)
  })
})

describe('what is there already', () => {
  const tree = { 'config.json': '{"hidden_size": 64}', 'sub/empty.txt': '' }

  /** The last event, and how many there were. */
  async function told(
    work: (onProgress: (progress: DownloadProgress) => void) => Promise<unknown>,
  ): Promise<{ last: DownloadProgress | undefined; count: number }> {
    const events: DownloadProgress[] = []
    await work((progress) => events.push(progress))
    return { last: events.at(-1), count: events.length }
  }

  test.each(['main', 'its commit', 'main while the Hub is away', 'local files only'] as const)(
    'is told of, too: a file of %s',
    async (how) => {
      await using hub = await startHub(tree)
      await using user = await newUser({ endpoint: hub.url, p2p: false })
      const ref = hub.ref('config.json')
      const { commit } = await user.client.downloadFile(ref)
      if (how.endsWith('away')) await hub.setAvailability('hub', 'refused')
      const revision = how === 'its commit' ? commit : 'main'
      const localFilesOnly = how === 'local files only'
      const { last, count } = await told((onProgress) =>
        user.client.downloadFile({ ...ref, revision }, { onProgress, localFilesOnly }),
      )
      const bytes = { p2p: 0, http: 0, cache: 19 }
      expect(last).toMatchObject({
        files: { done: 1, total: 1 },
        sizeBytes: 19,
        bytes,
        active: [],
        secondsLeft: 0,
        finished: [{ path: 'config.json', sizeBytes: 19, bytes }],
      })
      expect(count).toBe(1)
    },
  )

  test('is told of, too: a snapshot of local files only', async () => {
    await using hub = await startHub(tree)
    await using user = await newUser({ endpoint: hub.url, p2p: false })
    const { repo, repoType } = hub.ref('config.json')
    await user.client.downloadSnapshot({ repo, repoType }, 'main')
    const { last } = await told((onProgress) =>
      user.client.downloadSnapshot({ repo, repoType }, 'main', { onProgress, localFilesOnly: true }),
    )
    expect(last).toMatchObject({ files: { done: 2, total: 2 }, bytes: { cache: 19 }, sizeBytes: 19 })
  })
})

describe('a snapshot', () => {
  const tree = {
    'config.json': '{"hidden_size": 64}',
    'empty.txt': '',
    'model.safetensors': { seed: 'progress', sizeBytes: 5_000_000 },
    'tokenizer.json': { content: { seed: 'tokenizer', sizeBytes: 700_000 }, storage: 'git' },
  } as const

  test('tells of every file once, and last that all of it is there', async () => {
    await using hub = await startHub(tree)
    await using user = await newUser({ endpoint: hub.url, p2p: false })
    const { repo, repoType } = hub.ref('config.json')
    const events: DownloadProgress[] = []
    const call = { onProgress: (progress: DownloadProgress): unknown => events.push(progress) }
    const got = await user.client.downloadSnapshot({ repo, repoType }, 'main', call)
    const heard = events.length
    const last = events.at(-1) as DownloadProgress
    expect(last.files).toEqual({ done: 4, total: 4 })
    expect(sumOf(last.bytes)).toBe(last.sizeBytes)
    expect(last.bytes).toEqual(got.bytes)
    const finished = events.flatMap((event) => event.finished.map(({ path }) => path))
    expect(finished.sort()).toEqual(Object.keys(tree).sort())
    await user.client.close()
    expect(events).toHaveLength(heard)
  })

  test('ends with the error of a listener that throws, whichever file it was told about', async () => {
    await using hub = await startHub(tree)
    await using user = await newUser({ endpoint: hub.url, p2p: false })
    const { repo, repoType } = hub.ref('config.json')
    const enough = new Error('enough')
    let calls = 0
    const work = user.client.downloadSnapshot({ repo, repoType }, 'main', {
      onProgress: () => {
        calls += 1
        if (calls === 3) throw enough
      },
    })
    await expect(work).rejects.toBe(enough)
    expect(calls).toBe(3)
  })
})
