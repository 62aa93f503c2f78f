import { describe, expect, test } from 'vitest'
import { blockBytes, PieceMap, type PieceSource } from '../../src/transfer/piece-map.ts'
import { rounds } from '../support/rounds.ts'

const pieceLength = 4 * blockBytes
/** Three pieces; the last one has one whole block and 100 bytes. */
const sizeBytes = 2 * pieceLength + blockBytes + 100

/** Offset of a block of a piece. */
function at(piece: number, block = 0): number {
  return piece * pieceLength + block * blockBytes
}

function newMap(): PieceMap {
  return new PieceMap(sizeBytes, pieceLength)
}

describe('the pieces of a file', () => {
  test.each([
    [1, 16384, 1, 1],
    [16384, 16384, 1, 16384],
    [16385, 16384, 2, 1],
    [32768, 16384, 2, 16384],
    [0, 16384, 0, undefined],
  ])('%i bytes in pieces of %i are %i pieces, the last one %s long', (size, length, count, last) => {
    const map = new PieceMap(size, length)
    expect(map.count).toBe(count)
    if (last !== undefined) expect(map.lengthOf(count - 1)).toBe(last)
    expect(map.isComplete).toBe(count === 0)
  })

  test('consist of whole blocks', () => {
    expect(() => new PieceMap(100_000, 3 * blockBytes)).not.toThrow()
    expect(() => new PieceMap(100_000, blockBytes + 1)).toThrow(RangeError)
    expect(() => new PieceMap(100_000, blockBytes / 2)).toThrow(RangeError)
  })

  test('lie one behind the other', () => {
    const map = newMap()
    expect([0, 1, 2].map((piece) => map.offsetOf(piece))).toEqual([0, at(1), at(2)])
    expect([0, 1, 2].map((piece) => map.endOf(piece))).toEqual([at(1), at(2), sizeBytes])
    expect([0, at(1) - 1, at(1), sizeBytes - 1].map((offset) => map.pieceAt(offset))).toEqual([0, 0, 1, 2])
  })

  test('outside of the file are ignored', () => {
    const map = newMap()
    expect([map.mark(3, 'http'), map.mark(-1, 'http')]).toEqual([false, false])
    expect(map.bytes()).toEqual({ http: 0, p2p: 0 })
  })
})

describe('credit', () => {
  test('goes to whoever brings a piece first', () => {
    const map = newMap()
    expect(map.mark(0, 'http')).toBe(true)
    expect(map.mark(0, 'p2p')).toBe(false)
    expect(map.sourceOf(0)).toBe('http')
    expect(map.mark(2, 'p2p')).toBe(true)
    expect(map.bytes()).toEqual({ http: pieceLength, p2p: blockBytes + 100 })
  })

  test('for a block that HTTP wrote is given at once', () => {
    const map = newMap()
    map.write(0, at(0, 2))
    expect(map.bytes()).toEqual({ http: 2 * blockBytes, p2p: 0 })
    expect(map.isEmpty).toBe(false)
    expect([...map.present()]).toEqual([])
  })

  test('of a piece that peers complete is divided', () => {
    const map = newMap()
    map.write(at(2, 1), sizeBytes)
    map.mark(2, 'p2p')
    expect(map.sourceOf(2)).toBe('p2p')
    expect(map.bytes()).toEqual({ http: 100, p2p: blockBytes })
  })

  test('of a piece that HTTP completes is all of it', () => {
    const map = newMap()
    map.write(0, at(0, 3))
    map.mark(0, 'http')
    expect(map.bytes()).toEqual({ http: pieceLength, p2p: 0 })
  })

  test('is not given twice for the same block, nor for one of a present piece', () => {
    const map = newMap()
    map.mark(1, 'p2p')
    map.write(0, at(2))
    map.write(0, at(2))
    expect(map.bytes()).toEqual({ http: pieceLength, p2p: pieceLength })
  })

  test('is given for whole blocks only, the short last one among them', () => {
    const map = newMap()
    map.write(0, blockBytes - 1)
    map.write(at(2, 1), sizeBytes - 1)
    expect(map.isEmpty).toBe(true)
    map.write(0, blockBytes)
    map.write(at(2, 1), sizeBytes)
    expect(map.bytes().http).toBe(blockBytes + 100)
  })

  test('is taken back with the piece, on both sides', () => {
    const map = newMap()
    map.write(0, at(0, 1))
    map.mark(0, 'p2p')
    map.mark(1, 'http')
    map.forget(0)
    expect(map.bytes()).toEqual({ http: pieceLength, p2p: 0 })
    expect([...map.present()]).toEqual([1])
    expect(map.firstGap(0)).toBe(0)
  })
})

describe('forgetting', () => {
  test('a missing piece takes back the blocks of it', () => {
    const map = newMap()
    map.write(0, at(1, 1))
    map.forget(0)
    expect([...map.writtenRuns()]).toEqual([[at(1), at(1, 1)]])
    expect(map.bytes().http).toBe(blockBytes)
  })

  test('makes a complete file incomplete', () => {
    const map = newMap()
    for (const piece of [0, 1, 2]) map.mark(piece, 'p2p')
    expect(map.isComplete).toBe(true)
    map.forget(2)
    expect(map.isComplete).toBe(false)
    expect(map.mark(2, 'http')).toBe(true)
    expect(map.isComplete).toBe(true)
  })

  test('what peers brought leaves the rest, blocks too', () => {
    const map = newMap()
    map.mark(0, 'http')
    map.mark(1, 'p2p')
    map.write(at(2), at(2, 1))
    map.drop('p2p')
    expect([...map.present()]).toEqual([0])
    expect(map.bytes()).toEqual({ http: pieceLength + blockBytes, p2p: 0 })
  })

  test('what HTTP brought takes its blocks, too', () => {
    const map = newMap()
    map.mark(0, 'http')
    map.mark(1, 'p2p')
    map.write(at(2), at(2, 1))
    map.drop('http')
    expect([...map.present()]).toEqual([1])
    expect(map.bytes()).toEqual({ http: 0, p2p: pieceLength })
    expect([...map.writtenRuns()]).toEqual([])
  })
})

describe('the blocks of a piece', () => {
  test('show where it goes on', () => {
    const map = newMap()
    expect([map.firstGap(0), map.isStarted(0), map.isFull(0)]).toEqual([0, false, false])
    map.write(at(0, 1), at(0, 2))
    expect([map.firstGap(0), map.isStarted(0), map.isFull(0)]).toEqual([0, true, false])
    map.write(0, at(0, 1))
    expect([map.firstGap(0), map.isStarted(0), map.isFull(0)]).toEqual([at(0, 2), true, false])
    map.write(at(0, 2), at(1))
    expect([map.firstGap(0), map.isStarted(0), map.isFull(0)]).toEqual([undefined, true, true])
    expect([map.isStarted(1), map.has(0)]).toEqual([false, false])
  })

  test('are of no interest once it is present', () => {
    const map = newMap()
    map.write(0, at(1))
    map.mark(0, 'http')
    expect([map.firstGap(0), map.isStarted(0), map.isFull(0), map.hasBlock(0)]).toEqual([
      undefined,
      false,
      false,
      false,
    ])
  })

  test('fill the last piece with a short one', () => {
    const map = newMap()
    map.write(at(2), at(2, 1))
    expect([map.isFull(2), map.firstGap(2)]).toEqual([false, at(2, 1)])
    map.write(at(2, 1), sizeBytes)
    expect([map.isFull(2), map.firstGap(2)]).toEqual([true, undefined])
  })

  test('are known by any of their bytes', () => {
    const map = newMap()
    map.write(at(0, 1), at(0, 2))
    const offsets = [0, blockBytes - 1, blockBytes, 2 * blockBytes - 1, 2 * blockBytes, sizeBytes]
    expect(offsets.map((offset) => map.hasBlock(offset))).toEqual([false, false, true, true, false, false])
  })

  test('are told as bits, the first one highest, the rest of the last byte zero', () => {
    const map = new PieceMap(10 * blockBytes, 10 * blockBytes)
    map.write(0, blockBytes)
    map.write(7 * blockBytes, 10 * blockBytes)
    expect([...map.writtenBlocks(0)]).toEqual([0b1000_0001, 0b1100_0000])
    expect([...newMap().writtenBlocks(2)]).toEqual([0])
  })

  test('are told as runs, across pieces and to the end of the file', () => {
    const map = newMap()
    map.write(at(0, 3), at(1, 1))
    map.write(at(1, 2), at(1, 3))
    map.write(at(2, 1), sizeBytes)
    expect([...map.writtenRuns()]).toEqual([
      [at(0, 3), at(1, 1)],
      [at(1, 2), at(1, 3)],
      [at(2, 1), sizeBytes],
    ])
  })
})

describe('endOfRun', () => {
  test('is the offset itself where nothing is', () => {
    expect([0, 5, at(1), sizeBytes].map((offset) => newMap().endOfRun(offset))).toEqual([
      0,
      5,
      at(1),
      sizeBytes,
    ])
  })

  test('goes through pieces and blocks to the first gap', () => {
    const map = newMap()
    map.write(at(0, 2), at(1))
    map.mark(1, 'p2p')
    map.write(at(2), at(2, 1))
    const offsets = [at(0, 2) - 1, at(0, 2), at(0, 2) + 1, at(1) + 7, at(2) + 7]
    expect(offsets.map((offset) => map.endOfRun(offset))).toEqual([
      at(0, 2) - 1,
      at(2, 1),
      at(2, 1),
      at(2, 1),
      at(2, 1),
    ])
  })

  test('is never behind the end of the file', () => {
    const map = newMap()
    map.write(at(2), sizeBytes)
    expect(map.endOfRun(at(2))).toBe(sizeBytes)
    map.mark(2, 'http')
    expect(map.endOfRun(at(2))).toBe(sizeBytes)
  })
})

/** The same by brute force: who brought each block, and who each present piece. */
class Model {
  readonly blocks: (PieceSource | undefined)[]
  readonly sources: (PieceSource | undefined)[]
  readonly #sizeBytes: number
  readonly #perPiece: number

  constructor(size: number, length: number) {
    this.#sizeBytes = size
    this.#perPiece = length / blockBytes
    this.blocks = Array.from({ length: Math.ceil(size / blockBytes) })
    this.sources = Array.from({ length: Math.ceil(size / length) })
  }

  pieceOf(block: number): number {
    return Math.floor(block / this.#perPiece)
  }

  of(piece: number): number[] {
    return [...this.blocks.keys()].filter((block) => this.pieceOf(block) === piece)
  }

  mark(piece: number, source: PieceSource): boolean {
    if (piece < 0 || piece >= this.sources.length || this.sources[piece] !== undefined) return false
    this.sources[piece] = source
    for (const block of this.of(piece)) if (source === 'http') this.blocks[block] = 'http'
    for (const block of this.of(piece)) this.blocks[block] ??= source
    return true
  }

  write(start: number, end: number): void {
    for (const block of this.blocks.keys()) {
      const from = block * blockBytes
      const isInside = from >= start && Math.min(from + blockBytes, this.#sizeBytes) <= end
      if (isInside && this.sources[this.pieceOf(block)] === undefined) this.blocks[block] = 'http'
    }
  }

  forget(piece: number): void {
    this.sources[piece] = undefined
    for (const block of this.of(piece)) this.blocks[block] = undefined
  }

  drop(source: PieceSource): void {
    for (const piece of this.sources.keys()) {
      const found = this.sources[piece] ?? 'http'
      if (found === source) this.forget(piece)
    }
  }

  bytesOf(source: PieceSource): number {
    return [...this.blocks.keys()]
      .filter((block) => this.blocks[block] === source)
      .reduce((sum, block) => sum + Math.min(blockBytes, this.#sizeBytes - block * blockBytes), 0)
  }

  hasBlock(block: number): boolean {
    return this.blocks[block] !== undefined && this.sources[this.pieceOf(block)] === undefined
  }

  endOfRun(offset: number): number {
    let end = offset
    while (end < this.#sizeBytes) {
      const block = Math.floor(end / blockBytes)
      if (this.blocks[block] === undefined) break
      end = Math.min((block + 1) * blockBytes, this.#sizeBytes)
    }
    return end
  }
}

/** Knuth's MMIX generator: the same numbers at every run. */
function numbers(seed: number): (below: number) => number {
  let state = BigInt(seed) * 7919n + 1n
  return (below) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn
    return Number(state >> 33n) % below
  }
}

function compare(map: PieceMap, model: Model): void {
  const pieces = [...model.sources.keys()]
  const blocks = [...model.blocks.keys()]
  const offsets = blocks.map((block) => Math.min(block * blockBytes + (block % 3), map.sizeBytes - 1))
  const gapOf = (piece: number): number | undefined =>
    model.of(piece).find((block) => model.blocks[block] === undefined)
  expect({
    bytes: map.bytes(),
    isEmpty: map.isEmpty,
    isComplete: map.isComplete,
    sources: pieces.map((piece) => map.sourceOf(piece)),
    present: [...map.present()],
    full: pieces.filter((piece) => map.isFull(piece)),
    started: pieces.filter((piece) => map.isStarted(piece)),
    gaps: pieces.map((piece) => map.firstGap(piece)),
    written: blocks.filter((block) => map.hasBlock(block * blockBytes)),
    ends: offsets.map((offset) => map.endOfRun(offset)),
    runBlocks: [...map.writtenRuns()].flatMap(([start, end]) =>
      blocks.filter((block) => block * blockBytes >= start && block * blockBytes < end),
    ),
    bits: pieces.map((piece) => Buffer.from(map.writtenBlocks(piece)).toString('hex')),
  }).toEqual({
    bytes: { http: model.bytesOf('http'), p2p: model.bytesOf('p2p') },
    isEmpty: model.blocks.every((source) => source === undefined),
    isComplete: model.sources.every((source) => source !== undefined),
    sources: model.sources,
    present: pieces.filter((piece) => model.sources[piece] !== undefined),
    full: pieces.filter((piece) => model.sources[piece] === undefined && gapOf(piece) === undefined),
    started: pieces.filter((piece) => model.of(piece).some((block) => model.hasBlock(block))),
    gaps: pieces.map((piece) => {
      const gap = model.sources[piece] === undefined ? gapOf(piece) : undefined
      return gap === undefined ? undefined : gap * blockBytes
    }),
    written: blocks.filter((block) => model.hasBlock(block)),
    ends: offsets.map((offset) => model.endOfRun(offset)),
    runBlocks: blocks.filter((block) => model.hasBlock(block)),
    bits: pieces.map((piece) => bitsOf(model.of(piece).map((block) => model.hasBlock(block)))),
  })
}

function bitsOf(flags: readonly boolean[]): string {
  const bytes = Array.from({ length: Math.ceil(flags.length / 8) }, (_, byte) =>
    Array.from({ length: 8 }, (_, bit) => (flags[byte * 8 + bit] ? '1' : '0')).join(''),
  )
  return bytes.map((bits) => Number.parseInt(bits, 2).toString(16).padStart(2, '0')).join('')
}

test.each(Array.from({ length: rounds(12, 200) }, (_, seed) => seed))(
  'any sequence of operations counts like a naive model (seed %i)',
  (seed) => {
    const random = numbers(seed)
    const blocksPerPiece = 1 + random(10)
    const size = blockBytes * (1 + random(25)) - random(2) * random(blockBytes)
    const map = new PieceMap(size, blocksPerPiece * blockBytes)
    const model = new Model(size, blocksPerPiece * blockBytes)
    const sourceAt = (index: number): PieceSource => (index === 0 ? 'http' : 'p2p')
    for (let step = 0; step < 30; step++) {
      const piece = random(map.count + 2) - 1
      const start = random(model.blocks.length) * blockBytes
      const kind = random(20)
      if (kind < 5) {
        const source = sourceAt(random(2))
        expect(map.mark(piece, source)).toBe(model.mark(piece, source))
      } else if (kind < 16) {
        const end = Math.min(size, start + random(3 * blocksPerPiece * blockBytes))
        map.write(start, end)
        model.write(start, end)
      } else if (kind < 19) {
        const taken = Math.floor(start / map.pieceLength)
        map.forget(taken)
        model.forget(taken)
      } else {
        const source = sourceAt(random(2))
        map.drop(source)
        model.drop(source)
      }
      compare(map, model)
    }
  },
)
