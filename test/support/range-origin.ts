/** A real HTTP server of one file's ranges whose every answer a test can shape, and the `RangeOpener` that asks it. */
import { once } from 'node:events'
import { createServer, get, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { HubError } from '../../src/errors.ts'
import type { RangeOpener } from '../../src/transfer/http-leg.ts'
import { batched } from './batches.ts'

/** One request that arrived. */
export interface OriginRequest {
  readonly start: number
  readonly end: number
  /** Sends the header of a 206. */
  begin(): void
  /** Sends bytes of the range from where the last ones ended, as one chunk; all that is left by default. */
  send(bytes?: number): Promise<void>
  /** Sends the header of a 200 and the whole file. */
  sendWholeFile(): void
  refuse(status: number, headers?: Record<string, string>): void
  /** Closes the connection. */
  cut(): void
}

export type Answer = (request: OriginRequest, index: number) => unknown

export interface RangeOrigin extends AsyncDisposable {
  readonly open: RangeOpener
  /** In the order they arrived. */
  readonly requests: readonly OriginRequest[]
  /** Requests whose connection is open. */
  readonly openCount: number
  readonly maxOpenCount: number
  /** Says how requests are answered from now on. */
  answer: Answer
}

/** The whole range, at once. */
export const inFull: Answer = (request) => request.send()

export async function startRangeOrigin(content: Uint8Array, answer: Answer = inFull): Promise<RangeOrigin> {
  const requests: OriginRequest[] = []
  const opened = new Set<ServerResponse>()
  let maxOpenCount = 0
  const server = createServer((message, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(message.headers.range ?? '') ?? []
    const request = new Answering(content, Number(from), Number(to) + 1, response)
    requests.push(request)
    opened.add(response)
    maxOpenCount = Math.max(maxOpenCount, opened.size)
    response.on('close', () => opened.delete(response))
    origin.answer(request, requests.length - 1)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const origin: RangeOrigin = {
    open: openerOf(`http://127.0.0.1:${port}/`),
    requests,
    get openCount() {
      return opened.size
    },
    get maxOpenCount() {
      return maxOpenCount
    },
    answer,
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
  return origin
}

class Answering implements OriginRequest {
  readonly start: number
  readonly end: number
  readonly #content: Uint8Array
  readonly #response: ServerResponse
  #at: number

  constructor(content: Uint8Array, start: number, end: number, response: ServerResponse) {
    this.#content = content
    this.start = this.#at = start
    this.end = end
    this.#response = response
  }

  begin(): void {
    const { start, end } = this
    this.#response.writeHead(206, {
      'content-range': `bytes ${start}-${end - 1}/${this.#content.length}`,
      'content-length': end - start,
    })
    this.#response.flushHeaders()
  }

  async send(bytes = this.end - this.#at): Promise<void> {
    if (!this.#response.headersSent) this.begin()
    const chunk = this.#content.subarray(this.#at, this.#at + bytes)
    this.#at += chunk.length
    await new Promise<void>((resolve) => this.#response.write(chunk, () => resolve()))
    if (this.#at === this.end) this.#response.end()
  }

  sendWholeFile(): void {
    this.#response.writeHead(200, { 'content-length': this.#content.length })
    this.#response.end(this.#content)
  }

  refuse(status: number, headers: Record<string, string> = {}): void {
    this.#response.writeHead(status, headers)
    this.#response.end()
  }

  cut(): void {
    this.#response.destroy()
  }
}

function openerOf(url: string): RangeOpener {
  return ({ start, end, signal, onStart }) =>
    new Promise((resolve, reject) => {
      onStart?.()
      const headers = { range: `bytes=${start}-${end - 1}`, connection: 'close' }
      const request = get(url, { headers, agent: false, signal }, (answer) => {
        const status = answer.statusCode ?? 0
        const [, from] = /^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '') ?? []
        if (status === 200 || status === 206)
          return resolve({ start: Number(from ?? 0), batches: batched(answer) })
        answer.resume()
        const pause = answer.headers['retry-after']
        const refused = new HubError(`refused with ${status}`, { url, status })
        reject(Object.assign(refused, pause !== undefined && { retryAfterMs: Number(pause) * 1000 }))
      })
      request.on('error', reject)
    })
}
