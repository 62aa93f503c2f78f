/** What a program gets when a file is offered. */
import { getEventListeners } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import { IntegrityError } from '../../src/errors.ts'
import {
  describe as describeError,
  failingStream,
  hookWith,
  type Offer,
  offerAllOf,
  realFetch,
  sha256,
  startServer,
  streamOf,
} from './support.ts'

const token = 'hf_member'
const weights = noiseBytes('weights', 300_000)
const file = '/acme/tiny/resolve/main/weights.bin'
let hub: HubServer

beforeAll(async () => {
  hub = await startHub(
    [
      {
        repo: 'acme/tiny',
        files: {
          'config.json': '{"a":1}',
          'weights.bin': weights,
          'model.safetensors': { content: noiseBytes('xet', 200_000), storage: 'xet' },
        },
        renamedFrom: ['acme/old'],
      },
      {
        repo: 'acme/data',
        repoType: 'dataset',
        files: {},
        pulls: { 1: { 'rows.parquet': noiseBytes('rows', 100_000) } },
      },
      { repo: 'acme/private', isPrivate: true, files: { 'weights.bin': weights } },
    ],
    { tokens: { [token]: ['acme/private'] } },
  )
})
beforeEach(() => hub.resetStats())
afterEach(() => expect(hub.stats('cas').requests).toBe(0))
afterAll(() => hub.close())

/** The requests each origin saw. */
function requests(): [number, number] {
  return [hub.stats('hub').requests, hub.stats('cdn').requests]
}

/** Offers `weights` as `open` has it. */
function offerOf(
  open: (bytes: Uint8Array, signal: AbortSignal | undefined) => ReadableStream<Uint8Array>,
): Offer {
  return () => ({ open: ({ start, end }, signal) => open(weights.subarray(start, end), signal) })
}

describe('an answer', () => {
  test('has the whole file, one request at the Hub and none at its storage', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(`${hub.url}${file}?download=true#part`)
    const { status, statusText, ok, url, redirected, type } = response
    expect({ status, statusText, ok, url, redirected, type }).toEqual({
      status: 200,
      statusText: 'OK',
      ok: true,
      url: `${hub.url}${file}?download=true`,
      redirected: false,
      type: 'basic',
    })
    const { etag, commit } = hub.file('weights.bin')
    expect(Object.fromEntries(response.headers)).toEqual({
      'accept-ranges': 'bytes',
      'content-length': '300000',
      etag: `"${etag}"`,
      'x-linked-etag': `"${etag}"`,
      'x-linked-size': '300000',
      'x-repo-commit': commit,
    })
    expect(response).toBeInstanceOf(Response)
    expect(sha256(await response.arrayBuffer())).toBe(etag)
    expect(requests()).toEqual([1, 0])
    expect(hook.opened).toEqual([{ start: 0, end: 300_000 }])
  })

  test.each([
    ['bytes=0-0', 0, 1],
    ['bytes=1000-70000', 1000, 70_001],
    ['bytes=299999-', 299_999, 300_000],
    ['bytes=299990-999999', 299_990, 300_000],
    ['bytes=-5', 299_995, 300_000],
  ])('to %s has exactly these bytes', async (range, start, end) => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(hub.url + file, { headers: { range } })
    expect(response.status).toBe(206)
    expect(response.statusText).toBe('Partial Content')
    expect(response.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/300000`)
    expect(response.headers.get('content-length')).toBe(String(end - start))
    expect(Buffer.from(await response.arrayBuffer()).equals(weights.subarray(start, end))).toBe(true)
    expect(requests()).toEqual([1, 0])
    expect(hook.opened).toEqual([{ start, end }])
  })

  test('to a range says the same as the Hub and its storage do', async () => {
    const init = { headers: { range: 'bytes=7-70000' } }
    const theirs = await realFetch(hub.url + file, init)
    const ours = await hookWith([hub.url], offerAllOf(hub)).fetch(hub.url + file, init)
    for (const name of ['content-range', 'content-length', 'accept-ranges']) {
      expect(ours.headers.get(name)).toBe(theirs.headers.get(name))
    }
    expect(sha256(await ours.arrayBuffer())).toBe(sha256(await theirs.arrayBuffer()))
  })

  test('to the Xet probe is that of an ordinary file', async () => {
    const response = await hookWith([hub.url], offerAllOf(hub)).fetch(
      `${hub.url}/acme/tiny/resolve/main/model.safetensors`,
      { headers: { range: 'bytes=0-0', accept: 'application/vnd.xet-fileinfo+json, */*' } },
    )
    expect(response.status).toBe(206)
    expect(response.headers.get('content-range')).toBe('bytes 0-0/200000')
    for (const name of ['x-xet-hash', 'link', 'content-type']) expect(response.headers.get(name)).toBeNull()
    expect(await response.arrayBuffer()).toHaveProperty('byteLength', 1)
    expect(requests()).toEqual([1, 0])
  })

  test('names a git file by the answer after the redirect', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const init = { headers: { range: 'bytes=0-2' } }
    const response = await hook.fetch(`${hub.url}/acme/tiny/resolve/main/config.json`, init)
    expect(await response.text()).toBe('{"a')
    expect(response.headers.get('etag')).toBe(`"${hub.file('config.json').gitSha1}"`)
    expect(response.url).toBe(`${hub.url}/acme/tiny/resolve/main/config.json`)
    expect(response.redirected).toBe(false)
    expect(hook.asked).toHaveLength(1)
  })

  test('can be read through a reader that brings its own buffer', async () => {
    const response = await hookWith([hub.url], offerAllOf(hub)).fetch(hub.url + file)
    const reader = response.body?.getReader({ mode: 'byob' } as never) as unknown as {
      read(view: Uint8Array): Promise<{ done: boolean; value: Uint8Array | undefined }>
    }
    const parts: Uint8Array[] = []
    for (;;) {
      const { done, value } = await reader.read(new Uint8Array(50_000))
      if (done) break
      if (value) parts.push(value)
    }
    expect(sha256(Buffer.concat(parts))).toBe(sha256(weights))
  })

  test('does not take away the memory of who offered it', async () => {
    const shared = Buffer.from(weights)
    const offer: Offer = () => ({
      open: () => ReadableStream.from([shared.subarray(0, 100_000), shared.subarray(100_000)]) as never,
    })
    const response = await hookWith([hub.url], offer).fetch(hub.url + file)
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
    expect(sha256(shared)).toBe(sha256(weights))
  })
})

describe('what is offered', () => {
  test('is named as the Hub names it, with the token that opened it', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const path = '/acme/private/resolve/main/weights.bin'
    const controller = new AbortController()
    const init = { headers: { Authorization: `bearer ${token}` }, signal: controller.signal }
    await hook.fetch(hub.url + path, init)
    const { commit, etag, sizeBytes } = hub.file('weights.bin', { repo: 'acme/private' })
    expect(hook.asked).toEqual([
      {
        file: { repoType: 'model', repo: 'acme/private', path: 'weights.bin', commit, etag, sizeBytes },
        context: { token, signal: controller.signal, range: { start: 0, end: sizeBytes }, endpoint: hub.url },
      },
    ])
    await hook.fetch(`${hub.url}/datasets/acme/data/resolve/refs%2Fpr%2F1/rows.parquet`)
    expect(hook.asked[1]).toMatchObject({
      file: { repoType: 'dataset', repo: 'acme/data', path: 'rows.parquet' },
      context: { token: undefined, signal: undefined },
    })
  })

  test('has the new name of a renamed repository', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(`${hub.url}/acme/old/resolve/main/weights.bin`)
    expect(hook.asked[0]?.file.repo).toBe('acme/tiny')
    expect(response.url).toBe(`${hub.url}/acme/old/resolve/main/weights.bin`)
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
    expect(requests()).toEqual([2, 0])
  })

  test('is never what another origin says, and no token follows there', async () => {
    const headers = {
      'x-repo-commit': 'c'.repeat(40),
      etag: `"${'e'.repeat(64)}"`,
      'content-length': '6',
    }
    await using stranger = await startServer((_req, res) => void res.writeHead(200, headers).end('theirs'))
    await using server = await startServer((_req, res) => {
      res.writeHead(302, { location: `${stranger.url}/acme/tiny/resolve/main/x` }).end()
    })
    const hook = hookWith([server.url], offerAllOf(hub))
    const init = { headers: { authorization: `Bearer ${token}` } }
    const response = await hook.fetch(`${server.url}/acme/tiny/resolve/main/x`, init)
    expect(await response.text()).toBe('theirs')
    expect(hook.asked).toEqual([])
    expect(stranger.seen[0]?.headers.authorization).toBeUndefined()
  })

  test('is not the token of the origin before, when one Hub redirects to another', async () => {
    await using other = await startServer((_req, res) => {
      res.writeHead(302, { location: hub.url + file }).end()
    })
    const hook = hookWith([hub.url, other.url], offerAllOf(hub))
    const init = { headers: { authorization: `Bearer ${token}` } }
    await hook.fetch(`${other.url}/acme/tiny/resolve/main/weights.bin`, init)
    expect(hook.asked).toHaveLength(1)
    expect(hook.asked[0]?.context.token).toBeUndefined()
    expect(hook.asked[0]?.context.endpoint).toBe(hub.url)
  })

  test.each([{ authorization: 'Basic eDp5' }, { cookie: 'token=x' }])(
    'is nothing that was shown for credentials we do not understand: %j',
    async (credentials) => {
      const headers = {
        'x-repo-commit': 'c'.repeat(40),
        'x-linked-etag': `"${'e'.repeat(64)}"`,
        'x-linked-size': '6',
      }
      await using server = await startServer((_req, res) => void res.writeHead(200, headers).end('secret'))
      const hook = hookWith([server.url], offerAllOf(hub))
      const url = `${server.url}/acme/tiny/resolve/main/a`
      expect(await (await hook.fetch(url, { headers: credentials })).text()).toBe('secret')
      expect(hook.asked).toEqual([])
    },
  )

  test('is asked for once, however many answers name it', async () => {
    const headers = {
      'x-repo-commit': 'c'.repeat(40),
      'x-linked-etag': `"${'e'.repeat(64)}"`,
      'x-linked-size': '6',
    }
    await using server = await startServer((req, res) => {
      if (req.url?.endsWith('/a')) res.writeHead(307, { location: 'b', ...headers }).end()
      else res.writeHead(200, headers).end('theirs')
    })
    const hook = hookWith([server.url], offerAllOf(hub))
    expect(await (await hook.fetch(`${server.url}/acme/tiny/resolve/main/a`)).text()).toBe('theirs')
    expect(hook.asked.map(({ file }) => file.path)).toEqual(['a'])
  })

  test('is not asked for while the hook is switched off', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    hook.isActive = false
    await (await hook.fetch(hub.url + file)).arrayBuffer()
    expect(hook.asked).toEqual([])
    expect(requests()).toEqual([1, 1])
  })
})

/** Time for whatever was about to happen by itself: a whole round trip to a server and back. */
async function meanwhile(): Promise<void> {
  await (await realFetch(`${hub.url}/api/models/acme/tiny/revision/main`)).arrayBuffer()
}

describe('nothing is opened', () => {
  test('for a body that nobody reads', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(hub.url + file)
    const reader = response.body?.getReader()
    expect(requests()).toEqual([1, 0])
    await meanwhile()
    await reader?.cancel()
    expect(hook.opened).toEqual([])
    expect(hub.stats('cdn').requests).toBe(0)
  })

  test('for a clone either, until it is read', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(hub.url + file, { headers: { range: 'bytes=10-19' } })
    const copy = response.clone()
    await meanwhile()
    expect(hook.opened).toEqual([])
    expect(copy.url).toBe(response.url)
    expect([...copy.headers]).toEqual([...response.headers])
    expect(copy.status).toBe(206)
    const bodies = await Promise.all([copy.arrayBuffer(), response.arrayBuffer()])
    for (const body of bodies) expect(Buffer.from(body).equals(weights.subarray(10, 20))).toBe(true)
    expect(() => response.clone()).toThrow(TypeError)
  })

  test('twice for one body, nor further than it is read', async () => {
    let given = 0
    const offer = offerOf(
      (bytes) =>
        new ReadableStream<Uint8Array>(
          {
            pull(controller) {
              controller.enqueue(new Uint8Array(bytes.subarray(given, given + 1000)))
              given += 1000
            },
          },
          { highWaterMark: 0 },
        ),
    )
    const hook = hookWith([hub.url], offer)
    const response = await hook.fetch(hub.url + file)
    const reader = response.body?.getReader()
    await reader?.read()
    await meanwhile()
    expect(given).toBe(1000)
    await reader?.cancel()
    expect(hook.opened).toHaveLength(1)
  })

  test('beside a first request that is never read, by a client that goes on with ranges of its URL', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const first = await hook.fetch(`${hub.url}${file}?download=true`)
    const length = Number(first.headers.get('content-length'))
    const parts = await Promise.all(
      [0, 1, 2, 3, 4, 5].map(async (i) => {
        const headers = { range: `bytes=${i * 50_000}-${(i + 1) * 50_000 - 1}` }
        return Buffer.from(await (await hook.fetch(first.url, { headers })).arrayBuffer())
      }),
    )
    expect(length).toBe(300_000)
    expect(sha256(Buffer.concat(parts))).toBe(sha256(weights))
    expect(hook.opened).toHaveLength(6)
    expect(requests()).toEqual([7, 0])
  })
})

describe('the caller who cancels', () => {
  test('while the offer is awaited gets the reason at once', async () => {
    const controller = new AbortController()
    const reason = new RangeError('enough')
    const hook = hookWith([hub.url], () => {
      setImmediate(() => controller.abort(reason))
      return new Promise(() => undefined)
    })
    await expect(hook.fetch(hub.url + file, { signal: controller.signal })).rejects.toBe(reason)
    expect(hook.asked).toHaveLength(1)
    expect(requests()).toEqual([1, 0])
  })

  test('before the body is read gets the reason then, and nothing is opened', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const controller = new AbortController()
    const response = await hook.fetch(hub.url + file, { signal: controller.signal })
    controller.abort()
    await expect(response.arrayBuffer()).rejects.toBe(controller.signal.reason)
    expect(hook.opened).toEqual([])
  })

  test('in the middle of a read gets the reason, and the source is told', async () => {
    let cancelled: unknown
    const hook = hookWith(
      [hub.url],
      offerOf((bytes) => {
        let isGiven = false
        return new ReadableStream<Uint8Array>(
          {
            pull(controller) {
              if (isGiven) return new Promise(() => undefined)
              isGiven = true
              controller.enqueue(new Uint8Array(bytes.subarray(0, 10)))
            },
            cancel(reason) {
              cancelled = reason
            },
          },
          { highWaterMark: 0 },
        )
      }),
    )
    const controller = new AbortController()
    const request = new Request(hub.url + file, { signal: controller.signal })
    const reader = (await hook.fetch(request)).body?.getReader()
    expect((await reader?.read())?.value).toHaveLength(10)
    const pending = reader?.read()
    const reason = new RangeError('enough')
    controller.abort(reason)
    await expect(pending).rejects.toBe(reason)
    expect(cancelled).toBe(reason)
  })

  test('through a Request that nobody holds any more is heard', async () => {
    const controller = new AbortController()
    const hook = hookWith([hub.url], offerAllOf(hub))
    const response = await hook.fetch(new Request(hub.url + file, { signal: controller.signal }))
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setImmediate(resolve))
      globalThis.gc?.()
    }
    controller.abort()
    await expect(response.arrayBuffer()).rejects.toBe(controller.signal.reason)
  })

  test('does not pile up listeners on a signal that lives long', async () => {
    const { signal } = new AbortController()
    // The original's listeners go when its requests are collected: not ours to count.
    const deaf: typeof fetch = (input, init) => realFetch(input, { ...init, signal: null })
    const hook = hookWith([hub.url], offerAllOf(hub), deaf)
    await hook.fetch(hub.url + file, { signal })
    await (await hook.fetch(hub.url + file, { signal })).arrayBuffer()
    const reader = (await hook.fetch(hub.url + file, { signal })).body?.getReader()
    await reader?.read()
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    await reader?.cancel()
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test('by cancelling the body ends the source', async () => {
    let cancelled: unknown
    const offer = offerOf(
      (bytes) =>
        new ReadableStream<Uint8Array>(
          {
            pull: (controller) => controller.enqueue(new Uint8Array(bytes.subarray(0, 10))),
            cancel(reason) {
              cancelled = reason
            },
          },
          { highWaterMark: 0 },
        ),
    )
    const reader = (await hookWith([hub.url], offer).fetch(hub.url + file)).body?.getReader()
    await reader?.read()
    await reader?.cancel('done with it')
    expect(cancelled).toBe('done with it')
  })
})

describe('a source that fails', () => {
  test('before it gave anything is replaced by the Hub, as if it had not been there', async () => {
    const offer = offerOf(() => failingStream(new Uint8Array(0), new Error('the disk is full')))
    const hook = hookWith([hub.url], offer)
    const response = await hook.fetch(hub.url + file)
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
    const headers = { range: 'bytes=-1000' }
    const part = await hook.fetch(hub.url + file, { headers })
    expect(Buffer.from(await part.arrayBuffer()).equals(weights.subarray(299_000))).toBe(true)
    // Pinned to the commit of the answer: the branch may have moved since.
    const pinned = file.replace('main', hub.file('weights.bin').commit)
    expect(hub.requests('hub').map(({ url }) => url)).toEqual([file, pinned, file, pinned])
  })

  test('is replaced by content, also for a caller who would have taken a note about where it is', async () => {
    const offer = offerOf(() => failingStream(new Uint8Array(0), new Error('the disk is full')))
    const init = { headers: { accept: 'application/vnd.xet-fileinfo+json, */*' } }
    const url = `${hub.url}/acme/tiny/resolve/main/model.safetensors`
    const response = await hookWith([hub.url], offer).fetch(url, init)
    expect(sha256(await response.arrayBuffer())).toBe(hub.file('model.safetensors').sha256)
  })

  test('when it is opened is replaced too, with the token that the Hub wants', async () => {
    const hook = hookWith([hub.url], () => ({
      open() {
        throw new Error('a bug')
      },
    }))
    const init = { headers: { authorization: `Bearer ${token}` } }
    const response = await hook.fetch(`${hub.url}/acme/private/resolve/main/weights.bin`, init)
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
    expect(hub.stats('cdn')).toMatchObject({ requests: 1, authorized: 0 })
  })

  test('and cannot be replaced ends the body as a broken connection does', async () => {
    const failure = new Error('the disk is full')
    const hook = hookWith(
      [hub.url],
      offerOf(() => failingStream(new Uint8Array(0), failure)),
    )
    const response = await hook.fetch(hub.url + file)
    const off = hub.inject({ origin: 'hub', status: 503 })
    try {
      const error = await response.arrayBuffer().catch((thrown: unknown) => thrown)
      expect(describeError(error)).toBe(
        'TypeError TypeError undefined terminated <- Error Error undefined the disk is full',
      )
    } finally {
      off()
    }
  })

  test.each([
    ['the whole file', undefined, 0, 300_000],
    ['a range', 'bytes=1000-70999', 1000, 71_000],
  ])('after its first bytes of %s is replaced by the rest from the Hub', async (_name, range, start, end) => {
    const hook = hookWith(
      [hub.url],
      offerOf((bytes) => failingStream(bytes.subarray(0, 5000), new Error('the disk is full'))),
    )
    const response = await hook.fetch(hub.url + file, range === undefined ? {} : { headers: { range } })
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights.subarray(start, end)))
    expect(hub.requests('cdn').map((request) => request.range)).toEqual([`bytes=${start + 5000}-${end - 1}`])
    expect(hub.stats('cdn').bytesSent).toBe(end - start - 5000)
  })

  test('is replaced by a server that knows no ranges, too', async () => {
    const off = hub.inject({ origin: 'cdn', ignoreRange: true })
    try {
      const hook = hookWith(
        [hub.url],
        offerOf((bytes) => failingStream(bytes.subarray(0, 70_000), new Error('the disk is full'))),
      )
      const response = await hook.fetch(hub.url + file)
      expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
    } finally {
      off()
    }
  })

  test('is replaced once: what fails after that ends the body with an error', async () => {
    const failure = new Error('gone')
    const hook = hookWith(
      [hub.url],
      offerOf((bytes) => failingStream(bytes.subarray(0, 10), failure)),
    )
    const off = hub.inject({ origin: 'cdn', cutAfterBytes: 1000 })
    try {
      const response = await hook.fetch(hub.url + file)
      await expect(response.arrayBuffer()).rejects.toThrow('terminated')
      expect(hub.stats('cdn').requests).toBe(1)
    } finally {
      off()
    }
  })

  test('after wrong bytes does not make a whole body with the rest from the Hub', async () => {
    const hook = hookWith([hub.url], () => ({
      open: () => failingStream(noiseBytes('lie', 5000), new Error('the disk is full')),
    }))
    const response = await hook.fetch(hub.url + file)
    await expect(response.arrayBuffer()).rejects.toMatchObject({ cause: { code: 'ERR_LLMPT_INTEGRITY' } })
  })

  test('because no content is right is not replaced: the Hub was among those who gave it', async () => {
    const failure = new IntegrityError('not what the etag promises')
    const hook = hookWith(
      [hub.url],
      offerOf(() => failingStream(new Uint8Array(0), failure)),
    )
    const response = await hook.fetch(hub.url + file)
    await expect(response.arrayBuffer()).rejects.toMatchObject({ message: 'terminated', cause: failure })
    expect(requests()).toEqual([1, 0])
  })

  test('because a byte was wrong does not give its last bytes', async () => {
    const wrong = Buffer.from(weights)
    wrong[100_000] = (wrong[100_000] ?? 0) ^ 1
    const hook = hookWith([hub.url], () => ({ open: () => streamOf(wrong, 1000) }))
    const reader = (await hook.fetch(hub.url + file)).body?.getReader()
    let given = 0
    const read = async (): Promise<void> => {
      for (;;) {
        const chunk = await reader?.read()
        if (chunk?.done !== false) return
        given += chunk.value.length
      }
    }
    await expect(read()).rejects.toMatchObject({
      message: 'terminated',
      cause: { code: 'ERR_LLMPT_INTEGRITY' },
    })
    expect(given).toBe(299_000)
  })

  test('to match a git etag never ends as if it were right', async () => {
    const url = `${hub.url}/acme/tiny/resolve/main/config.json`
    const offering = (text: string): Promise<Response> =>
      hookWith([hub.url], () => ({ open: () => streamOf(Buffer.from(text)) })).fetch(url, {
        headers: { range: 'bytes=0-6' },
      })
    expect(await (await offering('{"a":1}')).text()).toBe('{"a":1}')
    await expect((await offering('{"a":2}')).text()).rejects.toThrow('terminated')
  })

  test.each([
    ['few', -1],
    ['many', 1],
  ])('to stop at the right byte, with one too %s, never ends as if it were right', async (_name, extra) => {
    const offer: Offer = () => ({
      open: ({ start, end }) => streamOf(noiseBytes('x', end - start + extra), 1000),
    })
    const response = await hookWith([hub.url], offer).fetch(hub.url + file)
    await expect(response.arrayBuffer()).rejects.toThrow('terminated')
  })
})
