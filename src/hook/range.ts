/** The `Range` header of a request, as far as we answer it: one range of bytes. */

/** Bytes of a file: `start` inclusive, `end` exclusive. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

// 15 digits stay below 2 ** 53.
const singleRange = /^bytes=(?:(\d{1,15})-(\d{1,15})?|-(\d{1,15}))$/

/** Whether `header` asks for one range in a form we understand. Several at once would need a multipart answer. */
export function isSingleRange(header: string): boolean {
  return singleRange.test(header)
}

/**
 * The bytes that `header` asks of a file of `sizeBytes`, cut at its end; all of them without a header.
 * `undefined` when there are none: what to say then is the server's business.
 *
 * @see RFC 9110, 14.1.2
 */
export function rangeOf(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const all = { start: 0, end: sizeBytes }
  const range = header === undefined ? all : boundsOf(singleRange.exec(header), sizeBytes)
  return range !== undefined && range.start < range.end ? range : undefined
}

function boundsOf(match: RegExpExecArray | null, sizeBytes: number): ByteRange | undefined {
  if (match === null) return undefined
  const [, first, last, suffix] = match
  if (suffix !== undefined) return { start: Math.max(0, sizeBytes - Number(suffix)), end: sizeBytes }
  const end = last === undefined ? sizeBytes : Math.min(sizeBytes, Number(last) + 1)
  return { start: Number(first), end }
}
