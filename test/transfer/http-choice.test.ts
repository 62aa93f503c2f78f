import { describe, expect, test } from 'vitest'
import { chooseRange, type HttpChoice } from '../../src/transfer/http-choice.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'

const mebibyte = 1024 * 1024
const pieceLength = 256 * 1024
const count = 256

/** What HTTP asks for, as pieces `[first, end)`; of a file of 64 MiB of which nothing is there. */
function chosen(change: Partial<HttpChoice> = {}, present: readonly number[] = []): number[] | undefined {
  const map = new PieceMap(count * pieceLength, pieceLength)
  for (const piece of present) map.mark(piece, 'http')
  const range = chooseRange({
    map,
    mode: 'all',
    maxBytes: 4 * mebibyte,
    remainingBytes: (count - present.length) * pieceLength,
    isAlone: false,
    isAmongCrowd: false,
    firstPiece: 0,
    wantedPiece: undefined,
    somewhere: () => 0,
    isReserved: () => false,
    isClaimed: () => false,
    isOurs: () => false,
    isBusy: () => false,
    ...change,
  })
  return range && [range.start / pieceLength, range.end / pieceLength]
}

const among =
  (...pieces: number[]) =>
  (piece: number): boolean =>
    pieces.includes(piece)
const below =
  (end: number) =>
  (piece: number): boolean =>
    piece < end

describe('of all that is missing HTTP takes', () => {
  test.each<[string, Partial<HttpChoice>, number[] | undefined]>([
    ['as much as it may', {}, [0, 16]],
    ['what follows what is there', { firstPiece: 10 }, [10, 26]],
    ['what follows what others are bringing', { isClaimed: below(5) }, [5, 21]],
    ['nothing when all of it is on its way', { isClaimed: () => true }, undefined],
    ['what somebody waits for first', { wantedPiece: 100 }, [100, 116]],
    ['an eighth of the rest at most', { maxBytes: 32 * mebibyte }, [0, 32]],
    ['a mebibyte at least', { remainingBytes: 2 * mebibyte }, [0, 4]],
    ['a small rest at once', { remainingBytes: 3 * mebibyte, isAlone: true }, [0, 12]],
    ['a small rest in parts, beside other requests', { remainingBytes: 3 * mebibyte }, [0, 4]],
    ['a piece at a time among a crowd', { isAmongCrowd: true }, [0, 1]],
    ['what peers are not at', { isBusy: below(7) }, [7, 23]],
    ['what peers are at, when somebody waits for it', { isBusy: below(7), wantedPiece: 3 }, [3, 4]],
    ['what peers are at, when there is nothing else', { isBusy: () => true }, [0, 4]],
  ])('%s', (_what, change, pieces) => {
    expect(chosen(change)).toEqual(pieces)
  })
})

describe('what only HTTP may bring comes first', () => {
  test.each(['rest', 'all', 'slice', 'scatter'] as const)('when it does %s', (mode) => {
    expect(chosen({ mode, isReserved: among(50, 51, 80), somewhere: () => 200 })).toEqual([50, 52])
  })

  test('and is not asked for twice', () => {
    const isReserved = among(50, 51, 80)
    expect(chosen({ mode: 'rest', isReserved, isClaimed: among(50, 51) })).toEqual([80, 81])
    expect(chosen({ mode: 'rest', isReserved, isClaimed: isReserved })).toBeUndefined()
  })
})

describe('a crowd', () => {
  test('has each fetch its own pieces, from anywhere', () => {
    const isOurs = among(3, 90, 200)
    expect(chosen({ mode: 'slice', isOurs, somewhere: () => 60 })).toEqual([90, 91])
    expect(chosen({ mode: 'slice', isOurs, somewhere: () => 60, isClaimed: among(90) })).toEqual([200, 201])
    expect(chosen({ mode: 'slice' })).toBeUndefined()
  })

  test('that may be about to come has everybody begin elsewhere', () => {
    expect(chosen({ mode: 'scatter', somewhere: () => 123 })).toEqual([123, 124])
  })
})

test('HTTP that rests asks for nothing', () => {
  expect(chosen({ mode: 'rest' })).toBeUndefined()
})
