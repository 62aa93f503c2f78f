import { describe, expect, test } from 'vitest'
import { PieceMap } from '../../src/transfer/piece-map.ts'

describe('PieceMap', () => {
  test.each([
    [1, 16384, 1, 1],
    [16384, 16384, 1, 16384],
    [16385, 16384, 2, 1],
    [32768, 16384, 2, 16384],
    [0, 16384, 0, undefined],
  ])('%i bytes in pieces of %i are %i pieces, the last one %s long', (size, pieceLength, count, last) => {
    const map = new PieceMap(size, pieceLength)
    expect(map.count).toBe(count)
    if (last !== undefined) expect(map.lengthOf(count - 1)).toBe(last)
    expect(map.isComplete).toBe(count === 0)
  })

  test('whoever brings a piece first keeps the credit, and bytes are counted by source', () => {
    const map = new PieceMap(50_000, 16384)
    expect(map.mark(0, 'http')).toBe(true)
    expect(map.mark(0, 'p2p')).toBe(false)
    expect(map.mark(3, 'p2p')).toBe(true)
    expect(map.bytes()).toEqual({ http: 16384, p2p: 50_000 - 3 * 16384 })
  })

  test('a piece outside of the file is ignored', () => {
    const map = new PieceMap(10, 16384)
    expect(map.mark(1, 'http')).toBe(false)
    expect(map.mark(-1, 'http')).toBe(false)
    expect(map.isComplete).toBe(false)
  })

  test('dropping a source takes back its pieces and no others', () => {
    const map = new PieceMap(4 * 16384, 16384)
    map.mark(0, 'http')
    map.mark(1, 'p2p')
    map.mark(2, 'p2p')
    map.mark(3, 'http')
    expect(map.isComplete).toBe(true)
    map.drop('p2p')
    expect([...map.present()]).toEqual([0, 3])
    expect(map.bytes()).toEqual({ http: 2 * 16384, p2p: 0 })
    expect(map.isComplete).toBe(false)
  })

  test('runs of missing pieces end at a present one, at the limit, and at the end of the file', () => {
    const map = new PieceMap(8 * 16384, 16384)
    map.mark(3, 'p2p')
    expect(map.endOfRun(0)).toBe(3)
    expect(map.endOfRun(0, 2)).toBe(2)
    expect(map.endOfRun(4)).toBe(8)
    expect(map.endOfRun(3)).toBe(3)
    expect(map.nextMissing(3)).toBe(4)
  })

  test('a journal of an earlier attempt gives the same map, and one of another size is refused', () => {
    const map = new PieceMap(5 * 16384, 16384)
    map.mark(1, 'http')
    map.mark(4, 'p2p')
    const again = new PieceMap(5 * 16384, 16384, map.toBytes())
    expect([...again.present()]).toEqual([1, 4])
    expect(again.bytes()).toEqual(map.bytes())
    expect(() => new PieceMap(6 * 16384, 16384, map.toBytes())).toThrow(RangeError)
  })

  test('codes that no version wrote count as missing', () => {
    const map = new PieceMap(3 * 16384, 16384, Uint8Array.of(9, 1, 255))
    expect([...map.present()]).toEqual([1])
  })
})
