/**
 * Which pieces of a file are there, and who brought them. Pure state: no clock, no I/O.
 *
 * A piece is missing, then present, and stays present until it is taken back. A missing piece may hold blocks that
 * HTTP has written: they count as HTTP's bytes at once, and a piece with all its blocks is full, though present only
 * when somebody says so (a torrent checks it first).
 */
export type PieceSource = 'http' | 'p2p'

/** The unit in which HTTP's progress within a piece is kept, and BitTorrent's request unit. */
export const blockBytes: number = 16 * 1024

const missing = 0
const codes: Record<PieceSource, number> = { http: 1, p2p: 2 }
const names: readonly (PieceSource | undefined)[] = [undefined, 'http', 'p2p']

export class PieceMap {
  readonly sizeBytes: number
  /** A multiple of `blockBytes`, as in every torrent of ours. */
  readonly pieceLength: number
  readonly count: number
  readonly #blocksPerPiece: number
  readonly #sources: Uint8Array
  /** One byte per block: 1 for written by HTTP while its piece is missing. */
  readonly #written: Uint8Array
  /** For present pieces, how much of each HTTP brought. */
  readonly #fromHttp: Uint32Array
  #missingCount: number
  readonly #bytes: Record<PieceSource, number> = { http: 0, p2p: 0 }

  constructor(sizeBytes: number, pieceLength: number) {
    if (pieceLength % blockBytes !== 0) throw new RangeError(`${pieceLength} is not a piece length`)
    this.sizeBytes = sizeBytes
    this.pieceLength = pieceLength
    this.count = Math.ceil(sizeBytes / pieceLength)
    this.#blocksPerPiece = pieceLength / blockBytes
    this.#sources = new Uint8Array(this.count)
    this.#written = new Uint8Array(Math.ceil(sizeBytes / blockBytes))
    this.#fromHttp = new Uint32Array(this.count)
    this.#missingCount = this.count
  }

  get isComplete(): boolean {
    return this.#missingCount === 0
  }

  get isEmpty(): boolean {
    return this.#bytes.http + this.#bytes.p2p === 0
  }

  has(piece: number): boolean {
    return this.#sources[piece] !== missing
  }

  sourceOf(piece: number): PieceSource | undefined {
    return names[this.#sources[piece] ?? missing]
  }

  offsetOf(piece: number): number {
    return piece * this.pieceLength
  }

  lengthOf(piece: number): number {
    return Math.min(this.pieceLength, this.sizeBytes - this.offsetOf(piece))
  }

  /** First byte after the piece. */
  endOf(piece: number): number {
    return this.offsetOf(piece) + this.lengthOf(piece)
  }

  pieceAt(offset: number): number {
    return Math.floor(offset / this.pieceLength)
  }

  /**
   * Marks a piece present: `false` when it was there already. Whoever was first keeps the credit, also for the blocks
   * that HTTP wrote of a piece that peers complete.
   */
  mark(piece: number, source: PieceSource): boolean {
    if (piece < 0 || piece >= this.count || this.has(piece)) return false
    const fromHttp = source === 'http' ? this.lengthOf(piece) : this.#writtenBytes(piece)
    this.#clearBlocks(piece)
    this.#sources[piece] = codes[source]
    this.#fromHttp[piece] = fromHttp
    this.#missingCount -= 1
    this.#bytes.http += fromHttp
    this.#bytes.p2p += this.lengthOf(piece) - fromHttp
    return true
  }

  /** Notes bytes that HTTP wrote; only whole blocks of missing pieces count. `start` is at a block's begin. */
  write(start: number, end: number): void {
    const last = end >= this.sizeBytes ? this.#written.length : Math.floor(end / blockBytes)
    for (let block = start / blockBytes; block < last; block++) {
      if (this.#written[block] || this.has(Math.floor(block / this.#blocksPerPiece))) continue
      this.#written[block] = 1
      this.#bytes.http += this.#lengthOfBlock(block)
    }
  }

  /** Whether HTTP wrote every block of a piece that is missing. */
  isFull(piece: number): boolean {
    return !this.has(piece) && this.firstGap(piece) === undefined
  }

  /** Whether HTTP wrote any block of a piece that is missing. */
  isStarted(piece: number): boolean {
    const [from, to] = this.#blocksOf(piece)
    return this.#written.subarray(from, to).includes(1)
  }

  /** Offset of the first byte of a missing piece that is not there; `undefined` when all of it is. */
  firstGap(piece: number): number | undefined {
    if (this.has(piece)) return undefined
    const [from, to] = this.#blocksOf(piece)
    const block = this.#written.subarray(from, to).indexOf(0)
    return block === -1 ? undefined : (from + block) * blockBytes
  }

  /** Whether HTTP wrote the block around `offset`, whose piece is missing. */
  hasBlock(offset: number): boolean {
    return this.#written[Math.floor(offset / blockBytes)] === 1
  }

  /** First byte at or after `offset` that is not there, be it in a present piece or a written block. */
  endOfRun(offset: number): number {
    let at = offset
    while (at < this.sizeBytes) {
      const piece = this.pieceAt(at)
      if (this.has(piece)) at = this.endOf(piece)
      else if (this.hasBlock(at)) at = (Math.floor(at / blockBytes) + 1) * blockBytes
      else break
    }
    return Math.min(at, this.sizeBytes)
  }

  /** Takes a piece back, and all blocks of it, so that it is fetched again. */
  forget(piece: number): void {
    this.#clearBlocks(piece)
    if (!this.has(piece)) return
    const fromHttp = this.#fromHttp[piece] ?? 0
    this.#sources[piece] = missing
    this.#fromHttp[piece] = 0
    this.#missingCount += 1
    this.#bytes.http -= fromHttp
    this.#bytes.p2p -= this.lengthOf(piece) - fromHttp
  }

  /** Takes back everything `source` brought. */
  drop(source: PieceSource): void {
    for (let piece = 0; piece < this.count; piece++) {
      if (this.sourceOf(piece) === source || (source === 'http' && !this.has(piece))) this.forget(piece)
    }
  }

  /** Bytes there, by who brought them. */
  bytes(): Record<PieceSource, number> {
    return { ...this.#bytes }
  }

  /** Pieces present now. */
  *present(): Generator<number> {
    for (let piece = 0; piece < this.count; piece++) if (this.has(piece)) yield piece
  }

  /** The blocks HTTP wrote of missing pieces, as runs of `[start, end)` bytes. */
  *writtenRuns(): Generator<readonly [start: number, end: number]> {
    for (let from = this.#written.indexOf(1); from !== -1; ) {
      const gap = this.#written.indexOf(0, from)
      const to = gap === -1 ? this.#written.length : gap
      yield [from * blockBytes, Math.min(to * blockBytes, this.sizeBytes)]
      from = this.#written.indexOf(1, to)
    }
  }

  /** Which blocks of a missing piece HTTP wrote: one bit each, most significant bit first. */
  writtenBlocks(piece: number): Uint8Array {
    const [from, to] = this.#blocksOf(piece)
    const bits = new Uint8Array(Math.ceil((to - from) / 8))
    for (let block = from; block < to; block++) {
      const at = block - from
      if (this.#written[block]) bits[at >> 3] = (bits[at >> 3] ?? 0) | (0x80 >> (at & 7))
    }
    return bits
  }

  #writtenBytes(piece: number): number {
    const [from, to] = this.#blocksOf(piece)
    let bytes = 0
    for (let block = from; block < to; block++) if (this.#written[block]) bytes += this.#lengthOfBlock(block)
    return bytes
  }

  #blocksOf(piece: number): readonly [from: number, to: number] {
    const from = piece * this.#blocksPerPiece
    return [from, Math.min(from + this.#blocksPerPiece, this.#written.length)]
  }

  #lengthOfBlock(block: number): number {
    return Math.min(blockBytes, this.sizeBytes - block * blockBytes)
  }

  #clearBlocks(piece: number): void {
    const [from, to] = this.#blocksOf(piece)
    for (let block = from; block < to; block++) {
      if (!this.#written[block]) continue
      this.#written[block] = 0
      this.#bytes.http -= this.#lengthOfBlock(block)
    }
  }
}
