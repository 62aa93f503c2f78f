import { expect, test } from 'vitest'
import { newSliceId, SliceMap } from '../../src/transfer/slices.ts'

/** The same ids every time, so that a bound that holds once holds always. */
function someIds(count: number): string[] {
  let state = 1n
  return Array.from({ length: count }, () => {
    // Knuth's MMIX generator; its low bits are poor, as those of a bad source of ids would be.
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn
    return state.toString(16).padStart(16, '0')
  })
}

const consecutive = Array.from({ length: 10 }, (_, index) => index.toString(16).padStart(16, '0'))

/** Who has each piece, by the maps of all of them. */
function owners(pieceCount: number, ids: readonly string[]): string[] {
  const owner: string[] = []
  for (const id of new Set(ids)) {
    const map = new SliceMap(id, pieceCount)
    map.update(ids)
    for (const piece of mine(map, pieceCount)) owner[piece] = id
  }
  return owner
}

function mine(map: SliceMap, pieceCount: number): number[] {
  return Array.from({ length: pieceCount }, (_, piece) => piece).filter((piece) => map.isMine(piece))
}

test('a new id is 16 lower-case hex digits, and another one each time', () => {
  const ids = Array.from({ length: 100 }, newSliceId)
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{16}$/)
  expect(new Set(ids).size).toBe(100)
})

test('one id alone owns every piece', () => {
  const [id] = someIds(1) as [string]
  expect(new Set(owners(1000, [id]))).toEqual(new Set([id]))
})

// Peers of every version must agree: another result here is another protocol.
test.each([
  [0, 'ffffffffffffffff'],
  [1, '0123456789abcdef'],
  [2, '0000000000000000'],
  [3, '0000000000000000'],
  [1000, '11e8bca5ecd8af9f'],
  [16_383, '0123456789abcdef'],
])('piece %i has the owner that every other client gives it', (piece, owner) => {
  const ids = ['0000000000000000', '0123456789abcdef', '11e8bca5ecd8af9f', 'ffffffffffffffff']
  const map = new SliceMap(owner, piece + 1)
  map.update(ids)
  expect(map.isMine(piece)).toBe(true)
})

test.each([
  ['2 random ids', someIds(2)],
  ['3 random ids', someIds(3)],
  ['10 random ids', someIds(10)],
  ['50 random ids', someIds(50)],
  ['10 consecutive ids', consecutive],
  ['10 ids that differ in their first digits', consecutive.map((id) => id.slice(8) + id.slice(0, 8))],
])('%s have equal shares, up to what chance allows', (_, ids) => {
  const pieceCount = 4000
  const counts = new Map(ids.map((id) => [id, 0]))
  for (const owner of owners(pieceCount, ids)) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  const share = 1 / ids.length
  // The standard deviation of a share when each piece is drawn at random.
  const deviation = Math.sqrt((share * (1 - share)) / pieceCount)
  for (const count of counts.values()) {
    expect(Math.abs(count / pieceCount - share)).toBeLessThan(4 * deviation)
  }
})

test('neighbouring pieces are owned independently of each other', () => {
  const ids = someIds(4)
  const owner = owners(4000, ids)
  const sameAsNext = owner.filter((id, piece) => id === owner[piece + 1]).length
  expect(sameAsNext / 4000).toBeGreaterThan(0.22)
  expect(sameAsNext / 4000).toBeLessThan(0.28)
})

test('the order of ids and their repetition change no owner', () => {
  const ids = someIds(12)
  const shuffled = [...ids.slice(5).reverse(), ...ids]
  expect(owners(1000, shuffled)).toEqual(owners(1000, ids))
})

test('when an id leaves, its pieces and no others get new owners, and they spread over all that stay', () => {
  const ids = someIds(10)
  const [gone, ...stay] = ids as [string, ...string[]]
  const before = owners(3000, ids)
  const after = owners(3000, stay)
  const heirs = new Map<string, number>()
  for (const [piece, owner] of before.entries()) {
    const now = after[piece] as string
    if (owner !== gone) expect(now).toBe(owner)
    else heirs.set(now, (heirs.get(now) ?? 0) + 1)
  }
  expect(heirs.size).toBe(9)
  for (const count of heirs.values()) expect(count).toBeLessThan(70)
})

const noIds = ['', '0123', '0123456789ABCDEF', '0123456789abcdeg', '0123456789abcdef0', ' 123456789abcdef']
test.each(noIds)('"%s" is no id', (id) => {
  expect(() => new SliceMap(id, 10)).toThrow(TypeError)
  const map = new SliceMap(consecutive[0] as string, 10)
  expect(() => map.update([consecutive[1] as string, id])).toThrow(TypeError)
  expect(mine(map, 10)).toHaveLength(10)
  expect(map.update([])).toBe(false)
})

test('a map has the pieces that a new one has, whoever came and went before', () => {
  const ids = someIds(8)
  const [own, a, b, c, d, e, f, g] = ids as [string, string, string, string, string, string, string, string]
  const map = new SliceMap(own, 500)
  for (const others of [[], [a], [a, b, c], [b, c, d, e], [f], [a, b, c, d, e, f, g], [], [g, a]]) {
    map.update(others)
    const expected = owners(500, [own, ...others]).flatMap((owner, piece) => (owner === own ? [piece] : []))
    expect(mine(map, 500)).toEqual(expected)
  }
})

test('the maps of all peers together have each piece once', () => {
  const ids = someIds(7)
  const times = new Uint8Array(1000)
  for (const own of ids) {
    const map = new SliceMap(own, 1000)
    map.update(ids.filter((id) => id !== own))
    for (const piece of mine(map, 1000)) times[piece] = (times[piece] ?? 0) + 1
  }
  expect(times.every((count) => count === 1)).toBe(true)
})

test('an update tells whether the set changed, and neither order, repetition nor our own id is a change', () => {
  const [own, a, b] = someIds(3) as [string, string, string]
  const map = new SliceMap(own, 100)
  expect(map.update([])).toBe(false)
  expect(map.update([own])).toBe(false)
  expect(map.update([a, b])).toBe(true)
  expect(map.update([b, own, a, a])).toBe(false)
  expect(map.update([b])).toBe(true)
  expect(map.update([a])).toBe(true)
  expect(map.update([])).toBe(true)
  expect(mine(map, 100)).toHaveLength(100)
})

test('what is not a piece is nobody’s', () => {
  const map = new SliceMap(consecutive[0] as string, 10)
  for (const piece of [-1, 10, 0.5, Number.NaN]) expect(map.isMine(piece)).toBe(false)
})

test('a hundred peers and 16384 pieces are divided within a tick', () => {
  const [own, ...others] = someIds(100) as [string, ...string[]]
  const map = new SliceMap(own, 16_384)
  const begin = performance.now()
  map.update(others)
  // Some 20 ms on two busy cores.
  expect(performance.now() - begin).toBeLessThan(500)
  expect(mine(map, 16_384).length).toBeGreaterThan(0)
})
