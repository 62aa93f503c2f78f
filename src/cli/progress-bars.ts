/** Progress on a terminal: a bar for the whole, and a line for each of a few files under way. */
import cliProgress from 'cli-progress'
import type { DownloadProgress } from '../transfer/progress.ts'
import type { Output } from './output.ts'
import { drawBar, fileLine, progressLine } from './progress-text.ts'
import type { ProgressView } from './progress-view.ts'

const maxFileLines = 4
const widestBar = 24
const narrowestBar = 8
/** What a line of progress takes in most cases. */
const textWidth = 90

export class BarsView implements ProgressView {
  latest: DownloadProgress | undefined
  readonly #bars: cliProgress.MultiBar
  readonly #isColored: boolean
  readonly #detach: () => void
  #lines = 0

  constructor(out: Output, isColored: boolean) {
    this.#isColored = isColored
    this.#bars = new cliProgress.MultiBar({
      stream: process.stderr,
      fps: 8,
      clearOnComplete: true,
      hideCursor: true,
      linewrap: true, // Cuts bars at the edge. `false` would cut what is printed above them too.
      // Signals are the command's business: it has more to put in order than the cursor.
      gracefulExit: false,
      forceRedraw: true,
      format: (_options, { maxWidth }, payload: { line: number }) => this.#draw(payload.line, maxWidth),
    })
    this.#detach = out.attach({ print: (line) => this.#print(line) })
  }

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
    // Lines are never taken away while it runs: removing one makes the terminal jump. One file needs no second line.
    const wanted = progress.files.total === 1 ? 1 : 1 + Math.min(maxFileLines, progress.active.length)
    while (this.#lines < wanted) this.#bars.create(1, 0, { line: this.#lines++ })
  };

  [Symbol.dispose](): void {
    this.#detach()
    if (this.#lines === 0) return
    this.#bars.update() // Prints what is still in its buffer.
    this.#bars.stop()
    this.#lines = 0
  }

  #print(line: string): void {
    if (this.#lines === 0) process.stderr.write(`${line}\n`)
    else this.#bars.log(`${line}\n`)
  }

  #draw(line: number, maxWidth: number): string {
    if (this.latest === undefined) return ''
    if (line > 0) {
      const file = this.latest.active[line - 1]
      return file === undefined ? '' : `  ${fileLine(file)}`.slice(0, maxWidth - 1)
    }
    const { bytes, sizeBytes } = this.latest
    const width = Math.max(narrowestBar, Math.min(widestBar, maxWidth - textWidth))
    const bar = drawBar(bytes, sizeBytes, width, this.#isColored)
    return `${bar} ${progressLine(this.latest).slice(0, Math.max(0, maxWidth - width - 4))}`
  }
}
