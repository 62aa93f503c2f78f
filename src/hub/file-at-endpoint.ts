/**
 * One file at one endpoint: ranges of it, from wherever that one keeps it.
 *
 * The signed storage URL is remembered between ranges, and asked for again when it is about to expire or was refused:
 * once, however many ranges find that out at the same time. A body is never retried here: whoever reads it knows
 * how far it got and opens the next range.
 */
import { unlessAborted } from '../abort.ts'
import { HubError } from '../errors.ts'
import type { HubFile } from '../values.ts'
import { type Answer, ask, type HubAccess, isHubOrigin } from './ask.ts'
import { resolveUrl } from './file-ref.ts'
import { parseEtag } from './header-values.ts'
import { etagOf } from './metadata.ts'
import { type RangeBody, type RangeRequest, rangeBody, type WantedBytes } from './range-body.ts'
import { refusal } from './refusal.ts'
import { signatureExpiryMs } from './signed-url.ts'

/** This long before it expires a signed URL is not used any more: a request needs time to arrive. */
const expiryMarginMs = 5_000

/** Where the content is, as the endpoint said. */
interface Location {
  readonly url: string
  /** Ms since 1970, or `undefined` when only a refusal can tell. */
  readonly expiresAtMs: number | undefined
}

export interface FileAtEndpointOptions {
  /** Where `fileMetadata` found the content; saves the first range a redirect. */
  readonly location?: string | undefined
  /** Whether the endpoint must say that it has the same content before its bytes are taken. @defaultValue false */
  readonly mustConfirm?: boolean | undefined
}

/** Opens ranges of one file at one endpoint. Holds no connection between calls. */
export class FileAtEndpoint {
  readonly file: HubFile
  readonly #hub: HubAccess
  readonly #mustConfirm: boolean
  readonly #resolveUrl: string
  #location: Location | undefined
  /** Of the last location, also when that is not used any more. */
  #storageOrigin: string | undefined
  /** Settles, without an error, when the range that asks the Hub for the location has its answer. */
  #resolving: Promise<void> | undefined

  constructor(hub: HubAccess, file: HubFile, options: FileAtEndpointOptions = {}) {
    this.file = file
    this.#hub = hub
    this.#mustConfirm = options.mustConfirm ?? false
    this.#resolveUrl = resolveUrl(hub.endpoint, { ...file, revision: file.commit })
    const { location } = options
    if (location !== undefined) this.#setLocation(locationAt(location))
  }

  /** What the next range needs: where the file is, or the endpoint that knows it and what it named before. */
  get origins(): readonly string[] {
    const storage = this.#storageOrigin === undefined ? [] : [this.#storageOrigin]
    const isKnown = this.#location !== undefined && !this.#expiresSoon(this.#location)
    return isKnown ? storage : [new URL(this.#hub.endpoint).origin, ...storage]
  }

  /** How many more ranges could start now without waiting, at the origin that served the last one. */
  freeSlots(): number {
    const { http, token } = this.#hub
    if (this.#location === undefined) return http.slotsPerOrigin
    const { url } = this.#location
    return http.freeSlots(url, token !== undefined && isHubOrigin(this.#hub, url))
  }

  /**
   * Opens a range that is not empty; resolves when the header of the answer is there.
   *
   * @throws {HubError} with the status of a refusal, or without one when the connection failed.
   */
  async openRange(wanted: WantedBytes, range: RangeRequest): Promise<RangeBody> {
    const answer = await this.#request(wanted, range)
    try {
      return rangeBody(answer, wanted, this.file.sizeBytes)
    } catch (error) {
      answer.response.destroy()
      throw error
    }
  }

  async #request(wanted: WantedBytes, range: RangeRequest): Promise<Answer> {
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

  /** Where to ask for a range; or an answer, when the endpoint itself has the content. */
  async #locate(wanted: WantedBytes, range: RangeRequest): Promise<Found> {
    for (;;) {
      const location = this.#location
      if (location !== undefined && !this.#expiresSoon(location)) return { location, isFresh: false }
      if (this.#resolving === undefined) return await this.#resolve(wanted, range)
      range.onWait?.()
      await unlessAborted(this.#resolving, range.signal)
    }
  }

  async #resolve(wanted: WantedBytes, range: RangeRequest): Promise<Found> {
    let done = (): void => {}
    this.#resolving = new Promise((resolve) => {
      done = resolve
    })
    try {
      const answer = await this.#get(this.#resolveUrl, wanted, range, false)
      if (answer.location === undefined) return { answer: this.#accepted(answer) }
      answer.response.discard()
      this.#checkEtag(answer, true)
      const location = this.#remember(answer.location)
      return { location, isFresh: true }
    } finally {
      this.#resolving = undefined
      done()
    }
  }

  #get(url: string, wanted: WantedBytes, range: RangeRequest, leaveOrigin: boolean): Promise<Answer> {
    return ask(this.#hub, {
      method: 'GET',
      url,
      subject: { ...this.file, revision: this.file.commit },
      headers: { range: `bytes=${wanted.start}-${wanted.end - 1}` },
      signal: range.signal,
      leaveOrigin,
      content: range.isWhole ? 'whole' : 'range',
      onWait: range.onWait,
      onStart: range.onStart,
      retries: range.retries,
    })
  }

  /** `answer`, when it brings content. @param asked Where it was asked for, unless at the endpoint. @throws {HubError} */
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
    this.#checkEtag(answer, asked === undefined)
    if (answer.url !== asked?.url) this.#remember(answer.url)
    return answer
  }

  /** Storage has etags of its own: only what the endpoint itself says counts. */
  #checkEtag(answer: Answer, isFromEndpoint: boolean): void {
    const { etag, path } = this.file
    const linked = answer.linked.etag
    const isConfirmed = linked === undefined ? etagOf(answer) === etag : parseEtag(linked) === etag
    if (isConfirmed || (linked === undefined && !(this.#mustConfirm && isFromEndpoint))) return
    answer.response.discard()
    const { host } = new URL(this.#resolveUrl)
    const message =
      linked === undefined
        ? `${host} does not say what content it has for "${path}"`
        : `${host} has other content for "${path}" than the Hub said before`
    throw new HubError(message, { url: this.#resolveUrl, status: answer.response.status })
  }

  #remember(url: string): Location {
    const location = locationAt(url)
    // What has just been given out and is old already shows a clock that is wrong: then only a refusal can tell.
    return this.#setLocation(this.#expiresSoon(location) ? { url, expiresAtMs: undefined } : location)
  }

  #setLocation(location: Location): Location {
    this.#location = location
    this.#storageOrigin = new URL(location.url).origin
    return location
  }

  #forget(location: Location): void {
    if (this.#location === location) this.#location = undefined
  }

  #expiresSoon({ expiresAtMs }: Location): boolean {
    return expiresAtMs !== undefined && this.#hub.http.now() >= expiresAtMs - expiryMarginMs
  }
}

type Found = { readonly answer: Answer } | { readonly location: Location; readonly isFresh: boolean }

function locationAt(url: string): Location {
  return { url, expiresAtMs: signatureExpiryMs(url) }
}

/** A remembered location that answers like this is asked for again at the Hub: signatures expire, storage moves. */
function isStale(answer: Answer): boolean {
  return [400, 401, 403, 404, 410].includes(answer.response.status)
}
