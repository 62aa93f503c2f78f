/**
 * The embedded tracker: REST and announces on one port, one directory of data. Needs neither the addon nor libtorrent.
 *
 * @example
 * await using tracker = await startTracker({ dataDir: './tracker-data', port: 8080 })
 * console.log(tracker.url)
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { ConfigError } from '../../errors.ts'
import { log, messageOf } from '../../log.ts'
import { announceUrlOf } from '../protocol.ts'
import { addressOf, networkOf } from './address.ts'
import { type AnnounceContext, answerAnnounce, answerScrape, failure } from './announce.ts'
import { Catalog } from './catalog.ts'
import { TrackerDatabase } from './database.ts'
import { restApp } from './http.ts'
import { defaultLimits, type TrackerLimits } from './limits.ts'
import { RateLimit } from './rate-limit.ts'
import { SwarmStore } from './swarm-store.ts'

export { defaultLimits, type Rate, type TrackerLimits } from './limits.ts'

export interface TrackerOptions {
  /** Where the database lives; made if missing. One tracker at a time. */
  readonly dataDir: string
  /** @defaultValue 127.0.0.1 */
  readonly host?: string | undefined
  /** 0 picks a free one. @defaultValue 0 */
  readonly port?: number | undefined
  /** How the tracker is called from outside, for magnet links. @defaultValue as each request calls it */
  readonly publicUrl?: string | undefined
  /** Whoever publishes must send it as `Authorization: Bearer`. @defaultValue anybody may publish */
  readonly publishToken?: string | undefined
  /**
   * Whether every request comes through one proxy of ours, so that the last address in `X-Forwarded-For` is true.
   * Without a proxy everybody could write there whom they like. @defaultValue false
   */
  readonly trustProxy?: boolean | undefined
  readonly limits?: Partial<TrackerLimits> | undefined
  /** Milliseconds since 1970. @defaultValue Date.now */
  readonly clock?: (() => number) | undefined
}

/** A tracker that accepts requests. Close it, or the process stays alive. */
export interface RunningTracker extends AsyncDisposable {
  /** Base URL, without a trailing slash. */
  readonly url: string
  readonly announceUrl: string
  /** Does at once what is done every minute: writes down who was seeded, drops what has expired. */
  sweep(): void
  /** Idempotent. Ends all connections at once; resolves when the data directory is free. */
  close(): Promise<void>
}

const sweepEveryMs = 60_000
/** A lookup of 200 blobs has a request line of 13 KB, close to Node's default for all headers together. */
const maxHeaderBytes = 32 * 1024
const requestTimeoutMs = 15_000

/**
 * Starts a tracker; resolves when it accepts requests.
 *
 * @throws {ConfigError} If another tracker uses `dataDir`, it cannot be used, or host and port cannot be listened on.
 */
export async function startTracker(options: TrackerOptions): Promise<RunningTracker> {
  const limits = { ...defaultLimits, ...options.limits }
  const clock = options.clock ?? Date.now
  const database = TrackerDatabase.open(options.dataDir)
  const swarms = new SwarmStore(limits, clock)
  const catalog = new Catalog(database, swarms, limits, clock)
  const server = createTrackerServer(options, limits, catalog, swarms)
  try {
    await listen(server, options.host ?? '127.0.0.1', options.port ?? 0)
  } catch (error) {
    database.close()
    throw error
  }
  const sweep = (): void => catalog.sweep()
  const timer = setInterval(() => {
    try {
      sweep()
    } catch (error) {
      log.warn(`tracker: housekeeping failed: ${messageOf(error)}`)
    }
  }, sweepEveryMs)
  timer.unref()
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= stop(server, timer).then(() => {
      catalog.flush()
      database.close()
    })
    return closing
  }
  const url = urlOf(server.address() as AddressInfo)
  return { url, announceUrl: announceUrlOf(url), sweep, close, [Symbol.asyncDispose]: close }
}

function createTrackerServer(
  options: TrackerOptions,
  limits: TrackerLimits,
  catalog: Catalog,
  swarms: SwarmStore,
): Server {
  const trustProxy = options.trustProxy ?? false
  const app = restApp({
    catalog,
    limits,
    publishLimit: new RateLimit(limits.publishRate),
    publishToken: options.publishToken,
    publicUrl: options.publicUrl,
    addressOf: (request) => addressOf(request, trustProxy),
  })
  // Left on, the adapter replaces the process's own Request and Response.
  const rest = getRequestListener(app.fetch as Parameters<typeof getRequestListener>[0], {
    overrideGlobalObjects: false,
  })
  const announceLimit = new RateLimit(limits.announceRate)
  const announceContext: AnnounceContext = { swarms, limits, trustProxy }
  const server = createServer(
    { maxHeaderSize: maxHeaderBytes, requestTimeout: requestTimeoutMs },
    (request, response) => {
      const path = (request.url ?? '').split('?', 1)[0]
      const answering =
        path === '/announce' || path === '/scrape'
          ? serveSwarm(path, request, response, announceLimit, announceContext)
          : rest(request, response)
      answering.catch((error: unknown) => {
        log.warn(`tracker: ${path}: ${messageOf(error)}`)
        response.destroy()
      })
    },
  )
  server.maxConnections = limits.maxConnections
  return server
}

/** Not through Hono: by the time a URL was parsed, the bytes of an info hash are gone. */
async function serveSwarm(
  path: '/announce' | '/scrape',
  request: IncomingMessage,
  response: ServerResponse,
  limit: RateLimit,
  context: AnnounceContext,
): Promise<void> {
  request.resume()
  const address = addressOf(request, context.trustProxy)
  if (address === undefined) return
  const target = request.url ?? ''
  let answer: Uint8Array
  if (!(await limit.take(networkOf(address)))) answer = failure('Too many requests. Please slow down.')
  else if (path === '/announce') answer = answerAnnounce(target, address, context)
  else answer = answerScrape(target, context)
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': answer.length })
  response.end(answer)
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => {
      reject(
        new ConfigError(`the tracker cannot listen on ${host} port ${port}: ${error.message}`, {
          cause: error,
        }),
      )
    }
    server.once('error', onError)
    server.listen(port, host, () => {
      server.off('error', onError)
      resolve()
    })
  })
}

function stop(server: Server, timer: NodeJS.Timeout): Promise<void> {
  clearInterval(timer)
  return new Promise((resolve) => {
    server.close(() => resolve())
    // Keep-alive connections would hold the port for as long as their clients like.
    server.closeAllConnections()
  })
}

/** A wildcard is no address to connect to. */
function urlOf({ address, port }: AddressInfo): string {
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}
