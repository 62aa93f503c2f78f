/** What single headers of the Hub say. */
import { asEtag, type Etag } from '../values.ts'

/** A size as a header states it: a whole number that JavaScript can count to, or `undefined`. */
export function parseSize(text: string | undefined): number | undefined {
  const size = text !== undefined && /^\d{1,16}$/.test(text.trim()) ? Number(text) : undefined
  return Number.isSafeInteger(size) ? size : undefined
}

/** The content's identity in an `ETag` or `X-Linked-ETag` header, or `undefined` when it is something else. */
export function parseEtag(text: string | undefined): Etag | undefined {
  const match = /^(?:W\/)?"?([0-9a-fA-F]+)"?$/.exec(text?.trim() ?? '')
  return asEtag(match?.[1]?.toLowerCase() ?? '')
}
