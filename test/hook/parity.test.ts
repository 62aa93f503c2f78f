/** A program sees no difference between the original `fetch` and a hooked one that has nothing to offer. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import {
  describe as describeError,
  hookWith,
  type Offer,
  type Outcome,
  offerNothing,
  outcomeOf,
  realFetch,
  sha256,
  startServer,
} from './support.ts'

const token = 'hf_member'
const authorized = { headers: { authorization: `Bearer ${token}` } }
const weights = noiseBytes('weights', 300_000)
let hub: HubServer

beforeAll(async () => {
  hub = await startHub(
    [
      {
        repo: 'acme/tiny',
        files: {
          'config.json': '{"a":1}',
          'sub/läng #1?.txt': 'odd name',
          'empty.txt': '',
          'weights.bin': weights,
          'model.safetensors': { content: noiseBytes('xet', 200_000), storage: 'xet' },
        },
        renamedFrom: ['acme/old'],
      },
      { repo: 'acme/data', repoType: 'dataset', files: { 'rows.parquet': noiseBytes('rows', 100_000) } },
      { repo: 'acme/private', isPrivate: true, files: { 'weights.bin': weights } },
      { repo: 'acme/gated', isGated: true, files: { 'weights.bin': weights } },
      { repo: 'acme/disabled', isDisabled: true, files: { 'weights.bin': weights } },
    ],
    {
      tokens: { [token]: ['acme/private', 'acme/gated'], hf_other: [] },
      // Signed URLs carry the time: with a clock that stands still two runs are equal.
      now: () => 1_700_000_000_000,
    },
  )
})
afterAll(() => hub.close())

type Call = (fetch: typeof globalThis.fetch, endpoint: string) => Promise<Response>

interface Row {
  readonly name: string
  readonly call: Call
  /** How often something should be asked for, lest the row prove nothing. */
  readonly asked: number
}

function get(path: string, init?: RequestInit): Call {
  return (fetch, endpoint) => fetch(endpoint + path, init)
}

function withHeaders(headers: Record<string, string>): RequestInit {
  return { headers }
}

const file = '/acme/tiny/resolve/main/weights.bin'
const xetAccept = 'application/vnd.xet-fileinfo+json, */*'

const rows: readonly Row[] = [
  { name: 'a git file, compressed', call: get('/acme/tiny/resolve/main/config.json'), asked: 0 },
  {
    name: 'a git file, not compressed',
    call: get('/acme/tiny/resolve/main/config.json', withHeaders({ 'accept-encoding': 'identity' })),
    asked: 1,
  },
  {
    name: 'one byte of a git file',
    call: get('/acme/tiny/resolve/main/config.json', withHeaders({ range: 'bytes=0-0' })),
    asked: 1,
  },
  {
    name: 'a name with a fragment sign in it',
    call: get('/acme/tiny/resolve/main/sub/l%C3%A4ng%20%231%3F.txt', withHeaders({ range: 'bytes=0-3' })),
    asked: 1,
  },
  { name: 'an LFS file', call: get(file), asked: 1 },
  { name: 'an LFS file with a query and a fragment', call: get(`${file}?download=true#part`), asked: 1 },
  { name: 'an LFS file of a dataset', call: get('/datasets/acme/data/resolve/main/rows.parquet'), asked: 1 },
  {
    name: 'a Xet file without asking for Xet',
    call: get('/acme/tiny/resolve/main/model.safetensors'),
    asked: 1,
  },
  {
    name: 'the Xet probe',
    call: get(
      '/acme/tiny/resolve/main/model.safetensors',
      withHeaders({ range: 'bytes=0-0', accept: xetAccept }),
    ),
    asked: 1,
  },
  { name: 'a renamed repository', call: get('/acme/old/resolve/main/weights.bin'), asked: 1 },
  { name: 'an empty file', call: get('/acme/tiny/resolve/main/empty.txt'), asked: 0 },
  {
    name: 'a range of an empty file (416)',
    call: get('/acme/tiny/resolve/main/empty.txt', withHeaders({ range: 'bytes=0-0' })),
    asked: 0,
  },
  { name: 'a first range', call: get(file, withHeaders({ range: 'bytes=0-0' })), asked: 1 },
  { name: 'a range in the middle', call: get(file, withHeaders({ range: 'bytes=100-65999' })), asked: 1 },
  { name: 'a range without an end', call: get(file, withHeaders({ range: 'bytes=299990-' })), asked: 1 },
  {
    name: 'a range beyond the end',
    call: get(file, withHeaders({ range: 'bytes=299990-400000' })),
    asked: 1,
  },
  { name: 'the last bytes', call: get(file, withHeaders({ range: 'bytes=-10' })), asked: 1 },
  {
    name: 'an unsatisfiable range (416)',
    call: get(file, withHeaders({ range: 'bytes=300000-' })),
    asked: 0,
  },
  {
    name: 'a range that ends before it starts',
    call: get(file, withHeaders({ range: 'bytes=9-3' })),
    asked: 0,
  },
  { name: 'several ranges', call: get(file, withHeaders({ range: 'bytes=0-1,5-6' })), asked: 0 },
  { name: 'a range of something else', call: get(file, withHeaders({ range: 'lines=0-1' })), asked: 0 },
  { name: 'no such entry (404)', call: get('/acme/tiny/resolve/main/nothing.bin'), asked: 0 },
  { name: 'no such revision (404)', call: get('/acme/tiny/resolve/nowhere/weights.bin'), asked: 0 },
  { name: 'no such repository (401)', call: get('/acme/none/resolve/main/weights.bin'), asked: 0 },
  {
    name: 'no such repository, with a token (404)',
    call: get('/acme/none/resolve/main/weights.bin', authorized),
    asked: 0,
  },
  {
    name: 'a wrong token (401)',
    call: get(file, withHeaders({ authorization: 'Bearer hf_wrong' })),
    asked: 0,
  },
  {
    name: 'a gated repository, anonymous (401)',
    call: get('/acme/gated/resolve/main/weights.bin'),
    asked: 0,
  },
  {
    name: 'a gated repository, not on the list (403)',
    call: get('/acme/gated/resolve/main/weights.bin', withHeaders({ authorization: 'Bearer hf_other' })),
    asked: 0,
  },
  { name: 'a gated repository', call: get('/acme/gated/resolve/main/weights.bin', authorized), asked: 1 },
  { name: 'a private repository', call: get('/acme/private/resolve/main/weights.bin', authorized), asked: 1 },
  { name: 'a disabled repository (403)', call: get('/acme/disabled/resolve/main/weights.bin'), asked: 0 },
  { name: 'HEAD', call: get(file, { method: 'HEAD' }), asked: 0 },
  { name: 'POST', call: get(file, { method: 'POST', body: 'x' }), asked: 0 },
  { name: 'GET in lower case', call: get(file, { method: 'get' }), asked: 1 },
  { name: 'GET with a body', call: get(file, { body: 'x' }), asked: 0 },
  { name: 'the pointer', call: get('/acme/tiny/raw/main/weights.bin'), asked: 0 },
  { name: 'the API', call: get('/api/models/acme/tiny/revision/main'), asked: 0 },
  { name: 'redirect: manual', call: get(file, { redirect: 'manual' }), asked: 0 },
  { name: 'redirect: error', call: get(file, { redirect: 'error' }), asked: 0 },
  { name: 'a mode', call: get(file, { mode: 'same-origin' }), asked: 0 },
  { name: 'a wrong integrity', call: get(file, { integrity: `sha256-${'A'.repeat(43)}=` }), asked: 0 },
  { name: 'a cookie', call: get(file, withHeaders({ cookie: 'token=x' })), asked: 0 },
  { name: 'another authorization', call: get(file, withHeaders({ authorization: 'Basic eDp5' })), asked: 0 },
  { name: 'a condition', call: get(file, withHeaders({ 'if-none-match': '"x"' })), asked: 0 },
  {
    name: 'a range with a condition',
    call: get(file, withHeaders({ range: 'bytes=0-1', 'if-range': '"x"' })),
    asked: 0,
  },
  { name: 'a URL object', call: (fetch, endpoint) => fetch(new URL(endpoint + file)), asked: 1 },
  { name: 'a Request', call: (fetch, endpoint) => fetch(new Request(endpoint + file)), asked: 1 },
  {
    name: 'a Request with headers',
    call: (fetch, endpoint) => fetch(new Request(endpoint + file, withHeaders({ range: 'bytes=5-9' }))),
    asked: 1,
  },
  {
    name: 'a Request whose headers are replaced',
    call: (fetch, endpoint) =>
      fetch(new Request(endpoint + file, withHeaders({ range: 'bytes=5-9' })), { headers: {} }),
    asked: 1,
  },
  {
    name: 'a Request with redirect: manual',
    call: (fetch, endpoint) => fetch(new Request(endpoint + file, { redirect: 'manual' })),
    asked: 0,
  },
  {
    name: 'a HEAD Request',
    call: (fetch, endpoint) => fetch(new Request(endpoint + file, { method: 'HEAD' })),
    asked: 0,
  },
  {
    name: 'a Request in the place of the options',
    call: (fetch, endpoint) =>
      fetch(endpoint + file, new Request(endpoint, withHeaders({ range: 'bytes=5-9' })) as RequestInit),
    asked: 0,
  },
  {
    name: 'headers that can be read once',
    call: (fetch, endpoint) => {
      const headers = [['range', 'bytes=5-9']].values() as unknown as [string, string][]
      return fetch(endpoint + file, { headers })
    },
    asked: 0,
  },
  {
    name: 'options that are undefined',
    call: get(file, { method: undefined, headers: undefined, signal: undefined } as unknown as RequestInit),
    asked: 1,
  },
  { name: 'a null signal', call: get(file, { signal: null }), asked: 1 },
  { name: 'null for options', call: get(file, null as unknown as RequestInit), asked: 0 },
  {
    name: 'a name and password in the URL',
    call: (fetch, endpoint) => fetch(endpoint.replace('//', '//user:pass@') + file),
    asked: 0,
  },
  { name: 'a header that cannot be', call: get(file, withHeaders({ 'x y': '1' })), asked: 0 },
  { name: 'no URL at all', call: (fetch) => fetch('/acme/tiny/resolve/main/weights.bin'), asked: 0 },
  { name: 'another scheme', call: (fetch) => fetch('ftp://x/acme/tiny/resolve/main/a'), asked: 0 },
  {
    name: 'a path that would leave the repository',
    call: get('/acme/tiny/resolve/main/..%2F..%2Fetc%2Fpasswd'),
    asked: 0,
  },
  {
    name: 'a signal that was aborted before',
    call: get(file, { signal: AbortSignal.abort() }),
    asked: 0,
  },
  {
    name: 'a signal that was aborted before, with a reason of its own',
    call: get(file, { signal: AbortSignal.abort(new RangeError('mine')) }),
    asked: 0,
  },
  {
    name: 'a signal inside a Request',
    call: (fetch, endpoint) => fetch(new Request(endpoint + file, { signal: AbortSignal.abort('why') })),
    asked: 0,
  },
]

/** Both ways on the same Hub, with what each of its servers saw. */
async function bothWays(
  call: Call,
  offer: Offer = offerNothing,
  read?: (response: Response) => Promise<unknown>,
): Promise<{ unhooked: unknown; hooked: unknown; outcome: Outcome; asked: number }> {
  const hook = hookWith([hub.url], offer)
  hub.resetStats()
  const unhooked = await outcomeOf(() => call(realFetch, hub.url), read)
  const unhookedRequests = traffic()
  hub.resetStats()
  const outcome = await outcomeOf(() => call(hook.fetch, hub.url), read)
  return {
    unhooked: { ...unhooked, requests: unhookedRequests },
    hooked: { ...outcome, requests: traffic() },
    outcome,
    asked: hook.asked.length,
  }
}

function traffic(): unknown {
  return hub.requests().map(({ origin, method, url, range, authorization, status }) => {
    return { origin, method, url, range, authorization, status }
  })
}

describe('with nothing to offer, a program sees the same for', () => {
  test.each(rows)('$name', async ({ call, asked }) => {
    const seen = await bothWays(call)
    expect(seen.hooked).toEqual(seen.unhooked)
    expect(seen.asked).toBe(asked)
  })

  test('an LFS file, whose answer is the end of a redirect to another origin', async () => {
    const { outcome } = await bothWays(get(file))
    expect(outcome).toMatchObject({ status: 200, redirected: true, type: 'cors', body: sha256(weights) })
    expect(outcome.url).toMatch(hub.cdnUrl)
  })

  test('a signal that aborts a body which somebody reads', async () => {
    hub.setThrottle('cdn', 100_000)
    try {
      const controllers = [new AbortController(), new AbortController()]
      let run = 0
      const seen = await bothWays(
        (fetch, endpoint) => fetch(endpoint + file, { signal: controllers[run]?.signal ?? null }),
        offerNothing,
        async (response) => {
          const reader = response.body?.getReader()
          await reader?.read()
          controllers[run++]?.abort()
          for (;;) await reader?.read()
        },
      )
      expect(seen.hooked).toEqual(seen.unhooked)
      expect(seen.outcome.bodyError).toMatch('AbortError')
    } finally {
      hub.setThrottle('cdn', 0)
    }
  })

  test.each(['hub', 'cdn'] as const)('a signal that aborts while the %s does not answer', async (origin) => {
    const off = hub.inject({ origin, delayMs: 60_000 })
    try {
      const seen = await bothWays((fetch, endpoint) => {
        const controller = new AbortController()
        const before = hub.requests(origin).length
        const abortOnArrival = (): void => {
          if (hub.requests(origin).length === before) setImmediate(abortOnArrival)
          else controller.abort(new RangeError('enough'))
        }
        abortOnArrival()
        return fetch(endpoint + file, { signal: controller.signal })
      })
      expect(seen.hooked).toEqual(seen.unhooked)
      expect(seen.outcome.error).toMatch('enough')
    } finally {
      off()
    }
  })

  test.each([
    { name: 'too many requests (429)', asked: 0, fault: { origin: 'hub', status: 429, retryAfter: '7' } },
    { name: 'a broken Hub (500)', asked: 0, fault: { origin: 'hub', status: 500, body: 'oops' } },
    { name: 'a broken storage (503)', asked: 1, fault: { origin: 'cdn', status: 503 } },
    { name: 'a body that is cut', asked: 1, fault: { origin: 'cdn', cutAfterBytes: 70_000 } },
    {
      name: 'a body that ends early',
      asked: 1,
      fault: { origin: 'cdn', cutAfterBytes: 70_000, noLength: true },
    },
    { name: 'a storage that ignores ranges', asked: 1, fault: { origin: 'cdn', ignoreRange: true } },
    {
      name: 'an etag that is none',
      asked: 0,
      fault: { origin: 'hub', headers: { 'x-linked-etag': '"../../x"' } },
    },
    { name: 'no etag', asked: 0, fault: { origin: 'hub', headers: { 'x-linked-etag': undefined } } },
    { name: 'a negative size', asked: 0, fault: { origin: 'hub', headers: { 'x-linked-size': '-1' } } },
    { name: 'a size of 0', asked: 0, fault: { origin: 'hub', headers: { 'x-linked-size': '0' } } },
    { name: 'a huge size', asked: 0, fault: { origin: 'hub', headers: { 'x-linked-size': '9'.repeat(16) } } },
    {
      name: 'a size above 50 GB',
      asked: 0,
      fault: { origin: 'hub', headers: { 'x-linked-size': '50000000001' } },
    },
    { name: 'a size in words', asked: 0, fault: { origin: 'hub', headers: { 'x-linked-size': '0x10' } } },
    {
      name: 'a commit that is none',
      asked: 0,
      fault: { origin: 'hub', headers: { 'x-repo-commit': '../main' } },
    },
    { name: 'no commit', asked: 0, fault: { origin: 'hub', headers: { 'x-repo-commit': undefined } } },
    { name: 'a redirect to nowhere', asked: 0, fault: { origin: 'hub', headers: { location: undefined } } },
    {
      name: 'a redirect to a strange scheme',
      asked: 1,
      fault: { origin: 'hub', headers: { location: 'file:///etc/x' } },
    },
    { name: 'a redirect to no URL', asked: 1, fault: { origin: 'hub', headers: { location: 'http://[' } } },
    {
      name: 'a redirect with a password',
      asked: 1,
      fault: { origin: 'hub', headers: { location: 'http://a:b@127.0.0.1/' } },
    },
    {
      name: 'a redirect to a dead port',
      asked: 1,
      fault: { origin: 'hub', headers: { location: 'http://127.0.0.1:1/' } },
    },
  ] as const)('$name', async ({ fault, asked }) => {
    const off = hub.inject({ ...fault, path: 'weights.bin' })
    try {
      for (const init of [{}, withHeaders({ range: 'bytes=10-99999' })]) {
        const seen = await bothWays(get(file, init))
        expect(seen.hooked).toEqual(seen.unhooked)
        expect(seen.asked).toBe(asked)
      }
    } finally {
      off()
    }
  })

  test('a Hub that refuses connections', async () => {
    await hub.setAvailability('hub', 'refused')
    try {
      // The first one may still meet the end of a connection that was kept.
      await outcomeOf(() => realFetch(hub.url))
      const seen = await bothWays(get(file))
      expect(seen.hooked).toEqual(seen.unhooked)
      expect(seen.outcome.error).toMatch(/fetch failed.*ECONNREFUSED/)
    } finally {
      await hub.setAvailability('hub', 'up')
    }
  })
})

describe('with an offer that fails, a program sees the same when', () => {
  test.each<{ name: string; offer: Offer }>([
    { name: 'it rejects', offer: () => Promise.reject(new Error('no tracker')) },
    {
      name: 'it throws',
      offer: () => {
        throw new TypeError('a bug')
      },
    },
    { name: 'it throws what is no error', offer: () => Promise.reject(undefined) },
    { name: 'it gives what is no file', offer: () => null as never },
  ])('$name', async ({ offer }) => {
    const seen = await bothWays(get(file), offer)
    expect(seen.hooked).toEqual(seen.unhooked)
    expect(seen.asked).toBe(1)
  })
})

describe('redirects followed by hand', () => {
  test('end after as many requests and with the same error as those of fetch', async () => {
    await using server = await startServer((_req, res) => {
      res.writeHead(302, { location: '/acme/tiny/resolve/main/loop' }).end()
    })
    const url = `${server.url}/acme/tiny/resolve/main/loop`
    const unhooked = await outcomeOf(() => realFetch(url))
    const requests = server.seen.length
    const hooked = await outcomeOf(() => hookWith([server.url], offerNothing).fetch(url))
    expect(hooked).toEqual(unhooked)
    expect(server.seen.length - requests).toBe(requests)
    expect(requests).toBe(21)
  })

  test('send each server the headers that fetch would send it, and another origin no credentials', async () => {
    await using storage = await startServer((_req, res) => void res.end('stored'))
    await using server = await startServer((req, res) => {
      const location = req.url?.endsWith('/a') ? '/acme/tiny/resolve/main/b' : `${storage.url}/blob`
      res.writeHead(307, { location, 'x-repo-commit': 'c'.repeat(40) }).end('moved')
    })
    const call = async (fetch: typeof globalThis.fetch): Promise<unknown> => {
      const headers = {
        Authorization: `Bearer ${token}`,
        'Proxy-Authorization': 'Basic x',
        'X-Own': 'kept',
        'User-Agent': 'mine',
        Range: 'bytes=0-9',
      }
      const outcome = await outcomeOf(() => fetch(`${server.url}/acme/tiny/resolve/main/a`, { headers }))
      const seen = [...server.seen.splice(0), ...storage.seen.splice(0)]
      return { outcome, seen }
    }
    const unhooked = await call(realFetch)
    const hooked = await call(hookWith([server.url], offerNothing).fetch)
    expect(hooked).toEqual(unhooked)
    expect(hooked).toMatchObject({
      seen: [
        { url: '/acme/tiny/resolve/main/a', headers: { authorization: `Bearer ${token}` } },
        { url: '/acme/tiny/resolve/main/b', headers: { authorization: `Bearer ${token}`, 'x-own': 'kept' } },
        { url: '/blob', headers: { 'x-own': 'kept', range: 'bytes=0-9' } },
      ],
    })
    const { headers } = (hooked as { seen: { headers: object }[] }).seen[2] ?? {}
    expect(Object.keys(headers ?? {})).not.toContain('authorization')
    expect(Object.keys(headers ?? {})).not.toContain('proxy-authorization')
  })

  test('read a location that is not encoded as UTF-8', async () => {
    await using server = await startServer((req, res) => {
      if (req.url?.includes('resolve')) {
        const location = Buffer.from('/läng?q=ü').toString('latin1')
        return void res.writeHead(302, { location }).end()
      }
      res.end(req.url)
    })
    const url = `${server.url}/acme/tiny/resolve/main/a`
    const read = (response: Response): Promise<string> => response.text()
    const unhooked = await outcomeOf(() => realFetch(url), read)
    const hooked = await outcomeOf(() => hookWith([server.url], offerNothing).fetch(url), read)
    expect(hooked).toEqual(unhooked)
    expect(hooked.body).toBe('/l%C3%A4ng?q=%C3%BC')
  })

  test('end in a response that can be cloned, and whose clone shows the same', async () => {
    const response = await hookWith([hub.url], offerNothing).fetch(hub.url + file)
    const first = response.clone()
    const copy = first.clone()
    expect(copy).toBeInstanceOf(Response)
    const { url, redirected, type, status } = response
    expect({ url: copy.url, redirected: copy.redirected, type: copy.type, status: copy.status }).toEqual({
      url,
      redirected,
      type,
      status,
    })
    const bodies = await Promise.all([response, first, copy].map((each) => each.arrayBuffer()))
    expect(bodies.map(sha256)).toEqual(Array(3).fill(sha256(weights)))
    expect(() => copy.clone()).toThrow(TypeError)
  })

  test('give up before a fetch that hides where they lead', async () => {
    const hidden = (async (input: string | URL | Request, init?: RequestInit) => {
      if (init?.redirect !== 'manual') return realFetch(input, init)
      return Object.defineProperty(new Response(null), 'type', { value: 'opaqueredirect' })
    }) as typeof fetch
    const response = await hookWith([hub.url], offerNothing, hidden).fetch(hub.url + file)
    expect(sha256(await response.arrayBuffer())).toBe(sha256(weights))
  })
})

test('the original gets the very options of the caller, for every request', async () => {
  const seen: [unknown, RequestInit | undefined][] = []
  const original = ((input: string | URL | Request, init?: RequestInit) => {
    seen.push([input, init])
    return realFetch(input, init)
  }) as typeof fetch
  const own = { keepalive: true, priority: 'low', headers: { 'x-own': '1' } }
  const response = await hookWith([hub.url], offerNothing, original).fetch(hub.url + file, own)
  await response.body?.cancel()
  expect(seen).toHaveLength(2)
  expect(seen[0]).toEqual([hub.url + file, { ...own, redirect: 'manual' }])
  expect(seen[0]?.[1]?.headers).toBe(own.headers)
  expect(seen[1]?.[1]).toMatchObject({ keepalive: true, priority: 'low', redirect: 'manual' })
})

test('a call that is not ours reaches the original with the very same arguments', async () => {
  const seen: unknown[][] = []
  const answer = new Response('x')
  const original = (async (...args: unknown[]) => {
    seen.push(args)
    return answer
  }) as typeof fetch
  const hooked = hookWith([hub.url], offerNothing, original).fetch as (...args: unknown[]) => Promise<unknown>
  const calls: unknown[][] = [
    ['https://example.org/x'],
    [new URL('https://example.org/acme/tiny/resolve/main/x'), undefined],
    [`${hub.url}/api/models`, { method: 'GET' }, 'more'],
    [],
    [undefined],
    [{ toString: () => hub.url + file }],
  ]
  for (const call of calls) expect(await hooked(...call)).toBe(answer)
  expect(seen).toEqual(calls)
  for (const [i, call] of calls.entries()) expect(seen[i]?.[1]).toBe(call[1])
})

test('the description of errors that these tests compare tells causes apart', () => {
  const error = new TypeError('a', { cause: new RangeError('b') })
  expect(describeError(error)).toBe('TypeError TypeError undefined a <- RangeError RangeError undefined b')
})
