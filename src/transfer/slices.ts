/**
 * Who fetches which piece from the origin. Peers that fetch from the same origin divide the pieces among themselves
 * without talking about it: each piece belongs to one of their slice ids by rendezvous hashing (the id with the highest
 * weight for that piece), so whoever knows the same ids finds the same owner, and an id that comes or goes moves no
 * pieces but its own.
 *
 * Ids are what peers say of themselves. A wrong one costs bandwidth: a piece is then fetched by nobody or by two.
 *
 * @see https://en.wikipedia.org/wiki/Rendezvous_hashing
 */
import { randomBytes } from 'node:crypto'

const idDigits = /^[0-9a-f]{16}$/

/** A new random slice id: 16 lower-case hex digits. One for each torrent, or peers could tell that two are one client. */
export function newSliceId(): string {
  return randomBytes(8).toString('hex')
}

/** The pieces of one torrent that are ours. Work is done when the set of ids changes, in proportion to what changed. */
export class SliceMap {
  readonly #own: string
  readonly #pieceCount: number
  readonly #ownWeights: Uint32Array
  /** For each piece, how many of the others come before us. */
  readonly #ahead: Uint32Array
  #others: ReadonlySet<string> = new Set()

  /**
   * Alone: every piece is ours.
   *
   * @param own 16 lower-case hex digits. @throws {TypeError} For anything else.
   */
  constructor(own: string, pieceCount: number) {
    const [high, low] = toWords(own)
    this.#own = own
    this.#pieceCount = pieceCount
    this.#ahead = new Uint32Array(pieceCount)
    this.#ownWeights = Uint32Array.from({ length: pieceCount }, (_, piece) => weightOf(high, low, piece))
  }

  /**
   * Takes the ids of the others; ours among them, and repetitions, count for nothing.
   *
   * @returns Whether the set changed.
   * @throws {TypeError} For what is not an id; nothing has changed then.
   */
  update(others: readonly string[]): boolean {
    const now = new Set(others)
    now.delete(this.#own)
    const before = this.#others
    const joined = [...now].filter((id) => !before.has(id))
    const left = [...before].filter((id) => !now.has(id))
    if (joined.length + left.length === 0) return false
    const joinedWords = joined.map(toWords)
    joined.forEach((id, index) => {
      this.#count(id, joinedWords[index] as Words, 1)
    })
    for (const id of left) this.#count(id, toWords(id), -1)
    this.#others = now
    return true
  }

  /** Whether we are to fetch a piece. `false` for what is not a piece. */
  isMine(piece: number): boolean {
    return this.#ahead[piece] === 0
  }

  #count(id: string, [high, low]: Words, change: number): void {
    const winsTies = id < this.#own
    const ownWeights = this.#ownWeights
    const ahead = this.#ahead
    for (let piece = 0; piece < this.#pieceCount; piece++) {
      const weight = weightOf(high, low, piece)
      const own = ownWeights[piece] as number
      if (weight > own || (weight === own && winsTies)) ahead[piece] = (ahead[piece] as number) + change
    }
  }
}

/** An id as two signed 32-bit integers: what the engine calculates with fastest. */
type Words = readonly [high: number, low: number]

function toWords(id: string): Words {
  if (!idDigits.test(id)) throw new TypeError(`not a slice id: ${id}`)
  return [Number.parseInt(id.slice(0, 8), 16) | 0, Number.parseInt(id.slice(8), 16) | 0]
}

/** 0 to 2^32 - 1. Part of the protocol: peers that weigh differently agree on nothing. */
function weightOf(high: number, low: number, piece: number): number {
  return mix(mix(piece ^ high) ^ low) >>> 0
}

/** MurmurHash3's finalizer: a bijection of 32 bits in which every bit of the input changes about half of the output. */
function mix(value: number): number {
  let bits = value ^ (value >>> 16)
  bits = Math.imul(bits, 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return bits ^ (bits >>> 16)
}
