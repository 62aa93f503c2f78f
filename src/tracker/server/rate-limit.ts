/** How often one address may ask. In memory; entries go when their window ends. */
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible'
import type { Rate } from './limits.ts'

/** One rate for many addresses. */
export class RateLimit {
  readonly #limiter: RateLimiterMemory

  constructor({ count, windowMs }: Rate) {
    this.#limiter = new RateLimiterMemory({ points: count, duration: windowMs / 1000 })
  }

  /** Whether this request is within the rate. Requests that are not count too. */
  async take(network: string): Promise<boolean> {
    return this.#limiter.consume(network).then(
      () => true,
      (refusal: RateLimiterRes | Error) => {
        if (refusal instanceof Error) throw refusal
        return false
      },
    )
  }
}
