/**
 * The HTTP leg's view of one file: ranges of it, from the Hub, or while that is out of order from a mirror that says it has
 * the same content.
 */
import { digestOf, type HubFile } from '../values.ts'
import type { HubAccess } from './ask.ts'
import { firstAnswer } from './endpoints.ts'
import { FileAtEndpoint } from './file-at-endpoint.ts'
import { emptyRange, type RangeBody, type RangeRequest } from './range-body.ts'

export interface FileSourceOptions {
  /** Where `fileMetadata` found the content; saves the first range a redirect. */
  readonly location?: string | undefined
  /** Whether everybody may read the file. Mirrors are not asked before that is known. @defaultValue only without a token */
  readonly isPublic?: ((signal?: AbortSignal) => Promise<boolean>) | undefined
}

/** Opens ranges of one file. Holds no connection between calls. */
export class FileSource {
  readonly file: HubFile
  readonly #hub: HubAccess
  readonly #isPublic: FileSourceOptions['isPublic']
  /** By endpoint; a mirror's is made when it is asked. */
  readonly #places = new Map<string, FileAtEndpoint>()
  #latest: FileAtEndpoint
  #hasAskedAhead = false

  constructor(hub: HubAccess, file: HubFile, options: FileSourceOptions = {}) {
    this.file = file
    this.#hub = hub
    this.#isPublic = options.isPublic
    this.#latest = new FileAtEndpoint(hub, file, { location: options.location })
    this.#places.set(hub.endpoint, this.#latest)
  }

  /**
   * How many more ranges could start now without waiting, at the origin that served the last one (0 while it wants a
   * pause). For callers who would rather do something else than wait.
   */
  freeSlots(): number {
    return this.#latest.freeSlots()
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
    this.#askAhead()
    const { signal } = range
    const ask = async (at: HubAccess): Promise<RangeBody> => {
      this.#latest = this.#placeAt(at)
      return await this.#latest.openRange(wanted, range)
    }
    return await firstAnswer(this.#hub, ask, {
      signal,
      isPublic: async () => (await this.#isPublic?.(signal)) ?? false,
      originsOf: (endpoint) => this.#places.get(endpoint)?.origins,
    })
  }

  #placeAt(at: HubAccess): FileAtEndpoint {
    const known = this.#places.get(at.endpoint)
    if (known !== undefined) return known
    const made = new FileAtEndpoint(at, this.file, { mustConfirm: true })
    this.#places.set(at.endpoint, made)
    return made
  }

  /** Whether mirrors may hear of the file is for the Hub to say, which cannot when they are needed. */
  #askAhead(): void {
    const { endpoints, token } = this.#hub
    if (this.#hasAskedAhead || endpoints === undefined || token === undefined) return
    this.#hasAskedAhead = true
    // A large file speaks for its repository; of small ones each would have to be asked about.
    if (digestOf(this.file.etag) === 'sha256') this.#isPublic?.().catch(() => undefined)
  }
}
