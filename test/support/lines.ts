/** A program that says in lines of JSON what it does, and ends when its stdin does. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export type Line = Readonly<Record<string, unknown>>

export class TalkingProgram implements AsyncDisposable {
  readonly lines: Line[] = []
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  #hasEnded = false
  #wake: () => void = () => undefined

  /** @param argument Handed over as JSON. */
  constructor(script: string, argument: object, env: Readonly<Record<string, string>> = {}) {
    this.#child = spawn(process.execPath, [script, JSON.stringify(argument)], {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#ended = once(this.#child, 'close').then(() => {
      this.#hasEnded = true
      this.#wake()
    })
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      // The JS client narrates on stdout.
      if (line.startsWith('{')) this.lines.push(JSON.parse(line) as Line)
      this.#wake()
    })
  }

  /** The first line, past or future, that `matches`. @throws When it ends without it. */
  async line(matches: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const found = this.lines.find(matches)
      if (found !== undefined) return found
      if (this.#hasEnded) throw new Error(`it ended after ${JSON.stringify(this.lines)}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** Ends it in peace. */
  async end(): Promise<void> {
    this.#child.stdin?.end()
    await this.#ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }
}
