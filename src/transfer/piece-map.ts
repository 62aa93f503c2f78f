/**
 * Which pieces of a file are there, and who brought them. Pure state: no clock, no I/O.
 *
 * A piece is missing, then present, and then stays present until `drop` takes everything back that one
 * source brought. HTTP claims pieces before it fetches them, so that the swarm leaves them alone.
 */
export type PieceSource = 'http' | 'p2p'

const missing = 0
const codes: Record<PieceSource, number> = { http: 1, p2p: 2 }
const names: readonly (PieceSource | undefined)[] = [undefined, 'http', 'p2p']

export class PieceMap {
  readonly sizeBytes: number
  readonly pieceLength: number
  readonly count: number
  #sources: Uint8Array
  #missingCount: number
  readonly #bytes: Record<PieceSource, number> = { http: 0, p2p: 0 }

  /** @param sources One byte per piece as `toBytes` gave it, to go on from an earlier attempt. */
  constructor(sizeBytes: number, pieceLength: number, sources?: Uint8Array) {
    this.sizeBytes = sizeBytes
    this.pieceLength = pieceLength
    this.count = Math.ceil(sizeBytes / pieceLength)
    if (sources !== undefined && sources.length !== this.count) {
      throw new RangeError(`${sources.length} sources for ${this.count} pieces`)
    }
    this.#sources = sources?.map((code) => (code <= 2 ? code : missing)) ?? new Uint8Array(this.count)
    this.#missingCount = this.count
    for (let piece = 0; piece < this.count; piece++) {
      const source = names[this.#sources[piece] ?? missing]
      if (source === undefined) continue
      this.#missingCount -= 1
      this.#bytes[source] += this.lengthOf(piece)
    }
  }

  get isComplete(): boolean {
    return this.#missingCount === 0
  }

  has(piece: number): boolean {
    return this.#sources[piece] !== missing
  }

  offsetOf(piece: number): number {
    return piece * this.pieceLength
  }

  lengthOf(piece: number): number {
    return Math.min(this.pieceLength, this.sizeBytes - this.offsetOf(piece))
  }

  /** Marks a piece present. Whoever was first keeps the credit: `false` when it was there already. */
  mark(piece: number, source: PieceSource): boolean {
    if (piece < 0 || piece >= this.count || this.has(piece)) return false
    this.#sources[piece] = codes[source]
    this.#missingCount -= 1
    this.#bytes[source] += this.lengthOf(piece)
    return true
  }

  /** Forgets one piece, so that it is fetched again. */
  forget(piece: number): void {
    const source = names[this.#sources[piece] ?? missing]
    if (source === undefined) return
    this.#sources[piece] = missing
    this.#missingCount += 1
    this.#bytes[source] -= this.lengthOf(piece)
  }

  /** Forgets everything `source` brought. */
  drop(source: PieceSource): void {
    for (let piece = 0; piece < this.count; piece++) {
      if (this.#sources[piece] === codes[source]) this.forget(piece)
    }
  }

  /** Bytes present, by who brought them. */
  bytes(): Record<PieceSource, number> {
    return { ...this.#bytes }
  }

  /** The first missing piece at or after `from`. */
  nextMissing(from = 0): number | undefined {
    const piece = this.#sources.indexOf(missing, from)
    return piece === -1 ? undefined : piece
  }

  /** The end (exclusive) of the run of missing pieces that starts at `piece`, at most `maxPieces` long. */
  endOfRun(piece: number, maxPieces: number = this.count): number {
    const limit = Math.min(this.count, piece + maxPieces)
    let end = piece
    while (end < limit && !this.has(end)) end += 1
    return end
  }

  /** Pieces present now. */
  *present(): Generator<number> {
    for (let piece = 0; piece < this.count; piece++) if (this.has(piece)) yield piece
  }

  /** One byte per piece, for the journal. */
  toBytes(): Uint8Array {
    return this.#sources.slice()
  }
}
