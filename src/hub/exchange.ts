/**
 * One request on undici's lowest level. Content comes at hundreds of megabytes per second and in pieces of 64 KiB:
 * handing them over in batches, without a stream in between, takes half the time of the event loop.
 *
 * States: sent; answered, when there is a header; over, when the body has ended, failed or was given up. The slot is
 * given back when it is over.
 */
import type { Dispatcher } from 'undici'
import type { HubResponse } from './http.ts'

type Controller = Dispatcher.DispatchController

/** A reader that is this far behind holds the connection up. */
const highWaterBytes = 256 * 1024
/** A body that nobody wants is read to its end when it is this short, which keeps the connection. */
const drainBytes = 16 * 1024

export interface ExchangeOptions {
  readonly signal: AbortSignal | undefined
  /** What a failure looks like to callers. */
  readonly errorOf: (error: unknown) => unknown
  /** Called once, when it is over. */
  readonly onEnd: () => void
  readonly giveBack: (bytes: Uint8Array) => void
}

/** Sends a request. @throws What `errorOf` makes of a failure before the answer's header. */
export function exchange(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  options: ExchangeOptions,
): Promise<HubResponse> {
  return new Promise((resolve, reject) => {
    dispatcher.dispatch(request, new Exchange(options, resolve, reject))
  })
}

class Exchange implements Dispatcher.DispatchHandler, AsyncIterator<Uint8Array[]> {
  readonly #options: ExchangeOptions
  readonly #resolve: (response: HubResponse) => void
  readonly #reject: (error: unknown) => void
  #controller: Controller | undefined
  #batch: Uint8Array[] = []
  #batchBytes = 0
  #wake: (() => void) | undefined
  #failure: { error: unknown } | undefined
  #isOver = false
  /** Bytes of a body that nobody wants, as far as they were read. */
  #drainedBytes: number | undefined

  constructor(
    options: ExchangeOptions,
    resolve: (response: HubResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#options = options
    this.#resolve = resolve
    this.#reject = reject
    const { signal } = options
    if (signal?.aborted) this.#onAbort()
    else signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  // What undici tells

  onRequestStart(controller: Controller): void {
    this.#controller = controller
    if (this.#failure !== undefined) controller.abort(asError(this.#failure.error))
  }

  onResponseStart(
    _controller: Controller,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200) return
    const joined: Record<string, string | undefined> = {}
    for (const [name, value] of Object.entries(headers)) {
      joined[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value
    }
    this.#resolve({
      status,
      headers: joined,
      batches: { [Symbol.asyncIterator]: () => this },
      giveBack: this.#options.giveBack,
      discard: () => this.#discard(),
      destroy: () => this.#giveUp(new Error('nobody reads this body')),
    })
  }

  onResponseData(controller: Controller, chunk: Uint8Array): void {
    if (this.#drainedBytes !== undefined) {
      this.#drainedBytes += chunk.length
      if (this.#drainedBytes > drainBytes) this.#giveUp(new Error('nobody reads this body'))
      return
    }
    this.#batch.push(chunk)
    this.#batchBytes += chunk.length
    if (this.#batchBytes >= highWaterBytes) controller.pause()
    this.#wake?.()
  }

  onResponseEnd(): void {
    this.#end()
  }

  onResponseError(_controller: Controller, error: unknown): void {
    this.#fail(error)
  }

  // What the reader asks

  async next(): Promise<IteratorResult<Uint8Array[]>> {
    while (this.#batchBytes === 0 && this.#failure === undefined && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    // What came before a failure is good.
    if (this.#failure !== undefined && this.#batchBytes === 0)
      throw this.#options.errorOf(this.#failure.error)
    if (this.#batchBytes === 0) return { done: true, value: undefined }
    const value = this.#batch
    this.#batch = []
    this.#batchBytes = 0
    if (this.#controller?.paused) this.#controller.resume()
    return { done: false, value }
  }

  /** Whoever leaves the loop early closes the connection. */
  async return(): Promise<IteratorResult<Uint8Array[]>> {
    this.#giveUp(new Error('nobody reads the rest of this body'))
    return { done: true, value: undefined }
  }

  #discard(): void {
    this.#drainedBytes ??= this.#batchBytes
    this.#batch = []
    this.#batchBytes = 0
    if (this.#drainedBytes > drainBytes) this.#giveUp(new Error('nobody reads this body'))
    else if (this.#controller?.paused) this.#controller.resume()
  }

  #giveUp(error: Error): void {
    if (this.#isOver) return
    this.#fail(error)
    this.#controller?.abort(error)
  }

  /** undici hears an abort only once it is connected: a server that never accepts would hold up whoever gave up. */
  readonly #onAbort = (): void => {
    const reason: unknown = this.#options.signal?.reason
    this.#fail(reason)
    this.#controller?.abort(asError(reason))
  }

  #fail(error: unknown): void {
    this.#failure ??= { error }
    this.#reject(this.#options.errorOf(this.#failure.error))
    this.#end()
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
    this.#options.onEnd()
    this.#wake?.()
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
