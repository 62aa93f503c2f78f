/**
 * Others who fetch the same file at the same time, and who of us takes which piece from the origin. Pure but for the clock
 * it is given: it is told what is seen (`see`), and answers.
 *
 * Once a crowd, always a crowd: a peer that has just become a seed still shares the origin's bytes with those who have not.
 */
import type { PeerSight } from '../native/alerts.ts'
import type { PieceMap } from './piece-map.ts'
import { newSliceId, SliceMap } from './slices.ts'

/** What a swarm shows: who is connected, and for each piece how many of them have it. */
export interface Sight {
  readonly peers: readonly PeerSight[]
  readonly availability: Uint32Array
}

/** What a look changed. */
export interface CrowdNews {
  /** The first of them was seen. */
  readonly isNew: boolean
  /** Pieces belong to others than before. */
  readonly hasChanged: boolean
}

export class Crowd {
  /** Under which name this download shares the origin: 16 hex digits. */
  readonly ownId: string = newSliceId()
  readonly #map: PieceMap
  readonly #orphanMs: number
  readonly #slices: SliceMap
  #isThere = false
  #availability: Uint32Array = new Uint32Array()
  /** Connected peers that have everything. */
  #seeds = 0
  #inSight = 0
  #inSightMs: number

  /** @param orphanMs How long nothing new may come in sight before pieces of others are anybody's. */
  constructor(map: PieceMap, orphanMs: number, nowMs: number) {
    this.#map = map
    this.#orphanMs = orphanMs
    this.#slices = new SliceMap(this.ownId, map.count)
    this.#inSightMs = nowMs
  }

  /** Whether anybody else who fetches the file has been seen. */
  get isThere(): boolean {
    return this.#isThere
  }

  see({ peers, availability }: Sight, nowMs: number): CrowdNews {
    this.#availability = availability
    this.#seeds = peers.reduce((sum, peer) => sum + (peer.isSeed ? 1 : 0), 0)
    const ids = peers.flatMap(({ isSeed, sliceId }) => (isSeed || sliceId === undefined ? [] : [sliceId]))
    const isNew = ids.length > 0 && !this.#isThere
    this.#isThere ||= isNew
    const hasChanged = this.#slices.update(ids)
    let inSight = 0
    for (let piece = 0; piece < this.#map.count; piece++) {
      if (this.#map.has(piece) || this.#isSpread(piece)) inSight += 1
    }
    if (inSight > this.#inSight) this.#inSightMs = nowMs
    this.#inSight = inSight
    return { isNew, hasChanged }
  }

  /** Whether a piece is for us to fetch from the origin: nobody in sight has it, and it is ours or nobody brings it. */
  isOurs(piece: number, nowMs: number): boolean {
    if ((this.#availability[piece] ?? 0) > 0) return false
    return this.#slices.isMine(piece) || nowMs - this.#inSightMs >= this.#orphanMs
  }

  /** Whether peers should bring us a piece before others: it is ours to spread, or asking for it costs the seeds nothing. */
  isForUs(piece: number): boolean {
    return this.#slices.isMine(piece) || this.#isSpread(piece)
  }

  /** Whether any peer has the piece that is no seed. */
  #isSpread(piece: number): boolean {
    return (this.#availability[piece] ?? 0) > this.#seeds
  }
}
