/** What the hook asks of the room above it, which it may not import: a file, if somebody here has it. */
import type { HubFile } from '../values.ts'

/** A file that can be answered without the Hub's storage. */
export interface OfferedFile {
  /** Whether it lies in the cache, whose files are taken as they are. Any other is checked as it is handed over. */
  readonly isCached?: boolean
  /**
   * The bytes `[start, end)`. Nothing starts before the stream is pulled: programs fetch what they never read.
   * Its chunks belong to the reader, who may detach their buffers.
   */
  open(range: { start: number; end: number }, signal: AbortSignal | undefined): ReadableStream<Uint8Array>
}

/** Who asks for a file. */
export interface OfferContext {
  /** The token of the request; `undefined` when it had none, which somebody below may have added: it is no sign that all may have the file. */
  readonly token: string | undefined
  /** The caller's; when it aborts, the answer is of no use to anyone. */
  readonly signal: AbortSignal | undefined
  /** The bytes asked for, `[start, end)`; the whole file when no range was. */
  readonly range: { readonly start: number; readonly end: number }
  /** The watched endpoint that named the file. The token belongs to it and goes nowhere else. */
  readonly endpoint: string
}

/** What `wrapFetch` is given. */
export interface FetchDeps {
  /** Hub origins to watch, the configured one first; possibly with a path prefix, without a trailing slash. */
  endpoints(): readonly string[]
  /**
   * The file, if it can be had without the Hub's storage. The caller's `fetch` waits for this, so it needs a
   * deadline of its own. `undefined` or an error: the caller gets the Hub's own answer.
   */
  offer(file: HubFile, context: OfferContext): Promise<OfferedFile | undefined>
  /** Whether the hook is in force; else every call goes straight to the original. */
  isActive(): boolean
}
