/** Whether trackers hear that a download which is over does not give any more. */
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, test } from 'vitest'
import type { Alert } from '../../src/native/alerts.ts'
import { LastWords } from '../../src/swarm/last-words.ts'
import { raceScene, type Scene } from '../support/race-scene.ts'

const mebibyte = 1024 * 1024
const capMs = 10_000

/** A tracker that answers at once, but for the announce of a complete download: that one waits for the test. */
async function slowTracker() {
  const events: string[] = []
  const heard = new Map<string, Deferred>()
  const at = (event: string): Deferred => {
    const known = heard.get(event) ?? newDeferred()
    heard.set(event, known)
    return known
  }
  let held: ServerResponse | undefined
  const answer = (response: ServerResponse | undefined): void => {
    response?.end('d8:intervali1800e5:peers0:e')
  }
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
    if (pathname === '/idle') return response.end()
    const event = searchParams.get('event') ?? 'none'
    events.push(event)
    if (event === 'completed') held = response
    else answer(response)
    at(event).resolve()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/announce`,
    events,
    heard: async (event: string): Promise<void> => {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`only heard ${events.join()}`)), capMs)
      })
      await Promise.race([at(event).promise, late])
      clearTimeout(timer)
    },
    /** Not before libtorrent could have had it removed: it takes less time than a few requests do. */
    answerCompleted: async () => {
      const { port } = server.address() as AddressInfo
      for (let turn = 0; turn < 20; turn++) await (await fetch(`http://127.0.0.1:${port}/idle`)).arrayBuffer()
      answer(held)
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

interface Deferred {
  readonly promise: Promise<void>
  readonly resolve: () => void
}

function newDeferred(): Deferred {
  let resolve = (): void => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

/** A file that has just come from peers, by a download that is still in its swarm. */
async function complete(scene: Scene, url: string) {
  const seed = await scene.seeder(16 * mebibyte)
  const fetched = await scene.rig.fetch(
    scene.file,
    {},
    {
      addon: scene.addon,
      swarm: scene.swarm,
      canUseHttp: false,
      finder: {
        find: async () => ({ ...scene.offer, announceUrls: [url], peers: [seed.address] }),
      } as never,
    },
  )
  const { joined } = fetched
  if (joined === undefined) throw new Error('it did not come through a torrent')
  return joined
}

describe('a tracker that has not answered yet that the download is complete', () => {
  test('hears that it has left', async () => {
    await using tracker = await slowTracker()
    await using scene = await raceScene({ sizeBytes: 8 * mebibyte, httpRate: 0 })
    const { leg } = await complete(scene, tracker.url)
    await tracker.heard('completed')
    leg.retire()
    await tracker.answerCompleted()
    await tracker.heard('stopped')
    expect(tracker.events).toEqual(['started', 'completed', 'stopped'])
  })

  test('hears it when the session ends as well', async () => {
    await using tracker = await slowTracker()
    await using scene = await raceScene({ sizeBytes: 8 * mebibyte, httpRate: 0 })
    await complete(scene, tracker.url)
    await tracker.heard('completed')
    const closing = scene.swarm.close()
    await tracker.answerCompleted()
    await closing
    expect(tracker.events).toEqual(['started', 'completed', 'stopped'])
  })

  test('and never does keeps nobody in the swarm for long', async () => {
    await using tracker = await slowTracker()
    await using scene = await raceScene({ sizeBytes: 8 * mebibyte, httpRate: 0 })
    const { leg } = await complete(scene, tracker.url)
    await tracker.heard('completed')
    const removed = new Promise<void>((resolve) => {
      leg.torrent.onAlert(({ type }) => {
        if (type === 'torrent_removed') resolve()
      })
    })
    leg.retire()
    await removed
  })

  test('does not keep others from the same torrent', async () => {
    await using tracker = await slowTracker()
    await using scene = await raceScene({ sizeBytes: 8 * mebibyte, httpRate: 0 })
    const { leg } = await complete(scene, tracker.url)
    await tracker.heard('completed')
    leg.retire()
    const again = await scene.swarm.join(scene.offer, { path: scene.content, mode: 'seed' })
    expect(again).toBeDefined()
    // The end of the first one is not the end of the second.
    await tracker.answerCompleted()
    expect(await scene.swarm.join(scene.offer, { path: scene.content, mode: 'seed' })).toBeUndefined()
  })
})

test('a download that has only got all it asked for is not one that trackers hear of', async () => {
  let hear = (_alert: Partial<Alert>): void => {}
  const torrent = {
    onAlert: (listener: typeof hear) => {
      hear = listener
    },
  }
  const words = new LastWords(torrent as never, ['http://127.0.0.1/announce'])
  const isAnswered = async (): Promise<boolean> => {
    let has = false
    void words.answered(capMs).then(() => {
      has = true
    })
    await Promise.resolve()
    return has
  }
  hear({ type: 'state_changed', state: 'finished' })
  expect(await isAnswered()).toBe(true)
  hear({ type: 'state_changed', state: 'seeding' })
  expect(await isAnswered()).toBe(false)
  hear({ type: 'tracker_reply', url: 'http://127.0.0.1/announce' })
  expect(await isAnswered()).toBe(true)
})
