/** How a running download looks: bars on a terminal, a line now and then elsewhere, events for programs. */
import type { DownloadProgress, ProgressListener } from '../transfer/progress.ts'
import { hasColor, type Output } from './output.ts'
import { progressEvent, progressLine } from './progress-text.ts'

/** Shows progress until it is disposed of; remembers the latest, for whoever wants to know what is kept. */
export interface ProgressView extends Disposable {
  readonly onProgress: ProgressListener
  readonly latest: DownloadProgress | undefined
}

const eventsEveryMs = 200
const linesEveryMs = 5_000

/** The view that fits these options and this stderr. */
export async function progressView(out: Output): Promise<ProgressView> {
  if (out.json)
    return new ThrottledView(eventsEveryMs, true, (progress) =>
      out.event('progress', progressEvent(progress)),
    )
  if (out.quiet) return new ThrottledView(Number.POSITIVE_INFINITY, false, () => {})
  if (process.stderr.isTTY) {
    const { BarsView } = await import('./progress-bars.ts')
    return new BarsView(out, hasColor(process.stderr))
  }
  // The first line after five seconds: a download that is over by then needs none.
  return new ThrottledView(linesEveryMs, false, (progress) => out.say(progressLine(progress)))
}

/** Calls `show` at most once in `everyMs`. */
class ThrottledView implements ProgressView {
  latest: DownloadProgress | undefined
  readonly #everyMs: number
  readonly #show: (progress: DownloadProgress) => void
  readonly #showsLast: boolean
  #shown: DownloadProgress | undefined
  #shownAtMs: number

  /** @param showsAll Whether the first and the last progress are shown too, whenever they come. */
  constructor(everyMs: number, showsAll: boolean, show: (progress: DownloadProgress) => void) {
    this.#everyMs = everyMs
    this.#show = show
    this.#showsLast = showsAll
    this.#shownAtMs = showsAll ? Number.NEGATIVE_INFINITY : performance.now()
  }

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
    const now = performance.now()
    if (now - this.#shownAtMs < this.#everyMs) return
    this.#shownAtMs = now
    this.#shown = progress
    this.#show(progress)
  };

  [Symbol.dispose](): void {
    if (this.#showsLast && this.latest !== undefined && this.latest !== this.#shown) this.#show(this.latest)
    this.#shown = this.latest
  }
}
