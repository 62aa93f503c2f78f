/**
 * Pieces that a torrent refuses although they are on disk in full, and how it is found out who is wrong. Pure: it is told
 * what happens, and answers.
 *
 * A refused piece is fetched again, by HTTP alone, and the Hub has the last word: when it sends other bytes, the piece was
 * damaged; when it sends the same ones, the torrent contradicts it. A torrent that is wrong may be wrong everywhere, and what
 * HTTP brought is not to come twice. So one piece is in dispute at first, the others wait, and for each about which the torrent
 * was right there may be one more at a time. A torrent that was right as often as it takes to tie one to a file is believed:
 * all it refuses is missing, and anybody may bring it. However much is damaged, it is all fetched again in a few passes.
 */
import { tieSamples } from './tie-check.ts'

export class Disputes {
  /** The bytes that were refused last, as a digest; empty until they have been looked at. */
  readonly #open = new Map<number, string>()
  readonly #waiting = new Set<number>()
  /** What was refused last of pieces that are there again, though the torrent has not looked at them. */
  readonly #suspended = new Map<number, string>()
  /** How often the torrent was right. */
  #rights = 0

  /** Whether HTTP alone is to bring the piece. */
  isReserved(piece: number): boolean {
    return !this.#isBelieved && this.#open.has(piece)
  }

  /** Whether the piece was refused while others are in dispute: it shares their fate. */
  isWaiting(piece: number): boolean {
    return this.#waiting.has(piece)
  }

  get anyWaits(): boolean {
    return this.#waiting.size > 0
  }

  /**
   * The torrent refuses a piece.
   *
   * @param isHttpThere Without it there is nobody to ask: what is refused is missing.
   * @returns Whether it is in dispute from now on; otherwise it waits.
   */
  admit(piece: number, isHttpThere: boolean): boolean {
    if (this.#open.has(piece)) return true
    if (isHttpThere && !this.#hasRoom) {
      this.#waiting.add(piece)
      return false
    }
    this.#waiting.delete(piece)
    this.#open.set(piece, this.#suspended.get(piece) ?? '')
    this.#suspended.delete(piece)
    return true
  }

  /** A piece that has waited for long enough, and is in dispute from now on. */
  admitNext(isHttpThere: boolean): number | undefined {
    const [piece] = this.#waiting
    return piece !== undefined && this.admit(piece, isHttpThere) ? piece : undefined
  }

  /**
   * What the bytes of a piece in dispute are.
   *
   * @returns Whether they are the same that were refused before: the torrent contradicts who sent them. If not, the piece
   * is to be fetched again.
   */
  isRepeated(piece: number, digest: string): boolean {
    const before = this.#open.get(piece)
    this.#open.set(piece, digest)
    return before === digest
  }

  /** The piece is there, with bytes that the torrent accepts. @param isByHttp Whether the Hub sent them. */
  settle(piece: number, isByHttp: boolean): void {
    this.#waiting.delete(piece)
    this.#suspended.delete(piece)
    // That peers bring what their torrent accepts says nothing of who is right.
    if (this.#open.delete(piece) && isByHttp) this.#rights += 1
  }

  /** The piece is there, and the torrent did not look at it: nobody is right or wrong until it does. */
  suspend(piece: number): void {
    this.#waiting.delete(piece)
    const refused = this.#open.get(piece)
    if (refused === undefined) return
    this.#open.delete(piece)
    this.#suspended.set(piece, refused)
  }

  /** There is no torrent any more. @returns The pieces that waited. */
  end(): number[] {
    const waiting = [...this.#waiting]
    this.#open.clear()
    this.#waiting.clear()
    this.#suspended.clear()
    return waiting
  }

  get #isBelieved(): boolean {
    return this.#rights >= tieSamples
  }

  get #hasRoom(): boolean {
    return this.#isBelieved || this.#open.size <= this.#rights
  }
}
