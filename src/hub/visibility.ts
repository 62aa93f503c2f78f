/**
 * Whether everybody may read a file. What needed a token is never looked up, published, announced or seeded.
 *
 * A "no" holds for the whole repository. A "yes" does only when it was about a file in large-file storage: the
 * Hub may show the README of a gated repository to everybody.
 */
import { log, messageOf } from '../log.ts'
import { digestOf, type HubFile } from '../values.ts'
import type { HubAccess } from './ask.ts'
import { fileMetadata } from './metadata.ts'

/** Remembers for its lifetime, one per process, which repositories everybody may read. */
export class Visibility {
  readonly #hub: HubAccess
  readonly #repos = new Map<string, boolean>()
  readonly #pending = new Map<string, Promise<boolean>>()

  constructor(hub: HubAccess) {
    this.#hub = hub
  }

  /**
   * Whether the Hub gives the same file to somebody without a token. Without a token of ours it has just done
   * so: `true`, at no cost. With one it costs a HEAD request, at most one per repository when the first file asked
   * about is a large one. When the Hub does not answer, `false`, and it is asked again next time.
   */
  async isPublic(file: HubFile, options: { signal?: AbortSignal | undefined } = {}): Promise<boolean> {
    if (this.#hub.token === undefined) return true
    const repo = `${file.repoType} ${file.repo}`
    const known = this.#repos.get(repo)
    if (known !== undefined) return known
    const key = `${repo} ${file.etag}`
    let pending = this.#pending.get(key)
    if (!pending) {
      pending = this.#ask(file, repo)
      this.#pending.set(key, pending)
      // A definite answer about a small file stays; anything else is asked again.
      void pending.then((isPublic) => isPublic || this.#pending.delete(key))
    }
    return await raceSignal(pending, options.signal)
  }

  async #ask(file: HubFile, repo: string): Promise<boolean> {
    const { repoType, repo: name, path, commit: revision } = file
    try {
      const anonymous = { http: this.#hub.http, endpoint: this.#hub.endpoint }
      const seen = await fileMetadata(anonymous, { repoType, repo: name, path, revision }, { retries: 0 })
      const isSame = seen.etag === file.etag && seen.sizeBytes === file.sizeBytes
      if (!isSame) this.#repos.set(repo, false)
      else if (digestOf(file.etag) === 'sha256') this.#repos.set(repo, true)
      return isSame
    } catch (error) {
      const status = (error as { status?: unknown }).status
      if (status === 401 || status === 403 || status === 404) this.#repos.set(repo, false)
      else log.debug(`cannot tell whether ${repo} is public, treating it as private: ${messageOf(error)}`)
      return false
    }
  }
}

/** The answer is shared by several callers, so one that gives up must not take it from the others. */
async function raceSignal<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise
  signal.throwIfAborted()
  const { promise: aborted, reject } = withRejecter()
  const onAbort = (): void => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function withRejecter(): { promise: Promise<never>; reject: (reason: unknown) => void } {
  let reject: (reason: unknown) => void = () => undefined
  const promise = new Promise<never>((_resolve, no) => {
    reject = no
  })
  return { promise, reject }
}
