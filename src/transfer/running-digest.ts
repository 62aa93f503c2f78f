/** The digest of a file that is still growing, and that may have to begin anew when what was there is taken back. */
import { log, messageOf } from '../log.ts'
import type { PrefixDigest } from './digest.ts'

export type FinishedDigest = Awaited<PrefixDigest['finished']>

export class RunningDigest {
  readonly #start: () => PrefixDigest
  #digest: PrefixDigest | undefined
  #endBytes = 0
  #isClosed = false

  /** @param start Begins at the first byte; called when there is something to hash. */
  constructor(start: () => PrefixDigest) {
    this.#start = start
  }

  /** No byte before `endBytes` will change, unless it is taken back first. */
  advance(endBytes: number): void {
    this.#digest ??= this.#start()
    this.#endBytes = Math.max(this.#endBytes, endBytes)
    this.#digest.advance(this.#endBytes)
  }

  /** Bytes from `offset` on will be written again. */
  takenBack(offset: number): void {
    if (offset >= this.#endBytes) return
    this.#digest?.close()
    this.#digest = undefined
    this.#endBytes = 0
  }

  /**
   * Once all of the file is final. What failed on the way (a descriptor or a thread that could not be had) does not cost
   * the file: it is read once more.
   *
   * @throws {NativeError} When it cannot be read; the signal's reason.
   */
  async finish(sizeBytes: number, signal?: AbortSignal): Promise<FinishedDigest> {
    this.advance(sizeBytes)
    try {
      return await (this.#digest as PrefixDigest).finished
    } catch (error) {
      signal?.throwIfAborted()
      if (this.#isClosed) throw error
      log.debug(`the digest is made anew: ${messageOf(error)}`)
    }
    this.#digest?.close()
    this.#digest = this.#start()
    this.#digest.advance(sizeBytes)
    return await this.#digest.finished
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true
    this.#digest?.close()
  }
}
