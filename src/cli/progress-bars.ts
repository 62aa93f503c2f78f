/** Progress on a terminal: a bar for the whole, and one for each of a few files under way. */
import cliProgress from 'cli-progress'
import type { DownloadProgress } from '../transfer/progress.ts'
import type { BytesBySource } from '../values.ts'
import type { Output } from './output.ts'
import { drawBar, fileLine, progressLine } from './progress-text.ts'
import type { ProgressView } from './progress-view.ts'

/** A terminal to draw on, as `process.stderr` is one. */
export interface Terminal {
  /** 0 where nobody knows. */
  readonly columns?: number | undefined
  readonly rows?: number | undefined
  write(text: string): unknown
}

const maxFileLines = 4
const widestBar = 24
const narrowestBar = 8
/** What a line of progress takes in most cases. */
const textColumns = 90
/** With fewer columns the text is worth more than a bar. */
const leastColumns = 45
const usualColumns = 80

export class BarsView implements ProgressView {
  latest: DownloadProgress | undefined
  readonly #bars: cliProgress.MultiBar
  readonly #terminal: Terminal
  readonly #isColored: boolean
  readonly #detach: () => void
  #lines = 0

  constructor(out: Output, terminal: Terminal, isColored: boolean) {
    this.#terminal = terminal
    this.#isColored = isColored
    this.#bars = new cliProgress.MultiBar({
      stream: uncut(terminal),
      fps: 8,
      clearOnComplete: true,
      hideCursor: true,
      linewrap: true,
      // Signals are the command's business: it has more to put in order than the cursor.
      gracefulExit: false,
      forceRedraw: true,
      format: (_options, _params, payload: { line: number }) => this.#draw(payload.line),
    })
    this.#detach = out.attach({ print: (line) => this.#print(line) })
  }

  readonly onProgress = (progress: DownloadProgress): void => {
    this.latest = progress
    // Lines are never taken away while it runs: removing one makes the terminal jump. One file needs no second line.
    const room = Math.min(maxFileLines, (this.#terminal.rows || maxFileLines + 2) - 2)
    const wanted = progress.files.total === 1 ? 1 : 1 + Math.min(room, progress.active.length)
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
    if (this.#lines === 0) this.#terminal.write(`${line}\n`)
    else this.#bars.log(`${line}\n`)
  }

  #draw(line: number): string {
    if (this.latest === undefined) return ''
    // The last column stays free: some terminals begin a new line when it is written to.
    const columns = (this.#terminal.columns || usualColumns) - 1
    const { bytes, sizeBytes, active } = this.latest
    if (line === 0) {
      const bar = this.#bar(bytes, sizeBytes, columns)
      return bar.text + progressLine(this.latest, columns - bar.columns)
    }
    const file = active[line - 1]
    if (file === undefined) return ''
    const bar = this.#bar(file.progress.bytes, file.progress.sizeBytes, columns)
    return bar.text + fileLine(file, columns - bar.columns)
  }

  #bar(
    bytes: Readonly<BytesBySource>,
    sizeBytes: number,
    columns: number,
  ): { text: string; columns: number } {
    if (columns < leastColumns) return { text: '', columns: 0 }
    const width = Math.max(narrowestBar, Math.min(widestBar, columns - textColumns))
    return { text: `${drawBar(bytes, sizeBytes, width, this.#isColored)} `, columns: width + 3 }
  }
}

/** `terminal` as cli-progress wants it: it would cut lines itself, and take colours for text. */
function uncut(terminal: Terminal): NodeJS.WritableStream {
  const stream = {
    isTTY: true,
    columns: Number.POSITIVE_INFINITY,
    write: (text: string) => terminal.write(text),
  }
  return stream as unknown as NodeJS.WritableStream
}
