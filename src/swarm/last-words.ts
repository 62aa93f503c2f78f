/**
 * Whether trackers can be told that we leave. libtorrent asks a tracker one thing at a time: a torrent that is removed while an
 * announce is unanswered says no goodbye, and the tracker goes on naming us as a seed. That a download is complete is
 * announced in its last moment, so that this is the rule, not the exception, for whoever leaves then.
 *
 * @see libtorrent, `announce_infohash::can_announce`
 */
import type { Alert } from '../native/alerts.ts'
import type { Torrent } from '../native/session.ts'

export class LastWords {
  /** Trackers that are being told that the download is complete. */
  readonly #unanswered = new Set<string>()
  readonly #announceUrls: readonly string[]
  readonly #waiting = new Set<() => void>()
  #isComplete = false

  /** @param torrent One that has just been added, to be downloaded. */
  constructor(torrent: Torrent, announceUrls: readonly string[]) {
    this.#announceUrls = announceUrls
    torrent.onAlert((alert) => this.#hear(alert))
  }

  /** Resolves when every tracker has answered, or `maxMs` from now. */
  async answered(maxMs: number): Promise<void> {
    if (this.#unanswered.size === 0) return
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, maxMs)
      this.#waiting.add(wake)
    })
  }

  #hear(alert: Alert): void {
    switch (alert.type) {
      case 'state_changed': {
        // Not `finished`, which only says that all it was asked for is there: HTTP may have the rest in hand.
        if (alert.state !== 'seeding' || this.#isComplete) return
        this.#isComplete = true
        for (const url of this.#announceUrls) this.#unanswered.add(url)
        return
      }
      case 'tracker_reply':
      case 'tracker_error':
        this.#unanswered.delete(alert.url)
        break
      case 'torrent_removed':
        this.#unanswered.clear()
        break
      default:
        return
    }
    if (this.#unanswered.size === 0) for (const wake of [...this.#waiting]) wake()
  }
}
