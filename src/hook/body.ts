/**
 * The body of an answer from here: like that of `fetch`, a byte stream that ends after exactly the announced
 * bytes or with an error, and that the caller's signal ends at once. Nothing is opened before it is read.
 */
import type { ReadableStreamDefaultReader, UnderlyingByteSource } from 'node:stream/web'
import { IntegrityError } from '../errors.ts'
import type { ContentCheck } from './content-check.ts'

/** Where a body's bytes come from. */
export interface BodySource {
  /** Exact length in bytes. */
  readonly length: number
  open(): ReadableStream<Uint8Array>
  /**
   * The rest from elsewhere, when the first source failed after it gave `received` bytes. The stream begins with the
   * byte at `start`, which is at most `received`.
   */
  openAfter(error: unknown, received: number): Promise<{ start: number; stream: ReadableStream<Uint8Array> }>
  /**
   * Looks at all bytes before they are handed over. What it does not find right does not end: the last ones are kept
   * back. It sees what the caller gets, whichever source it came from and whatever became of that source meanwhile.
   */
  readonly check: ContentCheck | undefined
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
  /** Bytes that the second source gives once more. */
  #repeated = 0
  #isRescued = false
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
      const chunk = this.#withoutRepeated(await this.#readOrRescue())
      if (chunk?.length === 0) continue
      this.#received += chunk?.length ?? 0
      const { length, check } = this.#source
      if (chunk === undefined ? this.#received < length : this.#received > length) {
        throw new Error(`the file has ${length} bytes to give, and its source gave ${this.#received}`)
      }
      if (chunk !== undefined) check?.update(chunk)
      if (chunk !== undefined && this.#received === length && check?.isRight() === false) {
        throw new IntegrityError('the bytes handed over are not those that the etag promises')
      }
      return chunk
    }
  }

  #withoutRepeated(chunk: Uint8Array | undefined): Uint8Array | undefined {
    const known = Math.min(this.#repeated, chunk?.length ?? 0)
    this.#repeated -= known
    return known === 0 ? chunk : chunk?.subarray(known)
  }

  async #readOrRescue(): Promise<Uint8Array | undefined> {
    try {
      this.#reader ??= this.#source.open().getReader()
      return await next(this.#reader)
    } catch (error) {
      if (this.#isRescued || this.#isOver) throw error
      this.#isRescued = true
      const { start, stream } = await this.#source.openAfter(error, this.#received)
      if (this.#isOver) {
        await stream.cancel()
        return undefined
      }
      this.#repeated = this.#received - start
      this.#reader = stream.getReader()
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
