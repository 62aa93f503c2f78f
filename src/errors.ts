/**
 * The errors this package throws. Tell them apart by `code`: it is stable, and survives two copies
 * of the package in one process. Absence is a value: "no torrent for this file" is `undefined`.
 * None of them shows a token or a signed URL, in whatever it was given: message, properties, causes.
 */
import { redact, withoutSecrets } from './redact.ts'

export type ErrorCode =
  | 'ERR_LLMPT_CONFIG'
  | 'ERR_LLMPT_NATIVE_UNAVAILABLE'
  | 'ERR_LLMPT_NATIVE'
  | 'ERR_LLMPT_TORRENT'
  | 'ERR_LLMPT_TRACKER'
  | 'ERR_LLMPT_SWARM'
  | 'ERR_LLMPT_INTEGRITY'
  | 'ERR_LLMPT_HUB'
  | 'ERR_LLMPT_CACHE'

/** The base of every error with a `code` of ours. */
export class LlmptError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(redact(message), options?.cause === undefined ? options : { cause: withoutSecrets(options.cause) })
    this.name = new.target.name
    this.code = code
  }
}

/** An option or an environment variable we cannot use. The message names it, its value and what would do. */
export class ConfigError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_CONFIG', message, options)
  }
}

/** No usable addon for this platform. Downloads go on over HTTP; whatever needs the swarm throws this. */
export class NativeUnavailableError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_NATIVE_UNAVAILABLE', message, options)
  }
}

/** libtorrent, or the operating system below it, said no. */
export class NativeError extends LlmptError {
  /** The native call that failed, such as `addTorrent`. */
  readonly operation: string
  /** Name of the `boost::system::error_category`, such as `libtorrent` or `system`. */
  readonly category: string
  /** The error's number within its category. */
  readonly value: number

  constructor(
    message: string,
    details: { operation: string; category: string; value: number },
    options?: ErrorOptions,
  ) {
    super('ERR_LLMPT_NATIVE', message, options)
    this.operation = details.operation
    this.category = details.category
    this.value = details.value
  }
}

/** Bytes or text that claim to be a torrent or a magnet link, and are not one we accept. */
export class TorrentError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_TORRENT', message, options)
  }
}

/** The tracker could not be asked, or answered something we do not understand. */
export class TrackerError extends LlmptError {
  readonly url: string

  constructor(message: string, url: string, options?: ErrorOptions) {
    super('ERR_LLMPT_TRACKER', `${message} (${url})`, options)
    this.url = redact(url)
  }
}

/** No peers, a stalled swarm, or one too slow to wait for. */
export class SwarmError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_SWARM', message, options)
  }
}

/** The bytes are not the ones the Hub's etag promises. They never reach the cache under their final name. */
export class IntegrityError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_INTEGRITY', message, options)
  }
}

/** The Hub refused, or could not be reached. */
export class HubError extends LlmptError {
  readonly url: string
  /** The HTTP status, or `undefined` when there was no answer. */
  readonly status: number | undefined
  /** The Hub's own `X-Error-Code`, such as `RepoNotFound`, `GatedRepo`, `RevisionNotFound`, `EntryNotFound`. */
  readonly hubCode: string | undefined
  /** The commit that has no such file, when that is what is wrong and the Hub named it. */
  readonly commit: string | undefined
  /** How long the server wants to be left alone, in ms from when this was thrown, or `undefined` when it did not say. */
  readonly retryAfterMs: number | undefined

  constructor(
    message: string,
    details: {
      url: string
      status?: number | undefined
      hubCode?: string | undefined
      commit?: string | undefined
      retryAfterMs?: number | undefined
    },
    options?: ErrorOptions,
  ) {
    super('ERR_LLMPT_HUB', message, options)
    this.url = redact(details.url)
    this.status = details.status
    this.hubCode = details.hubCode
    this.commit = details.commit
    this.retryAfterMs = details.retryAfterMs
  }
}

/** The cache folder cannot be used: disk full, no permission, a path that would leave it. */
export class CacheError extends LlmptError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_LLMPT_CACHE', message, options)
  }
}

/** Whether `error` is what `signal` aborted with; such an error is rethrown, never a reason to fall back. */
export function isAbort(error: unknown, signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && (error === signal.reason || (error as Error)?.name === 'AbortError')
}
