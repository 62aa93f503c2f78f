/** The REST half of the tracker. Shapes and words: src/tracker/protocol.ts, docs/tracker-api.md. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { log, messageOf } from '../../log.ts'
import { asEtag, asInfoHash, type Etag } from '../../values.ts'
import { announceUrlOf, maxBlobsPerLookup, paths, torrentMediaType } from '../protocol.ts'
import { networkOf } from './address.ts'
import type { Catalog } from './catalog.ts'
import type { TrackerLimits } from './limits.ts'
import { checkPublish } from './publish.ts'
import type { RateLimit } from './rate-limit.ts'

/** What the REST interface stands on. */
export interface RestContext {
  readonly catalog: Catalog
  readonly limits: TrackerLimits
  readonly publishLimit: RateLimit
  readonly publishToken: string | undefined
  /** How the tracker is called from outside; if unknown, as the request calls it. */
  readonly publicUrl: string | undefined
  /** Whom a request came from; `undefined` if the connection is gone. */
  readonly addressOf: (request: IncomingMessage) => string | undefined
}

/** What the adapter hands to every handler. */
export interface RestBindings {
  readonly incoming: IncomingMessage
}

type RestCall = Context<{ Bindings: RestBindings }>
type Refusal = 400 | 401 | 404 | 409 | 413 | 415 | 429 | 500 | 503

/** The REST interface, to be served by an adapter that passes the Node request as `incoming`. */
export function restApp(context: RestContext): Hono<{ Bindings: RestBindings }> {
  const app = new Hono<{ Bindings: RestBindings }>()
  app.use(async (call, next) => {
    await next()
    call.header('Access-Control-Allow-Origin', '*')
    call.header('Access-Control-Allow-Methods', 'GET, POST, OPTIONS')
    call.header('Access-Control-Allow-Headers', 'Content-Type, Authorization')
  })
  for (const path of ['/health', '/api/v1/health']) app.get(path, (call) => call.text('OK'))
  app.get(paths.torrents, (call) => listTorrents(call, context))
  app.get(paths.torrentFile, (call) => sendTorrent(call, context))
  app.post(paths.publish, ...publishHandlers(context))
  // No preflight: a web page somebody visits has no business publishing to the tracker on their machine.
  for (const path of ['/health', '/api/v1/health', ...Object.values(paths)]) {
    app.all(path, (call) => call.text('Method Not Allowed', 405))
  }
  app.notFound((call) => call.text('404 page not found', 404))
  app.onError((error, call) => {
    log.warn(`tracker: ${call.req.method} ${call.req.path}: ${messageOf(error)}`)
    return refuse(call, 500, 'internal server error')
  })
  return app
}

function listTorrents(call: RestCall, { catalog, publicUrl }: RestContext): Response {
  const asked = call.req.queries('blob')
  // Without `blob` the list is of snapshot torrents: existing clients take the first row for theirs.
  if (asked === undefined) return sendJson(call, { data: [], total: 0 })
  const etags = readEtags(asked)
  if (etags === undefined) return refuse(call, 400, 'blob must be etags, 64 or 40 lower-case hex digits each')
  if (etags.length > maxBlobsPerLookup)
    return refuse(call, 400, `at most ${maxBlobsPerLookup} blobs in one request`)
  const data = catalog.lookup(etags, announceUrlOf(publicUrl ?? originOf(call)))
  return sendJson(call, { data, total: data.length })
}

function sendTorrent(call: RestCall, { catalog }: RestContext): Response {
  const hash = call.req.query('info_hash')
  const blob = call.req.query('blob')
  if (hash === undefined && blob === undefined) {
    const isSnapshot = call.req.query('repo_id') && call.req.query('revision')
    return isSnapshot
      ? refuse(call, 404, 'torrent not found')
      : refuse(call, 400, 'repo_id and revision query parameters are required')
  }
  const etag = asEtag(blob ?? '')
  const wanted = hash ?? (etag && catalog.lookup([etag], announceUrlOf(originOf(call)))[0]?.info_hash)
  const torrent = wanted !== undefined && asInfoHash(wanted) ? catalog.torrentFile(wanted) : undefined
  if (torrent === undefined) return refuse(call, 404, 'torrent not found')
  return call.body(new Uint8Array(torrent), 200, {
    'Content-Type': torrentMediaType,
    'Content-Disposition': 'attachment; filename="torrent.torrent"',
  })
}

function publishHandlers(context: RestContext): [typeof guard, ReturnType<typeof bodyLimit>, typeof publish] {
  let underWay = 0
  const guard = async (call: RestCall, next: () => Promise<void>): Promise<Response | undefined> => {
    if (!hasToken(call, context.publishToken)) return refuse(call, 401, 'publishing here needs a valid token')
    const address = context.addressOf(call.env.incoming)
    if (address === undefined || !(await context.publishLimit.take(networkOf(address)))) {
      call.header('Retry-After', String(Math.ceil(context.limits.publishRate.windowMs / 1000)))
      return refuse(call, 429, 'Too many requests. Please slow down.')
    }
    // A page may post text/plain anywhere without asking; JSON it may not.
    if (!/^application\/json\b/i.test(call.req.header('content-type') ?? '')) {
      return refuse(call, 415, 'Content-Type must be application/json')
    }
    if (underWay >= context.limits.maxPublishesAtOnce) return refuse(call, 503, 'too many publishes at once')
    underWay++
    try {
      await next()
    } finally {
      underWay--
    }
    return undefined
  }
  const limit = bodyLimit({
    maxSize: context.limits.maxPublishBytes,
    onError: (call) => refuse(call, 413, `the body is larger than ${context.limits.maxPublishBytes} bytes`),
  })
  const publish = (call: RestCall): Promise<Response> => takePublish(call, context)
  return [guard, limit, publish]
}

async function takePublish(call: RestCall, { catalog, addressOf }: RestContext): Promise<Response> {
  const body: unknown = await call.req.json().catch(() => undefined)
  const checked = checkPublish(body)
  if ('error' in checked) return refuse(call, 400, checked.error)
  const address = addressOf(call.env.incoming)
  if (address === undefined) return refuse(call, 400, 'the connection is gone')
  const { torrent } = checked
  const outcome = catalog.publish(torrent, networkOf(address))
  if (outcome === 'blob-is-full') return refuse(call, 409, 'this blob has enough torrents that are seeded')
  if (outcome === 'publisher-has-enough') {
    return refuse(call, 409, 'your address has published enough other torrents of this blob')
  }
  if (outcome === 'tracker-is-full') return refuse(call, 503, 'the tracker is full')
  return sendJson(call, {
    announce_key: torrent.announceKey,
    etag: torrent.etag,
    info_hash: torrent.infoHash,
    kind: 'blob',
    message: outcome === 'created' ? 'torrent metadata created' : 'torrent metadata already exists',
    status: 'active',
  })
}

/** `undefined` if one of them is no etag. */
function readEtags(values: readonly string[]): Etag[] | undefined {
  const texts = values.flatMap((value) => value.split(',')).filter((text) => text !== '')
  const etags = new Set<Etag>()
  for (const text of texts) {
    const etag = asEtag(text)
    if (etag === undefined) return undefined
    etags.add(etag)
  }
  return [...etags]
}

function hasToken(call: RestCall, token: string | undefined): boolean {
  if (token === undefined) return true
  const given = /^Bearer (.+)$/i.exec(call.req.header('authorization') ?? '')?.[1] ?? ''
  // Digests have one length, so the comparison takes one time.
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}

function originOf(call: RestCall): string {
  const host = call.req.header('host') ?? ''
  return `http://${/^[\w.:[\]-]{1,255}$/.test(host) ? host : 'localhost'}`
}

function refuse(call: Context, status: Refusal, error: string): Response {
  return sendJson(call, { error }, status)
}

/** As on the existing network: `<`, `>` and `&` escaped, one newline at the end. */
function sendJson(call: Context, value: unknown, status: 200 | Refusal = 200): Response {
  const escapes: Readonly<Record<string, string>> = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026' }
  const text = JSON.stringify(value).replace(/[<>&]/g, (character) => escapes[character] ?? character)
  return call.body(`${text}\n`, status, { 'Content-Type': 'application/json' })
}
