/** Which bytes HTTP asks for next, by what it works on. Pure, as the rules in `plan.ts` are. */
import type { ByteRange } from './http-leg.ts'
import type { PieceMap } from './piece-map.ts'
import { type HttpMode, pickRange } from './plan.ts'

export interface HttpChoice {
  readonly map: PieceMap
  readonly mode: HttpMode
  /** What a request may take at most, by how fast it is. */
  readonly maxBytes: number
  readonly remainingBytes: number
  /** Whether no other request is under way. */
  readonly isAlone: boolean
  /** Whether others who fetch the file are connected. */
  readonly isAmongCrowd: boolean
  /** Where all that is before is there. */
  readonly firstPiece: number
  /** What somebody waits for. */
  readonly wantedPiece: number | undefined
  /** A piece at random. */
  readonly somewhere: () => number
  /** Whether only HTTP may bring a piece. */
  readonly isReserved: (piece: number) => boolean
  /** Whether a request is bringing it. */
  readonly isClaimed: (piece: number) => boolean
  /** Whether it is for us to fetch from the origin. */
  readonly isOurs: (piece: number) => boolean
  /** Whether peers are bringing it. */
  readonly isBusy: (piece: number) => boolean
}

const smallRunBytes = 1024 * 1024
/** What is not worth more than one request. */
const smallRestBytes = 4 * 1024 * 1024
/** A request of a crowd: small, so that a piece can be passed on soon. */
const sliceBytes = 256 * 1024

/** What to ask for now, from a block's begin; `undefined`: nothing. */
export function chooseRange(choice: HttpChoice): ByteRange | undefined {
  const { map, mode, somewhere, isReserved, isClaimed, isOurs } = choice
  const pick = (from: number, maxBytes: number, mayTake: (piece: number) => boolean): ByteRange | undefined =>
    pickRange({ map, from, maxBytes, mayTake: (piece) => !isClaimed(piece) && mayTake(piece) })
  const reserved = pick(0, smallRunBytes, isReserved)
  if (reserved !== undefined) return reserved
  switch (mode) {
    case 'rest':
      return undefined
    case 'slice':
      return pick(somewhere(), sliceBytes, isOurs)
    case 'scatter':
      return pick(somewhere(), sliceBytes, () => true)
    case 'all':
      return chooseOfAll(choice, pick)
  }
}

type Pick = (from: number, maxBytes: number, mayTake: (piece: number) => boolean) => ByteRange | undefined

function chooseOfAll(choice: HttpChoice, pick: Pick): ByteRange | undefined {
  const { isAlone, remainingBytes, wantedPiece, isBusy } = choice
  const from = Math.max(choice.firstPiece, wantedPiece ?? 0)
  // Whatever a crowd is short of, the others are short of too, and may have it from us.
  if (choice.isAmongCrowd) return pick(from, sliceBytes, () => true)
  // Ever smaller shares towards the end, so that all requests end together; a small rest is not worth sharing.
  const isSmallRest = isAlone && remainingBytes <= smallRestBytes
  const share = Math.min(choice.maxBytes, Math.max(smallRunBytes, remainingBytes / 8))
  return (
    pick(from, isSmallRest ? remainingBytes : share, (piece) => !isBusy(piece) || piece === wantedPiece) ??
    // What peers are at, as a last resort: whoever is first wins.
    pick(from, smallRunBytes, () => true)
  )
}
