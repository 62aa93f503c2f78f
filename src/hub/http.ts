/**
 * The package's own HTTP client: undici, loaded at the first request. It obeys `HTTP_PROXY`, `HTTPS_PROXY` and
 * `NO_PROXY`; `NODE_EXTRA_CA_CERTS` works by itself. One request in, one answer out: redirects, retries
 * and tokens are decided in `ask.ts`.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { EnvHttpProxyAgent } from 'undici'
import { HubError, isAbort } from '../errors.ts'
import { messageOf } from '../log.ts'

/** Patience and limits of the connections. */
export interface HubHttpOptions {
  /** @defaultValue 10_000 */
  readonly connectTimeoutMs?: number | undefined
  /** From the request to the answer's header. @defaultValue 10_000 */
  readonly headersTimeoutMs?: number | undefined
  /** The longest silence within a body that somebody is reading. @defaultValue 10_000 */
  readonly bodyTimeoutMs?: number | undefined
  /** Connections per origin for file content; questions to the Hub have their own. @defaultValue 4 */
  readonly connectionsPerOrigin?: number | undefined
  /** How often a 429, a 5xx or a broken connection is tried again. @defaultValue 2 */
  readonly retries?: number | undefined
  /** A server that asks for a longer pause than this is an error at once. @defaultValue 10_000 */
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
  /** File content shares few connections, so that a paused reader cannot hold up questions to the Hub. */
  readonly isContent?: boolean | undefined
}

/** An answer whose body has not been read. Read it or `discard()` it, else its connection stays taken. */
export interface HubResponse {
  readonly status: number
  /** Names in lower case; repeated ones joined by a comma. */
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: AsyncIterable<Uint8Array>
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
  #client: Promise<Client> | undefined
  #closing: Promise<void> | undefined

  constructor(options: HubHttpOptions = {}) {
    this.#options = options
    this.retries = options.retries ?? 2
    this.maxRetryDelayMs = options.maxRetryDelayMs ?? 10_000
    this.sleep = options.sleep ?? ((ms, signal) => delay(ms, undefined, signal ? { signal } : {}))
    this.now = options.now ?? Date.now
  }

  /** @throws {HubError} without a status when there was no answer; the signal's reason when it aborted. */
  async request(request: HubRequest): Promise<HubResponse> {
    const { method, url, signal } = request
    signal?.throwIfAborted()
    if (this.#closing !== undefined)
      throw new HubError('the connections to the Hub are closed', { url: withoutQuery(url) })
    this.#client ??= loadClient(this.#options)
    const { undici, content, questions } = await this.#client
    try {
      const asking = undici.request(url, {
        method,
        headers: { 'user-agent': userAgent, ...request.headers },
        dispatcher: request.isContent ? content : questions,
        ...(signal && { signal }),
      })
      const answer = await untilAborted(asking, signal)
      return responseOf(answer, url, signal)
    } catch (error) {
      throw connectionError(error, url, signal)
    }
  }

  /** Idempotent. Bodies that are still being read end with an error. */
  close(): Promise<void> {
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

interface Client {
  readonly undici: typeof import('undici')
  readonly content: EnvHttpProxyAgent
  readonly questions: EnvHttpProxyAgent
}

const userAgent = `llmpt-native; node/${process.versions.node}`

async function loadClient(options: HubHttpOptions): Promise<Client> {
  const undici = await import('undici')
  const shared = {
    connect: { timeout: options.connectTimeoutMs ?? 10_000 },
    headersTimeout: options.headersTimeoutMs ?? 10_000,
    bodyTimeout: options.bodyTimeoutMs ?? 10_000,
  }
  return {
    undici,
    content: new undici.EnvHttpProxyAgent({ ...shared, connections: options.connectionsPerOrigin ?? 4 }),
    questions: new undici.EnvHttpProxyAgent(shared),
  }
}

/** undici hears an abort only once it is connected: a server that never accepts would hold up whoever gave up. */
async function untilAborted<T extends { body: { destroy(): unknown } }>(
  asking: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (!signal) return await asking
  let onAbort = (): void => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort)
  })
  try {
    return await Promise.race([asking, aborted])
  } catch (error) {
    // Should it still connect, nobody reads the answer.
    asking.then((late) => late.body.destroy()).catch(() => {})
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function responseOf(
  answer: Awaited<ReturnType<typeof import('undici').request>>,
  url: string,
  signal: AbortSignal | undefined,
): HubResponse {
  const headers: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(answer.headers)) {
    headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  const { body } = answer
  // A body nobody listens to any more may still fail: that is no news to anyone.
  body.on('error', () => undefined)
  return {
    status: answer.statusCode,
    headers,
    body: readBody(body, url, signal),
    discard: () => void body.dump({ limit: 16_384 }).catch(() => undefined),
    destroy: () => void body.destroy(),
  }
}

async function* readBody(
  body: AsyncIterable<Uint8Array>,
  url: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    yield* body
  } catch (error) {
    throw connectionError(error, url, signal)
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
