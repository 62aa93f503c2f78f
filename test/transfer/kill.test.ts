/**
 * `kill -9` at any moment: the next process goes on from what is there, and what is fetched twice stays below a bound.
 */
import { createHash } from 'node:crypto'
import { readFile, readlink, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ConfigOptions } from '../../src/config.ts'
import { Journal, journalPath, type Leftover } from '../../src/transfer/journal.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import {
  ageTemporaries,
  type Crash,
  type Outcome,
  startWorld,
  strayFiles,
  type World,
} from './fixtures/rig.ts'

const mebibyte = 1024 * 1024
const sizeBytes = 24 * mebibyte + 12_345
/** What a kill may cost, besides what was requested and had not arrived. */
const maxAgain = 16 * mebibyte

const kinds: readonly { kind: string; config: ConfigOptions }[] = [
  { kind: 'HTTP', config: { p2p: false } },
  { kind: 'peers', config: { http: false } },
  { kind: 'both', config: {} },
]

interface Moment {
  readonly crash?: Crash
  readonly killAfterBytes?: number
}

/** Changes to the file system of a whole download, and of one from the begin of its verification; at most. */
const changes = { all: 75, end: 18 }

function momentOf(round: number): Moment {
  const [pick, at, how] = random(round)
  const when = (['before', 'during', 'after'] as const)[Math.floor(how * 3)] ?? 'before'
  if (pick < 0.4) return { killAfterBytes: Math.ceil(at * sizeBytes) }
  if (pick < 0.7) return { crash: { nth: Math.floor(at * changes.all), when } }
  return { crash: { nth: Math.floor(at * changes.end), when, isFromMark: true } }
}

function inWords({ crash, killAfterBytes }: Moment): string {
  if (crash === undefined) return `after ${killAfterBytes} bytes`
  return `${crash.when} change ${crash.nth} to the disk${crash.isFromMark ? ' of its end' : ''}`
}

/** Three numbers from 0 to 1, the same for the same round. */
function random(round: number): [number, number, number] {
  const digest = createHash('sha256').update(`round ${round}`).digest()
  const number = (at: number): number => digest.readUInt32BE(at) / 2 ** 32
  return [number(0), number(4), number(8)]
}

let world: World
beforeAll(async () => {
  world = await startWorld(sizeBytes, { hub: 64 * mebibyte, seed: 96 * mebibyte })
})
afterAll(() => world[Symbol.asyncDispose]())

/** Between the rename of the finished file and the end of its journal. */
const lastMoment: Moment = { crash: { nth: 2, when: 'before', isFromMark: true } }

const all = Array.from({ length: rounds(20, 200) }, (_, round) => {
  const moment = round === 0 ? lastMoment : momentOf(round)
  return { round, ...(kinds[round % kinds.length] as (typeof kinds)[number]), moment, when: inWords(moment) }
})

const again = new Map(kinds.map(({ kind }) => [kind, [] as number[]]))
afterAll(() => {
  for (const [kind, bytes] of again) {
    const sorted = bytes.sort((a, b) => a - b).map((each) => (each / mebibyte).toFixed(1))
    console.info(`${kind}: fetched twice, MiB: median ${sorted[sorted.length >> 1]}, most ${sorted.at(-1)}`)
  }
})

describe('a download that is killed', () => {
  test.each(all)(
    'from $kind $when ends in the next process, which fetches at most 16 MiB again ($round)',
    async ({ config, moment, kind }) => {
      await using home = await temporaryDirectory()
      const first = await world.download(home.path, config, moment)
      const second = await world.download(home.path, config)
      expect([second.code, second.stderr]).toEqual([0, ''])
      expect(basename(await readlink(second.said?.path ?? ''))).toBe(world.file.etag)
      const twice = bytesTwice(first, second)
      again.get(kind)?.push(twice)
      expect(twice).toBeLessThanOrEqual(maxAgain)
      if ((await strayFiles(home.path, world.file)).length > 0) {
        await ageTemporaries(home.path)
        await world.download(home.path, config)
      }
      expect(await strayFiles(home.path, world.file)).toEqual([])
      expect(await checkCacheContract(`${home.path}/hub`)).toEqual([])
    },
  )
})

describe('a piece of 16 MiB that is not finished', () => {
  const pieceLength = 16 * mebibyte
  let large: World
  beforeAll(async () => {
    large = await startWorld(40 * mebibyte, { hub: 0, seed: 24 * mebibyte }, pieceLength)
  })
  afterAll(() => large[Symbol.asyncDispose]())

  test.each([14, 25])('is gone on with where its blocks end, after %i MiB', async (killedAt) => {
    await using home = await temporaryDirectory()
    const partialPath = join(home.path, 'content')
    const { sizeBytes } = large.file
    const first = await large.fetchPieces(home.path, partialPath, { killAfterBytes: killedAt * mebibyte })
    const left = await new Journal(home.path, partialPath, large.torrent.infoHash).load(
      sizeBytes,
      pieceLength,
    )
    const kept = bytesOf(left)
    const second = await large.fetchPieces(home.path, partialPath)
    expect([first.signal, second.code, second.stderr]).toEqual(['SIGKILL', 0, ''])
    expect(second.said?.sha256).toBe(large.file.sha256)
    expect(kept % pieceLength).toBeGreaterThan(0)
    // A seed counts a block that is cut by the file's end in full.
    expect(second.fromSeed).toBeLessThanOrEqual(sizeBytes - kept + 16_384)
    expect(first.fromSeed + second.fromSeed - sizeBytes).toBeLessThanOrEqual(maxAgain)
  })
})

test('on a fast link what peers bring of a piece of 16 MiB is noted often enough for that', async () => {
  const pieceLength = 16 * mebibyte
  await using fast = await startWorld(96 * mebibyte, { hub: 0, seed: 160 * mebibyte }, pieceLength)
  await using home = await temporaryDirectory()
  const partialPath = join(home.path, 'content')
  await fast.fetchPieces(home.path, partialPath, { killAfterBytes: 56 * mebibyte })
  // The file has holes where nothing has arrived.
  const received = (await stat(partialPath)).blocks * 512
  const lines = (await readFile(journalPath(home.path, partialPath), 'utf8')).split('\n')
  const second = await fast.fetchPieces(home.path, partialPath)
  expect(second.said?.sha256).toBe(fast.file.sha256)
  expect(received + second.fromSeed - fast.file.sizeBytes).toBeLessThanOrEqual(maxAgain)
  expect(lines.filter((line) => line.startsWith('u')).length).toBeGreaterThan(received / maxAgain)
})

/** Bytes of the whole pieces and of the blocks that peers brought. */
function bytesOf(left: Leftover | undefined): number {
  if (left === undefined) return 0
  const blocks = left.unfinished.flatMap(({ blocks: bits }) => [...bits])
  const ones = blocks.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)
  return left.map.bytes().p2p + ones * 16_384
}

/**
 * What came over the wire more than once. Of the first process that is what it took from its HTTP connections, and
 * all that the seed sent it: what it had asked for and was still under way is not its loss with HTTP, and counts
 * with the seed.
 */
function bytesTwice(first: Outcome, second: Outcome): number {
  return first.received + first.fromSeed + second.fromHub + second.fromSeed - sizeBytes
}
