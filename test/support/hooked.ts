/** A program on top of the hook, in this process: a `fetch` that a user's client answers. */
import { wrapFetch } from '../../src/hook/patch-fetch.ts'
import type { User } from './users.ts'

/** `original` with the hook, for one Hub; `user` offers. */
export function hookedFetch(
  user: Pick<User, 'client'>,
  endpoint: string,
  original: typeof fetch = globalThis.fetch,
): typeof fetch {
  return wrapFetch(original, {
    endpoints: () => [endpoint],
    isActive: () => true,
    offer: (file, context) => user.client.offer(file, { ...context, deadlineMs: 5_000 }),
  })
}

/** Reads a body bit by bit. Cancel it, or read to its end. */
export class BodyReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly chunks: Uint8Array[] = []
  bytes = 0

  constructor(response: Response) {
    if (response.body === null) throw new Error('no body')
    this.#reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>
  }

  /** Until it has at least `bytes`, or the end. @throws What the body fails with. */
  async readTo(bytes: number): Promise<Buffer> {
    while (this.bytes < bytes) {
      const { done, value } = await this.#reader.read()
      if (done) break
      this.chunks.push(value)
      this.bytes += value.length
    }
    return this.content
  }

  get content(): Buffer {
    return Buffer.concat(this.chunks)
  }

  cancel(reason?: unknown): Promise<void> {
    return this.#reader.cancel(reason)
  }
}
