/**
 * Redirects followed by hand, to the letter as `fetch` does it: a program must not see the difference.
 *
 * @see "HTTP-redirect fetch" in the Fetch standard, and undici's implementation of it
 */

/** How many redirects `fetch` follows. */
export const maxRedirects = 20

/** The URL after a redirect. @throws {TypeError} `fetch failed`, for one that `fetch` does not follow. */
export function redirectTarget(location: string, from: URL): URL {
  const target = parseLocation(location, from)
  if (target.protocol !== 'http:' && target.protocol !== 'https:') {
    throw fetchFailed(new Error('URL scheme must be a HTTP(S) scheme'))
  }
  if (target.username !== '' || target.password !== '') {
    throw fetchFailed(new Error('cross origin not allowed for request mode "cors"'))
  }
  if (target.hash === '') target.hash = from.hash
  return target
}

/** What is left of the headers on another origin: nothing that was meant for the first one alone. */
export function headersFor(target: URL, from: URL, headers: Headers): Headers {
  if (target.origin === from.origin) return headers
  const kept = new Headers(headers)
  for (const name of ['authorization', 'proxy-authorization', 'cookie', 'host']) kept.delete(name)
  return kept
}

/** What `fetch` rejects with when there is no answer. */
export function fetchFailed(cause: Error): TypeError {
  return new TypeError('fetch failed', { cause })
}

function parseLocation(location: string, from: URL): URL {
  try {
    // Headers come as Latin-1, one character per byte; a name that was not encoded is UTF-8.
    const isAscii = /^[\x20-\x7e]*$/.test(location)
    return new URL(isAscii ? location : Buffer.from(location, 'latin1').toString('utf8'), from)
  } catch (error) {
    throw fetchFailed(error as Error)
  }
}
