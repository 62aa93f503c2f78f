import { describe, expect, test } from 'vitest'
import type { PeerSight } from '../../src/native/alerts.ts'
import { Crowd } from '../../src/transfer/crowd.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'

const count = 64
const orphanMs = 1_500

function peer(change: Partial<PeerSight> = {}): PeerSight {
  return {
    host: '127.0.0.2',
    port: 1,
    isSeed: false,
    numPieces: 0,
    downloadBytes: 0,
    downloadRate: 0,
    hashFailures: 0,
    isChoking: false,
    isInteresting: false,
    ...change,
  }
}

function rig() {
  const map = new PieceMap(count * blockBytes, blockBytes)
  const crowd = new Crowd(map, orphanMs, 0)
  const pieces = Array.from({ length: count }, (_, piece) => piece)
  const oursAt = (nowMs: number): number[] => pieces.filter((piece) => crowd.isOurs(piece, nowMs))
  return { map, crowd, pieces, oursAt }
}

const others = ['00000000000000aa', '00000000000000bb', '00000000000000cc'].map((sliceId) =>
  peer({ sliceId }),
)
/** How many have each piece, when `held` are those that anybody has. */
const having = (held: readonly number[], howMany = 1): Uint32Array =>
  Uint32Array.from({ length: count }, (_, piece) => (held.includes(piece) ? howMany : 0))

describe('a crowd', () => {
  test('is not there while only seeds and strangers to it are', () => {
    const { crowd, oursAt } = rig()
    const news = crowd.see(
      { peers: [peer({ isSeed: true, sliceId: 'a'.repeat(16) }), peer()], availability: having([]) },
      0,
    )
    expect([news.isNew, crowd.isThere, oursAt(0).length]).toEqual([false, false, count])
  })

  test('is news once, and stays one when the others have become seeds', () => {
    const { crowd } = rig()
    const availability = having([])
    expect(crowd.see({ peers: others, availability }, 0)).toEqual({ isNew: true, hasChanged: true })
    expect(crowd.see({ peers: others, availability }, 100)).toEqual({ isNew: false, hasChanged: false })
    const seeds = others.map((other) => ({ ...other, isSeed: true }))
    expect(crowd.see({ peers: seeds, availability }, 200)).toEqual({ isNew: false, hasChanged: true })
    expect(crowd.isThere).toBe(true)
  })
})

describe('from the origin we fetch', () => {
  test('our share, and nothing of it that anybody has', () => {
    const { crowd, oursAt } = rig()
    crowd.see({ peers: others, availability: having([]) }, 0)
    const ours = oursAt(0)
    expect(ours.length).toBeGreaterThan(0)
    expect(ours.length).toBeLessThan(count / 2)
    crowd.see({ peers: others, availability: having(ours.slice(0, 2)) }, 100)
    expect(oursAt(100)).toEqual(ours.slice(2))
  })

  test('whatever nobody has, when nothing new has come in sight for long', () => {
    const { crowd, oursAt } = rig()
    crowd.see({ peers: others, availability: having([0]) }, 1_000)
    expect(oursAt(1_000 + orphanMs - 1).length).toBeLessThan(count / 2)
    expect(oursAt(1_000 + orphanMs).length).toBe(count - 1)
    crowd.see({ peers: others, availability: having([0, 1]) }, 1_000 + orphanMs)
    expect(oursAt(1_000 + orphanMs).length).toBeLessThan(count / 2)
  })
})

test('peers are asked first for our share, and for what costs a seed nothing', () => {
  const { crowd, pieces } = rig()
  const seed = peer({ isSeed: true, numPieces: count })
  crowd.see({ peers: [seed, ...others], availability: having(pieces) }, 0)
  const alone = pieces.filter((piece) => crowd.isForUs(piece))
  expect(alone.length).toBeLessThan(count / 2)
  const spread = pieces.filter((piece) => !alone.includes(piece)).slice(0, 3)
  const availability = having(pieces).map((has, piece) => (spread.includes(piece) ? has + 1 : has))
  crowd.see({ peers: [seed, ...others], availability }, 100)
  expect(pieces.filter((piece) => crowd.isForUs(piece)).length).toBe(alone.length + 3)
})
