/**
 * Those who read a file while it grows, as the race sees them: what they wait for comes first, from both hands, and peers'
 * bytes are theirs once the torrent is tied to the file.
 */
import type { ByteRange, RangeOpener } from './http-leg.ts'
import type { PartialFile } from './partial-file.ts'
import type { PieceMap } from './piece-map.ts'
import type { SwarmLeg } from './swarm-leg.ts'
import { TieCheck } from './tie-check.ts'

/** Somebody who reads the file while it grows. */
export interface Audience {
  /** Missing bytes that somebody waits for. */
  wanted(): readonly number[]
  /** Says how to tell whether a piece's bytes on disk may be others a moment later. */
  watch(isInFlux: (piece: number) => boolean): void
  /** The torrent's bytes are the Hub's; says how to tell which pieces it has found right. */
  trustPeers(isFoundRight: (piece: number) => boolean): void
}

export interface ReadersOptions {
  readonly audience: Audience
  readonly map: PieceMap
  readonly file: PartialFile
  /** Opens the Hub's ranges, to compare peers' bytes with; without it only a torrent that is tied already is trusted. */
  readonly open: RangeOpener | undefined
  /** Whether a request is bringing the piece. */
  readonly isClaimed: (piece: number) => boolean
  readonly nowMs: () => number
  readonly signal: AbortSignal
  /** The torrent's bytes are not the Hub's. */
  readonly onContradiction: () => Promise<void>
}

/** How many pieces from where somebody reads the swarm is to bring first. */
const urgentPieces = 4
/** A piece that is wanted later than another has this much more time, in ms. */
const deadlineStepMs = 100

export class Readers {
  readonly #options: ReadersOptions
  #tie: TieCheck | undefined
  /** The leg whose torrent is known to be right. */
  #trusted: SwarmLeg | undefined

  constructor(options: ReadersOptions) {
    this.#options = options
  }

  /** The first piece that somebody waits for and no request is bringing; else one that is on its way. */
  get wantedPiece(): number | undefined {
    const { audience, map, isClaimed } = this.#options
    const wanted = audience.wanted().map((offset) => map.pieceAt(offset))
    return wanted.find((piece) => !isClaimed(piece)) ?? wanted[0]
  }

  /**
   * Which requests may be given up, so that HTTP can begin where somebody waits for bytes that nobody is bringing: no
   * request, and no peer of a trusted torrent has them. `undefined` when all that is wanted is coming.
   */
  spare(leg: SwarmLeg | undefined): ((range: ByteRange) => boolean) | undefined {
    const { audience, map, isClaimed } = this.#options
    const wanted = audience.wanted()
    const isComing = (piece: number): boolean =>
      isClaimed(piece) || (leg !== undefined && leg === this.#trusted && (leg.availability[piece] ?? 0) > 0)
    if (wanted.every((offset) => isComing(map.pieceAt(offset)))) return undefined
    return ({ start, end }) => !wanted.some((offset) => offset >= start && offset < end)
  }

  /** Asks the swarm for what is wanted, and finds out whether it may be given to readers; called by the race's tick. */
  serve(leg: SwarmLeg): void {
    const { audience, map, open } = this.#options
    const wanted = audience.wanted()
    if (leg.offer.isTied) this.#trust(leg)
    else if (wanted.length > 0 && open !== undefined && this.#tie?.leg !== leg)
      this.#tie = this.#newTie(leg, open)
    const urgent = [...(this.#tie?.wanted() ?? [])]
    for (const offset of wanted) {
      const first = map.pieceAt(offset)
      for (let piece = first; piece < Math.min(first + urgentPieces, map.count); piece++) urgent.push(piece)
    }
    urgent.forEach((piece, rank) => {
      if (!map.has(piece)) leg.hurry(piece, rank * deadlineStepMs)
    })
    this.#tie?.step()
  }

  #newTie(leg: SwarmLeg, open: RangeOpener): TieCheck {
    const { map, file, signal, nowMs, onContradiction } = this.#options
    return new TieCheck({
      map,
      file,
      leg,
      open,
      signal,
      nowMs,
      onTied: () => this.#trust(leg),
      onContradiction,
    })
  }

  #trust(leg: SwarmLeg): void {
    if (this.#trusted !== leg) this.#options.audience.trustPeers((piece) => leg.hasSeen(piece))
    this.#trusted = leg
  }
}
