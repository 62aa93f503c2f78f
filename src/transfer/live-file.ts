/**
 * A file that can be read while it grows. Bytes are let out when they are on disk, nobody writes there any more, and
 * they can be trusted: what HTTP brought at once (the Hub's own bytes), what peers brought when their torrent is tied
 * to the file and found them right. The last block of the file waits for the digest of all of it.
 *
 * What a reader was given can still turn out wrong, when a tied torrent lied or the disk did: such a reader fails,
 * whatever comes in the place of those bytes.
 */
import { IntegrityError } from '../errors.ts'
import { blockBytes, type PieceMap, type PieceSource } from './piece-map.ts'
import type { Audience } from './readers.ts'

export class LiveFile implements Audience {
  /** Where it lies while it grows; a descriptor opened here stays good when it gets its name. */
  readonly path: string
  readonly sizeBytes: number
  readonly #map: PieceMap
  readonly #readers = new Set<LiveReader>()
  #isFoundRight: (piece: number) => boolean = () => false
  #isInFlux: (piece: number) => boolean = () => false
  #isVerified = false
  #failure: { readonly error: unknown } | undefined

  constructor(path: string, map: PieceMap) {
    this.path = path
    this.sizeBytes = map.sizeBytes
    this.#map = map
  }

  /** A new reader of `[start, end)`; close it. */
  reader(start: number, end: number): LiveReader {
    const reader = new LiveReader(this, start, end, () => this.#readers.delete(reader))
    this.#readers.add(reader)
    if (this.#failure !== undefined) reader.fail(this.#failure.error)
    return reader
  }

  wanted(): readonly number[] {
    const missing: number[] = []
    for (const reader of this.#readers) {
      const first = reader.isWaiting ? this.#map.endOfRun(reader.at) : reader.end
      if (first < reader.end) missing.push(first)
    }
    return missing
  }

  watch(isInFlux: (piece: number) => boolean): void {
    this.#isInFlux = isInFlux
  }

  trustPeers(isFoundRight: (piece: number) => boolean): void {
    this.#isFoundRight = isFoundRight
    this.changed()
  }

  /** Peers of another torrent have to earn it anew. */
  distrustPeers(): void {
    this.#isFoundRight = () => false
  }

  /** Something has arrived. */
  changed(): void {
    for (const reader of [...this.#readers]) reader.look()
  }

  /** What the piece held was not what the file holds: whoever was given any of it has been misled. */
  retract(piece: number): void {
    const start = this.#map.offsetOf(piece)
    const misled = [...this.#readers].filter((reader) => reader.hasRead(start, this.#map.endOf(piece)))
    for (const reader of misled) {
      reader.fail(
        new IntegrityError(
          `bytes from ${start} on, which were handed over before all was verified, were wrong`,
        ),
      )
    }
  }

  /** The digest matched. */
  finish(): void {
    this.#isVerified = true
    this.changed()
  }

  /** It will not be finished. */
  fail(error: unknown): void {
    this.#failure ??= { error }
    for (const reader of [...this.#readers]) reader.fail(error)
  }

  /** The end of what may be let out from `offset` on; `offset` itself when nothing may. */
  readableEnd(offset: number): number {
    if (this.#isVerified) return this.sizeBytes
    const map = this.#map
    const lastBlock = Math.floor((this.sizeBytes - 1) / blockBytes) * blockBytes
    let at = offset
    while (at < lastBlock) {
      const piece = map.pieceAt(at)
      const source = map.sourceOf(piece)
      if (source !== undefined && this.#isGood(piece, source)) at = map.endOf(piece)
      else if (source === undefined && map.hasBlock(at) && !this.#isInFlux(piece))
        at = (Math.floor(at / blockBytes) + 1) * blockBytes
      else break
    }
    return Math.max(offset, Math.min(at, lastBlock))
  }

  #isGood(piece: number, source: PieceSource): boolean {
    return source === 'http' || (this.#isFoundRight(piece) && !this.#isInFlux(piece))
  }
}

/** Somebody's way through a growing file: states reading, waiting, failed; closed by its owner. */
export class LiveReader {
  readonly #file: LiveFile
  readonly #start: number
  readonly end: number
  readonly #onClose: () => void
  /** First byte that has not been let out. */
  at: number
  #wake: (() => void) | undefined
  #failure: { readonly error: unknown } | undefined

  /** @param onClose Called by `close`. Use `LiveFile.reader`. */
  constructor(file: LiveFile, start: number, end: number, onClose: () => void) {
    this.#file = file
    this.#start = this.at = start
    this.end = end
    this.#onClose = onClose
  }

  get isWaiting(): boolean {
    return this.#wake !== undefined
  }

  hasRead(start: number, end: number): boolean {
    return this.#start < end && this.at > start
  }

  /**
   * Waits for the next bytes, at most `maxBytes`, and counts them as let out.
   *
   * @returns Their end; they begin where the last ones ended. They stay what they are unless `throwIfFailed` throws.
   * @throws What the reader or the file failed with; the signal's reason.
   */
  async advance(maxBytes: number, signal: AbortSignal): Promise<number> {
    for (;;) {
      signal.throwIfAborted()
      this.throwIfFailed()
      const end = Math.min(this.#file.readableEnd(this.at), this.at + maxBytes, this.end)
      if (end > this.at) {
        this.at = end
        return end
      }
      await this.#wait(signal)
    }
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  /** There may be more to read. */
  look(): void {
    if (this.#wake !== undefined && this.#file.readableEnd(this.at) > this.at) this.#wake()
  }

  fail(error: unknown): void {
    this.#failure ??= { error }
    this.#wake?.()
  }

  /** Idempotent. */
  close(): void {
    this.#onClose()
  }

  async #wait(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      signal.addEventListener('abort', this.#wake)
    })
    if (this.#wake !== undefined) signal.removeEventListener('abort', this.#wake)
    this.#wake = undefined
  }
}
