/** The command line, as the program gets it and as process lists show it from here on. */
import { keepSecret, redact } from '../redact.ts'

/**
 * The arguments without `node` and the script. Where they hold a token or a signed URL, those of `process` are written over,
 * and with them what other users of the machine see of this process (on Linux and macOS; until here they did see it).
 */
export function takeArguments(process: { argv: string[]; title: string }): readonly string[] {
  const args = process.argv.slice(2)
  args.forEach((arg, at) => {
    const token = args[at - 1] === '--token' ? arg : /^--token=(.*)$/s.exec(arg)?.[1]
    if (token !== undefined) keepSecret(token.trim())
  })
  const shown = args.map((arg, at) =>
    args[at - 1] === '--token' ? '***' : arg.startsWith('--token=') ? '--token=***' : redact(arg),
  )
  if (shown.some((arg, at) => arg !== args[at])) {
    process.argv.splice(2, shown.length, ...shown)
    process.title = ['llmpt', ...shown].join(' ')
  }
  return args
}
