/**
 * The query of an announce, as bytes. `URL` and `querystring` decode UTF-8, and most info hashes are not: what they
 * cannot read they replace, and the swarm is another one.
 */

/** Parameters in order of appearance; names as latin1 text, values as bytes. */
export type RawQuery = ReadonlyMap<string, readonly Buffer[]>

/** Reads everything after the first `?`. `+` is a space; a `%` without two hex digits is itself. */
export function parseRawQuery(requestTarget: string): RawQuery {
  const query = new Map<string, Buffer[]>()
  const start = requestTarget.indexOf('?')
  if (start < 0) return query
  for (const part of requestTarget.slice(start + 1).split('&')) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const name = decode(equals < 0 ? part : part.slice(0, equals)).toString('latin1')
    const values = query.get(name) ?? []
    values.push(decode(equals < 0 ? '' : part.slice(equals + 1)))
    query.set(name, values)
  }
  return query
}

/** The first value of a parameter as text; empty if there is none. */
export function textParameter(query: RawQuery, name: string): string {
  return query.get(name)?.[0]?.toString('latin1') ?? ''
}

/** The 40 hex digits of an info hash given as 20 bytes or as text; `undefined` if it is neither. */
export function swarmKeyOf(infoHash: Buffer): string | undefined {
  if (infoHash.length === 20) return infoHash.toString('hex')
  const text = infoHash.toString('latin1')
  return /^[0-9a-f]{40}$/i.test(text) ? text.toLowerCase() : undefined
}

/** Node hands the request target over as latin1, one character for each byte. */
function decode(text: string): Buffer {
  const bytes = text
    .replaceAll('+', ' ')
    .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1')
}
