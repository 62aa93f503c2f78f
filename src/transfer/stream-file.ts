/** Ranges of files that may still be on their way, as web streams that start nothing before they are read. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { CacheError } from '../errors.ts'
import type { ByteRange } from './http-leg.ts'
import type { LiveFile } from './live-file.ts'

/** A file that can be answered from here. */
export interface OfferedFile {
  /** Whether it lies in the cache, whose files are taken as they are. */
  readonly isCached: boolean
  /** The bytes `[start, end)`. Nothing happens before the stream is pulled. */
  open(range: ByteRange, signal: AbortSignal | undefined): ReadableStream<Uint8Array>
}

/** How a file is to be brought here. */
export interface Bringing {
  readonly sizeBytes: number
  readonly isCached: boolean
  /** Resolves with the file's path when it is verified and in its place. */
  bring(signal: AbortSignal, events: BringEvents): Promise<string>
}

/** What is told on the way. */
export interface BringEvents {
  /** The file can be read while it grows. */
  onLive(live: LiveFile): void
  /** Another process is bringing the file. */
  onElsewhere(): void
}

const chunkBytes = 256 * 1024
/**
 * How long a download goes on when everybody has read what they asked for: time for the next of several ranges. What
 * is there by then is kept, and nobody asked for the rest.
 */
const lingerMs = 1_000

/** The downloads of one process that somebody reads: one for any number of readers of the same file. */
export class SharedFiles {
  readonly #running = new Map<string, Running>()

  /**
   * A file to read from. Its download starts with the first reader, unless one is under way under the same `key`. It is
   * given up when the last reader cancels, and a moment after the last one has read what it asked for.
   */
  offer(key: string, bringing: Bringing): OfferedFile {
    return {
      isCached: bringing.isCached,
      open: (range, signal) => streamOf((inner) => this.#read(key, bringing, range, inner), signal),
    }
  }

  /** Whether a download is under way that has these bytes to give at once. */
  hasNow(key: string, { start, end }: ByteRange): boolean {
    const live = this.#running.get(key)?.live
    return live !== undefined && live.readableEnd(start) >= end
  }

  async *#read(
    key: string,
    bringing: Bringing,
    range: ByteRange,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, void> {
    signal.throwIfAborted()
    const running = this.#running.get(key) ?? this.#start(key, bringing)
    running.join()
    try {
      const isPart = range.start > 0 || range.end < bringing.sizeBytes
      const { file, live } = await running.open(isPart, signal)
      try {
        yield* live === undefined ? readFinished(file, range, signal) : readLive(file, live, range, signal)
      } finally {
        await file.close()
      }
    } finally {
      running.leave(signal)
    }
  }

  #start(key: string, bringing: Bringing): Running {
    const running = new Running(bringing, () => {
      if (this.#running.get(key) === running) this.#running.delete(key)
    })
    this.#running.set(key, running)
    return running
  }
}

type Outcome = { readonly path: string } | { readonly error: unknown }

/** One download and how many read it. States: under way, then over: verified, failed or given up. */
class Running {
  live: LiveFile | undefined
  readonly #controller = new AbortController()
  /** Readers for whom there is nothing to open yet. */
  readonly #waiting = new Set<() => void>()
  readonly #onOver: () => void
  #outcome: Outcome | undefined
  #isElsewhere = false
  #readers = 0
  #lingering: NodeJS.Timeout | undefined

  /** @param onOver Called when nobody may join any more. */
  constructor(bringing: Bringing, onOver: () => void) {
    this.#onOver = onOver
    const events: BringEvents = {
      onLive: (live) => {
        this.live = live
        this.#wake()
      },
      onElsewhere: () => {
        this.#isElsewhere = true
        this.#wake()
      },
    }
    bringing.bring(this.#controller.signal, events).then(
      (path) => this.#end({ path }),
      (error: unknown) => this.#end({ error }),
    )
  }

  #end(outcome: Outcome): void {
    this.#outcome = outcome
    if ('path' in outcome) this.live?.finish()
    else this.live?.fail(outcome.error)
    clearTimeout(this.#lingering)
    this.#onOver()
    this.#wake()
  }

  join(): void {
    clearTimeout(this.#lingering)
    this.#readers += 1
  }

  /** One reader that gives up must not take the file from the others. */
  leave(signal: AbortSignal): void {
    this.#readers -= 1
    if (this.#readers > 0 || this.#outcome !== undefined) return
    if (signal.aborted) this.#giveUp(signal.reason)
    else
      this.#lingering = setTimeout(
        () => this.#giveUp(new DOMException('nobody reads it', 'AbortError')),
        lingerMs,
      )
  }

  #giveUp(reason: unknown): void {
    this.#onOver()
    this.#controller.abort(reason)
  }

  /**
   * Opens the file, finished or growing. Whoever wants all of it waits for another process that is bringing it; whoever
   * wants a part gets an error, and that part from elsewhere, rather than wait for a whole that they did not ask for.
   *
   * @throws What the download failed with; the signal's reason.
   */
  async open(
    isPart: boolean,
    signal: AbortSignal,
  ): Promise<{ file: FileHandle; live: LiveFile | undefined }> {
    for (;;) {
      signal.throwIfAborted()
      if (this.#outcome !== undefined) return { file: await openFinished(this.#outcome), live: undefined }
      const { live } = this
      const file = live && (await openGrowing(live))
      if (file !== undefined) return { file, live }
      if (live === undefined && this.#isElsewhere && isPart) {
        throw new CacheError('another process is bringing the file')
      }
      // One that is not in its place has just been given its name, or been dropped: the end is near.
      if (this.#outcome === undefined) await this.#change(signal)
    }
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  async #change(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake)
    })
  }
}

async function openFinished(outcome: Outcome): Promise<FileHandle> {
  if ('error' in outcome) throw outcome.error
  return await open(outcome.path, 'r')
}

async function openGrowing(live: LiveFile): Promise<FileHandle | undefined> {
  try {
    return await open(live.path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Whoever reads to the end of the file gets the last bytes when all of it has been verified. */
async function* readLive(
  file: FileHandle,
  live: LiveFile,
  { start, end }: ByteRange,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = live.reader(start, end)
  try {
    for (let at = start; at < end; ) {
      const reached = await reader.advance(chunkBytes, signal)
      for await (const chunk of readFinished(file, { start: at, end: reached }, signal)) {
        // It may have been taken back while it was read.
        reader.throwIfFailed()
        yield chunk
      }
      at = reached
    }
  } finally {
    reader.close()
  }
}

async function* readFinished(
  file: FileHandle,
  { start, end }: ByteRange,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  for (let at = start; at < end; ) {
    const buffer = new Uint8Array(Math.min(chunkBytes, end - at))
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
    signal.throwIfAborted()
    if (bytesRead === 0) throw new CacheError(`the file ends at byte ${at}`)
    yield buffer.subarray(0, bytesRead)
    at += bytesRead
  }
}

/**
 * Ends the reading of streams that somebody dropped without reading them to the end or cancelling them, as ipull does.
 * It holds on to what has to be closed: a file that is collected while it is open ends the process on Node 26.
 */
const dropped = new FinalizationRegistry<() => void>((end) => end())

/** What `read` yields, as a stream that reads when it is pulled; its signal aborts when nobody wants any more. */
function streamOf(
  read: (signal: AbortSignal) => AsyncGenerator<Uint8Array, void, void>,
  signal: AbortSignal | undefined,
): ReadableStream<Uint8Array> {
  const reader = new AbortController()
  const abort = (): void => reader.abort(signal?.reason)
  const forget = (): void => signal?.removeEventListener('abort', abort)
  const chunks = read(reader.signal)
  if (signal?.aborted) abort()
  else signal?.addEventListener('abort', abort, { once: true })
  const end = (reason: unknown): void => {
    forget()
    reader.abort(reason)
    // Ends the generator if it waits to be read; one that waits for the file has just been told.
    chunks.return().catch(() => {})
  }
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next()
          if (!done) return controller.enqueue(value)
          forget()
          controller.close()
        } catch (error) {
          forget()
          throw error
        }
      },
      cancel: end,
    },
    { highWaterMark: 0 },
  )
  dropped.register(stream, () => end(new DOMException('nobody reads it', 'AbortError')))
  return stream
}
