/** What the Hub's refusals mean to a person: what is missing, and where to get it. */
import { HubError } from '../errors.ts'
import { redact } from '../redact.ts'
import { asCommit, type RepoRef } from '../values.ts'
import { repoUrl } from './file-ref.ts'
import { type HubResponse, withoutQuery } from './http.ts'
import { askedPauseMs, inWords } from './origin-pauses.ts'

/** What was asked for. */
export interface Subject extends RepoRef {
  readonly revision?: string | undefined
  readonly path?: string | undefined
}

/** An answer that is not what was asked for, and who asked. */
export interface Refusal {
  readonly response: Pick<HubResponse, 'status' | 'headers'>
  readonly url: string
  readonly endpoint: string
  readonly subject: Subject
  readonly hadToken: boolean
  /** The clock, in ms since 1970, for pauses that are given as a date. */
  readonly nowMs: number
}

/** The error for an answer that is not what was asked for. Its message says what to do. */
export function refusal(details: Refusal): HubError {
  const { response, url } = details
  const hubCode = short(response.headers['x-error-code'])
  return new HubError(explain(details, hubCode), {
    url: withoutQuery(url),
    status: response.status,
    hubCode,
    commit: hubCode === 'EntryNotFound' ? asCommit(response.headers['x-repo-commit'] ?? '') : undefined,
    retryAfterMs: askedPauseMs(response, details.nowMs),
  })
}

function explain(details: Refusal, hubCode: string | undefined): string {
  const { endpoint, subject, hadToken } = details
  const { status } = details.response
  const name = `${subject.repoType} ${subject.repo}`
  const page = repoUrl(endpoint, subject)
  switch (hubCode) {
    case 'GatedRepo':
      return hadToken
        ? `${name} is gated and the token's account has no access: ask for it at ${page}`
        : `${name} is gated: accept its conditions at ${page}, then set HF_TOKEN to a token of that account`
    case 'RepoNotFound':
      return hadToken
        ? `there is no ${name}, or the token may not read it: check the spelling and the type of the repository`
        : `there is no public ${name}: check the spelling and the type; for a private one, set HF_TOKEN`
    case 'RevisionNotFound':
      return `${name} has no branch, tag or commit "${subject.revision ?? ''}": see ${page}`
    case 'EntryNotFound':
      return `${name} has no file "${subject.path ?? ''}" at revision "${subject.revision ?? ''}"`
    default:
      return explainStatus(details, name, status)
  }
}

function explainStatus(details: Refusal, name: string, status: number): string {
  const { endpoint, hadToken, response, url } = details
  const said = short(response.headers['x-error-message'])
  const suffix = said ? ` ("${said}")` : ''
  const host = URL.canParse(url) ? new URL(url).host : endpoint
  // What the storage behind the Hub refuses has nothing to do with tokens or gates.
  const isHub = host === new URL(endpoint).host
  if (status === 401 && isHub) {
    return hadToken
      ? `the Hub does not accept the token${suffix}: make a new one at ${endpoint}/settings/tokens`
      : `${name} needs a token${suffix}: set HF_TOKEN`
  }
  if (status === 403 && isHub) return `access to ${name} is refused${suffix}`
  if (status === 429) {
    const who = isHub ? 'the Hub' : host
    const advice = hadToken || !isHub ? '' : '; with a token the limits are higher'
    return `too many requests: ${who} wants a pause${pauseSuffix(details)}${advice}`
  }
  if (status === 503 && askedPauseMs(response, details.nowMs) !== undefined) {
    return `${host} is out of order and wants a pause${pauseSuffix(details)}${suffix}`
  }
  return `${host} answered ${status}${suffix} for ${name}${details.subject.path ? `, file "${details.subject.path}"` : ''}`
}

function pauseSuffix({ response, nowMs }: Refusal): string {
  const pauseMs = askedPauseMs(response, nowMs)
  return pauseMs === undefined ? '' : `: try again in ${inWords(pauseMs)}`
}

/** Foreign text for a message: one line, short, without control characters or tokens. */
function short(text: string | undefined): string | undefined {
  const clean = text?.replace(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ').trim()
  return clean ? redact(clean.slice(0, 200)) : undefined
}
