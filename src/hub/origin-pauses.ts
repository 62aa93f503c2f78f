/**
 * Pauses that servers ask for. A limit counts all requests of an address, or all of a token, so it is the origin that
 * rests, not only the request that was refused: going on with the others makes some servers refuse for longer. What was
 * asked without a token must not stop what is asked with one, though, nor the other way round: they have limits of
 * their own.
 */
import { HubError } from '../errors.ts'

/** The header of an answer. Names in lower case. */
export interface AnswerHeader {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
}

/**
 * No longer pause is believed, in ms. The Hub's windows are 5 minutes; a server that means a year has a bug, and a
 * process should not suffer from it for its whole life.
 */
export const longestPauseMs = 3_600_000

/**
 * How long a refusal (429 or 503) asks to stay away, in ms from `nowMs`: by `Retry-After`, in seconds or as a
 * date, else by the window (`t`) of the Hub's `RateLimit: "resolvers";r=0;t=120`. At most `longestPauseMs`.
 *
 * @returns `undefined` when it asks for nothing, or for something that makes no sense.
 */
export function askedPauseMs({ status, headers }: AnswerHeader, nowMs: number): number | undefined {
  if (status !== 429 && status !== 503) return undefined
  const asked = retryAfterMs(headers['retry-after'], nowMs)
  if (asked !== undefined) return asked
  if (status !== 429) return undefined
  const windows = rateLimits(headers['ratelimit'])
  // An answer has one window per limit: those that are used up are why it is a refusal.
  const usedUp = windows.filter((window) => window.remaining === 0)
  const ms = (usedUp.length > 0 ? usedUp : windows).map((window) => window.windowMs)
  return ms.length > 0 ? Math.min(longestPauseMs, Math.max(...ms)) : undefined
}

/** How long until the budget that an answer says is used up is filled again, in ms, or `undefined`. */
export function usedUpForMs({ headers }: AnswerHeader): number | undefined {
  const usedUp = rateLimits(headers['ratelimit']).filter((window) => window.remaining === 0)
  return usedUp.length > 0 ? Math.max(...usedUp.map((window) => window.windowMs)) : undefined
}

interface Pause {
  readonly untilMs: number
  /** Status of the refusal, or `undefined` when nothing was refused yet. */
  readonly status: number | undefined
}

/** What a pause needs: a clock, a way to wait, and how long waiting is better than an error. */
export interface PauseDeps {
  readonly now: () => number
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<unknown>
  readonly maxRetryDelayMs: number
}

/** Which origins rest, and until when. An origin here is whatever has a limit of its own: see `payerAt` in `http.ts`. */
export class OriginPauses {
  readonly #deps: PauseDeps
  readonly #pauses = new Map<string, Pause>()

  constructor(deps: PauseDeps) {
    this.#deps = deps
  }

  /** Learns from an answer of `origin`. */
  note(origin: string, answer: AnswerHeader): void {
    const { now, maxRetryDelayMs } = this.#deps
    const nowMs = now()
    const asked = askedPauseMs(answer, nowMs)
    if (asked !== undefined && asked > 0)
      this.#extend(origin, { untilMs: nowMs + asked, status: answer.status })
    if (answer.status >= 400) return
    const usedUpMs = usedUpForMs(answer)
    if (usedUpMs === undefined || usedUpMs <= 0) return
    // Nothing was refused, and the limit may be of another kind of request: after a bounded wait, the server decides.
    this.#extend(origin, { untilMs: nowMs + Math.min(usedUpMs, maxRetryDelayMs), status: undefined })
  }

  isPaused(origin: string): boolean {
    return this.#leftMs(origin) > 0
  }

  /**
   * Resolves when `origin` may be asked.
   *
   * @param onWait Called when that is not now.
   * @throws {HubError} with `retryAfterMs`, at once, when it is later than anybody wants to wait.
   * @throws the signal's reason when it aborts.
   */
  async wait(
    origin: string,
    url: string,
    signal?: AbortSignal | undefined,
    onWait?: (() => void) | undefined,
  ): Promise<void> {
    for (;;) {
      const pause = this.#pauses.get(origin)
      const leftMs = this.#leftMs(origin)
      if (pause === undefined || leftMs <= 0) return
      if (leftMs > this.#deps.maxRetryDelayMs) throw tooLong(url, pause, leftMs)
      onWait?.()
      try {
        await this.#deps.sleep(leftMs, signal)
      } finally {
        signal?.throwIfAborted()
      }
      // It was waited out, whatever the clock says by now; a longer one may have come in between.
      if (this.#pauses.get(origin) === pause) this.#pauses.delete(origin)
    }
  }

  #extend(origin: string, pause: Pause): void {
    if (pause.untilMs > (this.#pauses.get(origin)?.untilMs ?? 0)) this.#pauses.set(origin, pause)
  }

  #leftMs(origin: string): number {
    const pause = this.#pauses.get(origin)
    if (pause === undefined) return 0
    const leftMs = pause.untilMs - this.#deps.now()
    // Beyond the longest there is, somebody has set the clock back.
    if (leftMs > 0 && leftMs <= longestPauseMs) return leftMs
    this.#pauses.delete(origin)
    return 0
  }
}

/** A pause in words: `30 s`, `5 min`. */
export function inWords(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000))
  return seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`
}

function tooLong(url: string, pause: Pause, leftMs: number): HubError {
  const host = new URL(url).host
  const message = `${host} wants no requests for another ${inWords(leftMs)}: try again then`
  const shown = url.replace(/[?#].*$/s, '')
  return new HubError(message, { url: shown, status: pause.status, retryAfterMs: Math.ceil(leftMs) })
}

function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  const text = header?.trim() ?? ''
  const isSeconds = /^\d+$/.test(text)
  // Date.parse makes a year of nearly anything, "-5" included; an HTTP date ends in GMT.
  if (!isSeconds && !/^[A-Za-z]+,? .* GMT$/.test(text)) return undefined
  const ms = isSeconds ? Number(text) * 1000 : Date.parse(text) - nowMs
  return Number.isNaN(ms) ? undefined : Math.min(longestPauseMs, Math.max(0, ms))
}

/** The windows of a `RateLimit` header. @see draft-ietf-httpapi-ratelimit-headers */
function rateLimits(header: string | undefined): { remaining: number; windowMs: number }[] {
  const found: { remaining: number; windowMs: number }[] = []
  for (const item of (header ?? '').split(',')) {
    const remaining = /;\s*r=(\d{1,15})(?!\d)/.exec(item)?.[1]
    const seconds = /;\s*t=(\d{1,12})(?!\d)/.exec(item)?.[1]
    if (seconds === undefined) continue
    found.push({
      remaining: remaining === undefined ? Number.NaN : Number(remaining),
      windowMs: Number(seconds) * 1000,
    })
  }
  return found
}
