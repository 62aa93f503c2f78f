/** A range of a file as a server sends it: nothing but the bytes asked for, all of them, or an error. */
import { HubError } from '../errors.ts'
import type { Answer } from './ask.ts'
import { parseSize } from './header-values.ts'
import { withoutQuery } from './http.ts'

/** The bytes wanted, as `slice` takes them. */
export interface RangeRequest {
  /** First byte wanted. */
  readonly start: number
  /** Byte after the last one wanted. @defaultValue the end of the file */
  readonly end?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** All of a small file: it does not stand in line with the ranges of large ones. @defaultValue false */
  readonly isWhole?: boolean | undefined
  /** Tries after a 429, a 5xx or a cut connection, before any byte. @defaultValue that of the `HubHttp` */
  readonly retries?: number | undefined
  /**
   * Called whenever the range has to wait here: for one of the origin's slots, for a pause the server asked for,
   * before another try, or for another range that is asking the Hub where the file is. Not called when it need not.
   */
  readonly onWait?: (() => void) | undefined
  /**
   * Called whenever a request for this range is sent, so more than once when the Hub is asked for the location first,
   * or again. A range between `onWait` and `onStart` has not begun: its silence says nothing about the server.
   */
  readonly onStart?: (() => void) | undefined
}

/** What the server sends for a `RangeRequest`. Read `batches` to the end or call `cancel`. */
export interface RangeBody {
  /** First byte of the body in the file. Not the one asked for (0) when the server ignores ranges. */
  readonly start: number
  /** Byte after the last one of the body; can be less than asked for. */
  readonly end: number
  /** Size of the whole file. */
  readonly totalBytes: number
  /**
   * Exactly `end - start` bytes, or a HubError: the connection was cut, or nothing came for the body timeout.
   * Each time all that has come since the last time. Can be read once. Leaving the loop early closes the connection.
   */
  readonly batches: AsyncIterable<Uint8Array[]>
  /** See `HubResponse.giveBack`. */
  giveBack(bytes: Uint8Array): void
  /** Closes the connection of a body that will not be read. Idempotent. */
  cancel(): void
}

/** Bytes `start` to `end`, the end excluded. */
export interface WantedBytes {
  readonly start: number
  readonly end: number
}

/** The body of a range of no bytes, for which there is no request. */
export function emptyRange(at: number, totalBytes: number): RangeBody {
  return {
    start: at,
    end: at,
    totalBytes,
    batches: noBytes(),
    giveBack: () => undefined,
    cancel: () => undefined,
  }
}

async function* noBytes(): AsyncGenerator<Uint8Array[]> {}

/** What `answer` brings of the bytes `wanted`. @throws {HubError} When it brings something else. */
export function rangeBody(answer: Answer, wanted: WantedBytes, totalBytes: number): RangeBody {
  const { response } = answer
  const url = withoutQuery(answer.url)
  const wrong = (what: string): HubError => new HubError(what, { url, status: response.status })
  if ((response.headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw wrong('the content came compressed although that was declined')
  }
  if (/^\s*multipart\//i.test(response.headers['content-type'] ?? '') && response.status === 206) {
    throw wrong('several parts came where one was asked for')
  }
  const sent =
    response.status === 206 ? sentRange(response.headers['content-range']) : { start: 0, end: totalBytes }
  if (!sent) throw wrong('a partial answer that does not say which part it is')
  if (sent.total !== undefined && sent.total !== totalBytes) {
    throw wrong(`the file has ${sent.total} bytes there, and ${totalBytes} at the Hub`)
  }
  const isPart =
    response.status === 200 ||
    (sent.start === wanted.start && sent.end > sent.start && sent.end <= wanted.end)
  if (!isPart)
    throw wrong(`bytes ${sent.start} to ${sent.end} came instead of ${wanted.start} to ${wanted.end}`)
  const length = response.headers['content-length']
  if (length !== undefined && parseSize(length) !== sent.end - sent.start) {
    throw wrong(`${length} bytes are announced where ${sent.end - sent.start} belong`)
  }
  return {
    start: sent.start,
    end: sent.end,
    totalBytes,
    batches: exactly(response.batches, sent.end - sent.start, url),
    giveBack: response.giveBack,
    cancel: () => response.destroy(),
  }
}

function sentRange(header: string | undefined): { start: number; end: number; total?: number } | undefined {
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(header?.trim() ?? '')
  if (!match) return undefined
  const end = Number(match[2]) + 1
  return { start: Number(match[1]), end, ...(match[3] !== '*' && { total: Number(match[3]) }) }
}

/** A body without a length may end early without an error, or never: neither passes. */
async function* exactly(
  batches: AsyncIterable<Uint8Array[]>,
  length: number,
  url: string,
): AsyncGenerator<Uint8Array[]> {
  let left = length
  for await (const batch of batches) {
    for (const chunk of batch) left -= chunk.length
    if (left < 0) throw new HubError(`more bytes than the ${length} announced`, { url })
    yield batch
  }
  if (left > 0) throw new HubError(`the body ended ${left} bytes early`, { url })
}
