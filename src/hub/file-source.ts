/**
 * The HTTP leg's view of one file: ranges of it, from wherever the Hub keeps it.
 *
 * The signed storage URL is remembered between ranges, and asked for again when it is about to expire or was refused:
 * once, however many ranges find that out at the same time. A body is never retried here: whoever reads it knows
 * how far it got and opens the next range.
 */
import { HubError } from '../errors.ts'
import type { HubFile } from '../values.ts'
import { type Answer, ask, type HubAccess, isHubOrigin } from './ask.ts'
import { resolveUrl } from './file-ref.ts'
import { withoutQuery } from './http.ts'
import { parseEtag, parseSize } from './metadata.ts'
import { refusal } from './refusal.ts'
import { signatureExpiryMs } from './signed-url.ts'

/** The bytes wanted, as `slice` takes them. */
export interface RangeRequest {
  /** First byte wanted. */
  readonly start: number
  /** Byte after the last one wanted. @defaultValue the end of the file */
  readonly end?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Tries after a 429, a 5xx or a cut connection, before any byte. @defaultValue that of the `HubHttp` */
  readonly retries?: number | undefined
  /**
   * Called whenever the range has to wait here: for one of the origin's slots, for a pause the server asked for,
   * before another try, or for another range that is asking the Hub where the file is. Not called when it need not.
   */
  readonly onWait?: (() => void) | undefined
  /**
   * Called whenever a request for this range is sent, so more than once when the Hub is asked for the location first,
   * or again. A range between `onWait` and `onStart` has not begun: its silence says nothing about the server.
   */
  readonly onStart?: (() => void) | undefined
}

/** What the server sends for a `RangeRequest`. Read `batches` to the end or call `cancel`. */
export interface RangeBody {
  /** First byte of the body in the file. Not the one asked for (0) when the server ignores ranges. */
  readonly start: number
  /** Byte after the last one of the body; can be less than asked for. */
  readonly end: number
  /** Size of the whole file. */
  readonly totalBytes: number
  /**
   * Exactly `end - start` bytes, or a HubError: the connection was cut, or nothing came for the body timeout.
   * Each time all that has come since the last time. Can be read once. Leaving the loop early closes the connection.
   */
  readonly batches: AsyncIterable<Uint8Array[]>
  /** See `HubResponse.giveBack`. */
  giveBack(bytes: Uint8Array): void
  /** Closes the connection of a body that will not be read. Idempotent. */
  cancel(): void
}

/** This long before it expires a signed URL is not used any more: a request needs time to arrive. */
const expiryMarginMs = 5_000

/** Where the content is, as the Hub said. */
interface Location {
  readonly url: string
  /** Ms since 1970, or `undefined` when only a refusal can tell. */
  readonly expiresAtMs: number | undefined
}

/** Opens ranges of one file. Holds no connection between calls. */
export class FileSource {
  readonly file: HubFile
  readonly #hub: HubAccess
  readonly #resolveUrl: string
  #location: Location | undefined
  /** Settles, without an error, when the range that asks the Hub for the location has its answer. */
  #resolving: Promise<void> | undefined

  /** @param location Where `fileMetadata` found the content; saves the first range a redirect. */
  constructor(hub: HubAccess, file: HubFile, options: { location?: string | undefined } = {}) {
    this.file = file
    this.#hub = hub
    this.#resolveUrl = resolveUrl(hub.endpoint, { ...file, revision: file.commit })
    const { location } = options
    this.#location = location === undefined ? undefined : locationAt(location)
  }

  /**
   * How many more ranges could start now without waiting, at the origin that served the last one (0 while it wants a
   * pause). For callers who would rather do something else than wait.
   */
  freeSlots(): number {
    const { http } = this.#hub
    return this.#location === undefined ? http.slotsPerOrigin : http.freeSlots(this.#location.url)
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

  async #request(wanted: Wanted, range: RangeRequest): Promise<Answer> {
    for (let refusals = 0; ; refusals++) {
      const found = await this.#locate(wanted, range)
      if ('answer' in found) return this.#accepted(found.answer)
      const answer = await this.#get(found.location.url, wanted, range, true)
      if (found.isFresh || refusals > 0 || !isStale(answer)) return this.#accepted(answer, found.location)
      answer.response.discard()
      // Another range may have found the new location while this one was refused.
      this.#forget(found.location)
    }
  }

  /** Where to ask for a range; or an answer, when the Hub itself has the content. */
  async #locate(wanted: Wanted, range: RangeRequest): Promise<Found> {
    for (;;) {
      const location = this.#location
      if (location !== undefined && !this.#expiresSoon(location)) return { location, isFresh: false }
      if (this.#resolving === undefined) return await this.#resolve(wanted, range)
      range.onWait?.()
      await settled(this.#resolving, range.signal)
    }
  }

  async #resolve(wanted: Wanted, range: RangeRequest): Promise<Found> {
    let done = (): void => {}
    this.#resolving = new Promise((resolve) => {
      done = resolve
    })
    try {
      const answer = await this.#get(this.#resolveUrl, wanted, range, false)
      if (answer.location === undefined) return { answer: this.#accepted(answer) }
      answer.response.discard()
      this.#checkEtag(answer)
      const location = this.#remember(answer.location)
      return { location, isFresh: true }
    } finally {
      this.#resolving = undefined
      done()
    }
  }

  #get(url: string, wanted: Wanted, range: RangeRequest, leaveOrigin: boolean): Promise<Answer> {
    return ask(this.#hub, {
      method: 'GET',
      url,
      subject: { ...this.file, revision: this.file.commit },
      headers: { range: `bytes=${wanted.start}-${wanted.end - 1}` },
      signal: range.signal,
      leaveOrigin,
      isContent: true,
      onWait: range.onWait,
      onStart: range.onStart,
      retries: range.retries,
    })
  }

  /** `answer`, when it brings content. @param asked Where it was asked for, unless at the Hub. @throws {HubError} */
  #accepted(answer: Answer, asked?: Location): Answer {
    const { status } = answer.response
    if (status !== 200 && status !== 206) {
      answer.response.discard()
      // A server that wants a pause, or has not these bytes, is still where the file is.
      if (asked !== undefined && status !== 429 && status !== 416) this.#forget(asked)
      throw refusal({
        response: answer.response,
        url: answer.url,
        endpoint: this.#hub.endpoint,
        subject: { ...this.file, revision: this.file.commit },
        hadToken: this.#hub.token !== undefined && isHubOrigin(this.#hub, answer.url),
        nowMs: this.#hub.http.now(),
      })
    }
    this.#checkEtag(answer)
    if (answer.url !== asked?.url) this.#remember(answer.url)
    return answer
  }

  #checkEtag(answer: Answer): void {
    const linked = answer.linked.etag
    if (linked === undefined || parseEtag(linked) === this.file.etag) return
    answer.response.discard()
    throw new HubError(`the Hub has other content for "${this.file.path}" than it said before`, {
      url: this.#resolveUrl,
    })
  }

  #remember(url: string): Location {
    const location = locationAt(url)
    // What has just been given out and is old already shows a clock that is wrong: then only a refusal can tell.
    this.#location = this.#expiresSoon(location) ? { url, expiresAtMs: undefined } : location
    return this.#location
  }

  #forget(location: Location): void {
    if (this.#location === location) this.#location = undefined
  }

  #expiresSoon({ expiresAtMs }: Location): boolean {
    return expiresAtMs !== undefined && this.#hub.http.now() >= expiresAtMs - expiryMarginMs
  }
}

interface Wanted {
  readonly start: number
  readonly end: number
}

type Found = { readonly answer: Answer } | { readonly location: Location; readonly isFresh: boolean }

function locationAt(url: string): Location {
  return { url, expiresAtMs: signatureExpiryMs(url) }
}

/** A remembered location that answers like this is asked for again at the Hub: signatures expire, storage moves. */
function isStale(answer: Answer): boolean {
  return [400, 401, 403, 404, 410].includes(answer.response.status)
}

/** Waits for `work`, which does not fail, or throws the signal's reason. */
async function settled(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return await work
  signal.throwIfAborted()
  let onAbort = (): void => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function emptyRange(at: number, totalBytes: number): RangeBody {
  return {
    start: at,
    end: at,
    totalBytes,
    batches: noBytes(),
    giveBack: () => undefined,
    cancel: () => undefined,
  }
}

async function* noBytes(): AsyncGenerator<Uint8Array[]> {}

function rangeBody(answer: Answer, wanted: Wanted, totalBytes: number): RangeBody {
  const { response } = answer
  const url = withoutQuery(answer.url)
  const wrong = (what: string): HubError => new HubError(what, { url, status: response.status })
  if ((response.headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw wrong('the content came compressed although that was declined')
  }
  if (/^\s*multipart\//i.test(response.headers['content-type'] ?? '') && response.status === 206) {
    throw wrong('several parts came where one was asked for')
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
    batches: exactly(response.batches, sent.end - sent.start, url),
    giveBack: response.giveBack,
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
  batches: AsyncIterable<Uint8Array[]>,
  length: number,
  url: string,
): AsyncGenerator<Uint8Array[]> {
  let left = length
  for await (const batch of batches) {
    for (const chunk of batch) left -= chunk.length
    if (left < 0) throw new HubError(`more bytes than the ${length} announced`, { url })
    yield batch
  }
  if (left > 0) throw new HubError(`the body ended ${left} bytes early`, { url })
}
