/**
 * The HTTP hand of a download: a few range requests at a time, whose bytes go straight to their place in the partial
 * file. Which bytes to ask for is the race's word (`next`); how many at a time, how large, what to do when one fails
 * or falls silent is decided here.
 *
 * A run is one request. While it lives, its bytes are claimed: nobody else fetches them. A run that brings nothing for
 * `stallMs` loses its claim, though it may go on; whoever writes a block first has brought it.
 */
import { HubError, isAbort } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { PartialFile } from './partial-file.ts'
import { blockBytes, type PieceMap } from './piece-map.ts'
import { RateWindow } from './rate.ts'

export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** What a server sends for a range. */
export interface OpenedRange {
  /** First byte of the body; 0 from a server that ignores ranges. */
  readonly start: number
  /** Byte after the last one of the body, when it says; can be less than asked for. */
  readonly end?: number | undefined
  /** Each time all that has come since the last time. */
  readonly batches: AsyncIterable<Uint8Array[]>
  /** Told of what was written: nobody reads `bytes` any more, nor what came before them. */
  readonly giveBack?: ((bytes: Uint8Array) => void) | undefined
}

/**
 * Opens the bytes `[start, end)` of the file. `onWait` is called when the request has to wait for its turn, `onStart` when
 * it goes out: in between, silence is nobody's fault.
 */
export type RangeOpener = (
  request: ByteRange & {
    signal: AbortSignal
    onStart?: (() => void) | undefined
    onWait?: (() => void) | undefined
  },
) => Promise<OpenedRange>

export interface HttpLegOptions {
  readonly map: PieceMap
  readonly file: PartialFile
  readonly open: RangeOpener
  /** What to ask for next, about `maxBytes` of it, from a block's begin; `undefined`: nothing now. */
  readonly next: (maxBytes: number) => ByteRange | undefined
  /** Bytes are on disk. */
  readonly onWritten: (range: ByteRange) => void
  /** A run ended, well or not. */
  readonly onRunEnd: () => void
  /** Whether failing again and again ends HTTP for good; not while others bring the file, and HTTP may recover. */
  readonly mayGiveUp: () => boolean
  /** How many requests may be under way at most now; never more than four. */
  readonly maxRuns?: (() => number) | undefined
  /** How many requests the origin would take on at once. @defaultValue 4 */
  readonly freeSlots?: (() => number) | undefined
  readonly nowMs: () => number
  readonly rateWindowMs: number
  readonly stallMs: number
  /** Tries in a row without one new byte before giving up. */
  readonly maxFailures?: number | undefined
  /** Wait before the n-th retry. */
  readonly backoffMs?: ((failures: number) => number) | undefined
}

const maxStreams = 4
/** The first requests: large enough to fill a fast link, small enough to share what is left. */
const firstRunBytes = 4 * 1024 * 1024
const minRunBytes = 1024 * 1024
const maxRunBytes = 32 * 1024 * 1024
/** How long a run should take: a claim is lost time for everybody else when its stream turns out slow. */
const runMs = 1_000
/** Written at once: fewer and larger system calls. */
const writeBytes = 512 * 1024
/** Nor does anything wait longer than this to be written: somebody may read the file while it grows. */
const writeMs = 100
const defaultMaxFailures = 8
/** A body that has been silent for this many times `stallMs` is worth a new connection. */
const stallsToReconnect = 2
const defaultBackoffMs = (failures: number): number => Math.min(8_000, 250 * 2 ** (failures - 1))

interface Run {
  /** First byte that is not on disk. */
  position: number
  /** Byte after the last one wanted; others may move it down. */
  end: number
  /** From here to `position` all bytes are this run's own. A block's begin. */
  ownFrom: number
  readonly controller: AbortController
  /** When the request went out, and then when bytes last came; `undefined` while it waits for its turn. */
  aliveMs: number | undefined
  receivedBytes: number
  /** Being written now. */
  writing: ByteRange | undefined
  hasAnswered: boolean
  isStalled: boolean
  done: Promise<void>
}

export class HttpLeg {
  readonly #options: HttpLegOptions
  readonly #rate: RateWindow
  readonly #runs = new Set<Run>()
  #streamRate: number | undefined
  #receivedBytes = 0
  #failures = 0
  #notBeforeMs = 0
  #hasAnswered = false
  #ignoresRanges = false
  /** Runs are being ended: whoever hears of it would start others. */
  #isStopped = false
  /** The rate when it last ran long enough to tell. */
  knownRate: number | undefined
  #busySinceMs: number | undefined
  /** Why HTTP gave up for good. */
  failure: Error | undefined
  /** The latest failure, retried or not. */
  lastError: Error | undefined

  constructor(options: HttpLegOptions) {
    this.#options = options
    this.#rate = new RateWindow(options.rateWindowMs)
  }

  get isRunning(): boolean {
    return this.#runs.size > 0
  }

  /** Since when bytes have come, of one request or another; `undefined` when none is under way. */
  get busySinceMs(): number | undefined {
    return this.#busySinceMs
  }

  get bytesPerSecond(): number {
    return this.isRunning ? this.#rate.bytesPerSecond : 0
  }

  /** Before this nothing is asked for, after a failure or because the server said so. On the clock of `nowMs`. */
  get notBeforeMs(): number {
    return this.#notBeforeMs
  }

  /** Bytes of payload received, also those that were of no use. */
  get receivedBytes(): number {
    return this.#receivedBytes
  }

  /** Whether a live run will bring any of the piece. */
  isClaimed(piece: number): boolean {
    const { map } = this.#options
    return this.#some(
      (run) => !run.isStalled && run.end > map.offsetOf(piece) && run.position < map.endOf(piece),
    )
  }

  /** Whether any run, stalled or not, is writing to the piece now. */
  isWriting(piece: number): boolean {
    const { map } = this.#options
    return this.#some(
      ({ writing }) =>
        writing !== undefined && writing.end > map.offsetOf(piece) && writing.start < map.endOf(piece),
    )
  }

  #some(isIt: (run: Run) => boolean): boolean {
    for (const run of this.#runs) if (isIt(run)) return true
    return false
  }

  /** Looks at rates and stalls; called by the race's tick. */
  sample(): void {
    const now = this.#options.nowMs()
    if (!this.isRunning) return
    this.#rate.add(now, this.#receivedBytes)
    if (this.#busySinceMs !== undefined && now - this.#busySinceMs >= 500)
      this.knownRate = this.#rate.bytesPerSecond
    for (const run of this.#runs) this.#watch(run, now)
  }

  #watch(run: Run, now: number): void {
    const { stallMs } = this.#options
    // Waiting for the disk is not the server's silence.
    if (run.writing !== undefined) run.aliveMs = now
    const silentMs = run.aliveMs === undefined ? 0 : now - run.aliveMs
    run.isStalled = silentMs >= stallMs
    // Before the header it is the Hub that thinks, which a new request does not speed up.
    if (run.hasAnswered && silentMs >= stallMs * stallsToReconnect) {
      run.controller.abort(new HubError('the body stalled', { url: '' }))
    }
  }

  /** Starts as many requests as make sense now. */
  pump(): void {
    const now = this.#options.nowMs()
    while (!this.#isStopped && this.failure === undefined && now >= this.#notBeforeMs) {
      if (this.#runs.size >= this.#maxRuns()) return
      const range = this.#options.next(this.#runBytes())
      if (range === undefined) return
      this.#start(range)
    }
  }

  /** Ends all requests, for good; resolves when nothing of them is left. */
  async stop(): Promise<void> {
    this.#isStopped = true
    const runs = [...this.#runs]
    for (const run of runs) run.controller.abort(new DOMException('HTTP is over', 'AbortError'))
    await Promise.all(runs.map((run) => run.done))
  }

  /** Runs give up all but this share of what is before them, in whole pieces; at least the piece they are in. */
  share(keep: number): void {
    const { map } = this.#options
    for (const run of this.#runs) {
      const kept = run.position + (run.end - run.position) * keep
      const end = map.endOf(map.pieceAt(Math.max(run.position, Math.ceil(kept) - 1)))
      run.end = Math.min(run.end, end)
    }
  }

  /** Runs give up what follows the piece they are in, from the first piece on that is not to be kept. */
  trim(isKept: (piece: number) => boolean): void {
    const { map } = this.#options
    for (const run of this.#runs) {
      let end = map.endOf(map.pieceAt(run.position))
      while (end < run.end && isKept(map.pieceAt(end))) end = map.endOf(map.pieceAt(end))
      run.end = Math.min(run.end, end)
    }
  }

  /** Ends the request with most before it among those that are `spare`, so that another can begin where it is needed. */
  makeRoom(isSpare: (range: ByteRange) => boolean): void {
    const runs = [...this.#runs]
    if (runs.length < this.#maxRuns() || runs.some(({ controller }) => controller.signal.aborted)) return
    const spare = runs.filter(({ position, end }) => isSpare({ start: position, end }))
    spare.sort((a, b) => b.end - b.position - (a.end - a.position))
    spare[0]?.controller.abort(new DOMException('HTTP is needed elsewhere', 'AbortError'))
  }

  #maxRuns(): number {
    // One request shows whether there is an answer at all, where from, and whether it knows ranges.
    if (!this.#hasAnswered || this.#ignoresRanges || this.#failures > 0) return 1
    // Where other files have all connections, one request stands in line.
    return Math.min(
      maxStreams,
      this.#options.maxRuns?.() ?? maxStreams,
      Math.max(1, this.#runs.size + (this.#options.freeSlots?.() ?? maxStreams)),
    )
  }

  #runBytes(): number {
    const bytes = this.#streamRate === undefined ? firstRunBytes : (this.#streamRate * runMs) / 1000
    return Math.min(maxRunBytes, Math.max(minRunBytes, bytes))
  }

  #start({ start, end }: ByteRange): void {
    if (this.#runs.size === 0) {
      this.#busySinceMs = undefined
      this.#rate.reset()
    }
    const run: Run = {
      position: start,
      end,
      ownFrom: start,
      controller: new AbortController(),
      aliveMs: undefined,
      receivedBytes: 0,
      writing: undefined,
      hasAnswered: false,
      isStalled: false,
      done: Promise.resolve(),
    }
    this.#runs.add(run)
    run.done = this.#fetch(run)
      .catch((error) => this.#failed(run, error))
      .finally(() => {
        // What is left of the body is not wanted.
        run.controller.abort(new DOMException('no more of this range is needed', 'AbortError'))
        this.#runs.delete(run)
        if (this.#runs.size === 0) this.#busySinceMs = undefined
        this.#options.onRunEnd()
      })
  }

  async #fetch(run: Run): Promise<void> {
    const { signal } = run.controller
    const onStart = (): void => {
      run.aliveMs = this.#options.nowMs()
    }
    const onWait = (): void => {
      run.aliveMs = undefined
    }
    const answer = await this.#options.open({ start: run.position, end: run.end, signal, onStart, onWait })
    run.aliveMs = this.#options.nowMs()
    this.#hasAnswered = run.hasAnswered = true
    if (answer.start < run.position) this.#takeWholeFile(run)
    else run.end = Math.min(run.end, answer.end ?? run.end)
    const began = this.#options.nowMs()
    await this.#consume(run, answer)
    const took = this.#options.nowMs() - began
    if (run.receivedBytes >= minRunBytes) this.#streamRate = (run.receivedBytes * 1000) / Math.max(1, took)
  }

  /** The server sends all of it, from the beginning, whatever is asked: then this one run reads to the end. */
  #takeWholeFile(run: Run): void {
    this.#ignoresRanges = true
    run.end = this.#options.map.sizeBytes
  }

  async #consume(run: Run, answer: OpenedRange): Promise<void> {
    const { map } = this.#options
    let at = answer.start
    let pending: Uint8Array[] = []
    let pendingBytes = 0
    let held: Uint8Array[] = []
    let writtenMs = this.#options.nowMs()
    let writing: Promise<void> = Promise.resolve()
    const flush = async (): Promise<void> => {
      await writing
      const chunks = pending
      const written = held
      const start = at - pendingBytes
      pending = []
      pendingBytes = 0
      held = []
      writtenMs = this.#options.nowMs()
      writing = this.#write(run, start, chunks).finally(() => {
        for (const bytes of written) answer.giveBack?.(bytes)
      })
      // It is awaited before the next one; until then nobody listens.
      writing.catch(() => {})
    }
    try {
      for await (const batch of answer.batches) {
        for (const received of batch) {
          this.#count(run, received.length)
          const skip = Math.min(Math.max(0, run.position - at), received.length)
          at += skip
          const chunk = received.subarray(skip, skip + Math.max(0, run.end - at))
          if (chunk.length === 0) continue
          pending.push(chunk)
          held.push(received)
          pendingBytes += chunk.length
          at += chunk.length
        }
        if (at >= run.end) break
        const isOld = this.#options.nowMs() - writtenMs >= writeMs
        if (pendingBytes >= writeBytes || (pendingBytes > 0 && isOld)) await flush()
        // Others were faster with all that is left.
        if (map.endOfRun(at) >= run.end) break
      }
    } finally {
      if (pendingBytes > 0) await flush()
      await writing
    }
    if (at < run.end && map.endOfRun(at) < run.end && !run.controller.signal.aborted)
      throw new HubError(`the body ended early, at byte ${at}`, { url: '' })
  }

  /** Puts bytes in their place, except where a piece is there already: what was checked is not written over. */
  async #write(run: Run, start: number, chunks: Uint8Array[]): Promise<void> {
    const { map, file } = this.#options
    const end = chunks.reduce((sum, chunk) => sum + chunk.length, start)
    let at = start
    let rest = chunks
    while (at < end) {
      const piece = map.pieceAt(at)
      let stop = Math.min(end, map.endOf(piece))
      const isThere = map.has(piece) || map.isFull(piece)
      while (!isThere && stop < end && !this.#isTaken(map.pieceAt(stop)))
        stop = Math.min(end, map.endOf(map.pieceAt(stop)))
      const [part, after] = split(rest, stop - at)
      rest = after
      if (!isThere) {
        run.writing = { start: at, end: stop }
        try {
          await file.write(at, ...part)
        } finally {
          run.writing = undefined
        }
        this.#noteWritten(run, stop)
      } else {
        // Should the piece be taken back, the block we are in the middle of is not ours.
        run.ownFrom = Math.ceil(stop / blockBytes) * blockBytes
      }
      run.position = at = stop
    }
  }

  #isTaken(piece: number): boolean {
    return this.#options.map.has(piece) || this.#options.map.isFull(piece)
  }

  #noteWritten(run: Run, end: number): void {
    // A run begins with a block; the block it is in the middle of is noted when it is whole.
    const start = Math.max(run.ownFrom, Math.floor(run.position / blockBytes) * blockBytes)
    if (start >= end) return
    this.#options.map.write(start, end)
    this.#options.onWritten({ start, end })
  }

  #count(run: Run, bytes: number): void {
    this.#receivedBytes += bytes
    run.receivedBytes += bytes
    this.#failures = 0
    run.aliveMs = this.#options.nowMs()
    if (this.#busySinceMs === undefined) {
      this.#busySinceMs = run.aliveMs
      this.#rate.add(run.aliveMs, this.#receivedBytes - bytes)
    }
    run.isStalled = false
  }

  #failed(run: Run, cause: unknown): void {
    const { signal } = run.controller
    const hasStalled = signal.reason instanceof HubError
    if (!hasStalled && (signal.aborted || isAbort(cause, signal))) return
    const why = hasStalled ? signal.reason : cause
    const error = why instanceof Error ? why : new Error(String(why))
    this.lastError = error
    // Requests that fail together, as when the network goes away, are one failure.
    if (this.#options.nowMs() >= this.#notBeforeMs) this.#failures += 1
    const isHopeless = this.#failures >= (this.#options.maxFailures ?? defaultMaxFailures)
    if (!isTransient(error) || (isHopeless && this.#options.mayGiveUp())) {
      this.failure = error
      return
    }
    log.debug(`HTTP failed at byte ${run.position}, trying again: ${messageOf(error)}`)
    const asked = (error as { retryAfterMs?: number }).retryAfterMs ?? 0
    const pauseMs = Math.max(asked, (this.#options.backoffMs ?? defaultBackoffMs)(this.#failures))
    this.#notBeforeMs = this.#options.nowMs() + pauseMs
  }
}

/** The first `bytes` of `chunks`, and the rest. */
function split(chunks: readonly Uint8Array[], bytes: number): [Uint8Array[], Uint8Array[]] {
  const head: Uint8Array[] = []
  const tail: Uint8Array[] = []
  let left = bytes
  for (const chunk of chunks) {
    if (left >= chunk.length) head.push(chunk)
    else if (left <= 0) tail.push(chunk)
    else {
      head.push(chunk.subarray(0, left))
      tail.push(chunk.subarray(left))
    }
    left -= chunk.length
  }
  return [head, tail]
}

/** Whether trying again can help: not when the Hub refused, nor when the disk did. */
export function isTransient(error: Error): boolean {
  if ((error as { code?: string }).code === 'ERR_LLMPT_CACHE') return false
  if (!(error instanceof HubError) || error.status === undefined) return true
  return error.status === 408 || error.status === 429 || error.status >= 500
}
