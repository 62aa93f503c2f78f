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
/** Of a download that takes long, fewer lines: one for each tenth of the time it has taken. */
const linesEveryMs = { least: 5_000, most: 60_000, shareOfElapsed: 0.1 }

/** The view that fits these options and this stderr. */
export async function progressView(out: Output): Promise<ProgressView> {
  if (out.json)
    return new EventsView(eventsEveryMs, (progress) => out.event('progress', progressEvent(progress)))
  if (out.quiet) return new SilentView()
  if (process.stderr.isTTY && process.env['TERM'] !== 'dumb') {
    const { BarsView } = await import('./progress-bars.ts')
    return new BarsView(out, process.stderr, hasColor(process.stderr))
  }
  return new LinesView((progress) => out.say(progressLine(progress)))
}

/** Shows nothing. */
class SilentView implements ProgressView {
  latest: DownloadProgress | undefined

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
  };

  [Symbol.dispose](): void {}
}

/** Shows the first progress and the last, and between them one in `everyMs` at most. */
export class EventsView implements ProgressView {
  latest: DownloadProgress | undefined
  readonly #everyMs: number
  readonly #show: (progress: DownloadProgress) => void
  #shown: DownloadProgress | undefined
  #shownMs = Number.NEGATIVE_INFINITY

  constructor(everyMs: number, show: (progress: DownloadProgress) => void) {
    this.#everyMs = everyMs
    this.#show = show
  }

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
    const now = performance.now()
    if (now - this.#shownMs < this.#everyMs) return
    this.#shownMs = now
    this.#shown = progress
    this.#show(progress)
  };

  [Symbol.dispose](): void {
    if (this.latest !== undefined && this.latest !== this.#shown) this.#show(this.latest)
    this.#shown = this.latest
  }
}

/** Shows a line now and then, the first after five seconds: a download that is over by then needs none. */
export class LinesView implements ProgressView {
  latest: DownloadProgress | undefined
  readonly #show: (progress: DownloadProgress) => void
  readonly #nowMs: () => number
  readonly #startedMs: number
  #shownMs: number

  constructor(show: (progress: DownloadProgress) => void, nowMs: () => number = () => performance.now()) {
    this.#show = show
    this.#nowMs = nowMs
    this.#startedMs = this.#shownMs = nowMs()
  }

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
    const now = this.#nowMs()
    const { least, most, shareOfElapsed } = linesEveryMs
    const everyMs = Math.min(most, Math.max(least, (now - this.#startedMs) * shareOfElapsed))
    if (now - this.#shownMs < everyMs) return
    this.#shownMs = now
    this.#show(progress)
  };

  [Symbol.dispose](): void {}
}
