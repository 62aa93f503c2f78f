/**
 * Which calls of `fetch` may be answered from here. Everything else, and everything whose outcome we could not
 * reproduce to the letter when nothing is offered, goes to the original untouched.
 */
import { parseResolveUrl } from '../hub/file-ref.ts'
import type { FileRef } from '../values.ts'
import { isSingleRange } from './range.ts'

/** What a program passes to `fetch`. */
export type FetchArguments = Parameters<typeof fetch>

/** A file by its URL, and whose URL it is. */
export interface FoundFile {
  readonly ref: FileRef
  readonly endpoint: string
}

/** A plain GET of a file at a watched Hub. */
export interface Candidate extends FoundFile {
  readonly url: URL
  /** All that are watched, the configured one first. */
  readonly endpoints: readonly string[]
  /** A copy of the caller's. */
  readonly headers: Headers
  /** The `Range` header; one range, if any. */
  readonly range: string | undefined
  readonly signal: AbortSignal | undefined
  /** Held because its signal hears of the caller's only as long as it lives. */
  readonly request: Request | undefined
  /** The rest of the caller's options, for requests to other URLs than the first. */
  readonly init: RequestInit
}

/** The caller wants to hear whether something changed, or sends credentials that only the Hub understands. */
const foreignHeaders = [
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
  // A session of a browser: without it we could not tell a public file from a private one.
  'cookie',
]
const bearer = /^Bearer +(\S+)$/i

/** Whether it is worth looking closer; cheap, because every request of the program comes by. */
export function looksLikeResolve(input: unknown): boolean {
  return textOf(input)?.includes('/resolve/') ?? false
}

/** The GET of a file at one of `endpoints`, or `undefined` for every other call. */
export function candidateOf(args: FetchArguments, endpoints: readonly string[]): Candidate | undefined {
  const [input, init] = args
  const text = textOf(input)
  if (text === undefined || !URL.canParse(text) || !isPlain(init)) return undefined
  const url = new URL(text)
  // fetch refuses these, in its own words.
  if (url.username !== '' || url.password !== '') return undefined
  const request = input instanceof Request ? input : undefined
  if (!isSimpleGet(request, init)) return undefined
  const headers = new Headers(init?.headers ?? request?.headers)
  const range = headers.get('range') ?? undefined
  if (range !== undefined && !isSingleRange(range)) return undefined
  if (foreignHeaders.some((name) => headers.has(name))) return undefined
  const authorization = headers.get('authorization')
  if (authorization !== null && !bearer.test(authorization)) return undefined
  const file = findFile(url, endpoints)
  if (file === undefined) return undefined
  const signal = (init?.signal === undefined ? request?.signal : init.signal) ?? undefined
  const rest = { ...optionsOf(request), ...defined(init) }
  return { url, ...file, endpoints, headers, range, signal, request, init: rest }
}

/** The file that `url` names, and the first of `endpoints` that it belongs to. */
export function findFile(url: URL, endpoints: readonly string[]): FoundFile | undefined {
  for (const endpoint of endpoints) {
    const ref = parseResolveUrl(url, [endpoint])
    if (ref !== undefined) return { ref, endpoint }
  }
  return undefined
}

/** The token in an `Authorization` header. */
export function tokenOf(headers: Headers): string | undefined {
  return bearer.exec(headers.get('authorization') ?? '')?.[1]
}

function textOf(input: unknown): string | undefined {
  if (typeof input === 'string') return input
  if (input instanceof URL) return input.href
  return input instanceof Request ? input.url : undefined
}

/** Whether spreading `init` keeps all of it. A `Request` in its place has its options in getters of its class. */
function isPlain(init: RequestInit | undefined): boolean {
  if (init === undefined) return true
  const prototype: unknown = Object.getPrototypeOf(init)
  // Of any realm: a test runner may have given the program an Object of its own.
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** A GET without a body that follows redirects, with none of the options that act on the chain as a whole. */
function isSimpleGet(request: Request | undefined, init: RequestInit | undefined): boolean {
  const { method, redirect, mode, integrity, referrer } = {
    ...simple,
    ...optionsOf(request),
    ...defined(init),
  }
  return (
    (init?.body ?? request?.body ?? null) === null &&
    String(method).toUpperCase() === 'GET' &&
    redirect === 'follow' &&
    mode === 'cors' &&
    integrity === '' &&
    (referrer === '' || referrer === 'about:client') &&
    !isUsedUpByReading(init?.headers)
  )
}

const simple: RequestInit = {
  method: 'GET',
  redirect: 'follow',
  mode: 'cors',
  integrity: '',
  referrer: 'about:client',
}

function defined(init: RequestInit | undefined): RequestInit {
  return Object.fromEntries(Object.entries(init ?? {}).filter(([, value]) => value !== undefined))
}

/** An iterator, unlike a list, can be read once, and the original is to read it. */
function isUsedUpByReading(headers: unknown): boolean {
  const list = headers as Partial<Iterable<unknown>> | undefined
  return typeof list?.[Symbol.iterator] === 'function' && list[Symbol.iterator]?.() === (list as unknown)
}

/** The options inside a `Request`, all but its dispatcher: that cannot be seen from outside. */
function optionsOf(request: Request | undefined): RequestInit {
  if (request === undefined) return {}
  const { method, headers, redirect, mode, integrity, referrer, signal, credentials, keepalive } = request
  const options = { method, headers, redirect, mode, integrity, referrer, signal, credentials, keepalive }
  // Node's types do not know this one.
  return { ...options, cache: request.cache } as RequestInit
}
