import { describe, expect, test } from 'vitest'
import type { ByteRange, RangeOpener } from '../../src/transfer/http-leg.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'
import { Readers, type ReadersOptions } from '../../src/transfer/readers.ts'
import type { SwarmLeg } from '../../src/transfer/swarm-leg.ts'

const pieceLength = 256 * 1024
const count = 20
const at = (piece: number): number => piece * pieceLength

/** Readers who wait for these pieces. */
function rig(pieces: readonly number[], change: Partial<ReadersOptions> = {}) {
  const map = new PieceMap(count * pieceLength, pieceLength)
  const trusted: ((piece: number) => boolean)[] = []
  const readers = new Readers({
    audience: {
      wanted: () => pieces.map((piece) => at(piece) + 5),
      watch: () => {},
      trustPeers: (isFoundRight) => trusted.push(isFoundRight),
    },
    map,
    file: {} as ReadersOptions['file'],
    open: undefined,
    isClaimed: () => false,
    nowMs: () => 0,
    signal: new AbortController().signal,
    onContradiction: async () => {},
    ...change,
  })
  return { map, trusted, readers }
}

function leg(isTied: boolean, available: readonly number[] = []) {
  const hurried: [piece: number, deadlineMs: number][] = []
  const fake = {
    offer: { isTied },
    availability: Uint32Array.from({ length: count }, (_, piece) => (available.includes(piece) ? 1 : 0)),
    hurry: (piece: number, deadlineMs: number) => hurried.push([piece, deadlineMs]),
    hasSeen: (piece: number) => piece === 7,
  }
  return { leg: fake as unknown as SwarmLeg, hurried }
}

const whole = (first: number, end: number): ByteRange => ({ start: at(first), end: at(end) })

describe('what is wanted next', () => {
  test('is the first piece that nobody is bringing', () => {
    expect(rig([3, 9]).readers.wantedPiece).toBe(3)
    expect(rig([3, 9], { isClaimed: (piece) => piece === 3 }).readers.wantedPiece).toBe(9)
  })

  test('is what is on its way, when all of it is', () => {
    expect(rig([3, 9], { isClaimed: () => true }).readers.wantedPiece).toBe(3)
  })

  test('is nothing, when nobody waits', () => {
    expect(rig([]).readers.wantedPiece).toBeUndefined()
  })
})

describe('a request may be given up for somebody who waits', () => {
  test('when it does not bring what others wait for', () => {
    const isSpare = rig([3, 9], { isClaimed: (piece) => piece === 9 }).readers.spare(undefined)
    expect(isSpare?.(whole(12, 16))).toBe(true)
    expect(isSpare?.(whole(8, 12))).toBe(false)
  })

  test('not when all that is wanted is coming', () => {
    expect(rig([3, 9], { isClaimed: () => true }).readers.spare(undefined)).toBeUndefined()
    expect(rig([]).readers.spare(undefined)).toBeUndefined()
  })

  test('not when peers of a trusted torrent have it', () => {
    const { readers } = rig([3, 9])
    const tied = leg(true, [3, 9])
    expect(readers.spare(tied.leg)).toBeDefined()
    readers.serve(tied.leg)
    expect(readers.spare(tied.leg)).toBeUndefined()
    // Trust is in a torrent, not in the swarm that comes after it.
    expect(readers.spare(leg(true, [3, 9]).leg)).toBeDefined()
  })
})

describe('the swarm', () => {
  test('is asked for the pieces from where somebody reads, the nearest first', () => {
    const { map, readers } = rig([3, 18])
    map.mark(4, 'http')
    const { leg: swarm, hurried } = leg(true)
    readers.serve(swarm)
    expect(hurried).toEqual([
      [3, 0],
      [5, 200],
      [6, 300],
      [18, 400],
      [19, 500],
    ])
  })

  test('is trusted once when its torrent is tied, about what the torrent found right', () => {
    const { trusted, readers } = rig([])
    const { leg: swarm } = leg(true)
    readers.serve(swarm)
    readers.serve(swarm)
    expect(trusted).toHaveLength(1)
    expect([trusted[0]?.(7), trusted[0]?.(8)]).toEqual([true, false])
  })

  test('is not trusted otherwise, and the places to compare are wanted, too', () => {
    const open: RangeOpener = async () => {
      throw new Error('nothing is there to be compared')
    }
    const { trusted, readers } = rig([3], { open })
    const { leg: swarm, hurried } = leg(false)
    readers.serve(swarm)
    expect(trusted).toEqual([])
    const pieces = hurried.map(([piece]) => piece)
    for (const piece of [0, count - 1, 3, 4, 5, 6]) expect(pieces).toContain(piece)
  })

  test('is not compared with the Hub for nobody', () => {
    const { readers } = rig([], { open: async () => Promise.reject(new Error('asked')) })
    const { leg: swarm, hurried } = leg(false)
    readers.serve(swarm)
    expect(hurried).toEqual([])
  })
})
