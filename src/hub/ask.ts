/**
 * How we ask one endpoint: the token goes to its origin and nowhere else, redirects are followed by hand, and an
 * overloaded server gets a second and a third chance. Which endpoint is asked is decided in `endpoints.ts`.
 */
import { HubError } from '../errors.ts'
import { atEndpoint } from './endpoint-url.ts'
import type { Endpoints } from './endpoints.ts'
import { connectionErrorCode, type HubHttp, type HubRequest, type HubResponse, withoutQuery } from './http.ts'
import { askedPauseMs } from './origin-pauses.ts'
import { refusal, type Subject } from './refusal.ts'

/** Who asks, and whom. */
export interface HubAccess {
  readonly http: HubHttp
  /** Origin of the Hub, possibly with a path prefix, without a trailing slash. */
  readonly endpoint: string
  readonly token?: string | undefined
  /** The Hub and its mirrors, of which `endpoint` is the first; `undefined` when there are no mirrors. */
  readonly endpoints?: Endpoints | undefined
}

/** One request, before redirects and retries. */
export interface Question {
  readonly method: 'GET' | 'HEAD'
  readonly url: string
  readonly subject: Subject
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly signal?: AbortSignal | undefined
  /** Whether a redirect to another origin is followed, without the token, or is the answer. */
  readonly leaveOrigin?: boolean | undefined
  readonly content?: HubRequest['content']
  /** Called whenever it waits: for a slot, for a pause that was asked for, or before another try. */
  readonly onWait?: (() => void) | undefined
  /** Called whenever a request is sent: once per redirect and try. */
  readonly onStart?: (() => void) | undefined
  /** @defaultValue that of the `HubHttp` */
  readonly retries?: number | undefined
}

/** What came of a question, whatever its status. Read or discard the response's body. */
export interface Answer {
  readonly response: HubResponse
  /** Where `response` came from, after redirects. */
  readonly url: string
  /** For a redirect that was not followed: where it points. */
  readonly location: string | undefined
  /** `X-Repo-Commit`, `X-Linked-ETag` and `X-Linked-Size` of the endpoint itself, the last one of each. */
  readonly linked: { readonly commit?: string; readonly etag?: string; readonly size?: string }
}

const maxHops = 10
const retriable = new Set([408, 429, 500, 502, 503, 504])

/** Any answer, refusals included, after bounded retries. @throws {HubError} when there was none. */
export async function ask(hub: HubAccess, question: Question): Promise<Answer> {
  const retries = question.retries ?? hub.http.retries
  for (let attempt = 0; ; attempt++) {
    let pauseMs = 300 * 2 ** attempt
    try {
      const answer = await followRedirects(hub, question)
      if (!retriable.has(answer.response.status) || attempt >= retries) return answer
      const askedMs = askedPauseMs(answer.response, hub.http.now())
      if (askedMs !== undefined && askedMs > hub.http.maxRetryDelayMs) return answer
      answer.response.discard()
      // What the server asks for holds for its whole origin: the next request waits for that by itself.
      if (askedMs !== undefined) continue
    } catch (error) {
      // A connection that ended is worth a second try; one that timed out has had its time.
      if (attempt >= Math.min(retries, 1) || !endedEarly(error)) throw error
      pauseMs = 200
    }
    question.onWait?.()
    await pause(hub.http, pauseMs, question.signal)
  }
}

/** An answer with a status below 400. @throws {HubError} that says what to do, for every other one. */
export async function askForSuccess(hub: HubAccess, question: Question): Promise<Answer> {
  const answer = await ask(hub, question)
  if (answer.response.status < 400) return answer
  answer.response.discard()
  throw refusal({
    response: answer.response,
    url: answer.url,
    endpoint: hub.endpoint,
    subject: question.subject,
    hadToken: hub.token !== undefined,
    nowMs: hub.http.now(),
  })
}

/** Whether `url` is on the endpoint's own origin, the only place the token is sent to. */
export function isHubOrigin(hub: HubAccess, url: string): boolean {
  return new URL(url).origin === new URL(hub.endpoint).origin
}

async function followRedirects(hub: HubAccess, question: Question): Promise<Answer> {
  let url = question.url
  const asked = new Set([url])
  const linked: { commit?: string; etag?: string; size?: string } = {}
  for (let hop = 0; hop < maxHops; hop++) {
    const atHub = isHubOrigin(hub, url)
    const response = await hub.http.request({
      method: question.method,
      url,
      headers: {
        'accept-encoding': 'identity',
        ...question.headers,
        ...(atHub && hub.token !== undefined && { authorization: `Bearer ${hub.token}` }),
      },
      signal: question.signal,
      content: question.content,
      onWait: question.onWait,
      onStart: question.onStart,
    })
    if (atHub) remember(linked, response)
    const target = redirectOf(response, url)
    if (target === undefined) return { response, url, location: undefined, linked }
    const location = atEndpoint(hub.endpoint, target)
    if (!isHubOrigin(hub, location) && !question.leaveOrigin) return { response, url, location, linked }
    response.discard()
    if (location !== target && asked.has(location)) throw refersElsewhere(hub, target)
    asked.add(location)
    url = location
  }
  throw new HubError(`more than ${maxHops} redirects`, { url: withoutQuery(question.url) })
}

function remember(linked: { commit?: string; etag?: string; size?: string }, response: HubResponse): void {
  const { headers } = response
  const commit = headers['x-repo-commit']
  const etag = headers['x-linked-etag']
  const size = headers['x-linked-size']
  if (commit !== undefined) linked.commit = commit
  if (etag !== undefined) linked.etag = etag
  if (size !== undefined) linked.size = size
}

function redirectOf(response: HubResponse, url: string): string | undefined {
  const location = response.headers['location']
  if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined) return undefined
  const target = URL.canParse(location, url) ? new URL(location, url) : undefined
  if (target?.protocol !== 'http:' && target?.protocol !== 'https:') {
    response.discard()
    throw new HubError('a redirect to something that is not a web address', { url: withoutQuery(url) })
  }
  // Nobody we ask wants a name and password, and messages show the URL.
  target.username = ''
  target.password = ''
  return target.href
}

/** It names another Hub for what it was asked itself. That one is not asked: it is not who the user named. */
function refersElsewhere(hub: HubAccess, target: string): HubError {
  const { host } = new URL(hub.endpoint)
  const { origin } = new URL(target)
  const message = `${host} has not got it, and refers to ${origin}: make that the endpoint (HF_ENDPOINT) if it is to be asked`
  return new HubError(message, { url: withoutQuery(target) })
}

async function pause(http: HubHttp, ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await http.sleep(ms, signal)
  } finally {
    // A timer that was aborted throws an error of its own; callers know only the signal's reason.
    signal?.throwIfAborted()
  }
}

function endedEarly(error: unknown): boolean {
  const code = error instanceof HubError ? connectionErrorCode(error.cause) : undefined
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE' || code === 'EAI_AGAIN'
}
