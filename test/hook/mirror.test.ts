/** The hook with a mirror as the configured Hub: where the requests of our own go. */
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { fetchDeps } from '../../src/runtime.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { startMirror } from '../fakes/mirror.ts'
import { lyingHub } from '../hub/fixtures.ts'
import { sha256 } from '../support/digest.ts'
import { hookedFetch } from '../support/hooked.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'
import { hookWith, offerNothing } from './support.ts'

const path = '/acme/tiny/resolve/main/w.bin'
const files = { 'w.bin': { seed: 'hooked mirror', sizeBytes: 3 * 1024 * 1024 } }

test('the configured endpoint, its mirrors, and the public Hub are watched, in this order', () => {
  const deps = fetchDeps({ endpoint: 'https://hub.example', mirrors: ['https://m.example/x'], p2p: false })
  expect(deps.endpoints()).toEqual([
    'https://hub.example',
    'https://m.example/x',
    'https://huggingface.co',
    'https://hf.co',
  ])
})

test('a program that asks the mirror gets the file through it, and the Hub is not asked', async () => {
  await using folder = await temporaryDirectory()
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: folder.path })
  await using hub = await startHub(files)
  await using elsewhere = await lyingHub((_req, res) => res.writeHead(500).end())
  await using mirror = await startMirror(hub.url, { hubName: elsewhere.url })
  await using seeder = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
  await seeder.client.downloadFile(hub.ref('w.bin'))
  await seeder.client.seedingSettled()
  await using user = await newUser({ endpoint: mirror.url, trackers: [tracker.url], seed: false })
  hub.resetStats()
  const response = await hookedFetch(user, mirror.url)(mirror.url + path)
  expect(sha256(new Uint8Array(await response.arrayBuffer()))).toBe(hub.file('w.bin').sha256)
  // One publisher does not tie a torrent: eight blocks of 16 KiB are compared.
  expect(hub.stats('cdn').bytesSent).toBeLessThanOrEqual(8 * 16_384)
  expect(mirror.seen.length).toBeGreaterThan(0)
  expect(elsewhere.seen).toEqual([])
})

test.each([
  ['the configured endpoint', 0, 0],
  ['another one that is watched', 1, 2],
])(
  'when %s redirects to a Hub, the program goes there; what we ask goes to %i -> %i',
  async (_, from, to) => {
    await using hub = await startHub(files)
    await using first = await lyingHub((req, res) =>
      res.writeHead(308, { location: hub.url + (req.url ?? '') }).end(),
    )
    await using second = await lyingHub((req, res) =>
      res.writeHead(308, { location: hub.url + (req.url ?? '') }).end(),
    )
    const endpoints = [first.url, second.url, hub.url]
    const hook = hookWith(endpoints, offerNothing)
    const response = await hook.fetch(endpoints[from] + path, {
      headers: { authorization: 'Bearer hf_member' },
    })
    expect(sha256(new Uint8Array(await response.arrayBuffer()))).toBe(hub.file('w.bin').sha256)
    expect(hub.stats().authorized).toBe(0)
    expect(hook.asked.map(({ context: { endpoint, token } }) => ({ endpoint, token }))).toEqual([
      { endpoint: endpoints[to], token: undefined },
    ])
  },
)
