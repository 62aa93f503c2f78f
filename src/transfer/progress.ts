/** What callers see of a running download. */
import type { BytesBySource } from '../values.ts'

/** How far a transfer is. Rates in bytes per second; `bytes` counts what this call brought, and what was there before as cache. */
export interface TransferProgress {
  readonly sizeBytes: number
  readonly bytes: BytesBySource
  readonly httpRate: number
  readonly p2pRate: number
  readonly peers: number
}

export interface DownloadProgress {
  /** Files complete, and files in all. */
  readonly files: { readonly done: number; readonly total: number }
  /** Bytes of all files together. */
  readonly sizeBytes: number
  /** Bytes there so far, by where they came from; `cache` is what was on this machine before. */
  readonly bytes: Readonly<BytesBySource>
  /** Bytes per second, from the Hub and from peers. */
  readonly httpRate: number
  readonly p2pRate: number
  readonly peers: number
  /** The files under way. */
  readonly active: readonly {
    readonly path: string
    readonly phase: Phase
    readonly progress: TransferProgress
  }[]
}

/** `waiting`: another process is bringing the file. */
export type Phase = 'waiting' | 'downloading' | 'verifying'
export type ProgressListener = (progress: DownloadProgress) => void

export function noBytes(): BytesBySource {
  return { p2p: 0, http: 0, cache: 0 }
}

export function addBytes(sum: BytesBySource, more: Readonly<BytesBySource>): BytesBySource {
  return { p2p: sum.p2p + more.p2p, http: sum.http + more.http, cache: sum.cache + more.cache }
}

/** Adds up the files of one call. */
export class ProgressTally {
  readonly #sizeBytes: number
  readonly #total: number
  readonly #listener: ProgressListener | undefined
  readonly #active = new Map<string, { phase: Phase; progress: TransferProgress }>()
  #done = 0
  #bytes = noBytes()

  constructor(files: readonly { sizeBytes: number }[], listener: ProgressListener | undefined) {
    this.#total = files.length
    this.#sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
    this.#listener = listener
  }

  update(path: string, phase: Phase, progress: TransferProgress): void {
    this.#active.set(path, { phase, progress })
    this.#tell()
  }

  finish(path: string, bytes: Readonly<BytesBySource>): void {
    this.#active.delete(path)
    this.#done += 1
    this.#bytes = addBytes(this.#bytes, bytes)
    this.#tell()
  }

  #tell(): void {
    if (this.#listener === undefined) return
    const active = [...this.#active].map(([path, entry]) => ({ path, ...entry }))
    this.#listener({
      files: { done: this.#done, total: this.#total },
      sizeBytes: this.#sizeBytes,
      bytes: active.reduce((sum, { progress }) => addBytes(sum, progress.bytes), this.#bytes),
      httpRate: active.reduce((sum, { progress }) => sum + progress.httpRate, 0),
      p2pRate: active.reduce((sum, { progress }) => sum + progress.p2pRate, 0),
      peers: active.reduce((sum, { progress }) => sum + progress.peers, 0),
      active,
    })
  }
}
