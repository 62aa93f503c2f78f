/**
 * The Hub and its mirrors: who is asked, in which order, and what a failure means.
 *
 * The first endpoint is the Hub. Its refusal (401, 403, 404, 429) is an answer and ends the question; what a mirror
 * refuses says nothing about the Hub, and the next one is asked. Only the first gets the token, and of what not everybody
 * may read the others never hear.
 *
 * An origin that could not be reached, or answered 500 or above, rests: whoever has one is asked after the others. When its
 * time is over, one question tries it again while the others still leave it alone.
 */
import { HubError } from '../errors.ts'
import type { HubAccess } from './ask.ts'

/** How long an origin that failed is left alone, in ms: a look at it can cost the ten seconds in which nobody answers. */
export const restMs = 30_000

/** Which endpoints there are, and which of their origins failed lately. One per process and Hub. */
export class Endpoints {
  /** The Hub. */
  readonly first: string
  /** In the order in which they are asked. */
  readonly mirrors: readonly string[]
  readonly #now: () => number
  /** Origin -> until when it rests, in ms since 1970. */
  readonly #rests = new Map<string, number>()

  /** @param now The clock, in ms since 1970. */
  constructor(first: string, mirrors: readonly string[], now: () => number = Date.now) {
    this.first = first
    this.mirrors = mirrors
    this.#now = now
  }

  /** All of them, those whose origins rest after the others. @param originsOf What an endpoint's answer needs. */
  inOrder(originsOf: (endpoint: string) => readonly string[]): readonly string[] {
    const all = [this.first, ...this.mirrors]
    const isResting = (endpoint: string): boolean =>
      originsOf(endpoint).some((origin) => this.#isResting(origin))
    return [...all.filter((endpoint) => !isResting(endpoint)), ...all.filter(isResting)]
  }

  /** `origins` are about to be asked: where one has rested, others wait for what comes of that. */
  noteQuestion(origins: readonly string[]): void {
    for (const origin of origins) if (this.#rests.has(origin)) this.noteFailure(origin)
  }

  noteAnswer(origins: readonly string[]): void {
    for (const origin of origins) this.#rests.delete(origin)
  }

  noteFailure(origin: string): void {
    this.#rests.set(origin, this.#now() + restMs)
  }

  #isResting(origin: string): boolean {
    const leftMs = (this.#rests.get(origin) ?? 0) - this.#now()
    // Beyond the longest there is, somebody has set the clock back.
    return leftMs > 0 && leftMs <= restMs
  }
}

/** How a question may be put to others than the Hub. */
export interface AskOptions {
  readonly signal?: AbortSignal | undefined
  /** Whether everybody may read what is asked about, as far as it is known. @defaultValue only when there is no token */
  readonly isPublic?: (() => Promise<boolean>) | undefined
  /** The origins that an endpoint's answer needs, as far as they are known. @defaultValue its own */
  readonly originsOf?: ((endpoint: string) => readonly string[] | undefined) | undefined
}

/**
 * What `ask` brings from the first endpoint that answers. It is called with access to one endpoint at a time, and starts
 * afresh with each.
 *
 * @throws {HubError} The Hub's refusal; or, when nobody answered, one that names all and has the status of the Hub's answer.
 */
export async function firstAnswer<T>(
  hub: HubAccess,
  ask: (at: HubAccess) => Promise<T>,
  options: AskOptions = {},
): Promise<T> {
  const { http, endpoint: first, token, endpoints } = hub
  if (endpoints === undefined) return await ask(hub)
  const failures = new Map<string, HubError>()
  const originsOf = (endpoint: string): readonly string[] =>
    options.originsOf?.(endpoint) ?? [new URL(endpoint).origin]
  for (const endpoint of endpoints.inOrder(originsOf)) {
    const isMirror = endpoint !== first
    if (isMirror && token !== undefined && !(await options.isPublic?.())) continue
    const origins = originsOf(endpoint)
    endpoints.noteQuestion(origins)
    try {
      const answer = await ask({ http, endpoint, token: isMirror ? undefined : token })
      endpoints.noteAnswer(origins)
      return answer
    } catch (error) {
      options.signal?.throwIfAborted()
      if (!(error instanceof HubError)) throw error
      if (isOutage(error))
        endpoints.noteFailure(new URL(URL.canParse(error.url) ? error.url : endpoint).origin)
      else endpoints.noteAnswer(origins)
      if (!isMirror && !isOutage(error)) throw error
      failures.set(endpoint, error)
    }
  }
  throw nobodyAnswered(first, failures)
}

/** Whether there was no answer, or one that is the server's failure, as opposed to a refusal. */
export function isOutage(error: unknown): error is HubError {
  return error instanceof HubError && (error.status === undefined || error.status >= 500)
}

function nobodyAnswered(first: string, failures: Map<string, HubError>): unknown {
  const own = failures.get(first)
  if (own === undefined || failures.size === 1) return own
  failures.delete(first)
  const said = [[first, own] as const, ...failures].map(([endpoint, { message }]) => {
    const { host } = new URL(endpoint)
    return message.startsWith(host) ? message : `${host}: ${message}`
  })
  const { url, status, retryAfterMs } = own
  return new HubError(
    `neither the Hub nor a mirror answers (${said.join('; ')})`,
    { url, status, retryAfterMs },
    { cause: own },
  )
}
