/**
 * The body of an answer from here: like that of `fetch`, a byte stream that ends after exactly the announced
 * bytes or with an error, and that the caller's signal ends at once. Nothing is opened before it is read.
 */
import type { ReadableStreamDefaultReader, UnderlyingByteSource } from 'node:stream/web'

/** Where a body's bytes come from. */
export interface BodySource {
  /** Exact length in bytes. */
  readonly length: number
  open(): ReadableStream<Uint8Array>
  /** The same bytes from elsewhere, when the first source failed before it gave any. */
  openAfter(error: unknown): Promise<ReadableStream<Uint8Array>>
  readonly signal: AbortSignal | undefined
}

/** A stream of `source`'s bytes. Failures read as `TypeError: terminated`, with the reason as `cause`. */
export function bodyOf(source: BodySource): ReadableStream<Uint8Array> {
  return new ReadableStream(new Body(source) as UnderlyingByteSource, { highWaterMark: 0 })
}

type Controller = Parameters<NonNullable<UnderlyingByteSource['pull']>>[0]

/** States: untouched, reading, over. Only `reading` holds a reader and listens to the signal. */
class Body {
  readonly type = 'bytes'
  readonly #source: BodySource
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  #controller: Controller | undefined
  #received = 0
  #isOver = false

  constructor(source: BodySource) {
    this.#source = source
  }

  async pull(controller: Controller): Promise<void> {
    const { signal } = this.#source
    if (this.#controller === undefined) {
      this.#controller = controller
      if (signal?.aborted) return this.#onAbort()
      signal?.addEventListener('abort', this.#onAbort, { once: true })
    }
    try {
      const chunk = await this.#read()
      if (this.#isOver) return
      if (chunk === undefined) this.#end(controller)
      else controller.enqueue(ownBuffer(chunk))
    } catch (error) {
      if (!this.#isOver) this.#fail(controller, new TypeError('terminated', { cause: error }), error)
    }
  }

  async cancel(reason: unknown): Promise<void> {
    this.#release()
    await this.#reader?.cancel(reason)
  }

  /** The next bytes, never none; `undefined` at the right end. */
  async #read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const chunk = await this.#readOrRescue()
      if (chunk?.length === 0) continue
      this.#received += chunk?.length ?? 0
      const { length } = this.#source
      if (chunk === undefined ? this.#received < length : this.#received > length) {
        throw new Error(`the file has ${length} bytes to give, and its source gave ${this.#received}`)
      }
      return chunk
    }
  }

  async #readOrRescue(): Promise<Uint8Array | undefined> {
    try {
      this.#reader ??= this.#source.open().getReader()
      return await next(this.#reader)
    } catch (error) {
      if (this.#received > 0 || this.#isOver) throw error
      const other = await this.#source.openAfter(error)
      if (this.#isOver) {
        await other.cancel()
        return undefined
      }
      this.#reader = other.getReader()
      return await next(this.#reader)
    }
  }

  #end(controller: Controller): void {
    this.#release()
    controller.close()
    // A reader that brought its own buffer gets it back.
    const pending = controller.byobRequest as { respond(bytes: number): void } | null | undefined
    pending?.respond(0)
  }

  readonly #onAbort = (): void => {
    const reason: unknown = this.#source.signal?.reason
    if (this.#controller !== undefined) this.#fail(this.#controller, reason, reason)
  }

  #fail(controller: Controller, error: unknown, reason: unknown): void {
    this.#release()
    controller.error(error)
    this.#reader?.cancel(reason).catch(() => undefined)
  }

  #release(): void {
    this.#isOver = true
    this.#source.signal?.removeEventListener('abort', this.#onAbort)
  }
}

async function next(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | undefined> {
  const { done, value } = await reader.read()
  return done ? undefined : value
}

/** A byte stream takes the whole buffer below a chunk away from its giver: what is shared has to be copied. */
function ownBuffer(chunk: Uint8Array): Uint8Array {
  return chunk.byteLength === chunk.buffer.byteLength ? chunk : new Uint8Array(chunk)
}
