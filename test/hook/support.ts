/** What the hook's tests share: offers of known bytes, small servers, and what one call of `fetch` came to. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { HubServer } from '../../src/demo/hub.ts'
import { collect } from '../../src/demo/hub-origin.ts'
import { type FetchDeps, type OfferContext, type OfferedFile, wrapFetch } from '../../src/hook/patch-fetch.ts'
import type { HubFile } from '../../src/values.ts'

/** Of Node itself, whatever a test does to the global one. */
export const realFetch: typeof fetch = globalThis.fetch

export interface Asked {
  readonly file: HubFile
  readonly context: OfferContext
}

export interface Offers {
  readonly deps: FetchDeps
  readonly fetch: typeof fetch
  readonly asked: Asked[]
  /** The ranges that were opened: a transfer would have started. */
  readonly opened: { start: number; end: number }[]
  isActive: boolean
}

export type Offer = (
  file: HubFile,
  context: OfferContext,
) => Promise<OfferedFile | undefined> | OfferedFile | undefined

/** A hooked `fetch` that watches `endpoints`, asks `offer` and keeps a record. */
export function hookWith(
  endpoints: readonly string[],
  offer: Offer,
  original: typeof fetch = realFetch,
): Offers {
  const offers: Omit<Offers, 'fetch'> = {
    asked: [],
    opened: [],
    isActive: true,
    deps: {
      endpoints: () => endpoints,
      isActive: () => offers.isActive,
      offer: async (file, context) => {
        offers.asked.push({ file, context })
        const offered = await offer(file, context)
        return (
          offered && {
            open: (range, signal) => {
              offers.opened.push(range)
              return offered.open(range, signal)
            },
          }
        )
      },
    },
  }
  return Object.assign(offers, { fetch: wrapFetch(original, offers.deps) })
}

export const offerNothing: Offer = () => undefined

/** Offers whatever the demo Hub has, without asking the Hub. */
export function offerAllOf(hub: HubServer): Offer {
  const known = new Map<string, Promise<Buffer>>()
  for (const repo of hub.repos) {
    for (const commit of repo.commits.values()) {
      for (const { blob } of commit.files.values()) known.set(blob.etag, collect(blob.read()))
    }
  }
  return async (file) => {
    const bytes = await known.get(file.etag)
    return bytes && { open: (range) => streamOf(bytes.subarray(range.start, range.end)) }
  }
}

/** `bytes` in chunks that the reader may keep; nothing is made before it is pulled. */
export function streamOf(bytes: Uint8Array, chunkBytes: number = 64 * 1024): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream(
    {
      pull(controller) {
        if (at >= bytes.length) return controller.close()
        controller.enqueue(new Uint8Array(bytes.subarray(at, at + chunkBytes)))
        at += chunkBytes
      },
    },
    { highWaterMark: 0 },
  )
}

/** A stream that gives `bytes` and then fails. */
export function failingStream(bytes: Uint8Array, error: unknown): ReadableStream<Uint8Array> {
  let isGiven = bytes.length === 0
  return new ReadableStream(
    {
      pull(controller) {
        if (isGiven) return controller.error(error)
        isGiven = true
        controller.enqueue(new Uint8Array(bytes))
      },
    },
    { highWaterMark: 0 },
  )
}

/** Everything a program can see of one call, in a form that can be compared. */
export interface Outcome {
  readonly status?: number
  readonly statusText?: string
  readonly url?: string
  readonly redirected?: boolean
  readonly type?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  /** Class, name, message and the same of the cause. */
  readonly error?: string
  readonly bodyError?: string
}

/** @param read Reads the body; other than whole when a test wants to stop in the middle. */
export async function outcomeOf(
  call: () => Promise<Response>,
  read: (response: Response) => Promise<unknown> = async (response) => sha256(await response.arrayBuffer()),
): Promise<Outcome> {
  let response: Response
  try {
    response = await call()
  } catch (error) {
    return { error: describe(error) }
  }
  const { status, statusText, url, redirected, type } = response
  const headers = Object.fromEntries([...response.headers].filter(([name]) => name !== 'date'))
  const seen = { status, statusText, url, redirected, type, headers }
  try {
    return { ...seen, body: String(await read(response)) }
  } catch (error) {
    return { ...seen, bodyError: describe(error) }
  }
}

/** Class, name, code and message of an error and of its cause. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return `${typeof error} ${String(error)}`
  const { code } = error as { code?: unknown }
  const own = `${error.constructor.name} ${error.name} ${String(code)} ${error.message}`
  return error.cause === undefined ? own : `${own} <- ${describe(error.cause)}`
}

export function sha256(bytes: ArrayBuffer | Uint8Array): string {
  return createHash('sha256')
    .update(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes))
    .digest('hex')
}

export interface SmallServer extends AsyncDisposable {
  readonly url: string
  readonly seen: { method: string; url: string; headers: IncomingHttpHeaders }[]
}

/** One origin with the answers a test needs. */
export async function startServer(
  answer: (req: IncomingMessage, res: ServerResponse, url: string) => void,
): Promise<SmallServer> {
  const seen: SmallServer['seen'] = []
  const server = createServer((req, res) => {
    seen.push({ method: req.method ?? '', url: req.url ?? '', headers: { ...req.headers } })
    answer(req, res, url)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    seen,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
