/** Who wants to hear of alerts. */
import type { Alert } from './alerts.ts'

export type AlertListener = (alert: Alert) => void

/**
 * Listeners of one session or torrent. What one of them throws is an uncaught error, and keeps neither the others nor
 * the answers to requests from their alerts.
 */
export class Listeners {
  readonly #listeners = new Set<{ call: AlertListener }>()
  // Alerts from before the first caller could have added a listener: it awaits the promise that an earlier alert of the
  // same batch has settled.
  #early: Alert[] | undefined

  /** Keeps the alerts of the present batch for the listeners that are added as soon as it is over. */
  holdEarly(): void {
    this.#early = []
    const drop = (): void => {
      this.#early = undefined
    }
    // The batch ends, then ticks and microtasks run until there are none: a tick behind a microtask comes after all that
    // waited for the batch, and before the next one. setImmediate would be too late: several batches come per turn.
    process.nextTick(() => queueMicrotask(() => process.nextTick(drop)))
  }

  /** Adds a listener; returns the way to take it out again. */
  add(listener: AlertListener): () => void {
    const entry = { call: listener }
    this.#listeners.add(entry)
    const missed = this.#early?.slice() ?? []
    // Not before the caller has what this returns.
    queueMicrotask(() => {
      for (const alert of missed) if (this.#listeners.has(entry)) callSafely(listener, alert)
    })
    return () => {
      this.#listeners.delete(entry)
    }
  }

  emit(alert: Alert): void {
    this.#early?.push(alert)
    for (const entry of [...this.#listeners]) if (this.#listeners.has(entry)) callSafely(entry.call, alert)
  }

  clear(): void {
    this.#listeners.clear()
  }
}

function callSafely(listener: AlertListener, alert: Alert): void {
  try {
    listener(alert)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}
