/** URLs that an answer of the Hub names, and where they are asked. */

/** What only a Hub has: its API, and files under the names of repositories. Storage has neither. */
const hubPath =
  /^\/(?:api\/(?:models|datasets|spaces|resolve-cache)\/|(?:(?:datasets|spaces)\/)?[^/]+(?:\/[^/]+)?\/(?:resolve|raw)\/)/

/**
 * Where to ask for `url`, which an answer of `endpoint` named in `Location` or `Link`. A mirror hands on what the Hub
 * said, and that names the Hub; but the user named the mirror, so whatever is the Hub's own is asked there. Everything
 * else, such as a storage URL, is returned as it is.
 *
 * @param endpoint Origin, possibly with a path prefix, without a trailing slash.
 */
export function atEndpoint(endpoint: string, url: string): string {
  const { origin, pathname } = new URL(endpoint)
  const prefix = pathname.replace(/\/+$/, '')
  const target = new URL(url)
  const isBelow = target.origin === origin && target.pathname.startsWith(`${prefix}/`)
  if (isBelow || !hubPath.test(target.pathname)) return url
  return origin + prefix + target.pathname + target.search
}
