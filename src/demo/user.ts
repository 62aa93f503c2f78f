/** A user of the demo: a process of its own, with a home and a cache of its own, that runs the real command line. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { BytesBySource } from '../values.ts'

/** A line of the command's `--json` output. */
export interface UserEvent {
  readonly event: string
  readonly [field: string]: unknown
}

/** The `done` event of `llmpt download`, as far as the demo reads it. */
export interface DoneEvent extends UserEvent {
  readonly path: string
  readonly elapsedMs: number
  readonly files: readonly {
    readonly path: string
    readonly size: number
    readonly etag: string
    readonly bytes: BytesBySource
  }[]
}

export interface UserOptions {
  readonly name: string
  /** Holds the user's `HF_HOME`. */
  readonly folder: string
  /** The Hub. */
  readonly endpoint: string
  /** Arguments of `llmpt`, without `--json`. */
  readonly args: readonly string[]
  readonly onEvent: (event: UserEvent) => void
}

const commandLine = fileURLToPath(new URL('../cli/main.js', import.meta.url))
const running = new Set<ChildProcess>()
// However this process ends, it leaves nobody behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export class User implements AsyncDisposable {
  readonly name: string
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  readonly #events: UserEvent[] = []
  readonly #waiting = new Set<() => void>()
  #complaints = ''
  #hasEnded = false

  constructor(options: UserOptions) {
    this.name = options.name
    const child = spawn(process.execPath, [commandLine, ...options.args, '--json'], {
      env: environmentOf(options),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    running.add(child)
    child.stderr?.on('data', (text) => {
      this.#complaints = (this.#complaints + text).slice(-4_000)
    })
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const event = JSON.parse(line) as UserEvent
      this.#events.push(event)
      options.onEvent(event)
      this.#wake()
    })
    this.#ended = once(child, 'close').then(() => {
      running.delete(child)
      this.#hasEnded = true
      this.#wake()
    })
  }

  /** The first `count` events of one kind. @throws {Error} When the user has ended without; the signal's reason. */
  async events<T extends UserEvent>(kind: string, count: number, signal: AbortSignal): Promise<T[]> {
    for (;;) {
      signal.throwIfAborted()
      const found = this.#events.filter(({ event }) => event === kind)
      if (found.length >= count) return found.slice(0, count) as T[]
      if (this.#hasEnded) {
        throw new Error(
          `${this.name} ended (exit code ${this.#child.exitCode}) without "${kind}":\n${this.#complaints}`,
        )
      }
      await this.#somethingNew(signal)
    }
  }

  /** Asks the user to stop, as Ctrl-C does, and waits. */
  async stop(): Promise<void> {
    if (!this.#hasEnded) this.#child.kill('SIGTERM')
    await this.#ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
  }

  #somethingNew(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#waiting.add(done)
      signal.addEventListener('abort', done)
    })
  }
}

/** Nothing of the real user's configuration, and no proxy between programs of one machine. */
function environmentOf({ folder, endpoint }: UserOptions): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(?:HF_|HUGGING_?FACE|CI$|(?:https?|all)_proxy$)/i.test(name),
  )
  return { ...Object.fromEntries(inherited), HF_HOME: join(folder, 'huggingface'), HF_ENDPOINT: endpoint }
}
