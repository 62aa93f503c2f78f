/**
 * The HTTP hand of a download: streams runs of missing pieces, one request at a time, and hands every
 * complete piece on. It starts and stops at the race's word, retries what can be retried, and remembers
 * why it gave up for good.
 */
import { HubError, isAbort } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { PieceMap } from './piece-map.ts'
import { RateWindow } from './rate.ts'

/** Opens the bytes `[start, end)` of the file. A server that ignores ranges answers from 0: `start` tells. */
export type RangeOpener = (request: {
  start: number
  end: number
  signal: AbortSignal
}) => Promise<{ start: number; stream: AsyncIterable<Uint8Array> }>

/** Where pieces go. `direct` writes each chunk at its place; a swarm wants whole pieces. */
export interface PieceSink {
  /** Takes part of a piece; called in order within the piece. */
  write(piece: number, offsetInPiece: number, bytes: Uint8Array): Promise<void>
  /** The piece is complete. May resolve before it is counted; `settle` waits for that. */
  finish(piece: number): Promise<void>
}

export interface HttpLegOptions {
  readonly map: PieceMap
  readonly open: RangeOpener
  /** The sink for the piece that starts now. */
  readonly sinkFor: (piece: number) => PieceSink
  /** Resolves when every finished piece is counted as present or as missing. @throws What kept one from either. */
  readonly settle: () => Promise<void>
  /** How many pieces to claim at once, asked at the start of each run. */
  readonly claimPieces: () => number
  /** Tells which pieces HTTP has claimed now; `[0, 0)` for none. */
  readonly onClaim: (first: number, end: number) => void
  readonly nowMs: () => number
  readonly rateWindowMs: number
  /** Tries in a row without one new byte before giving up. */
  readonly maxFailures?: number
  /** Wait before the n-th retry. */
  readonly backoffMs?: (failures: number) => number
}

const defaultMaxFailures = 6
const defaultBackoffMs = (failures: number): number => Math.min(8_000, 500 * 2 ** (failures - 1))

export class HttpLeg {
  readonly #options: HttpLegOptions
  readonly #rate: RateWindow
  #receivedBytes = 0
  #failures = 0
  /** A piece that broke off in the middle: the next request goes on at its next byte. */
  #broken: { readonly piece: number; readonly within: number; readonly sink: PieceSink } | undefined
  #running: { controller: AbortController; done: Promise<void> } | undefined
  #claimEnd = 0
  /** When the leg last started, and when it last got a byte. */
  startedMs = 0
  progressMs = 0
  /** The rate when it last ran long enough to tell. */
  knownRate: number | undefined
  /** Why HTTP gave up for good. */
  failure: Error | undefined
  /** The latest failure, retried or not. */
  lastError: Error | undefined

  constructor(options: HttpLegOptions) {
    this.#options = options
    this.#rate = new RateWindow(options.rateWindowMs)
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  get bytesPerSecond(): number {
    return this.#rate.bytesPerSecond
  }

  /** Takes a rate sample; called by the race's tick. */
  sample(): void {
    if (!this.isRunning) return
    const now = this.#options.nowMs()
    this.#rate.add(now, this.#receivedBytes)
    if (now - this.startedMs >= 500) this.knownRate = this.#rate.bytesPerSecond
  }

  /** Starts fetching whatever is missing. `onEnd` is called when it has nothing left to do, or gave up. */
  start(onEnd: () => void): void {
    if (this.#running !== undefined || this.failure !== undefined) return
    const controller = new AbortController()
    this.startedMs = this.progressMs = this.#options.nowMs()
    this.#rate.reset()
    // While HTTP rested, others may have written where that piece was growing.
    this.#broken = undefined
    const done = this.#run(controller.signal).finally(() => {
      this.#running = undefined
      this.#claim(0, 0)
      onEnd()
    })
    this.#running = { controller, done }
  }

  /** Ends the request in flight and resolves when nothing of it is left. */
  async stop(): Promise<void> {
    const running = this.#running
    running?.controller.abort(new DOMException('HTTP yields', 'AbortError'))
    await running?.done
  }

  /** Gives up all claims beyond `pieces` from where the leg is now, so that a swarm that has just joined can have them. */
  shrinkClaim(current: number, pieces: number): void {
    if (this.#running !== undefined && this.#claimEnd > current + pieces)
      this.#claim(current, current + pieces)
  }

  #claim(first: number, end: number): void {
    this.#claimEnd = end
    this.#options.onClaim(first, end)
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { map } = this.#options
    while (!signal.aborted) {
      const piece = map.nextMissing()
      if (piece === undefined) return
      try {
        await this.#fetchRun(piece, signal)
      } catch (error) {
        // Pieces on their way to libtorrent would look missing, and be fetched again.
        await this.#options.settle().catch(() => {})
        if (signal.aborted || isAbort(error, signal)) return
        this.#failures += 1
        this.lastError = error instanceof Error ? error : new Error(String(error))
        if (
          !isTransient(this.lastError) ||
          this.#failures >= (this.#options.maxFailures ?? defaultMaxFailures)
        ) {
          this.failure = this.lastError
          return
        }
        log.debug(`HTTP failed at byte ${map.offsetOf(piece)}, trying again: ${messageOf(error)}`)
        await pause((this.#options.backoffMs ?? defaultBackoffMs)(this.#failures), signal)
      }
    }
  }

  /** One request, from the start of `first` to the end of its run or wherever the claim ends by then. */
  async #fetchRun(first: number, signal: AbortSignal): Promise<void> {
    const { map, open } = this.#options
    this.#claim(first, map.endOfRun(first, this.#options.claimPieces()))
    const broken = this.#broken?.piece === first ? this.#broken : undefined
    this.#broken = undefined
    const start = map.offsetOf(first) + (broken?.within ?? 0)
    const end = Math.min(map.sizeBytes, map.offsetOf(this.#claimEnd))
    const request = new AbortController()
    const abort = (): void => request.abort(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      const answer = await open({ start, end, signal: request.signal })
      await this.#consume(first, start - answer.start, answer.stream, broken)
      await this.#options.settle()
    } finally {
      signal.removeEventListener('abort', abort)
      // The claim may have shrunk, or the swarm been faster: what is left of the body is not wanted.
      request.abort(new DOMException('no more of this range is needed', 'AbortError'))
    }
  }

  async #consume(
    first: number,
    skip: number,
    stream: AsyncIterable<Uint8Array>,
    broken: { within: number; sink: PieceSink } | undefined,
  ): Promise<void> {
    const { map, sinkFor } = this.#options
    let piece = first
    let within = broken?.within ?? 0
    let sink = broken?.sink ?? sinkFor(piece)
    let toSkip = skip
    try {
      for await (const received of stream) {
        this.#count(received.length)
        let chunk = received.subarray(Math.min(toSkip, received.length))
        toSkip -= received.length - chunk.length
        while (chunk.length > 0) {
          const part = chunk.subarray(0, map.lengthOf(piece) - within)
          await sink.write(piece, within, part)
          within += part.length
          chunk = chunk.subarray(part.length)
          this.#failures = 0
          if (within < map.lengthOf(piece)) continue
          await sink.finish(piece)
          piece += 1
          within = 0
          if (piece >= this.#claimEnd || map.has(piece)) return
          sink = sinkFor(piece)
        }
      }
      throw new HubError(`the body ended early, at byte ${map.offsetOf(piece) + within}`, { url: '' })
    } catch (error) {
      if (within > 0) this.#broken = { piece, within, sink }
      throw error
    }
  }

  #count(bytes: number): void {
    this.#receivedBytes += bytes
    this.progressMs = this.#options.nowMs()
  }
}

/** Whether trying again can help: not when the Hub refused, nor when the disk did. */
function isTransient(error: Error): boolean {
  if ((error as { code?: string }).code === 'ERR_LLMPT_CACHE') return false
  if (!(error instanceof HubError) || error.status === undefined) return true
  return error.status === 408 || error.status === 429 || error.status >= 500
}

/** Waits, or less when `signal` aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
