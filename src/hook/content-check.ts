/** Whether bytes that pass by, in order, are a file's: its size and the digest that its etag is. */
import { createHash, type Hash } from 'node:crypto'
import { type BlobRef, digestOf } from '../values.ts'

export class ContentCheck {
  readonly #file: BlobRef
  readonly #hash: Hash
  #bytes = 0

  constructor(file: BlobRef) {
    this.#file = file
    const isSha256 = digestOf(file.etag) === 'sha256'
    this.#hash = createHash(isSha256 ? 'sha256' : 'sha1')
    // git hashes a header before the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    if (!isSha256) this.#hash.update(`blob ${file.sizeBytes}\0`)
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
