/** How a torrent is tied to what the Hub serves. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { noiseBytes } from '../../src/demo/hub.ts'
import type { RangeOpener } from '../../src/transfer/http-leg.ts'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'
import type { SwarmLeg } from '../../src/transfer/swarm-leg.ts'
import { TieCheck, tieSamples } from '../../src/transfer/tie-check.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const block = 16_384
const pieceLength = 4 * block
const sizeBytes = 100 * pieceLength - 100
const bytes = noiseBytes('tie', sizeBytes)

/** A file of which nothing is there, and a Hub that answers as it is told. */
async function newTie(
  answer: (start: number, end: number) => Buffer = (start, end) => bytes.subarray(start, end),
) {
  const folder = await temporaryDirectory()
  const path = join(folder.path, 'partial')
  await writeFile(path, bytes)
  const file = await PartialFile.open(path, true)
  const map = new PieceMap(sizeBytes, pieceLength)
  const seen = new Set<number>()
  const asked: number[] = []
  const outcome: string[] = []
  const clock = { nowMs: 0 }
  let picked = 0
  const open: RangeOpener = async ({ start, end }) => {
    asked.push(start)
    const chunk = answer(start, end)
    return {
      start,
      batches: (async function* () {
        yield [chunk]
      })(),
    }
  }
  /** Reads of the file: whatever is compared begins with one. */
  const reads = new Set<Promise<unknown>>()
  const read = (offset: number, length: number): Promise<Uint8Array> => {
    const reading = file.read(offset, length)
    reads.add(reading)
    return reading
  }
  const tie = new TieCheck({
    map,
    file: { read } as unknown as PartialFile,
    leg: { hasSeen: (piece: number) => seen.has(piece) } as SwarmLeg,
    open,
    signal: new AbortController().signal,
    nowMs: () => clock.nowMs,
    // Every tenth piece, its second block.
    pick: () => {
      picked += 10
      return picked * 4 + 1
    },
    onTied: () => void outcome.push('tied'),
    onContradiction: async () => void outcome.push('contradiction'),
  })
  return {
    tie,
    map,
    seen,
    asked,
    outcome,
    clock,
    file,
    /** Steps until nothing changes any more. */
    async settle(): Promise<void> {
      do {
        reads.clear()
        tie.step()
        await Promise.all(reads)
        // What the Hub answers comes without a wait: one turn of the event loop is the end of it.
        await new Promise((resolve) => setImmediate(resolve))
      } while (reads.size > 0)
    },
    [Symbol.asyncDispose]: async () => {
      await file[Symbol.asyncDispose]()
      await folder[Symbol.asyncDispose]()
    },
  }
}

const sampled = [0, 99, 10, 20, 30, 40, 50, 60]

test('eight places are compared, head and tail among them, and then the torrent is tied', async () => {
  await using t = await newTie()
  expect([...t.tie.wanted()]).toEqual(sampled)
  expect(sampled).toHaveLength(tieSamples)
  for (const piece of sampled.slice(1)) t.map.mark(piece, 'p2p')
  await t.settle()
  expect(t.outcome).toEqual([])
  expect([...t.tie.wanted()]).toEqual([0])
  t.map.mark(0, 'p2p')
  await t.settle()
  expect(t.outcome).toEqual(['tied'])
  expect(t.asked.sort((a, b) => a - b)).toEqual(
    [
      0,
      ...[10, 20, 30, 40, 50, 60].map((piece) => piece * pieceLength + block),
      sizeBytes - (sizeBytes % block),
    ].sort((a, b) => a - b),
  )
})

test('a place that HTTP brought is settled when the torrent has found its piece right, without another request', async () => {
  await using t = await newTie()
  for (const piece of sampled) t.map.mark(piece, 'http')
  await t.settle()
  expect(t.outcome).toEqual([])
  for (const piece of sampled) t.seen.add(piece)
  await t.settle()
  expect(t.outcome).toEqual(['tied'])
  expect(t.asked).toEqual([])
})

test('a block that differs is asked for once more, and contradicts the torrent when the Hub stays with it', async () => {
  await using t = await newTie((start, end) => Buffer.alloc(end - start, 1))
  t.map.mark(0, 'p2p')
  await t.settle()
  expect(t.outcome).toEqual(['contradiction'])
  expect(t.asked).toEqual([0, 0])
})

test('a Hub that does not agree with itself contradicts nobody, and is asked again after a pause', async () => {
  let answers = 0
  await using t = await newTie((start, end) => {
    answers += 1
    return answers <= 2 ? Buffer.alloc(end - start, answers) : bytes.subarray(start, end)
  })
  for (const piece of sampled) t.map.mark(piece, 'p2p')
  await t.settle()
  expect(t.outcome).toEqual([])
  t.clock.nowMs += 1_000
  await t.settle()
  expect(t.outcome).toEqual(['tied'])
})

test('a Hub that cannot be asked is not asked ten times a second', async () => {
  await using t = await newTie(() => {
    throw new Error('503')
  })
  t.map.mark(0, 'p2p')
  await t.settle()
  expect(t.asked).toHaveLength(1)
  t.clock.nowMs += 1_000
  await t.settle()
  expect(t.asked).toHaveLength(2)
  expect(t.outcome).toEqual([])
})

test('an answer that ends early says nothing', async () => {
  await using t = await newTie((start) => bytes.subarray(start, start + 100))
  t.map.mark(0, 'p2p')
  await t.settle()
  expect(t.outcome).toEqual([])
  expect(t.asked).toEqual([0])
})

test('a piece that was taken back while it was compared says nothing', async () => {
  let answered = (): void => {}
  await using t = await newTie((start, end) => {
    answered()
    return Buffer.alloc(end - start, 1)
  })
  t.map.mark(0, 'p2p')
  answered = () => t.map.forget(0)
  await t.settle()
  expect(t.outcome).toEqual([])
})
