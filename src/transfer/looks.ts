/**
 * Which requests only look into a file, such as at the header of a safetensors file. The Hub answers those with one small
 * request, sooner than any swarm, and a look is no reason to download the file.
 */
import type { ByteRange } from './http-leg.ts'

/** Those who fetch in chunks end soon after they began; a process may live for years. */
const mostWanted = 512

export class Looks {
  readonly #lookBytes: number
  /** Files of which somebody in this process has asked for more than a look, the latest last. */
  readonly #wanted = new Set<string>()

  /** @param lookBytes A range below this size is a look. */
  constructor(lookBytes: number) {
    this.#lookBytes = lookBytes
  }

  /** Whether a request for `range` of the file known as `key` is a look; remembers those that are not. */
  isLook(key: string, sizeBytes: number, range: ByteRange): boolean {
    if (isProbe(range)) return false
    if (range.end - range.start >= this.#lookBytes) {
      this.#want(key)
      return false
    }
    return !(this.#wanted.has(key) && this.#isLastChunk(sizeBytes, range))
  }

  #want(key: string): void {
    this.#wanted.delete(key)
    this.#wanted.add(key)
    const [oldest] = this.#wanted
    if (this.#wanted.size > mostWanted && oldest !== undefined) this.#wanted.delete(oldest)
  }

  /** Clients that fetch a file in chunks, which begin at multiples of a mebibyte or of several, end with a smaller one. */
  #isLastChunk(sizeBytes: number, { start, end }: ByteRange): boolean {
    return end === sizeBytes && start % this.#lookBytes === 0
  }
}

/** After the first byte alone, more is asked for. */
function isProbe({ start, end }: ByteRange): boolean {
  return start === 0 && end === 1
}
