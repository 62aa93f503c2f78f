/** Responses as the original `fetch` would have made them. */
import type { FileMetadata } from '../values.ts'
import type { ByteRange } from './range.ts'

/** An answer from here. */
export interface Answer {
  /** What the caller asked for, and goes on asking for: some clients continue on `response.url`. */
  readonly url: URL
  readonly file: FileMetadata
  readonly range: ByteRange
  /** Whether the caller asked for a range. */
  readonly isPartial: boolean
  /** A new body each time; starts nothing before it is read. */
  readonly body: () => ReadableStream<Uint8Array>
}

/** 200 with the whole file, or 206 with the range that was asked for. */
export function reply(answer: Answer): Response {
  const { url, file, range, isPartial } = answer
  const etag = `"${file.etag}"`
  const headers = new Headers({
    'content-length': String(range.end - range.start),
    'accept-ranges': 'bytes',
    etag,
    'x-linked-etag': etag,
    'x-linked-size': String(file.sizeBytes),
    'x-repo-commit': file.commit,
  })
  if (isPartial) headers.set('content-range', `bytes ${range.start}-${range.end - 1}/${file.sizeBytes}`)
  const status = isPartial ? 206 : 200
  const response = new Response(answer.body(), { status, statusText: statusTexts[status], headers })
  const bare = new URL(url)
  bare.hash = ''
  // The original would split the body in two, which reads ahead.
  return present(response, { url: bare.href, type: 'basic' }, () => reply(answer))
}

const statusTexts = { 200: 'OK', 206: 'Partial Content' } as const

/** `response`, the end of a chain of redirects, as `fetch` shows it that followed them itself. */
export function afterRedirects(response: Response, crossedOrigins: boolean): Response {
  const fields = { redirected: true, ...(crossedOrigins && { type: 'cors' as const }) }
  const clone = response.clone.bind(response)
  return present(response, fields, () => afterRedirects(clone(), crossedOrigins))
}

/** Own properties: the prototype's getters read what only `fetch` itself can write. A clone would lose them. */
function present(
  response: Response,
  fields: Partial<Pick<Response, 'url' | 'redirected' | 'type'>>,
  cloneUnread: () => Response,
): Response {
  const throwUsed = response.clone.bind(response)
  const clone = (): Response => (response.bodyUsed || response.body?.locked ? throwUsed() : cloneUnread())
  for (const [name, value] of Object.entries({ ...fields, clone })) {
    Object.defineProperty(response, name, { value, configurable: true })
  }
  return response
}
