import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'
import type { SwarmLeg } from '../../src/transfer/swarm-leg.ts'
import { TieCheck, type TieCheckOptions, tieSamples } from '../../src/transfer/tie-check.ts'
import { type Answer, type RangeOrigin, startRangeOrigin } from '../support/range-origin.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 4 * blockBytes

interface Setup {
  readonly sizeBytes?: number
  readonly answer?: Answer
  readonly options?: Partial<TieCheckOptions>
  /** Bytes that differ on our disk from what the Hub has. */
  readonly wrongAt?: readonly number[]
}

/** A file that peers brought, the Hub it is compared with, and what the check said of it. */
class Rig implements AsyncDisposable {
  readonly map: PieceMap
  readonly origin: RangeOrigin
  readonly check: TieCheck
  readonly controller = new AbortController()
  /** Pieces the torrent has found right. */
  readonly seen = new Set<number>()
  nowMs = 1_000_000
  tied = 0
  contradicted = 0
  readonly #file: PartialFile
  readonly #folder: AsyncDisposable

  constructor(map: PieceMap, file: PartialFile, origin: RangeOrigin, folder: AsyncDisposable, setup: Setup) {
    this.map = map
    this.origin = origin
    this.#file = file
    this.#folder = folder
    // Nothing else of a leg is used.
    const leg = { hasSeen: (piece: number) => this.seen.has(piece) } as SwarmLeg
    this.check = new TieCheck({
      map,
      file,
      leg,
      open: origin.open,
      signal: this.controller.signal,
      pick: numbers(),
      nowMs: () => this.nowMs,
      onTied: () => {
        this.tied += 1
      },
      onContradiction: async () => {
        this.contradicted += 1
      },
      ...setup.options,
    })
  }

  /** All pieces, from one source. */
  bring(source: 'http' | 'p2p', pieces: Iterable<number> = this.all()): void {
    for (const piece of pieces) this.map.mark(piece, source)
  }

  all(): number[] {
    return Array.from({ length: this.map.count }, (_, piece) => piece)
  }

  /** Steps as the race's ticks do, until it is so. */
  async until(isSo: () => boolean): Promise<void> {
    for (const start = performance.now(); !isSo(); await sleep(1)) {
      if (performance.now() - start > 10_000) throw new Error(`it did not come true: ${isSo}`)
      this.check.step()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.controller.abort()
    await this.origin[Symbol.asyncDispose]()
    await this.#file[Symbol.asyncDispose]()
    await this.#folder[Symbol.asyncDispose]()
  }
}

async function rig(setup: Setup = {}): Promise<Rig> {
  const { sizeBytes = 32 * pieceLength + 5, wrongAt = [] } = setup
  const content = new Uint8Array(randomBytes(sizeBytes))
  const origin = await startRangeOrigin(content, setup.answer)
  const ours = Uint8Array.from(content)
  for (const at of wrongAt) ours[at] = ~(ours[at] as number)
  const folder = await temporaryDirectory()
  const path = join(folder.path, 'partial')
  await writeFile(path, ours)
  const file = await PartialFile.open(path, true)
  return new Rig(new PieceMap(sizeBytes, pieceLength), file, origin, folder, setup)
}

/** For what is not to happen: much longer than a request takes here. */
async function aMoment(): Promise<void> {
  await sleep(10)
}

/** The same numbers at every run, spread over the file. */
function numbers(): (count: number) => number {
  let at = 0
  return (count) => {
    at += 1
    return Math.floor(((at * 0.618_033_988_7) % 1) * count)
  }
}

describe('what is compared', () => {
  test('are several whole blocks, the first and the last of the file among them', async () => {
    await using it = await rig()
    it.bring('p2p')
    await it.until(() => it.tied > 0)
    const asked = it.origin.requests.map(({ start, end }) => [start, end] as const)
    const last = Math.floor(it.map.sizeBytes / blockBytes) * blockBytes
    expect(asked).toContainEqual([0, blockBytes])
    expect(asked).toContainEqual([last, it.map.sizeBytes])
    expect(new Set(asked.map(([start]) => start)).size).toBe(tieSamples)
    for (const [start, end] of asked) {
      expect(start % blockBytes).toBe(0)
      expect(end).toBe(Math.min(start + blockBytes, it.map.sizeBytes))
    }
  })

  test.each([
    [1, 1],
    [blockBytes, 1],
    [blockBytes + 1, 2],
    [5 * blockBytes, 5],
    [tieSamples * blockBytes, tieSamples],
    [20 * blockBytes, tieSamples],
  ])('is all of a file of %i bytes that has no more than %i blocks', async (sizeBytes, blocks) => {
    await using it = await rig({ sizeBytes })
    it.bring('p2p')
    await it.until(() => it.tied > 0)
    expect(it.origin.requests).toHaveLength(blocks)
  })

  test('is wanted until it is there', async () => {
    await using it = await rig()
    const wanted = [...it.check.wanted()]
    expect(wanted).toHaveLength(tieSamples)
    expect(wanted).toEqual(expect.arrayContaining([0, it.map.count - 1]))
    it.bring('p2p', [0])
    expect([...it.check.wanted()]).toEqual(wanted.filter((piece) => piece !== 0))
    it.bring('p2p')
    expect([...it.check.wanted()]).toEqual([])
  })

  test('depends on chance', async () => {
    await using one = await rig({ options: { pick: undefined } })
    await using other = await rig({ options: { pick: undefined } })
    // Six of 128 blocks each: that they are the same by chance happens to nobody.
    expect([...one.check.wanted()].join() === [...other.check.wanted()].join()).toBe(false)
  })
})

describe('the torrent is tied', () => {
  test('once, when all places are the same', async () => {
    await using it = await rig()
    it.bring('p2p')
    await it.until(() => it.tied > 0)
    for (let tick = 0; tick < 10; tick++) it.check.step()
    await aMoment()
    expect([it.tied, it.contradicted, it.origin.requests.length]).toEqual([1, 0, tieSamples])
  })

  test('not before the last place is there', async () => {
    await using it = await rig()
    const last = it.map.count - 1
    it.bring('p2p', it.all().slice(0, -1))
    await it.until(() => it.origin.requests.length === tieSamples - 1 && it.origin.openCount === 0)
    expect([...it.check.wanted()]).toEqual([last])
    expect(it.tied).toBe(0)
    it.bring('p2p', [last])
    await it.until(() => it.tied === 1)
  })

  test("by the Hub's own bytes, where it found them right, without asking again", async () => {
    await using it = await rig()
    it.bring('http')
    it.check.step()
    expect(it.tied).toBe(0)
    for (const piece of it.all().slice(0, -1)) it.seen.add(piece)
    it.check.step()
    expect(it.tied).toBe(0)
    it.seen.add(it.map.count - 1)
    it.check.step()
    expect(it.tied).toBe(1)
    expect(it.origin.requests).toHaveLength(0)
  })

  test('by both together', async () => {
    await using it = await rig()
    const even = it.all().filter((piece) => piece % 2 === 0)
    it.bring('http', even)
    for (const piece of even) it.seen.add(piece)
    it.bring('p2p')
    await it.until(() => it.tied === 1)
    for (const { start } of it.origin.requests) expect(it.map.sourceOf(it.map.pieceAt(start))).toBe('p2p')
  })
})

describe('a difference', () => {
  test.each([
    ['in the first byte', 0],
    ['in the last byte', 32 * pieceLength + 4],
  ])('%s contradicts it, once, and it is never tied', async (_name, wrongAt) => {
    await using it = await rig({ wrongAt: [wrongAt] })
    it.bring('p2p')
    // The place that differs is asked for once more.
    await it.until(() => it.origin.requests.length === tieSamples + 1 && it.origin.openCount === 0)
    await it.until(() => it.contradicted > 0)
    for (let tick = 0; tick < 10; tick++) it.check.step()
    await aMoment()
    expect([it.tied, it.contradicted, it.origin.requests.length]).toEqual([0, 1, tieSamples + 1])
  })

  test('in several places contradicts it once', async () => {
    await using it = await rig({ sizeBytes: 2 * blockBytes, wrongAt: [0, blockBytes] })
    it.bring('p2p')
    await it.until(() => it.contradicted > 0)
    await it.until(() => it.origin.openCount === 0)
    await aMoment()
    expect(it.contradicted).toBe(1)
  })

  test('that is taken back meanwhile is no question any more', async () => {
    let answer: () => void = () => {}
    const asked = new Promise<void>((resolve) => {
      answer = resolve
    })
    await using it = await rig({
      sizeBytes: 100,
      wrongAt: [50],
      answer: async (request) => {
        await asked
        await request.send()
      },
    })
    it.bring('p2p')
    await it.until(() => it.origin.requests.length === 1)
    it.map.forget(0)
    answer()
    await it.until(() => it.origin.openCount === 0)
    await aMoment()
    expect([it.tied, it.contradicted]).toEqual([0, 0])
  })

  test('is not looked for when the race is over', async () => {
    await using it = await rig({ wrongAt: [0] })
    it.bring('p2p')
    it.controller.abort()
    it.check.step()
    await aMoment()
    expect([it.origin.requests.length, it.contradicted]).toEqual([0, 0])
  })
})

describe('a Hub that does not answer the question', () => {
  test.each<[string, Answer]>([
    ['because it refuses', (request) => request.refuse(503)],
    [
      'because the connection is cut',
      async (request) => {
        await request.send(1_000)
        request.cut()
      },
    ],
  ])('%s is asked again, and contradicts nothing', async (_name, spoilt) => {
    await using it = await rig({
      answer: (request, index) => (index < tieSamples ? spoilt(request, index) : request.send()),
    })
    it.bring('p2p')
    await it.until(() => {
      it.nowMs += 50
      return it.tied > 0
    })
    expect(it.contradicted).toBe(0)
    expect(it.origin.requests.length).toBeGreaterThan(tieSamples)
  })

  test('with all that was asked for, as a shorter range, contradicts nothing', async () => {
    let isShort = true
    await using it = await rig({
      sizeBytes: 2 * blockBytes,
      options: {
        open: async ({ start, end, signal }) =>
          await it.origin.open({ start, end: isShort ? end - 1 : end, signal }),
      },
    })
    it.bring('p2p')
    await it.until(() => it.origin.requests.length === 2 && it.origin.openCount === 0)
    await aMoment()
    expect(it.contradicted).toBe(0)
    isShort = false
    await it.until(() => {
      it.nowMs += 50
      return it.tied > 0
    })
  })

  test('is not asked again at every tick', async () => {
    await using it = await rig({ sizeBytes: 100, answer: (request) => request.refuse(503) })
    it.bring('p2p')
    await it.until(() => it.origin.requests.length === 1 && it.origin.openCount === 0)
    await aMoment()
    it.nowMs += 999
    for (let tick = 0; tick < 10; tick++) it.check.step()
    await aMoment()
    expect(it.origin.requests).toHaveLength(1)
    it.nowMs += 1
    await it.until(() => it.origin.requests.length === 2)
  })
})
