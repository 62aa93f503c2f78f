/**
 * The package's own HTTP client: undici, loaded at the first request. It obeys `HTTP_PROXY`, `HTTPS_PROXY` and
 * `NO_PROXY`; `NODE_EXTRA_CA_CERTS` works by itself. One request in, one answer out: redirects, retries
 * and tokens are decided in `ask.ts`.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { EnvHttpProxyAgent } from 'undici'
import { HubError, isAbort } from '../errors.ts'
import { messageOf } from '../log.ts'
import { exchange } from './exchange.ts'
import { OriginPauses } from './origin-pauses.ts'
import { OriginSlots, type ReleaseSlot } from './origin-slots.ts'
import { ReadSlabs } from './read-slabs.ts'

/** Patience and limits of the connections. */
export interface HubHttpOptions {
  /** @defaultValue 10_000 */
  readonly connectTimeoutMs?: number | undefined
  /** From the request to the answer's header. @defaultValue 10_000 */
  readonly headersTimeoutMs?: number | undefined
  /** The longest silence within a body that somebody is reading. @defaultValue 10_000 */
  readonly bodyTimeoutMs?: number | undefined
  /** Requests for ranges of files at a time and origin; questions to the Hub are not counted. @defaultValue 4 */
  readonly connectionsPerOrigin?: number | undefined
  /** Besides these, requests for whole small files at a time and origin. @defaultValue 8 */
  readonly wholeFilesPerOrigin?: number | undefined
  /** How often a 429, a 5xx or a broken connection is tried again. @defaultValue 2 */
  readonly retries?: number | undefined
  /** A server that asks for a longer pause than this is an error at once, with `retryAfterMs`. @defaultValue 10_000 */
  readonly maxRetryDelayMs?: number | undefined
  /** Waits between retries; tests pass their own. */
  readonly sleep?: ((ms: number, signal?: AbortSignal) => Promise<unknown>) | undefined
  /** The clock, in ms since 1970. */
  readonly now?: (() => number) | undefined
}

/** One HTTP request; nothing is added to it but a user agent. */
export interface HubRequest {
  readonly method: 'GET' | 'HEAD'
  readonly url: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly signal?: AbortSignal | undefined
  /**
   * File content waits for one of the few slots of its origin and holds it until its body was read, discarded or
   * destroyed, or has failed; a paused reader cannot hold up questions to the Hub. A range takes about a second, a whole small
   * file hardly more than the way there and back: they have slots of their own.
   */
  readonly content?: 'range' | 'whole' | undefined
  /** Called when the request has to wait for a slot, or because the origin wants a pause. */
  readonly onWait?: (() => void) | undefined
  /** Called when the request is sent: from now on, silence is the server's. */
  readonly onStart?: (() => void) | undefined
}

/** An answer whose body has not been read. Read it or `discard()` it, else its connection stays taken. */
export interface HubResponse {
  readonly status: number
  /** Names in lower case; repeated ones joined by a comma. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** The body, each time all that has come since the last time; never nothing. Can be read once. */
  readonly batches: AsyncIterable<Uint8Array[]>
  /** Nobody reads `bytes`, which came in a batch, any more, nor what came before them: their memory is used again. */
  giveBack(bytes: Uint8Array): void
  /** Gives the connection back, or closes it when much is left to read. */
  discard(): void
  /** Closes the connection at once. */
  destroy(): void
}

/** The connections of this package to the Hub and its storage. Close it to drop them. */
export class HubHttp implements AsyncDisposable {
  readonly retries: number
  readonly maxRetryDelayMs: number
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<unknown>
  readonly now: () => number
  readonly #options: HubHttpOptions
  readonly #slots: Readonly<Record<'range' | 'whole', OriginSlots>>
  readonly #pauses: OriginPauses
  readonly #closed = new AbortController()
  #client: Promise<Client> | undefined
  #closing: Promise<void> | undefined

  constructor(options: HubHttpOptions = {}) {
    this.#options = options
    this.retries = options.retries ?? 2
    this.maxRetryDelayMs = options.maxRetryDelayMs ?? 10_000
    this.sleep = options.sleep ?? ((ms, signal) => delay(ms, undefined, signal ? { signal } : {}))
    this.now = options.now ?? Date.now
    this.#slots = {
      range: new OriginSlots(options.connectionsPerOrigin ?? 4),
      whole: new OriginSlots(options.wholeFilesPerOrigin ?? 8),
    }
    this.#pauses = new OriginPauses(this)
  }

  /** Loads the client ahead of the first request. */
  async load(): Promise<void> {
    this.#client ??= loadClient(this.#options)
    await this.#client
  }

  /**
   * How many requests for ranges could start at the origin of `url` now, without waiting.
   *
   * @param isAuthorized Whether they would carry a token.
   */
  freeSlots(url: string, isAuthorized = false): number {
    const { origin } = new URL(url)
    return this.#pauses.isPaused(payerAt(origin, isAuthorized)) ? 0 : this.#slots.range.free(origin)
  }

  /** How many requests for ranges one origin gets at a time. */
  get slotsPerOrigin(): number {
    return this.#slots.range.limit
  }

  /** @throws {HubError} without a status when there was no answer; the signal's reason when it aborted. */
  async request(request: HubRequest): Promise<HubResponse> {
    const { method, url, signal } = request
    signal?.throwIfAborted()
    if (!URL.canParse(url)) throw new HubError('not a web address', { url: withoutQuery(url) })
    const { origin } = new URL(url)
    const release = await this.#admit(origin, request)
    try {
      if (this.#closing !== undefined) throw closedError(url)
      this.#client ??= loadClient(this.#options)
      const { content, questions, slabs } = await this.#client
      signal?.throwIfAborted()
      const { pathname, search } = new URL(url)
      const asking = exchange(
        request.content ? content : questions,
        {
          origin,
          path: pathname + search,
          method,
          headers: { 'user-agent': userAgent, ...request.headers },
        },
        {
          signal,
          onEnd: release,
          errorOf: (error) => connectionError(error, url, signal),
          giveBack: (bytes) => slabs.giveBack(bytes),
        },
      )
      request.onStart?.()
      const response = await asking
      this.#pauses.note(payerOf(request), response)
      return response
    } catch (error) {
      release()
      throw connectionError(error, url, signal)
    }
  }

  /** Waits until `origin` may be asked, and for a slot. */
  async #admit(origin: string, request: HubRequest): Promise<ReleaseSlot> {
    if (this.#closing !== undefined) throw closedError(request.url)
    // First, so that what has to wait for minutes is told so now; then again, for what came up in the queue.
    await this.#waitForPause(request)
    if (!request.content) return () => undefined
    const release = await this.#slots[request.content].acquire(origin, request.signal, request.onWait)
    try {
      await this.#waitForPause(request)
      return release
    } catch (error) {
      release()
      throw error
    }
  }

  async #waitForPause(request: HubRequest): Promise<void> {
    const { url, signal, onWait } = request
    const payer = payerOf(request)
    if (!this.#pauses.isPaused(payer)) return
    // Not AbortSignal.any: on Node 20 it leaks what it listens to while the long-lived signal lives.
    const either = new AbortController()
    const sources = [this.#closed.signal, ...(signal ? [signal] : [])]
    const abort = (): void => either.abort()
    for (const source of sources) source.addEventListener('abort', abort)
    try {
      if (sources.some(({ aborted }) => aborted)) abort()
      await this.#pauses.wait(payer, url, either.signal, onWait)
    } catch (error) {
      signal?.throwIfAborted()
      throw this.#closed.signal.aborted ? closedError(url) : error
    } finally {
      for (const source of sources) source.removeEventListener('abort', abort)
    }
  }

  /** Idempotent. Bodies that are still being read end with an error. */
  close(): Promise<void> {
    this.#closed.abort()
    this.#closing ??=
      this.#client?.then(async ({ content, questions }) => {
        await Promise.all([content.destroy(), questions.destroy()])
      }) ?? Promise.resolve()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Whose limit a request counts towards. */
function payerOf({ url, headers }: HubRequest): string {
  return payerAt(new URL(url).origin, headers?.['authorization'] !== undefined)
}

/** The Hub counts those with a token by the token, the others by the address. */
function payerAt(origin: string, isAuthorized: boolean): string {
  return isAuthorized ? `${origin} with a token` : origin
}

interface Client {
  readonly slabs: ReadSlabs
  readonly content: EnvHttpProxyAgent
  readonly questions: EnvHttpProxyAgent
}

const userAgent = `llmpt-native; node/${process.versions.node}`

async function loadClient(options: HubHttpOptions): Promise<Client> {
  const undici = await import('undici')
  const slabs = new ReadSlabs()
  const connect = { timeout: options.connectTimeoutMs ?? 10_000 }
  const shared = {
    headersTimeout: options.headersTimeoutMs ?? 10_000,
    bodyTimeout: options.bodyTimeoutMs ?? 10_000,
  }
  return {
    slabs,
    // Without a limit of its own: the slots are the limit, and whoever has one must not wait here again. Connections
    // through a proxy are made by undici itself.
    content: new undici.EnvHttpProxyAgent({
      ...shared,
      connect: slabs.connector(undici.buildConnector, connect),
    }),
    questions: new undici.EnvHttpProxyAgent({ ...shared, connect }),
  }
}

const reasons: Readonly<Record<string, string>> = {
  UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
  UND_ERR_HEADERS_TIMEOUT: 'no answer in time',
  UND_ERR_BODY_TIMEOUT: 'the body stalled',
  UND_ERR_HEADERS_OVERFLOW: 'the header of the answer is too large',
  UND_ERR_SOCKET: 'the connection was cut',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'the body is not as long as announced',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was cut',
  ENOTFOUND: 'unknown host: check the network and HF_ENDPOINT',
  EAI_AGAIN: 'the host name cannot be looked up: check the network',
}
const certificateCode = /CERT|SELF_SIGNED|UNABLE_TO_(?:GET_ISSUER|VERIFY)/

/** The code of a failed connection, such as `ECONNREFUSED` or undici's `UND_ERR_BODY_TIMEOUT`. */
export function connectionErrorCode(error: unknown): string | undefined {
  const first = (error as { errors?: unknown[] } | null)?.errors?.[0]
  const code = (error as { code?: unknown } | null)?.code ?? (first as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? code : undefined
}

function closedError(url: string): HubError {
  return new HubError('the connections to the Hub are closed', { url: withoutQuery(url) })
}

function connectionError(error: unknown, url: string, signal: AbortSignal | undefined): unknown {
  if (isAbort(error, signal)) return signal?.reason
  if (error instanceof HubError) return error
  const code = connectionErrorCode(error)
  let reason = (code !== undefined && reasons[code]) || messageOf(error) || code || 'no answer'
  if (code !== undefined && certificateCode.test(code)) {
    reason = `its certificate is not trusted (${code}): behind a company proxy, set NODE_EXTRA_CA_CERTS`
  }
  const shown = withoutQuery(url)
  return new HubError(`${hostOf(shown)}: ${reason}`, { url: shown }, { cause: error })
}

/** `url` as messages may show it: the query of a storage URL is a signature that opens the file to anyone. */
export function withoutQuery(url: string): string {
  return url.replace(/[?#].*$/s, '')
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url
}
