/**
 * What the package tells a person who did not ask. It writes to stderr only, so that a program's
 * output stays its own, and stays silent below `warn` unless `HF_P2P_VERBOSE` is set.
 */

export type LogLevel = 'debug' | 'info' | 'warn'
export type LogSink = (level: LogLevel, message: string) => void

const order: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2 }

function threshold(): number {
  const verbose = process.env['HF_P2P_VERBOSE']
  return verbose && verbose !== '0' ? order.debug : order.warn
}

const toStderr: LogSink = (level, message) => {
  if (order[level] >= threshold()) process.stderr.write(`llmpt: ${redact(message)}\n`)
}

let sink: LogSink = toStderr
const said = new Set<string>()

/** Hub tokens look like `hf_…`; no log line carries one, wherever the text came from. */
export function redact(text: string): string {
  return text
    .replace(/\bhf_[A-Za-z0-9]{4,}/g, 'hf_***')
    .replace(/(authorization:?\s*bearer\s+)\S+/gi, '$1***')
}

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
