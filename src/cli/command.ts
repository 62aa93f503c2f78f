/** What all commands have in common: what they are given, how they fail, and what that means to the shell. */
import { ConfigError, isAbort, LlmptError } from '../errors.ts'
import { messageOf } from '../log.ts'
import { Interrupt, Interrupted, interruptedExitCode } from './interrupt.ts'
import { Output, type OutputOptions } from './output.ts'

/** What a command's end means to the shell. */
export const exitCodes: {
  readonly ok: 0
  readonly failed: 1
  readonly wrongUse: 2
  readonly interrupted: number
} = {
  ok: 0,
  failed: 1,
  wrongUse: 2,
  interrupted: interruptedExitCode,
}

/** What every command gets. */
export interface CommandContext {
  readonly out: Output
  /** Aborts when somebody wants the command to stop; the reason is an `Interrupted`. */
  readonly signal: AbortSignal
}

/** A command failed, and the message says all there is to say. */
export class CommandError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'CommandError'
  }
}

/** Runs a command with output and signals set up. @returns Its exit code, or 0 when it has none; never throws. */
export async function runCommand(
  options: Partial<OutputOptions>,
  command: (context: CommandContext) => Promise<void> | Promise<number>,
): Promise<number> {
  using out = new Output({ json: options.json ?? false, quiet: options.quiet ?? false })
  using interrupt = new Interrupt()
  const { signal } = interrupt
  // libtorrent's answers do not keep Node from exiting, and somebody is waiting for this one.
  const alive = setInterval(() => {}, 3_600_000)
  try {
    const exitCode = await command({ out, signal })
    return typeof exitCode === 'number' ? exitCode : exitCodes.ok
  } catch (error) {
    return report(out, isAbort(error, signal) ? signal.reason : error)
  } finally {
    clearInterval(alive)
  }
}

/** Tells what went wrong, to people and with `--json` to programs. @returns The exit code. */
export function report(out: Output, error: unknown): number {
  const message = messageOf(error)
  out.event('error', { code: codeOf(error), message })
  out.complain(isExplained(error) || !(error instanceof Error) ? message : `this is a bug: ${error.stack}`)
  if (error instanceof Interrupted) return exitCodes.interrupted
  return error instanceof ConfigError ? exitCodes.wrongUse : exitCodes.failed
}

function codeOf(error: unknown): string {
  if (error instanceof Interrupted) return 'ERR_LLMPT_INTERRUPTED'
  // A sentence of ours instead of the system's keeps the system's code.
  const coded = error instanceof CommandError ? error.cause : error
  const code = (coded as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? code : 'ERR_LLMPT_FAILED'
}

/** Whether the message was written for people: ours, and those of the operating system. */
function isExplained(error: unknown): boolean {
  if (error instanceof LlmptError || error instanceof CommandError || error instanceof Interrupted)
    return true
  return typeof (error as NodeJS.ErrnoException).syscall === 'string'
}
