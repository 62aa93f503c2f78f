/** Tells a person what is going on, step by step. With `--json` it tells it on stderr. */
import { progressLine } from '../cli/progress-text.ts'
import type { DownloadProgress } from '../transfer/progress.ts'

const lineEveryMs = 1_000

export class Narrator {
  readonly #stream: NodeJS.WriteStream
  #step = 0
  #shownAtMs = 0
  #hasOpenLine = false

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  /** A numbered step. */
  step(text: string): void {
    this.#step += 1
    this.line(`\n${this.#step}. ${text}`)
  }

  line(text: string): void {
    if (this.#hasOpenLine) this.#stream.write('\r\x1b[K')
    this.#hasOpenLine = false
    this.#stream.write(`${text}\n`)
  }

  /** A user's progress: one line that changes on a terminal, a line now and then elsewhere. */
  progress(name: string, progress: Omit<DownloadProgress, 'active' | 'finished'>): void {
    const now = performance.now()
    const isTerminal = this.#stream.isTTY === true
    if (now - this.#shownAtMs < (isTerminal ? 100 : lineEveryMs)) return
    this.#shownAtMs = now
    const text = `   ${name}: ${progressLine({ ...progress, secondsLeft: progress.secondsLeft ?? undefined, active: [] })}`
    if (isTerminal) this.#stream.write(`\r\x1b[K${text.slice(0, this.#stream.columns - 1)}`)
    else this.line(text)
    this.#hasOpenLine = isTerminal
  }
}
