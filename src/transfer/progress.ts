/** What callers see of a running download. */
import type { BytesBySource } from '../values.ts'
import { RateWindow } from './rate.ts'

/** How far a transfer is. Rates in bytes per second; `bytes` counts what this call brought, and what was there before as cache. */
export interface TransferProgress {
  readonly sizeBytes: number
  readonly bytes: BytesBySource
  readonly httpRate: number
  readonly p2pRate: number
  readonly peers: number
}

/**
 * How far a call is: one of its events.
 *
 * Events come ten times a second at most, and besides whenever a file is begun, goes on to its next phase, or has been brought.
 * The last one of a call that succeeds comes when its last file is done: `files.done` is `files.total`, and the bytes of all
 * sources together are `sizeBytes`. The last one of a call that fails tells what is kept for the next one. None comes after
 * the call has settled.
 */
export interface DownloadProgress {
  /** Files complete, and files in all. */
  readonly files: { readonly done: number; readonly total: number }
  /** Bytes of all files together. */
  readonly sizeBytes: number
  /** Bytes there so far, by where they came from; `cache` is what was on this machine before. */
  readonly bytes: Readonly<BytesBySource>
  /** Bytes per second over the last three seconds, from the Hub, from peers, and from both. */
  readonly httpRate: number
  readonly p2pRate: number
  readonly rate: number
  /** How long the rest takes at that rate; 0 when nothing is left, `undefined` while nobody can tell. */
  readonly secondsLeft: number | undefined
  /** Peers connected, of all files. */
  readonly peers: number
  /** The files under way, in the order they were begun; never more than work at a time. */
  readonly active: readonly ActiveFile[]
  /** The files done since the event before this one: all events together name each file once. */
  readonly finished: readonly FinishedFile[]
}

/** A file under way. */
export interface ActiveFile {
  /** Within the repository. */
  readonly path: string
  readonly phase: Phase
  readonly progress: TransferProgress
  /** As in `DownloadProgress`, for this file at its own rate. */
  readonly secondsLeft: number | undefined
}

/** A file in its place. */
export interface FinishedFile {
  /** Within the repository. */
  readonly path: string
  readonly sizeBytes: number
  /** Where it came from; together `sizeBytes`. */
  readonly bytes: Readonly<BytesBySource>
}

/** `waiting`: another process is bringing the file. */
export type Phase = 'waiting' | 'downloading' | 'verifying'
/** What it throws ends the call, with that error; it is not called again then. */
export type ProgressListener = (progress: DownloadProgress) => void

export function noBytes(): BytesBySource {
  return { p2p: 0, http: 0, cache: 0 }
}

export function addBytes(sum: BytesBySource, more: Readonly<BytesBySource>): BytesBySource {
  return { p2p: sum.p2p + more.p2p, http: sum.http + more.http, cache: sum.cache + more.cache }
}

/** Bytes of all sources. */
export function sumOf(bytes: Readonly<BytesBySource>): number {
  return bytes.p2p + bytes.http + bytes.cache
}

/** How long `leftBytes` take at `rate` bytes per second; `undefined` when that cannot be told. */
export function secondsFor(leftBytes: number, rate: number): number | undefined {
  if (leftBytes <= 0) return 0
  return rate > 0 ? leftBytes / rate : undefined
}

/** A file under way, with what follows from its progress. */
export function activeFile(path: string, phase: Phase, progress: TransferProgress): ActiveFile {
  const { sizeBytes, bytes, httpRate, p2pRate } = progress
  return { path, phase, progress, secondsLeft: secondsFor(sizeBytes - sumOf(bytes), httpRate + p2pRate) }
}

const everyMs = 100
/** Long enough for a rate that does not jump, short enough to follow a source that fails. */
const windowMs = 3_000
/** A rate of less time than this says little. */
const rateKnownMs = 500

/** Bytes per second, once they can be told. */
export class Pace {
  readonly #window = new RateWindow(windowMs)
  #startedMs: number | undefined
  #addedMs = Number.NEGATIVE_INFINITY

  /** @param bytes A running total. */
  add(nowMs: number, bytes: number): void {
    this.#startedMs ??= nowMs
    // Files of few bytes end in thousands.
    if (nowMs - this.#addedMs < everyMs / 2) return
    this.#addedMs = nowMs
    this.#window.add(nowMs, bytes)
  }

  /** 0 until it can be told. */
  get bytesPerSecond(): number {
    const isKnown = this.#startedMs !== undefined && this.#addedMs - this.#startedMs >= rateKnownMs
    return isKnown ? this.#window.bytesPerSecond : 0
  }
}

/** Adds up the files of one call, and tells its listener often enough. */
export class ProgressTally {
  readonly #sizeBytes: number
  readonly #total: number
  readonly #nowMs: () => number
  readonly #active = new Map<string, { phase: Phase; progress: TransferProgress }>()
  readonly #http = new Pace()
  readonly #p2p = new Pace()
  #listener: ProgressListener | undefined
  #done = 0
  #bytes = noBytes()
  #finished: FinishedFile[] = []
  #toldMs = Number.NEGATIVE_INFINITY
  /** Whether anything has changed since. */
  #hasNews = false

  constructor(
    files: readonly { sizeBytes: number }[],
    listener: ProgressListener | undefined,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#total = files.length
    this.#sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
    this.#listener = listener
    this.#nowMs = nowMs
    for (const pace of [this.#http, this.#p2p]) pace.add(nowMs(), 0)
  }

  /** How far a file is that has been begun. */
  update(path: string, phase: Phase, progress: TransferProgress): void {
    if (this.#listener === undefined) return
    const isNews = this.#active.get(path)?.phase !== phase
    this.#active.set(path, { phase, progress })
    this.#tell(isNews)
  }

  /** A file is in its place. @param bytes All of it. */
  finish(path: string, bytes: Readonly<BytesBySource>): void {
    if (this.#listener === undefined) return
    this.#active.delete(path)
    this.#done += 1
    this.#bytes = addBytes(this.#bytes, bytes)
    this.#finished.push({ path, sizeBytes: sumOf(bytes), bytes })
    // What was there already is told of together: it may be thousands of files.
    this.#tell(bytes.http + bytes.p2p > 0 || this.#done === this.#total)
  }

  /** A file has failed: it is under way no more, and what there is of it is kept for the next call. */
  fail(path: string): void {
    const failed = this.#active.get(path)
    if (failed !== undefined) {
      this.#active.delete(path)
      this.#bytes = addBytes(this.#bytes, failed.progress.bytes)
      this.#hasNews = true
    }
    if (this.#hasNews) this.#tell(true)
  }

  #tell(isAtOnce: boolean): void {
    const listener = this.#listener
    const now = this.#nowMs()
    this.#hasNews = true
    if (listener === undefined || (!isAtOnce && now - this.#toldMs < everyMs)) return
    this.#toldMs = now
    this.#hasNews = false
    const finished = this.#finished
    this.#finished = []
    try {
      listener(this.#progress(now, finished))
    } catch (error) {
      this.#listener = undefined
      throw error
    }
  }

  #progress(now: number, finished: readonly FinishedFile[]): DownloadProgress {
    let bytes = this.#bytes
    let peers = 0
    const active: ActiveFile[] = []
    for (const [path, { phase, progress }] of this.#active) {
      bytes = addBytes(bytes, progress.bytes)
      peers += progress.peers
      active.push(activeFile(path, phase, progress))
    }
    this.#http.add(now, bytes.http)
    this.#p2p.add(now, bytes.p2p)
    const [httpRate, p2pRate] = [this.#http.bytesPerSecond, this.#p2p.bytesPerSecond]
    const rate = httpRate + p2pRate
    return {
      files: { done: this.#done, total: this.#total },
      sizeBytes: this.#sizeBytes,
      bytes,
      httpRate,
      p2pRate,
      rate,
      secondsLeft: secondsFor(this.#sizeBytes - sumOf(bytes), rate),
      peers,
      active,
      finished,
    }
  }
}

/** Tells of a call that found everything in its place. */
export function tellThere(
  files: readonly { readonly path: string; readonly sizeBytes: number }[],
  listener: ProgressListener | undefined,
): void {
  const tally = new ProgressTally(files, listener)
  for (const { path, sizeBytes } of files) tally.finish(path, { ...noBytes(), cache: sizeBytes })
}

/** A transfer that is a call by itself, at the rates it tells. */
export function progressOfOne(path: string, phase: Phase, progress: TransferProgress): DownloadProgress {
  const { sizeBytes, bytes, httpRate, p2pRate, peers } = progress
  const file = activeFile(path, phase, progress)
  const isDone = file.secondsLeft === 0
  return {
    files: { done: isDone ? 1 : 0, total: 1 },
    sizeBytes,
    bytes,
    httpRate,
    p2pRate,
    rate: httpRate + p2pRate,
    secondsLeft: file.secondsLeft,
    peers,
    active: [file],
    finished: [],
  }
}
