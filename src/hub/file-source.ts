/**
 * The HTTP leg's view of one file: ranges of it, from wherever the Hub keeps it.
 *
 * The signed storage URL is remembered between ranges, and asked for again once when it has expired. A body is
 * never retried here: whoever reads it knows how far it got and opens the next range.
 */
import { HubError } from '../errors.ts'
import type { HubFile } from '../values.ts'
import { type Answer, ask, type HubAccess, isHubOrigin } from './ask.ts'
import { resolveUrl } from './file-ref.ts'
import { withoutQuery } from './http.ts'
import { parseEtag, parseSize } from './metadata.ts'
import { refusal } from './refusal.ts'

/** The bytes wanted, as `slice` takes them. */
export interface RangeRequest {
  /** First byte wanted. */
  readonly start: number
  /** Byte after the last one wanted. @defaultValue the end of the file */
  readonly end?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Tries after a 429, a 5xx or a cut connection, before any byte. @defaultValue that of the `HubHttp` */
  readonly retries?: number | undefined
}

/** What the server sends for a `RangeRequest`. Read `stream` to its end or call `cancel`. */
export interface RangeBody {
  /** First byte of `stream` in the file. Not the one asked for (0) when the server ignores ranges. */
  readonly start: number
  /** Byte after the last one of `stream`; can be less than asked for. */
  readonly end: number
  /** Size of the whole file. */
  readonly totalBytes: number
  /**
   * Exactly `end - start` bytes, or a HubError: the connection was cut, or nothing came for the body timeout.
   * Can be read once. Leaving the loop early closes the connection.
   */
  readonly stream: AsyncIterable<Uint8Array>
  /** Closes the connection of a stream that will not be read. Idempotent. */
  cancel(): void
}

/** Opens ranges of one file. Holds no connection between calls. */
export class FileSource {
  readonly file: HubFile
  readonly #hub: HubAccess
  readonly #resolveUrl: string
  #location: string | undefined

  /** @param location Where `fileMetadata` found the content; saves the first range a redirect. */
  constructor(hub: HubAccess, file: HubFile, options: { location?: string | undefined } = {}) {
    this.file = file
    this.#hub = hub
    this.#resolveUrl = resolveUrl(hub.endpoint, { ...file, revision: file.commit })
    this.#location = options.location
  }

  /**
   * Opens a range; resolves when the header of the answer is there.
   *
   * @throws {HubError} with the status of a refusal, or without one when the connection failed.
   * @throws {RangeError} for a range outside of the file.
   */
  async openRange(range: RangeRequest): Promise<RangeBody> {
    const { sizeBytes } = this.file
    const wanted = { start: range.start, end: range.end ?? sizeBytes }
    const isInside = Number.isSafeInteger(wanted.start) && wanted.start >= 0 && wanted.end <= sizeBytes
    if (!isInside || !(wanted.end >= wanted.start)) {
      throw new RangeError(`no bytes ${wanted.start} to ${wanted.end} in a file of ${sizeBytes}`)
    }
    // There is no way to ask for nothing: `bytes=0-0` of an empty file is a 416.
    if (wanted.start === wanted.end) return emptyRange(wanted.start, sizeBytes)
    const answer = await this.#request(wanted, range)
    try {
      return rangeBody(answer, wanted, sizeBytes)
    } catch (error) {
      answer.response.destroy()
      throw error
    }
  }

  async #request(wanted: { start: number; end: number }, range: RangeRequest): Promise<Answer> {
    const tried = this.#location
    if (tried !== undefined) {
      const answer = await this.#get(tried, wanted, range)
      if (!isStale(answer, tried, this.#resolveUrl)) return this.#accept(answer)
      answer.response.discard()
      // Another range may have found the new location while this one was refused.
      if (this.#location === tried) this.#location = undefined
    }
    const answer = await this.#get(this.#location ?? this.#resolveUrl, wanted, range)
    return this.#accept(answer)
  }

  #get(url: string, wanted: { start: number; end: number }, range: RangeRequest): Promise<Answer> {
    return ask(this.#hub, {
      method: 'GET',
      url,
      subject: { ...this.file, revision: this.file.commit },
      headers: { range: `bytes=${wanted.start}-${wanted.end - 1}` },
      signal: range.signal,
      leaveOrigin: true,
      isContent: true,
      retries: range.retries,
    })
  }

  #accept(answer: Answer): Answer {
    const { status } = answer.response
    const { etag, commit, path } = this.file
    if (status !== 200 && status !== 206) {
      answer.response.discard()
      this.#location = undefined
      throw refusal({
        response: answer.response,
        url: answer.url,
        endpoint: this.#hub.endpoint,
        subject: { ...this.file, revision: commit },
        hadToken: this.#hub.token !== undefined && isHubOrigin(this.#hub, answer.url),
      })
    }
    const linked = answer.linked.etag
    if (linked !== undefined && parseEtag(linked) !== etag) {
      answer.response.discard()
      throw new HubError(`the Hub has other content for "${path}" than it said before`, {
        url: this.#resolveUrl,
      })
    }
    this.#location = answer.url
    return answer
  }
}

/** A remembered location that answers like this is asked for again at the Hub: signatures expire, storage moves. */
function isStale(answer: Answer, tried: string, resolveUrl: string): boolean {
  return tried !== resolveUrl && [400, 401, 403, 404, 410].includes(answer.response.status)
}

function emptyRange(at: number, totalBytes: number): RangeBody {
  return { start: at, end: at, totalBytes, stream: noBytes(), cancel: () => undefined }
}

async function* noBytes(): AsyncGenerator<Uint8Array> {}

function rangeBody(answer: Answer, wanted: { start: number; end: number }, totalBytes: number): RangeBody {
  const { response } = answer
  const url = withoutQuery(answer.url)
  const wrong = (what: string): HubError => new HubError(what, { url, status: response.status })
  if ((response.headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw wrong('the content came compressed although that was declined')
  }
  const sent =
    response.status === 206 ? sentRange(response.headers['content-range']) : { start: 0, end: totalBytes }
  if (!sent) throw wrong('a partial answer that does not say which part it is')
  if (sent.total !== undefined && sent.total !== totalBytes) {
    throw wrong(`the file has ${sent.total} bytes there, and ${totalBytes} at the Hub`)
  }
  const isPart =
    response.status === 200 ||
    (sent.start === wanted.start && sent.end > sent.start && sent.end <= wanted.end)
  if (!isPart)
    throw wrong(`bytes ${sent.start} to ${sent.end} came instead of ${wanted.start} to ${wanted.end}`)
  const length = response.headers['content-length']
  if (length !== undefined && parseSize(length) !== sent.end - sent.start) {
    throw wrong(`${length} bytes are announced where ${sent.end - sent.start} belong`)
  }
  return {
    start: sent.start,
    end: sent.end,
    totalBytes,
    stream: exactly(response.body, sent.end - sent.start, url),
    cancel: () => response.destroy(),
  }
}

function sentRange(header: string | undefined): { start: number; end: number; total?: number } | undefined {
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(header?.trim() ?? '')
  if (!match) return undefined
  const end = Number(match[2]) + 1
  return { start: Number(match[1]), end, ...(match[3] !== '*' && { total: Number(match[3]) }) }
}

/** A body without a length may end early without an error, or never: neither passes. */
async function* exactly(
  body: AsyncIterable<Uint8Array>,
  length: number,
  url: string,
): AsyncGenerator<Uint8Array> {
  let left = length
  for await (const chunk of body) {
    if (chunk.length > left) throw new HubError(`more bytes than the ${length} announced`, { url })
    left -= chunk.length
    yield chunk
  }
  if (left > 0) throw new HubError(`the body ended ${left} bytes early`, { url })
}
