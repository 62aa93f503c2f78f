/** One HTTP request to a tracker: one deadline for all of it, a bounded body, no redirects, nothing of ours but a User-Agent. */
import { Socket } from 'node:net'
import type { Dispatcher } from 'undici'
import { TrackerError } from '../errors.ts'
import { messageOf } from '../log.ts'
import { packageVersion } from '../version.ts'

/** What is asked. */
export interface TrackerRequest {
  readonly method: 'GET' | 'POST'
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly maxBytes: number
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** What came back, whole. */
export interface TrackerAnswer {
  readonly status: number
  /** Lower case, without parameters; empty if there is none. */
  readonly mediaType: string
  readonly body: Buffer
}

const connectTimeoutMs = 10_000

/** The connections to one tracker, opened when first needed. Idle ones do not keep the process alive. */
export class TrackerConnections {
  readonly #given: Dispatcher | undefined
  readonly #connecting = new Set<Socket>()
  #dispatcher: Dispatcher | undefined
  #inFlight = 0

  /** @param given How requests travel instead; its owner closes it. */
  constructor(given?: Dispatcher) {
    this.#given = given
  }

  /**
   * Asks, and reads the answer to its end. Redirects are answers like any other: following one would hand a lookup, or
   * a publish token, to an origin nobody configured.
   *
   * @throws {TrackerError} If there is no complete answer within the deadline and the size limit.
   * @throws the signal's reason, if the caller aborted.
   */
  async ask(request: TrackerRequest): Promise<TrackerAnswer> {
    const { signal, timeoutMs, url } = request
    signal?.throwIfAborted()
    // Not AbortSignal.any: on Node 20 it leaks what it listens to while the caller's signal lives.
    const controller = new AbortController()
    const where = url.origin + url.pathname
    const onAbort = (): void => controller.abort(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(
      () => controller.abort(new TrackerError(`no complete answer within ${timeoutMs} ms`, where)),
      timeoutMs,
    )
    this.#inFlight++
    const aborted = new Promise<never>((_, reject) => {
      controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true })
    })
    const exchange = this.#exchange(request, controller.signal)
    exchange.catch(() => {})
    try {
      // undici hears an abort only once it is connected; a black hole would hold us for the whole connect timeout.
      return await Promise.race([exchange, aborted])
    } catch (error) {
      if (signal?.aborted) throw signal.reason
      if (controller.signal.aborted) throw controller.signal.reason
      if (error instanceof TrackerError) throw error
      throw new TrackerError(`could not be asked: ${messageOf(error)}`, where, { cause: error })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      if (--this.#inFlight === 0) this.#stopConnecting()
    }
  }

  async #exchange(request: TrackerRequest, signal: AbortSignal): Promise<TrackerAnswer> {
    // Lazily: importing the package must not cost what a program that never downloads does not need.
    const undici = await import('undici')
    signal.throwIfAborted()
    this.#dispatcher ??= this.#given ?? this.#createAgent(undici)
    const { statusCode, headers, body } = await undici.request(request.url, {
      method: request.method,
      headers: { 'user-agent': `llmpt-native/${packageVersion}`, ...request.headers },
      body: request.body ?? null,
      signal,
      dispatcher: this.#dispatcher,
    })
    const contentType = [headers['content-type']].flat()[0] ?? ''
    return {
      status: statusCode,
      mediaType: contentType.split(';')[0]?.trim().toLowerCase() ?? '',
      body: await readAll(body, request),
    }
  }

  #createAgent(undici: typeof import('undici')): Dispatcher {
    const connectSocket = undici.buildConnector({ timeout: connectTimeoutMs })
    return new undici.Agent({
      connections: 8,
      connect: (options, done) => {
        // undici's types hide that its connector returns the socket.
        const socket: unknown = connectSocket(options, (...result) => {
          if (socket instanceof Socket) this.#connecting.delete(socket)
          done(...result)
        })
        if (socket instanceof Socket) this.#connecting.add(socket)
      },
    })
  }

  /** A request that gave up leaves its socket connecting, and a pending connect keeps the process from ending. */
  #stopConnecting(): void {
    for (const socket of this.#connecting) socket.destroy()
    this.#connecting.clear()
  }
}

async function readAll(body: AsyncIterable<Buffer>, { maxBytes, url }: TrackerRequest): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of body) {
    length += chunk.length
    // Leaving the loop destroys the body, and with it the connection.
    if (length > maxBytes) throw new TrackerError(`an answer of more than ${maxBytes} bytes`, url.origin)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
