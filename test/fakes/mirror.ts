/**
 * A mirror of the Hub as people run them: a proxy that hands on the Hub's answers as they are, and with them URLs that
 * name the Hub instead of the mirror.
 */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, request } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Mirror extends AsyncDisposable {
  readonly url: string
  /** Every request, in the order of arrival. */
  readonly seen: {
    readonly method: string
    readonly url: string
    readonly authorization: string | undefined
  }[]
}

export interface MirrorOptions {
  /** What the Hub calls itself in `Location` and `Link`. */
  readonly hubName: string
  /** In front of every path of the mirror. */
  readonly pathPrefix?: string
  /** Whether a `Location` without an origin stays without. @defaultValue false */
  readonly keepsRelative?: boolean
}

/** Starts a mirror of the Hub at `upstream`. */
export async function startMirror(upstream: string, options: MirrorOptions): Promise<Mirror> {
  const { hubName, pathPrefix = '', keepsRelative = false } = options
  const seen: Mirror['seen'] = []
  const named = (headers: IncomingHttpHeaders): IncomingHttpHeaders => {
    const { location, link } = headers
    const isRelative = location?.startsWith('/')
    return {
      ...headers,
      ...(isRelative && !keepsRelative && { location: `${hubName}${location}` }),
      ...(typeof link === 'string' && { link: link.replaceAll(upstream, hubName) }),
    }
  }
  const server = createServer((req, res) => {
    const { method = '', url = '', headers } = req
    seen.push({ method, url, authorization: headers.authorization })
    if (!url.startsWith(`${pathPrefix}/`)) return void res.writeHead(404).end()
    const { host: _, ...rest } = headers
    const forwarded = request(
      upstream + url.slice(pathPrefix.length),
      { method, headers: rest, agent: false },
      (answer) => {
        res.writeHead(answer.statusCode ?? 502, named(answer.headers))
        answer.on('error', () => res.destroy()).pipe(res)
      },
    )
    forwarded.on('error', () => res.destroy())
    req.pipe(forwarded)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${pathPrefix}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
