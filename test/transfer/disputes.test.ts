import { describe, expect, test } from 'vitest'
import { Disputes } from '../../src/transfer/disputes.ts'

/** Whether the torrent says of a piece what the Hub says. */
type Truth = (piece: number) => boolean

/**
 * What a race does with pieces that a torrent refuses: in each pass it fetches what may be fetched again, from the Hub
 * unless `byPeers`, and has it checked.
 */
function settleAll(
  refused: readonly number[],
  isTorrentRight: Truth,
  { isHttpThere = true, byPeers = false } = {},
): { passes: number; fetched: number[]; isCondemned: boolean } {
  const disputes = new Disputes()
  const fetched: number[] = []
  let open: number[] = []
  const takeBack = (piece: number): void => {
    expect(disputes.isRepeated(piece, 'damaged')).toBe(false)
    open.push(piece)
  }
  for (const piece of refused) if (disputes.admit(piece, isHttpThere)) takeBack(piece)
  for (let passes = 0; ; passes++) {
    if (open.length === 0) {
      expect(disputes.anyWaits).toBe(false)
      return { passes, fetched, isCondemned: false }
    }
    fetched.push(...open)
    const arrived = open
    open = []
    for (const piece of arrived) {
      if (isTorrentRight(piece) || byPeers) disputes.settle(piece, !byPeers)
      else {
        // What the Hub sent had been there in the first place.
        expect(disputes.admit(piece, isHttpThere)).toBe(true)
        expect(disputes.isRepeated(piece, 'damaged')).toBe(true)
        return { passes: passes + 1, fetched, isCondemned: true }
      }
    }
    for (let piece = disputes.admitNext(isHttpThere); piece !== undefined; ) {
      takeBack(piece)
      piece = disputes.admitNext(isHttpThere)
    }
  }
}

const many = Array.from({ length: 1000 }, (_, piece) => piece)

describe('of many pieces that a torrent refuses', () => {
  test('one is fetched again at first, and the others wait', () => {
    const disputes = new Disputes()
    expect(many.filter((piece) => disputes.admit(piece, true))).toEqual([0])
    expect(disputes.isReserved(0)).toBe(true)
    expect(disputes.isWaiting(0)).toBe(false)
    expect(disputes.isReserved(1)).toBe(false)
    expect(disputes.isWaiting(1)).toBe(true)
  })

  test('all are fetched again once and in a few passes, when they were damaged', () => {
    const { passes, fetched, isCondemned } = settleAll(many, () => true)
    expect(isCondemned).toBe(false)
    expect(fetched.toSorted((a, b) => a - b)).toEqual(many)
    // One, two, four, eight; then the torrent is believed.
    expect(passes).toBe(5)
  })

  test('one is fetched again and no more, when the torrent is wrong', () => {
    expect(settleAll(many, () => false)).toEqual({ passes: 1, fetched: [0], isCondemned: true })
  })

  test('no more are fetched for nothing than there were damaged ones and one, when the torrent is wrong about the others', () => {
    const { fetched, isCondemned } = settleAll(many, (piece) => piece < 5)
    expect(isCondemned).toBe(true)
    expect(fetched.length).toBeLessThanOrEqual(5 + 6)
  })

  test('all are missing at once where there is no HTTP to ask', () => {
    expect(settleAll(many, () => true, { isHttpThere: false, byPeers: true })).toMatchObject({ passes: 1 })
  })

  test('those that wait are missing as soon as HTTP has failed', () => {
    const disputes = new Disputes()
    for (const piece of [3, 4, 5]) disputes.admit(piece, true)
    expect([disputes.admitNext(false), disputes.admitNext(false)]).toEqual([4, 5])
    expect(disputes.anyWaits).toBe(false)
  })

  test('one after the other is fetched again, when peers bring them: that proves nothing', () => {
    expect(settleAll(many.slice(0, 20), () => true, { byPeers: true })).toMatchObject({ passes: 20 })
  })
})

describe('a torrent that was right eight times', () => {
  function believed(): Disputes {
    const disputes = new Disputes()
    for (let piece = 0; piece < 8; piece++) {
      disputes.admit(piece, true)
      disputes.isRepeated(piece, 'damaged')
      disputes.settle(piece, true)
    }
    return disputes
  }

  test('is believed: peers may bring what it refuses', () => {
    const disputes = believed()
    for (const piece of [10, 11, 12]) expect(disputes.admit(piece, true)).toBe(true)
    expect(disputes.isReserved(11)).toBe(false)
  })

  test('is contradicted all the same by a piece that the Hub sends twice alike', () => {
    const disputes = believed()
    disputes.admit(10, true)
    expect(disputes.isRepeated(10, 'from the Hub')).toBe(false)
    disputes.admit(10, true)
    expect(disputes.isRepeated(10, 'from the Hub')).toBe(true)
  })
})

test('bytes that differ each time contradict nobody', () => {
  const disputes = new Disputes()
  disputes.admit(0, true)
  for (const digest of ['a', 'b', 'c', 'a']) expect(disputes.isRepeated(0, digest)).toBe(false)
})

test('with the torrent end its disputes, and who waited is told', () => {
  const disputes = new Disputes()
  for (const piece of [0, 1, 2]) disputes.admit(piece, true)
  expect(disputes.end()).toEqual([1, 2])
  expect([disputes.anyWaits, disputes.isReserved(0), disputes.isWaiting(1)]).toEqual([false, false, false])
})

describe('a piece in dispute that is there again, and that the torrent has not looked at', () => {
  const suspended = (): Disputes => {
    const disputes = new Disputes()
    for (const piece of [0, 1, 2]) disputes.admit(piece, true)
    disputes.isRepeated(0, 'from the Hub')
    disputes.suspend(0)
    return disputes
  }

  test('does not speak for the torrent: no more pieces are in dispute at once', () => {
    const disputes = suspended()
    expect([disputes.admitNext(true), disputes.admitNext(true)]).toEqual([1, undefined])
  })

  test('is compared with what was refused before, when it is refused again', () => {
    const disputes = suspended()
    disputes.admit(0, false)
    expect(disputes.isRepeated(0, 'from the Hub')).toBe(true)
  })
})
