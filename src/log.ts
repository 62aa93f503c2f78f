/**
 * What the package tells a person who did not ask. It writes to stderr only, so that a program's
 * output stays its own, and stays silent below `warn` unless `HF_P2P_VERBOSE` is set.
 */
import { redact } from './redact.ts'

export type LogLevel = 'debug' | 'info' | 'warn'
export type LogSink = (level: LogLevel, message: string) => void

let isToldAll = false

/** Tells everything from now on, as `HF_P2P_VERBOSE` does. */
export function beVerbose(): void {
  isToldAll = true
}

/** Whether what is below a warning is told, too. */
export function isVerbose(): boolean {
  return isToldAll || !['', '0', undefined].includes(process.env['HF_P2P_VERBOSE'])
}

const toStderr: LogSink = (level, message) => {
  if (level === 'warn' || isVerbose()) process.stderr.write(`llmpt: ${redact(message)}\n`)
}

let sink: LogSink = toStderr
const said = new Set<string>()

export const log = {
  debug: (message: string): void => sink('debug', message),
  info: (message: string): void => sink('info', message),
  warn: (message: string): void => sink('warn', message),
  /** Warns about one condition once per process. */
  warnOnce(key: string, message: string): void {
    if (said.has(key)) return
    said.add(key)
    sink('warn', message)
  },
} as const

/** Sends log lines elsewhere (a progress display, a test) and returns the way back. */
export function divertLog(to: LogSink): () => void {
  const previous = sink
  sink = (level, message) => to(level, redact(message))
  return () => {
    sink = previous
  }
}

/** What an unknown thrown value says, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error)
  return redact(text)
}
