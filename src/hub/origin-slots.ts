/**
 * Who may fetch content from an origin now. A connection pool that is full queues the next request where nobody
 * sees it, and a request that waits there looks like a server that has stalled; so the queue is here, first come
 * first served, and the pool below has no limit of its own.
 */

/** The right to one request; give it back when its body has ended. Calling it again does nothing. */
export type ReleaseSlot = () => void

/** A few slots per origin, shared by everything that fetches content through one `HubHttp`. */
export class OriginSlots {
  /** Slots of each origin. */
  readonly limit: number
  readonly #origins = new Map<string, Origin>()

  constructor(limit: number) {
    this.limit = limit
  }

  /** How many requests could start at `origin` without waiting. */
  free(origin: string): number {
    return this.limit - (this.#origins.get(origin)?.taken ?? 0)
  }

  /**
   * A slot, after everybody who asked for one of `origin` before.
   *
   * @param onWait Called when none is free.
   * @throws the signal's reason, at once, when it aborts while waiting.
   */
  async acquire(
    origin: string,
    signal?: AbortSignal | undefined,
    onWait?: (() => void) | undefined,
  ): Promise<ReleaseSlot> {
    signal?.throwIfAborted()
    const state = this.#origins.get(origin) ?? { taken: 0, line: [] }
    this.#origins.set(origin, state)
    if (state.taken < this.limit) {
      state.taken++
    } else {
      onWait?.()
      await standInLine(state.line, signal)
    }
    let isHeld = true
    return () => {
      if (isHeld) this.#release(origin, state)
      isHeld = false
    }
  }

  #release(origin: string, state: Origin): void {
    const next = state.line.shift()
    if (next !== undefined) {
      next()
      return
    }
    state.taken--
    if (state.taken === 0) this.#origins.delete(origin)
  }
}

interface Origin {
  taken: number
  /** Those who wait; whoever is called has the slot of the one who left. */
  readonly line: (() => void)[]
}

function standInLine(line: (() => void)[], signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const enter = (): void => {
      signal?.removeEventListener('abort', leave)
      resolve()
    }
    const leave = (): void => {
      line.splice(line.indexOf(enter), 1)
      reject(signal?.reason)
    }
    signal?.addEventListener('abort', leave, { once: true })
    line.push(enter)
  })
}
