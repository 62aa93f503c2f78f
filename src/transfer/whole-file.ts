/**
 * A file of few bytes over HTTP: one request, all of it in memory, compared with its etag there, written once and renamed.
 * That takes no journal, no thread that follows the file, and no race; whatever goes wrong on the way is left to the
 * race, which has retries, and the swarm.
 */
import { rm } from 'node:fs/promises'
import { HubError } from '../errors.ts'
import { contentHash } from '../hub/content-hash.ts'
import type { PartialFile as WritableSlot } from '../hub/partial-file.ts'
import type { RangeBody, RangeRequest } from '../hub/range-body.ts'
import { digestOf, type HubFile } from '../values.ts'
import { PartialFile } from './partial-file.ts'

/** Of a larger file it is worth keeping what an interrupted download has brought. */
export const maxWholeBytes: number = 1024 * 1024

/** How many times `stallMs` a body may be silent. */
const stallsToGiveUp = 2

export interface WholeFileRequest {
  readonly file: HubFile
  readonly openRange: (range: RangeRequest) => Promise<RangeBody>
  readonly stallMs: number
  readonly signal: AbortSignal
  /** Called with 0 at the beginning and when it has failed, else when a part of the file has come, but not all of it. */
  readonly onBytes: (bytes: number) => void
}

export type WholeFile =
  | { readonly kind: 'right'; readonly content: Uint8Array }
  /** It is not what its etag promises. */
  | { readonly kind: 'wrong' }
  | { readonly kind: 'failed'; readonly error: HubError }

/** Fetches all of `file` into memory. @throws The signal's reason; what `onBytes` throws. */
export async function fetchWhole(request: WholeFileRequest): Promise<WholeFile> {
  const { file, openRange, stallMs, signal, onBytes } = request
  onBytes(0)
  using silence = new Silence(signal, stallMs * stallsToGiveUp)
  try {
    const body = await openRange({ start: 0, end: file.sizeBytes, isWhole: true, signal: silence.signal })
    if (body.end < file.sizeBytes) {
      body.cancel()
      throw new HubError(`only ${body.end} bytes of ${file.path} came`, { url: '' })
    }
    const content = Buffer.allocUnsafe(file.sizeBytes)
    let filled = 0
    silence.begin()
    for await (const batch of body.batches) {
      silence.heard()
      for (const chunk of batch) {
        content.set(chunk, filled)
        filled += chunk.length
        body.giveBack(chunk)
      }
      if (filled < file.sizeBytes) onBytes(filled)
    }
    const found = contentHash(digestOf(file.etag), file.sizeBytes).update(content).digest('hex')
    return found === file.etag ? { kind: 'right', content } : { kind: 'wrong' }
  } catch (error) {
    // Nothing is kept of it.
    onBytes(0)
    signal.throwIfAborted()
    if (error instanceof HubError) return { kind: 'failed', error }
    throw error
  }
}

/**
 * Makes sure that the disk takes a file there, before anybody is asked for bytes that could not be kept. Whoever has the lock
 * has written there already.
 *
 * @throws {CacheError} When it does not.
 */
export async function checkWritable(slot: WritableSlot): Promise<void> {
  if (slot.isResumable) return
  await (await PartialFile.open(slot.partialPath, false))[Symbol.asyncDispose]()
  await rm(slot.partialPath, { force: true })
}

/** Gives verified content its place. @returns its path @throws {CacheError} Then nothing of it is left. */
export async function placeWhole(slot: WritableSlot, content: Uint8Array): Promise<string> {
  try {
    await write(slot.partialPath, content)
    return await slot.commit()
  } catch (error) {
    await slot.discard()
    throw error
  }
}

async function write(path: string, content: Uint8Array): Promise<void> {
  await using partial = await PartialFile.open(path, false)
  await partial.write(0, content)
}

/** Aborts when somebody else does, or when nothing was heard of a body for `maxMs`. */
class Silence implements Disposable {
  readonly #outer: AbortSignal
  readonly #maxMs: number
  readonly #controller = new AbortController()
  readonly #abort = (): void => this.#controller.abort(this.#outer.reason)
  #timer: NodeJS.Timeout | undefined

  constructor(outer: AbortSignal, maxMs: number) {
    this.#outer = outer
    this.#maxMs = maxMs
    if (outer.aborted) this.#abort()
    else outer.addEventListener('abort', this.#abort)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  begin(): void {
    this.#timer = setTimeout(
      () => this.#controller.abort(new HubError('the body stalled', { url: '' })),
      this.#maxMs,
    )
  }

  heard(): void {
    this.#timer?.refresh()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#outer.removeEventListener('abort', this.#abort)
  }
}
