/** Ranges of a file that may still be on its way, as web streams that start nothing before they are read. */
import { open } from 'node:fs/promises'

/** A file that can be answered from here. */
export interface OfferedFile {
  /** The bytes `[start, end)`. Nothing happens before the stream is pulled. */
  open(range: { start: number; end: number }, signal: AbortSignal | undefined): ReadableStream<Uint8Array>
}

const chunkBytes = 256 * 1024

interface Running {
  readonly path: Promise<string>
  readonly controller: AbortController
  readers: number
}

/** One download for any number of readers. It starts with the first and is given up when the last has gone. */
export class SharedFile implements OfferedFile {
  readonly #fetch: (signal: AbortSignal) => Promise<string>
  #running: Running | undefined

  /** @param fetch Resolves with the path once the file is complete and verified. */
  constructor(fetch: (signal: AbortSignal) => Promise<string>) {
    this.#fetch = fetch
  }

  open(range: { start: number; end: number }, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
    const reader = new AbortController()
    const abort = (): void => reader.abort(signal?.reason)
    const chunks = this.#read(range, reader.signal)
    const end = (): void => signal?.removeEventListener('abort', abort)
    if (signal?.aborted) abort()
    else signal?.addEventListener('abort', abort, { once: true })
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await chunks.next()
          if (!done) return controller.enqueue(value)
          end()
          controller.close()
        },
        cancel(reason) {
          end()
          reader.abort(reason)
          // Ends the generator if it waits to be read; one that waits for the file has just been told.
          void chunks.return().catch(() => {})
        },
      },
      { highWaterMark: 0 },
    )
  }

  async *#read(
    range: { start: number; end: number },
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, void> {
    signal.throwIfAborted()
    const path = await this.#arrival(signal)
    const file = await open(path, 'r')
    try {
      for (let at = range.start; at < range.end; ) {
        signal.throwIfAborted()
        const buffer = new Uint8Array(Math.min(chunkBytes, range.end - at))
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
        if (bytesRead === 0) throw new Error(`${path} ends at byte ${at}`)
        yield buffer.subarray(0, bytesRead)
        at += bytesRead
      }
    } finally {
      await file.close()
    }
  }

  /** The path, or the signal's reason: one reader that gives up must not take the file from the others. */
  #arrival(signal: AbortSignal): Promise<string> {
    const running = this.#running ?? this.#start()
    running.readers += 1
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        signal.removeEventListener('abort', abort)
        running.readers -= 1
      }
      const abort = (): void => {
        leave()
        reject(signal.reason)
        if (running.readers > 0) return
        this.#running = undefined
        running.controller.abort(signal.reason)
      }
      signal.addEventListener('abort', abort, { once: true })
      running.path.then(resolve, reject).finally(leave)
    })
  }

  #start(): Running {
    const controller = new AbortController()
    const path = this.#fetch(controller.signal)
    // Everybody may have left by the time it fails.
    path.catch(() => {})
    const running = { path, controller, readers: 0 }
    this.#running = running
    return running
  }
}
