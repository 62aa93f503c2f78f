/** Runs the real command line as other programs do: as a process, through its output and its exit code. */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const commandLine = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const patienceMs = 25_000

export type CliEvent = { readonly event: string } & Readonly<Record<string, unknown>>

export interface CliOptions {
  /** Becomes `HF_HOME`: the user whose command this is. */
  readonly home?: string
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

/** A running `llmpt`. Disposing of it kills it, if it has not ended. */
export class Cli implements AsyncDisposable {
  stdout = ''
  stderr = ''
  readonly #child: ChildProcess
  readonly #watchers = new Set<() => void>()
  readonly #args: readonly string[]
  #exit: number | NodeJS.Signals | undefined

  constructor(args: readonly string[], options: CliOptions = {}) {
    this.#args = args
    this.#child = spawn(process.execPath, [commandLine, ...args], {
      cwd: options.cwd,
      // A busy machine must not make HTTP lose patience with a peer that is there.
      env: {
        ...process.env,
        HF_P2P_HEAD_START: '20',
        ...(options.home !== undefined && { HF_HOME: options.home }),
        ...options.env,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child.stdout
      ?.setEncoding('utf8')
      .on('data', (text: string) => this.#note(() => (this.stdout += text)))
    this.#child.stderr
      ?.setEncoding('utf8')
      .on('data', (text: string) => this.#note(() => (this.stderr += text)))
    this.#child.stdin?.on('error', () => undefined)
    this.#child.on('close', (code, signal) => this.#note(() => (this.#exit = code ?? signal ?? 'SIGKILL')))
  }

  /** Complete lines on stdout. */
  get lines(): string[] {
    return this.stdout.split('\n').slice(0, -1)
  }

  /** The `--json` events so far, of one kind or of all. */
  events(kind?: string): CliEvent[] {
    const all = this.lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as CliEvent)
    return all.filter(({ event }) => kind === undefined || event === kind)
  }

  /** The first event of a kind, as soon as it is there. */
  async event(kind: string, count = 1): Promise<CliEvent> {
    await this.until(() => this.events(kind).length >= count, `event "${kind}"`)
    return this.events(kind)[count - 1] as CliEvent
  }

  /** Resolves when `isTrue`; looked at whenever the command says something. Fails when it ends or takes too long. */
  async until(isTrue: () => boolean, what: string): Promise<void> {
    await this.#wait(() => isTrue() || this.#exit !== undefined, what)
    if (!isTrue())
      throw new Error(`${this.#title} ended (${this.#exit}) without ${what}\n${this.stdout}${this.stderr}`)
  }

  /** The exit code, or the signal that killed it. */
  async ended(): Promise<number | NodeJS.Signals> {
    await this.#wait(() => this.#exit !== undefined, 'an end')
    return this.#exit as number | NodeJS.Signals
  }

  get hasEnded(): boolean {
    return this.#exit !== undefined
  }

  write(text: string): void {
    this.#child.stdin?.write(text)
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#exit === undefined) this.#child.kill('SIGKILL')
    await this.ended()
  }

  get #title(): string {
    return `llmpt ${this.#args.join(' ')}`
  }

  #note(change: () => unknown): void {
    change()
    for (const look of [...this.#watchers]) look()
  }

  #wait(isTrue: () => boolean, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (!isTrue()) return
        clearTimeout(timer)
        this.#watchers.delete(look)
        resolve()
      }
      const timer = setTimeout(() => {
        this.#watchers.delete(look)
        reject(new Error(`${this.#title}: no ${what} within ${patienceMs} ms\n${this.stdout}${this.stderr}`))
      }, patienceMs)
      this.#watchers.add(look)
      look()
    })
  }
}

/** Runs a command to its end. */
export async function runCli(
  args: readonly string[],
  options: CliOptions = {},
): Promise<Cli & { exitCode: number | string }> {
  const cli = new Cli(args, options)
  const exitCode = await cli.ended()
  return Object.assign(cli, { exitCode })
}
