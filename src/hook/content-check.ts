/** Whether bytes that pass by, in order, are a file's: its size and the digest that its etag is. */
import type { Hash } from 'node:crypto'
import { contentHash } from '../hub/content-hash.ts'
import { type BlobRef, digestOf } from '../values.ts'

export class ContentCheck {
  readonly #file: BlobRef
  readonly #hash: Hash
  #bytes = 0

  constructor(file: BlobRef) {
    this.#file = file
    this.#hash = contentHash(digestOf(file.etag), file.sizeBytes)
  }

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk)
    this.#bytes += chunk.length
  }

  /** Whether all of it was right; asked once, at the end. */
  isRight(): boolean {
    return this.#bytes === this.#file.sizeBytes && this.#hash.digest('hex') === this.#file.etag
  }
}
