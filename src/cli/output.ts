/**
 * What a command says, and to whom. stdout belongs to programs: the result on one line, or with `--json` one object
 * per line. Everything for people goes to stderr.
 */
import { divertLog, type LogLevel, redact } from '../log.ts'

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
    const verbose = !['', '0', undefined].includes(process.env['HF_P2P_VERBOSE'])
    if (verbose || (level === 'warn' && !this.quiet)) this.#print(`llmpt: ${message}`)
  }
}

/** Whether `stream` shows colours: a terminal, unless `NO_COLOR` says otherwise. @see https://no-color.org */
export function hasColor(stream: { isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
}
