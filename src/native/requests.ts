/**
 * Promises for what libtorrent answers by alerts. It answers requests of one kind in the order they were made, so a
 * queue per kind is enough to tell whose an answer is.
 */
import type { AlertError } from './alerts.ts'
import { alertError, type CallSite, callNative, callSite } from './native-error.ts'

/** One promise that is open, and where it was asked for. */
export class Request<T> {
  readonly promise: Promise<T>
  readonly operation: string
  readonly #site: CallSite
  #resolve!: (value: T) => void
  #reject!: (error: unknown) => void

  constructor(operation: string, below: (...args: never[]) => unknown) {
    this.operation = operation
    this.#site = callSite(below)
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  resolve(value: T): void {
    this.#resolve(value)
  }

  fail(error: AlertError, subject?: string): void {
    this.#reject(alertError(this.operation, error, this.#site, subject))
  }
}

/** Requests of one kind, oldest first. */
export class RequestQueue<T> {
  readonly operation: string
  readonly #open: Request<T>[] = []

  constructor(operation: string) {
    this.operation = operation
  }

  /** Makes the native call `post`, and promises its answer. A call that throws rejects. */
  async ask(post: () => void, below: (...args: never[]) => unknown): Promise<T> {
    const request = new Request<T>(this.operation, below)
    callNative(post)
    this.#open.push(request)
    return request.promise
  }

  answer(value: T): void {
    this.#open.shift()?.resolve(value)
  }

  fail(error: AlertError, subject?: string): void {
    this.#open.shift()?.fail(error, subject)
  }

  failAll(error: AlertError): void {
    for (const request of this.#open.splice(0)) request.fail(error)
  }
}
