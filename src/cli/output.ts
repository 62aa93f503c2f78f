/**
 * What a command says, and to whom. stdout belongs to programs: the result on one line, or with `--json` one object
 * per line. Everything for people goes to stderr.
 */
import { divertLog, isVerbose, type LogLevel } from '../log.ts'
import { redact } from '../redact.ts'

export interface OutputOptions {
  readonly json: boolean
  /** Errors only. */
  readonly quiet: boolean
}

/** Something on the terminal that a line of text would tear, such as progress bars. */
export interface Screen {
  /** Prints a complete line without tearing what is there. */
  print(line: string): void
}

export class Output implements Disposable {
  readonly json: boolean
  readonly quiet: boolean
  readonly #restoreLog: () => void
  #screen: Screen | undefined

  constructor(options: OutputOptions) {
    this.json = options.json
    this.quiet = options.quiet
    this.#restoreLog = divertLog((level, message) => this.#log(level, message))
  }

  /** With `--json`, one object on stdout; otherwise nothing. */
  event(name: string, fields: object = {}): void {
    if (this.json) process.stdout.write(`${JSON.stringify({ event: name, ...fields })}\n`)
  }

  /** Without `--json`, one line on stdout: what a program would capture. */
  result(line: string): void {
    if (!this.json) this.line(line)
  }

  /** A line on stdout whatever the options are: the words that other programs wait for. */
  line(line: string): void {
    process.stdout.write(`${line}\n`)
  }

  /** A line for people. */
  say(line: string): void {
    if (!this.quiet && !this.json) this.#print(line)
  }

  /** A line for people that neither `--quiet` nor `--json` silences. */
  complain(line: string): void {
    this.#print(`llmpt: ${redact(line)}`)
  }

  /** Sends lines through `screen` while it is up; returns the way back. */
  attach(screen: Screen): () => void {
    this.#screen = screen
    return () => {
      if (this.#screen === screen) this.#screen = undefined
    }
  }

  [Symbol.dispose](): void {
    this.#restoreLog()
  }

  #print(line: string): void {
    if (this.#screen !== undefined) this.#screen.print(line)
    else process.stderr.write(`${line}\n`)
  }

  #log(level: LogLevel, message: string): void {
    if (isVerbose() || (level === 'warn' && !this.quiet)) this.#print(`llmpt: ${message}`)
  }
}

/**
 * Whether to write colours to `stream`: to a terminal, unless `NO_COLOR` is set; `FORCE_COLOR` has the last word, as it has
 * in Node.
 *
 * @see https://no-color.org, https://force-color.org
 */
export function hasColor(stream: { isTTY?: boolean }): boolean {
  const { FORCE_COLOR: force, NO_COLOR: no, TERM: terminal } = process.env
  if (force) return force !== '0' && force !== 'false'
  return stream.isTTY === true && !no && terminal !== 'dumb'
}
