/**
 * Ctrl-C and its kin. The first signal asks the command to stop and clean up after itself; the second one means it,
 * and so does a clean-up that takes too long.
 */

/** Exit code of a command that a signal ended before it was done. */
export const interruptedExitCode = 130

/** Why a command's `AbortSignal` aborted: somebody wants it to stop. */
export class Interrupted extends Error {
  readonly signalName: NodeJS.Signals

  /** @param detail What became of the work so far. */
  constructor(signalName: NodeJS.Signals, detail?: string) {
    super(`stopped by ${signalName}${detail === undefined ? '' : `: ${detail}`}`)
    this.name = 'Interrupted'
    this.signalName = signalName
  }
}

const signals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

const cleanUpMs = 10_000

/** Listens for signals while a command runs. */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController()
  readonly #cleanUpMs: number
  #deadline: NodeJS.Timeout | undefined
  readonly #hear = (name: NodeJS.Signals): void => {
    if (this.#controller.signal.aborted) process.exit(interruptedExitCode)
    // Unreferenced: it is for a process that does not end, and must not be the reason why.
    this.#deadline = setTimeout(() => {
      process.stderr.write(
        `llmpt: clean-up has not ended within ${this.#cleanUpMs / 1000} s; ending by force\n`,
      )
      process.exit(interruptedExitCode)
    }, this.#cleanUpMs).unref()
    this.#controller.abort(new Interrupted(name))
  }

  /** @param graceMs How long the command may take to clean up after the first signal. */
  constructor(graceMs: number = cleanUpMs) {
    this.#cleanUpMs = graceMs
    for (const name of signals) process.on(name, this.#hear)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#deadline)
    for (const name of signals) process.off(name, this.#hear)
  }
}

/** Resolves when `signal` aborts, or after `ms`. Keeps the process alive meanwhile. */
export function untilAborted(signal: AbortSignal, ms: number = Number.POSITIVE_INFINITY): Promise<void> {
  const endsAt = performance.now() + ms
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    // An hour at a time: a timer is what keeps Node from exiting, and cannot run for more than 24 days.
    const wait = (): void => {
      const left = endsAt - performance.now()
      if (left > 0) timer = setTimeout(wait, Math.min(left, 3_600_000))
      else done()
    }
    signal.addEventListener('abort', done)
    wait()
    if (signal.aborted) done()
  })
}
