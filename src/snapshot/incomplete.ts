/** Errors that say what is missing, and whether it is the Hub's silence that they come from. */
import { CacheError, ConfigError, HubError, IntegrityError, LlmptError, SwarmError } from '../errors.ts'

const maxNamed = 3

/** `2 of 5 files of acme/tiny`, and the first of their names. */
export interface Missing {
  /** The repository, and the revision that was asked for. */
  readonly what: string
  readonly names: readonly string[]
  readonly total: number
}

/** The error of a download that stopped at `cause`: of the same class and code, and it says what is missing. */
export function incompleteBecause(missing: Missing, cause: unknown): unknown {
  if (!(cause instanceof LlmptError)) return cause
  return sameKind(cause, `${describe(missing)} missing: ${cause.message}`)
}

/** The error of a call that must not, or cannot, ask the Hub for what is not there. */
export function notThere(missing: Missing, why: string): LlmptError {
  return new LlmptError('ERR_LLMPT_CACHE', `${describe(missing)} not in the cache, and ${why}`)
}

/** Nobody answered, as opposed to a refusal. */
export function isUnreachable(error: unknown): error is HubError {
  return error instanceof HubError && (error.status === undefined || error.status >= 500)
}

/**
 * Why something cannot be had while the Hub does not answer: its silence, and what became of asking others.
 *
 * @param failure Of the download without the Hub.
 */
export function withoutPeers(outage: HubError, failure: unknown): unknown {
  if (failure instanceof SwarmError) {
    return new HubError(`${outage.message}; from peers: ${failure.message}`, outage, { cause: outage })
  }
  if (failure instanceof ConfigError) {
    const why = 'no tracker to ask, or not known to be for everybody'
    return new HubError(`${outage.message}; peers could not be asked (${why})`, outage, { cause: outage })
  }
  return failure
}

function describe({ what, names, total }: Missing): string {
  const named = names.slice(0, maxNamed).map((name) => `"${name}"`)
  if (names.length > maxNamed) named.push(`${names.length - maxNamed} more`)
  const files = total === 1 ? 'file' : 'files'
  return `${names.length} of ${total} ${files} of ${what} (${named.join(', ')}) ${names.length === 1 ? 'is' : 'are'}`
}

function sameKind(cause: LlmptError, message: string): LlmptError {
  const options = { cause }
  if (cause instanceof HubError) return new HubError(message, cause, options)
  if (cause instanceof IntegrityError) return new IntegrityError(message, options)
  if (cause instanceof CacheError) return new CacheError(message, options)
  if (cause instanceof SwarmError) return new SwarmError(message, options)
  if (cause instanceof ConfigError) return new ConfigError(message, options)
  return new LlmptError(cause.code, message, options)
}
