/**
 * One call of `fetch` for a file of the Hub: its redirects followed by hand, and our answer in place of one of theirs when
 * somebody offers the file. Until an answer of ours has left this file, whatever goes wrong in it leaves the caller
 * with what the original `fetch` gives.
 */
import { unlessAborted } from '../abort.ts'
import { resolveUrl } from '../hub/file-ref.ts'
import { log, messageOf } from '../log.ts'
import type { HubFile } from '../values.ts'
import { bodyOf } from './body.ts'
import { type Candidate, type FetchArguments, findFile, tokenOf } from './candidate.ts'
import { ContentCheck } from './content-check.ts'
import { locationOf, metadataOf } from './identity.ts'
import type { FetchDeps, OfferedFile } from './offer.ts'
import { type ByteRange, rangeOf } from './range.ts'
import { fetchFailed, headersFor, maxRedirects, redirectTarget } from './redirect.ts'
import { afterRedirects, reply } from './reply.ts'

/** One call of `fetch` for a file of the Hub. */
export class HubFetch {
  readonly #original: typeof fetch
  readonly #deps: FetchDeps
  readonly #candidate: Candidate
  readonly #hubOrigins: ReadonlySet<string>
  #at: URL
  #ref: Candidate['ref']
  #endpoint: string
  #headers: Headers
  #hasAsked = false

  constructor(original: typeof fetch, deps: FetchDeps, candidate: Candidate) {
    this.#original = original
    this.#deps = deps
    this.#candidate = candidate
    const endpoints = candidate.endpoints.filter((endpoint) => URL.canParse(endpoint))
    this.#hubOrigins = new Set(endpoints.map((endpoint) => new URL(endpoint).origin))
    this.#at = candidate.url
    this.#ref = candidate.ref
    this.#endpoint = candidate.endpoint
    this.#headers = candidate.headers
  }

  /** @param first The answer to the caller's own request, whose redirects were not followed. */
  async run(args: FetchArguments, first: Promise<Response>): Promise<Response> {
    let response = await first
    let crossedOrigins = false
    for (let redirects = 0; ; redirects++) {
      // A browser's fetch, or a wrapper that imitates one, hides where a redirect leads.
      if (response.type === 'opaqueredirect') return await this.#original(...args)
      const answer = await this.#answerInstead(response)
      if (answer !== undefined) return answer
      const location = locationOf(response)
      if (location === undefined) return redirects === 0 ? response : afterRedirects(response, crossedOrigins)
      discard(response)
      const target = redirectTarget(location, this.#at)
      if (redirects === maxRedirects) throw fetchFailed(new Error('redirect count exceeded'))
      crossedOrigins ||= target.origin !== this.#candidate.url.origin
      this.#moveTo(target)
      const init = { ...this.#candidate.init, headers: this.#headers, redirect: 'manual' as const }
      response = await this.#original(target.href, init)
    }
  }

  #moveTo(target: URL): void {
    this.#headers = headersFor(target, this.#at, this.#headers)
    this.#at = target
    // A renamed repository, or another Hub.
    const { endpoints } = this.#candidate
    const found = findFile(target, endpoints)
    if (found === undefined) return
    this.#ref = found.ref
    // A mirror may hand on a redirect to the Hub, and the program follows it. What we ask ourselves stays where it was sent.
    if (this.#endpoint !== endpoints[0]) this.#endpoint = found.endpoint
  }

  /** Our answer in place of `response`, if there is one. @throws the signal's reason, and nothing else. */
  async #answerInstead(response: Response): Promise<Response | undefined> {
    const { signal } = this.#candidate
    try {
      const file = this.#fileOf(response)
      const range = file && rangeOf(this.#candidate.range, file.sizeBytes)
      if (file === undefined || range === undefined) return undefined
      this.#hasAsked = true
      const context = { token: tokenOf(this.#headers), signal, range, endpoint: this.#endpoint }
      const offered = await unlessAborted(this.#deps.offer(file, context), signal)
      if (!offered) return undefined
      const answer = this.#reply(file, range, offered)
      discard(response)
      return answer
    } catch (error) {
      if (signal?.aborted) {
        discard(response)
        throw signal.reason
      }
      log.debug(`${this.#ref.path} comes from the Hub: ${messageOf(error)}`)
      return undefined
    }
  }

  /** What the Hub itself says the file is. Storage has etags of its own, and nobody asked it. */
  #fileOf(response: Response): HubFile | undefined {
    if (this.#hasAsked || !this.#hubOrigins.has(this.#at.origin)) return undefined
    const metadata = metadataOf(response)
    const { repoType, repo, path } = this.#ref
    return metadata && { repoType, repo, path, ...metadata }
  }

  #reply(file: HubFile, range: ByteRange, offered: OfferedFile): Response {
    const { url, signal } = this.#candidate
    const isWhole = range.start === 0 && range.end === file.sizeBytes
    return reply({
      url,
      file,
      range,
      isPartial: this.#candidate.range !== undefined,
      body: () =>
        bodyOf({
          length: range.end - range.start,
          open: () => offered.open(range, signal),
          openAfter: (error, received) => this.#overHttp(file, range, error, received),
          check: isWhole && !offered.isCached ? new ContentCheck(file) : undefined,
          signal,
        }),
    })
  }

  /**
   * The bytes from `range.start + received` on, as the caller would have got them without us, pinned to the commit that
   * the answer named. For what fails on this side only, such as a cache that cannot be written. Wrong content is no
   * reason to try again: the Hub's own bytes were among those refused, or some of the wrong ones are with the caller.
   */
  async #overHttp(
    file: HubFile,
    range: ByteRange,
    error: unknown,
    received: number,
  ): Promise<{ start: number; stream: ReadableStream<Uint8Array> }> {
    if ((error as { code?: unknown } | null)?.code === 'ERR_LLMPT_INTEGRITY') throw error
    const from = range.start + received
    log.debug(`${file.path} comes from the Hub after all, from byte ${from} on: ${messageOf(error)}`)
    const headers = new Headers(this.#candidate.headers)
    // The caller may have asked for a note about where the content is, and has been promised content.
    headers.delete('accept')
    const asked = `bytes ${from}-${range.end - 1}/`
    if (this.#candidate.range !== undefined || received > 0)
      headers.set('range', `bytes=${from}-${range.end - 1}`)
    const url = resolveUrl(this.#candidate.endpoint, { ...file, revision: file.commit })
    const response = await this.#original(url, { ...this.#candidate.init, headers })
    const stream = response.body as ReadableStream<Uint8Array> | null
    const isPart = response.status === 206 && response.headers.get('content-range')?.startsWith(asked)
    if (stream && isPart) return { start: received, stream }
    // All of it, because that was asked for or the server knows no ranges.
    if (stream && response.status === 200 && this.#candidate.range === undefined) return { start: 0, stream }
    discard(response)
    throw error
  }
}

/** A body that nobody will read. */
function discard(response: Response): void {
  response.body?.cancel().catch(() => undefined)
}
