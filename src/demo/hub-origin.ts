/**
 * One origin of the demo Hub (the Hub itself, its storage, its Xet service): an HTTP server that counts what it
 * sends and misbehaves on demand.
 */
import { once } from 'node:events'
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import type { DemoBlob } from './hub-content.ts'

/** The Hub itself, its large-file storage, and its Xet service. */
export type OriginName = 'hub' | 'cdn' | 'cas'
/** `unavailable` answers 503, `refused` does not listen, `black-hole` accepts and never answers. */
export type Availability = 'up' | 'unavailable' | 'refused' | 'black-hole'

/** A misbehaviour, of every matching answer unless `times` says how many. Combine freely. */
export interface Fault {
  /** Only here. @defaultValue every origin */
  readonly origin?: OriginName
  /** Only for this file, by its name in the repository. @defaultValue every request */
  readonly path?: string
  /** Answers to spoil before the fault goes away. */
  readonly times?: number
  /** Close the connection after this many bytes of a body. */
  readonly cutAfterBytes?: number
  /** Send nothing more after this many bytes of a body. */
  readonly stallAfterBytes?: number
  /** Flip the byte at this offset of the file. */
  readonly wrongByteAt?: number
  /** Answer 200 with the whole file to a range request. */
  readonly ignoreRange?: boolean
  /** Leave `Content-Length` out; with `cutAfterBytes`, end the body early as if it were complete. */
  readonly noLength?: boolean
  /** Answer with this status and nothing else. */
  readonly status?: number
  /** Sent with `status`. */
  readonly retryAfter?: string
  /** Headers to replace or, with `undefined`, leave out. */
  readonly headers?: Readonly<Record<string, string | undefined>>
  /** Body instead of the true one; goes with `status`, or 200. */
  readonly body?: string
  /** Wait before answering. */
  readonly delayMs?: number
}

/** One request that arrived, and what was sent. */
export interface RequestRecord {
  readonly origin: OriginName
  readonly method: string
  /** Path and query. */
  readonly url: string
  readonly range: string | undefined
  readonly authorization: boolean
  /** As they arrived, names in lower case. */
  readonly headers: Readonly<IncomingHttpHeaders>
  /** Name of the file whose content or identity was asked for. */
  file: string | undefined
  status: number
  /** Of the body. */
  bytesSent: number
}

/** A request being answered. */
export interface Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly record: RequestRecord
  readonly url: URL
}

type Handler = (exchange: Exchange) => Promise<void>

/** One server. Its port stays the same when it is switched off and on. */
export class Origin {
  readonly name: OriginName
  readonly records: RequestRecord[] = []
  readonly #host: string
  readonly #handler: Handler
  readonly #faults: Set<Fault & { left: number }>
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #port: number
  #availability: Availability = 'up'
  #bytesPerSecond = 0
  #freeAt = 0

  constructor(
    name: OriginName,
    host: string,
    port: number,
    faults: Set<Fault & { left: number }>,
    handler: Handler,
  ) {
    this.name = name
    this.#host = host
    this.#port = port
    this.#faults = faults
    this.#handler = handler
  }

  get url(): string {
    return `http://${this.#host.includes(':') ? `[${this.#host}]` : this.#host}:${this.#port}`
  }

  async listen(): Promise<void> {
    const server = createServer((req, res) => void this.#answer(req, res))
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket))
    })
    server.listen(this.#port, this.#host)
    await once(server, 'listening')
    this.#port = (server.address() as AddressInfo).port
    this.#server = server
  }

  async setAvailability(availability: Availability): Promise<void> {
    this.#availability = availability
    if (availability !== 'up') this.#drop()
    if (availability === 'refused') await this.close()
    else if (!this.#server) await this.listen()
  }

  /** Shared by all connections of the origin; 0 is no limit. */
  setThrottle(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond
    this.#freeAt = 0
  }

  /** The faults that hit this exchange, as one. Those of a body wait for an answer that has one. */
  faultsFor(exchange: Exchange, names: readonly string[], sendsFile = false): Fault {
    let hit: Fault = {}
    const hasBody = sendsFile && exchange.req.method !== 'HEAD'
    for (const fault of this.#faults) {
      if (!hasBody && isBodyFault(fault)) continue
      if (fault.origin !== undefined && fault.origin !== this.name) continue
      if (fault.path !== undefined && !names.includes(fault.path)) continue
      hit = { ...hit, ...fault }
      if (--fault.left <= 0) this.#faults.delete(fault)
    }
    exchange.record.file ??= names[0]
    return hit
  }

  async close(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = once(server, 'close')
    server.close()
    this.#drop()
    await closed
  }

  #drop(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? '/', this.url)
    const record: RequestRecord = {
      origin: this.name,
      method: req.method ?? '',
      url: req.url ?? '',
      range: req.headers.range,
      authorization: req.headers.authorization !== undefined,
      headers: req.headers,
      file: undefined,
      status: 0,
      bytesSent: 0,
    }
    this.records.push(record)
    res.on('error', () => undefined)
    if (this.#availability === 'black-hole') return
    const exchange = { req, res, record, url }
    try {
      if (this.#availability === 'unavailable') reply(exchange, 503, {}, 'out of order')
      else await this.#handler(exchange)
    } catch (error) {
      if (res.headersSent) res.destroy()
      else reply(exchange, 500, {}, String(error))
    }
  }

  /** Sends a blob as a web server does: whole or in part, with the faults that are switched on. */
  async sendBlob(
    exchange: Exchange,
    blob: DemoBlob,
    headers: Headers,
    fault: Fault,
    mayCompress = false,
  ): Promise<void> {
    const { req, res, record } = exchange
    const compress =
      mayCompress && !req.headers.range && /\bgzip\b/.test(String(req.headers['accept-encoding']))
    const range = fault.ignoreRange ? undefined : parseRange(req.headers.range, blob.sizeBytes)
    if (range === 'unsatisfiable') {
      return reply(exchange, 416, { ...headers, 'content-range': `bytes */${blob.sizeBytes}` }, '')
    }
    const [start, end] = range ?? [0, blob.sizeBytes]
    const all: Headers = { 'accept-ranges': 'bytes', 'content-type': 'application/octet-stream', ...headers }
    if (range) all['content-range'] = `bytes ${start}-${end - 1}/${blob.sizeBytes}`
    if (compress) {
      all['content-encoding'] = 'gzip'
      all['etag'] = `W/${all['etag']}`
    } else if (!fault.noLength) {
      all['content-length'] = String(end - start)
    }
    record.status = range ? 206 : 200
    res.writeHead(record.status, withFaults(all, fault))
    if (req.method === 'HEAD') return void res.end()
    if (!compress) return await this.#sendBytes(exchange, blob.read(start, end), start, fault)
    const bytes = await collect(blob.read())
    await this.#sendBytes(exchange, [gzipSync(bytes)], 0, {})
  }

  async #sendBytes(
    exchange: Exchange,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    start: number,
    fault: Fault,
  ): Promise<void> {
    const { res } = exchange
    const limit = Math.min(
      fault.cutAfterBytes ?? Number.POSITIVE_INFINITY,
      fault.stallAfterBytes ?? Number.POSITIVE_INFINITY,
    )
    let sent = 0
    for await (const chunk of chunks) {
      for (const piece of this.#pieces(spoil(chunk, start + sent, fault.wrongByteAt))) {
        const part = piece.subarray(0, limit - sent)
        await this.#takeTurn(part.length)
        sent += part.length
        if (!(await write(exchange, part))) return
        if (sent >= limit) return fault.stallAfterBytes === limit ? undefined : cut(res, fault)
      }
    }
    res.end()
  }

  *#pieces(chunk: Uint8Array): Generator<Uint8Array> {
    const size = this.#bytesPerSecond
      ? Math.max(1024, Math.min(65_536, Math.floor(this.#bytesPerSecond / 50)))
      : 65_536
    for (let at = 0; at < chunk.length; at += size) yield chunk.subarray(at, at + size)
  }

  async #takeTurn(bytes: number): Promise<void> {
    if (!this.#bytesPerSecond) return
    const now = performance.now()
    this.#freeAt = Math.max(this.#freeAt, now) + (bytes / this.#bytesPerSecond) * 1000
    if (this.#freeAt > now + 1) await delay(this.#freeAt - now)
  }
}

function isBodyFault(fault: Fault): boolean {
  const { cutAfterBytes, stallAfterBytes, wrongByteAt, ignoreRange, noLength } = fault
  return (
    [cutAfterBytes, stallAfterBytes, wrongByteAt].some(Number.isFinite) ||
    ignoreRange === true ||
    noLength === true
  )
}

/** Response headers, names in lower case. */
export type Headers = Record<string, string>

/** A complete answer with a small body. */
export function reply(
  exchange: Exchange,
  status: number,
  headers: Headers,
  body: string,
  fault: Fault = {},
): void {
  const { req, res, record } = exchange
  record.status = fault.status ?? status
  const text = fault.body ?? body
  const all = { 'content-length': String(Buffer.byteLength(text)), ...headers }
  res.writeHead(record.status, withFaults(all, fault))
  if (req.method === 'HEAD') return void res.end()
  record.bytesSent += Buffer.byteLength(text)
  res.end(text)
}

/** Waits as the fault says and answers with its status, if it has one. Returns whether the request is done with. */
export async function replyFault(exchange: Exchange, fault: Fault): Promise<boolean> {
  if (fault.delayMs) await delay(fault.delayMs)
  if (fault.status === undefined && fault.body === undefined) return false
  const headers: Headers = fault.retryAfter === undefined ? {} : { 'retry-after': fault.retryAfter }
  reply(exchange, fault.status ?? 200, headers, fault.body ?? '', fault)
  return true
}

/** `headers` with those of a fault in their place. */
export function withFaults(headers: Headers, fault: Fault): Headers {
  const all: Record<string, string | undefined> = { ...headers, ...fault.headers }
  return Object.fromEntries(
    Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

async function write(exchange: Exchange, part: Uint8Array): Promise<boolean> {
  const { res, record } = exchange
  if (res.destroyed || res.socket?.destroyed) return false
  record.bytesSent += part.length
  if (res.write(part)) return true
  await new Promise<void>((resolve) => {
    const done = (): void => {
      res.off('drain', done).off('close', done)
      resolve()
    }
    res.on('drain', done).on('close', done)
  })
  return !res.destroyed
}

function cut(res: ServerResponse, fault: Fault): void {
  if (fault.noLength) return void res.end()
  // Let the bytes before the cut out first.
  res.write('', () => res.socket?.destroy())
}

function spoil(chunk: Uint8Array, at: number, offset: number | undefined): Uint8Array {
  if (offset === undefined || offset < at || offset >= at + chunk.length) return chunk
  const copy = Buffer.from(chunk)
  copy[offset - at] = (copy[offset - at] ?? 0) ^ 0xff
  return copy
}

/** `[start, end)` of a single range; `undefined` when there is none or it is not one we understand. */
export function parseRange(
  header: string | undefined,
  size: number,
): [number, number] | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '')
  if (!match || (match[1] === '' && match[2] === '')) return undefined
  const isSuffix = match[1] === ''
  const start = isSuffix ? Math.max(0, size - Number(match[2])) : Number(match[1])
  const end = isSuffix || match[2] === '' ? size : Math.min(size, Number(match[2]) + 1)
  return start >= size || start >= end ? 'unsatisfiable' : [start, end]
}

/** A whole body in memory. */
export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const chunk of chunks) parts.push(chunk)
  return Buffer.concat(parts)
}
