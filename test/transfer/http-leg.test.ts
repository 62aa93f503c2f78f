import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { type ByteRange, HttpLeg, type HttpLegOptions } from '../../src/transfer/http-leg.ts'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'
import { pickRange } from '../../src/transfer/plan.ts'
import { batched } from '../support/batches.ts'
import { sha256 } from '../support/digest.ts'
import {
  type Answer,
  inFull,
  type OriginRequest,
  type RangeOrigin,
  startRangeOrigin,
} from '../support/range-origin.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 4 * blockBytes
const stallMs = 1_500
/** What is in the partial file before anybody writes to it. */
const untouched = 0xee

interface Setup {
  readonly sizeBytes?: number
  readonly pieceLength?: number
  readonly answer?: Answer
  /** What is there before. */
  readonly fill?: (map: PieceMap) => void
  /** No run is longer. */
  readonly maxBytes?: number
  readonly options?: Partial<HttpLegOptions>
}

/** One leg between a real server and a real file, and a clock that stands still until a test moves it. */
class Rig implements AsyncDisposable {
  readonly content: Uint8Array
  readonly map: PieceMap
  readonly file: PartialFile
  readonly origin: RangeOrigin
  readonly leg: HttpLeg
  readonly written: ByteRange[] = []
  readonly #folder: AsyncDisposable
  nowMs = 1_000_000
  /** Requests the leg has made, arrived or not. */
  asked = 0

  constructor(
    parts: Pick<Rig, 'content' | 'map' | 'file' | 'origin'>,
    folder: AsyncDisposable,
    setup: Setup,
  ) {
    this.content = parts.content
    this.map = parts.map
    this.file = parts.file
    this.origin = parts.origin
    this.#folder = folder
    this.leg = new HttpLeg({
      map: this.map,
      file: this.file,
      open: (request) => {
        this.asked += 1
        return this.origin.open(request)
      },
      next: (maxBytes) => this.#next(Math.min(maxBytes, setup.maxBytes ?? Number.POSITIVE_INFINITY)),
      onWritten: (range) => this.written.push(range),
      onRunEnd: () => this.leg.pump(),
      mayGiveUp: () => true,
      nowMs: () => this.nowMs,
      rateWindowMs: stallMs,
      stallMs,
      backoffMs: () => 1,
      ...setup.options,
    })
  }

  #next(maxBytes: number): ByteRange | undefined {
    const mayTake = (piece: number): boolean => !this.leg.isClaimed(piece)
    return pickRange({ map: this.map, from: 0, mayTake, maxBytes })
  }

  get isDone(): boolean {
    for (let piece = 0; piece < this.map.count; piece++) {
      if (!this.map.has(piece) && !this.map.isFull(piece)) return false
    }
    return !this.leg.isRunning
  }

  /** Lets the leg work until it is true of it, without time going by. */
  async until(isSo: () => boolean): Promise<void> {
    await until(() => {
      this.leg.pump()
      return isSo()
    })
  }

  /** The same while time goes by. */
  async finish(): Promise<void> {
    await until(() => {
      this.nowMs += 10
      this.leg.pump()
      return this.isDone || this.leg.failure !== undefined
    })
  }

  /** The race's tick after `ms`. */
  pass(ms: number): void {
    this.nowMs += ms
    this.leg.sample()
    this.leg.pump()
  }

  request(index: number): OriginRequest {
    const request = this.origin.requests[index]
    if (request === undefined) throw new Error(`there is no request ${index}`)
    return request
  }

  async bytes(): Promise<Uint8Array> {
    return await readFile(this.file.path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leg.stop()
    await this.file[Symbol.asyncDispose]()
    await this.origin[Symbol.asyncDispose]()
    await this.#folder[Symbol.asyncDispose]()
  }
}

async function rig(setup: Setup = {}): Promise<Rig> {
  const { sizeBytes = 8 * pieceLength, answer, fill } = setup
  const content = new Uint8Array(randomBytes(sizeBytes))
  const folder = await temporaryDirectory()
  const path = join(folder.path, 'partial')
  const map = new PieceMap(sizeBytes, setup.pieceLength ?? pieceLength)
  fill?.(map)
  await writeFile(path, before(map, content))
  const file = await PartialFile.open(path, true)
  const origin = await startRangeOrigin(content, answer)
  return new Rig({ content, map, file, origin }, folder, setup)
}

/** The file as others left it: HTTP's blocks right, peers' pieces of a content that the server does not have. */
function before(map: PieceMap, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(content.length).fill(untouched)
  for (const [start, end] of map.writtenRuns()) bytes.set(content.subarray(start, end), start)
  return bytes
}

/** `content`, but `untouched` where the map said a piece is there. */
function expected({ content, map }: Rig): Uint8Array {
  const bytes = Uint8Array.from(content)
  for (const piece of map.present()) bytes.fill(untouched, map.offsetOf(piece), map.endOf(piece))
  return bytes
}

async function until(isSo: () => boolean, capMs = 10_000): Promise<void> {
  for (const start = performance.now(); !isSo(); await sleep(1)) {
    if (performance.now() - start > capMs) throw new Error(`it did not come true within ${capMs} ms: ${isSo}`)
  }
}

/** Sends nothing, not even a header. */
const silence: Answer = () => {}

describe('the bytes are in their place', () => {
  const sizes = [1, blockBytes - 1, blockBytes, blockBytes + 1, pieceLength, pieceLength + 1, 1_000_003]
  test.each(sizes)('of a file of %i bytes', async (sizeBytes) => {
    await using it = await rig({ sizeBytes })
    await it.finish()
    expect(it.leg.failure).toBeUndefined()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
    expect(it.map.bytes()).toEqual({ http: sizeBytes, p2p: 0 })
  })

  test.each([1_000, blockBytes, 50_001, 65_536])('sent in chunks of %i', async (chunkBytes) => {
    await using it = await rig({
      sizeBytes: 300_007,
      answer: async (request) => {
        for (let at = request.start; at < request.end; at += chunkBytes) await request.send(chunkBytes)
      },
    })
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })

  test.each([
    ['one piece there', (map: PieceMap) => map.mark(2, 'p2p')],
    [
      'every other piece there',
      (map: PieceMap) => [0, 2, 4, 6].forEach((piece) => void map.mark(piece, 'p2p')),
    ],
    ['the last piece there', (map: PieceMap) => map.mark(7, 'p2p')],
    ['the first block of a piece there', (map: PieceMap) => map.write(0, blockBytes)],
    [
      'gaps within pieces',
      (map: PieceMap) => {
        map.write(blockBytes, 2 * blockBytes)
        map.write(pieceLength, pieceLength + 3 * blockBytes)
        map.write(3 * pieceLength, 4 * pieceLength)
      },
    ],
  ] as const)('with %s, which nobody writes over', async (_name, fill) => {
    await using it = await rig({ fill })
    const whole = expected(it)
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(whole))
    const { http, p2p } = it.map.bytes()
    expect(http + p2p).toBe(it.content.length)
  })

  test('over four requests at once', async () => {
    await using it = await rig({
      sizeBytes: 50 * pieceLength + 9,
      maxBytes: 2 * pieceLength,
      answer: (request) => request.begin(),
    })
    await it.until(() => it.origin.openCount === 4)
    it.origin.answer = inFull
    await Promise.all(it.origin.requests.map((request) => request.send()))
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
    expect(it.leg.receivedBytes).toBe(it.content.length)
  })

  test('and every byte of them was told, from the begin of a block', async () => {
    await using it = await rig({ sizeBytes: 300_007, maxBytes: pieceLength })
    await it.finish()
    const told = new PieceMap(300_007, pieceLength)
    for (const { start, end } of it.written) {
      expect(start % blockBytes).toBe(0)
      told.write(start, end)
    }
    expect(told.bytes().http).toBe(300_007)
  })

  test('from a server that ignores ranges, with one request for all that is missing', async () => {
    await using it = await rig({
      answer: (request) => request.sendWholeFile(),
      fill: (map) => [0, 4].forEach((piece) => void map.mark(piece, 'p2p')),
      maxBytes: pieceLength,
    })
    const whole = expected(it)
    await it.finish()
    expect(it.request(0).start).toBe(pieceLength)
    expect(it.origin.requests).toHaveLength(1)
    expect(sha256(await it.bytes())).toBe(sha256(whole))
  })
})

describe('how many requests there are', () => {
  test('one until the first was answered', async () => {
    await using it = await rig({ answer: silence, maxBytes: pieceLength })
    await it.until(() => it.origin.requests.length === 1)
    for (let tick = 0; tick < 20; tick++) it.pass(10)
    await it.until(() => it.origin.openCount === 1)
    expect(it.origin.requests).toHaveLength(1)
    it.request(0).begin()
    await it.until(() => it.origin.requests.length > 1)
  })

  test('four after that, and never more', async () => {
    await using it = await rig({ answer: (request) => request.begin(), maxBytes: pieceLength })
    await it.until(() => it.origin.openCount === 4)
    for (let tick = 0; tick < 20; tick++) it.pass(10)
    await it.request(0).send()
    await it.until(() => it.origin.requests.length === 5)
    for (let tick = 0; tick < 20; tick++) it.pass(10)
    expect(it.origin.requests.map(({ start }) => start)).toEqual(
      [0, 1, 2, 3, 4].map((piece) => piece * pieceLength),
    )
    expect(it.origin.maxOpenCount).toBeLessThanOrEqual(4)
  })

  test('no more than the origin would take on', async () => {
    await using it = await rig({
      answer: (request) => request.begin(),
      maxBytes: pieceLength,
      options: { freeSlots: () => 2 - it.asked },
    })
    await it.until(() => it.origin.openCount === 2)
    for (let tick = 0; tick < 20; tick++) it.pass(10)
    expect(it.asked).toBe(2)
  })

  test('one while requests fail', async () => {
    await using it = await rig({
      answer: (request, index) => (index === 0 ? request.begin() : request.refuse(503)),
      maxBytes: pieceLength,
    })
    await it.until(() => it.leg.lastError !== undefined && it.origin.openCount === 1)
    const { length } = it.origin.requests
    for (let tick = 0; tick < 20; tick++) it.pass(10)
    expect(it.origin.requests).toHaveLength(length)
  })

  test('none for what is claimed', async () => {
    await using it = await rig({ answer: (request) => request.begin(), maxBytes: 2 * pieceLength })
    await it.until(() => it.origin.openCount === 4)
    const claimed = [0, 1, 2, 3, 4, 5, 6, 7].map((piece) => it.leg.isClaimed(piece))
    expect(claimed).toEqual(claimed.map(() => true))
    expect(it.origin.requests.map(({ start, end }) => [start, end])).toEqual(
      [0, 2, 4, 6].map((piece) => [piece * pieceLength, (piece + 2) * pieceLength]),
    )
  })
})

describe('a run that breaks off', () => {
  test('goes on with the block it was in', async () => {
    await using it = await rig({
      sizeBytes: 1_000_003,
      pieceLength: 64 * blockBytes,
      answer: async (request, index) => {
        if (index > 0) return request.send()
        await request.send(100_000)
        request.cut()
      },
    })
    await it.finish()
    expect(it.request(1).start).toBe(6 * blockBytes)
    expect(it.origin.requests).toHaveLength(2)
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })

  test('again and again ends well as long as each brings something', async () => {
    await using it = await rig({
      sizeBytes: 20 * blockBytes,
      answer: async (request) => {
        await request.send(blockBytes + 1)
        request.cut()
      },
      options: { maxFailures: 2 },
    })
    await it.finish()
    expect(it.leg.failure).toBeUndefined()
    expect(it.origin.requests.length).toBeGreaterThan(10)
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })

  test('as if it were complete is a failure, too', async () => {
    const short: HttpLegOptions['open'] = async ({ start }) => ({
      start,
      batches: batched(one(new Uint8Array(10))),
    })
    await using it = await rig({ options: { open: short } })
    await it.until(() => it.leg.lastError !== undefined)
    expect(it.leg.lastError).toMatchObject({
      code: 'ERR_LLMPT_HUB',
      message: expect.stringContaining('byte 10'),
    })
  })
})

describe('a failure', () => {
  test('for good ends HTTP at once', async () => {
    await using it = await rig({
      answer: (request) => request.refuse(404),
      options: { mayGiveUp: () => false },
    })
    await it.finish()
    expect(it.leg.failure).toMatchObject({ code: 'ERR_LLMPT_HUB', status: 404 })
    it.pass(60_000)
    expect(it.asked).toBe(1)
  })

  test('of the disk ends HTTP at once', async () => {
    await using it = await rig({ options: { mayGiveUp: () => false } })
    const full = Object.assign(new Error('disk full'), { code: 'ERR_LLMPT_CACHE' })
    vi.spyOn(it.file, 'write').mockRejectedValue(full)
    await it.finish()
    expect(it.leg.failure).toBe(full)
    expect(it.asked).toBe(1)
  })

  test.each([408, 429, 500, 503])('with status %i is tried again until the last try', async (status) => {
    await using it = await rig({ answer: (request) => request.refuse(status), options: { maxFailures: 3 } })
    await it.finish()
    expect(it.leg.failure).toMatchObject({ status })
    expect(it.asked).toBe(3)
  })

  test('is tried again beyond that while others bring the file', async () => {
    await using it = await rig({
      answer: (request, index) => (index < 6 ? request.refuse(503) : request.send()),
      options: { maxFailures: 3, mayGiveUp: () => false },
    })
    await it.finish()
    expect(it.leg.failure).toBeUndefined()
    expect(it.leg.lastError).toMatchObject({ status: 503 })
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })

  test('of several requests together counts once', async () => {
    let isDown = false
    await using it = await rig({
      answer: (request) => (isDown ? request.refuse(503) : request.begin()),
      maxBytes: pieceLength,
      options: { maxFailures: 2, backoffMs: () => 100 },
    })
    await it.until(() => it.origin.openCount === 4)
    isDown = true
    for (const request of it.origin.requests) request.cut()
    await until(() => !it.leg.isRunning)
    expect(it.leg.failure).toBeUndefined()
    it.pass(100)
    await until(() => !it.leg.isRunning)
    expect(it.leg.failure).toBeDefined()
    expect(it.asked).toBe(5)
  })

  test('is forgotten once bytes come again', async () => {
    await using it = await rig({
      answer: (request, index) => (index % 2 === 0 ? request.refuse(503) : request.send()),
      maxBytes: pieceLength,
      options: { maxFailures: 2 },
    })
    await it.finish()
    expect(it.leg.failure).toBeUndefined()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })

  test('is followed by a pause that grows', async () => {
    await using it = await rig({
      answer: (request) => request.refuse(503),
      options: { backoffMs: (failures) => failures * 100 },
    })
    await it.until(() => it.leg.lastError !== undefined && !it.leg.isRunning)
    for (const [tries, pauseMs] of [
      [1, 100],
      [2, 200],
      [3, 300],
    ] as const) {
      it.pass(pauseMs - 1)
      expect(it.asked).toBe(tries)
      it.pass(1)
      expect(it.asked).toBe(tries + 1)
      await until(() => !it.leg.isRunning)
    }
  })

  test('that says when to come again is not asked before', async () => {
    await using it = await rig({
      answer: (request, index) =>
        index === 0 ? request.refuse(503, { 'retry-after': '60' }) : request.send(),
    })
    await it.until(() => it.leg.lastError !== undefined && !it.leg.isRunning)
    it.pass(59_999)
    expect(it.asked).toBe(1)
    it.pass(1)
    expect(it.asked).toBe(2)
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })
})

describe('a silent body', () => {
  async function silentRig(): Promise<Rig> {
    const it = await rig({
      answer: (request, index) => (index === 0 ? request.send(100_000) : silence(request, index)),
      maxBytes: 2 * pieceLength,
      options: { freeSlots: () => (it.leg.isRunning ? 0 : 1) },
    })
    await it.until(() => it.leg.receivedBytes === 100_000)
    return it
  }

  test('loses its claim after the stall time, and not before', async () => {
    await using it = await silentRig()
    it.nowMs += stallMs - 1
    it.leg.sample()
    expect(it.leg.isClaimed(1)).toBe(true)
    it.nowMs += 1
    it.leg.sample()
    expect(it.leg.isClaimed(1)).toBe(false)
    expect(it.leg.isRunning).toBe(true)
  })

  test('has its claim again when it goes on', async () => {
    await using it = await silentRig()
    it.nowMs += stallMs
    it.leg.sample()
    await it.request(0).send(10)
    await until(() => it.leg.receivedBytes === 100_010)
    expect(it.leg.isClaimed(1)).toBe(true)
  })

  test('gets another connection after twice that time', async () => {
    await using it = await silentRig()
    it.nowMs += 2 * stallMs - 1
    it.leg.sample()
    expect(it.asked).toBe(1)
    it.nowMs += 1
    it.leg.sample()
    await until(() => !it.leg.isRunning)
    expect(it.leg.lastError).toMatchObject({ code: 'ERR_LLMPT_HUB', message: 'the body stalled' })
    it.pass(1)
    await until(() => it.origin.requests.length === 2)
    expect(it.request(1).start).toBe(6 * blockBytes)
  })

  test('is not one that has no header yet: the claim is lost, the request stays', async () => {
    await using it = await rig({ answer: silence })
    await it.until(() => it.origin.requests.length === 1)
    it.nowMs += 20 * stallMs
    it.leg.sample()
    expect(it.leg.isClaimed(0)).toBe(false)
    it.leg.sample()
    await it.request(0).send()
    await it.finish()
    expect(it.asked).toBe(1)
  })

  test('is not one that waits for its turn', async () => {
    const asked: (() => void)[] = []
    await using it = await rig({
      options: {
        open: async ({ onStart, ...request }) => {
          await new Promise<void>((resolve) => asked.push(resolve))
          onStart?.()
          return await it.origin.open(request)
        },
      },
    })
    it.leg.pump()
    it.nowMs += 20 * stallMs
    it.leg.sample()
    expect(it.leg.isClaimed(0)).toBe(true)
    for (const go of asked) go()
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(it.content))
  })
})

describe('giving up a share', () => {
  async function oneRun(): Promise<Rig> {
    const it = await rig({
      answer: (request) => request.send(pieceLength + 10),
      options: { freeSlots: () => (it.leg.isRunning ? 0 : 1) },
    })
    await it.until(() => it.leg.receivedBytes === pieceLength + 10)
    return it
  }

  function claims(it: Rig): boolean[] {
    return Array.from({ length: it.map.count }, (_, piece) => it.leg.isClaimed(piece))
  }

  test.each([
    [1, 8],
    [0.5, 4],
    [0.51, 5],
    [0, 1],
  ])('keeps %d of what is before a run, in whole pieces: up to piece %i', async (keep, end) => {
    // Nothing is on disk before a batch is full or the run ends, so that all of the run is before it.
    await using it = await oneRun()
    it.leg.share(keep)
    expect(claims(it)).toEqual(Array.from({ length: 8 }, (_, piece) => piece < end))
  })

  test('ends the run there, and its connection', async () => {
    await using it = await oneRun()
    it.leg.share(0.25)
    await it.request(0).send(pieceLength)
    await until(() => !it.leg.isRunning || it.asked > 1)
    await until(() => it.map.isFull(1))
    expect(it.request(0).end).toBe(it.content.length)
    await it.until(() => it.origin.requests.length === 2)
    expect(it.request(1).start).toBe(2 * pieceLength)
    expect(it.origin.openCount).toBe(1)
  })

  test('never gives a run more than it had', async () => {
    await using it = await rig({ answer: (request) => request.begin(), maxBytes: pieceLength })
    await it.until(() => it.origin.openCount === 4)
    it.leg.share(1)
    expect(claims(it)).toEqual([true, true, true, true, false, false, false, false])
  })
})

describe('what others bring meanwhile', () => {
  test('is not written over', async () => {
    await using it = await rig({
      answer: (request) => request.send(pieceLength),
      options: { freeSlots: () => (it.leg.isRunning ? 0 : 1) },
    })
    await it.until(() => it.leg.receivedBytes === pieceLength)
    it.map.mark(2, 'p2p')
    it.map.mark(5, 'p2p')
    await it.request(0).send()
    await it.finish()
    expect(sha256(await it.bytes())).toBe(sha256(expected(it)))
    expect(it.map.bytes()).toEqual({ http: 6 * pieceLength, p2p: 2 * pieceLength })
    expect(it.asked).toBe(1)
  })

  test('ends a run that has nothing left to bring', async () => {
    await using it = await rig({
      answer: (request) => request.send(pieceLength),
      options: { freeSlots: () => (it.leg.isRunning ? 0 : 1) },
    })
    await it.until(() => it.leg.receivedBytes === pieceLength)
    for (const piece of [1, 2, 3, 4, 5, 6, 7]) it.map.mark(piece, 'p2p')
    await it.request(0).send(1)
    await it.finish()
    await until(() => it.origin.openCount === 0)
    expect(it.leg.lastError).toBeUndefined()
    expect(sha256(await it.bytes())).toBe(sha256(expected(it)))
  })

  test('and is taken back within a piece leaves no block behind that is half theirs', async () => {
    const stream = handFed()
    await using it = await rig({
      sizeBytes: 128 * blockBytes,
      pieceLength: 64 * blockBytes,
      options: {
        open: async ({ start }) => ({ start, batches: batched(stream.chunks) }),
        freeSlots: () => (it.leg.isRunning ? 0 : 1),
      },
    })
    it.leg.pump()
    it.map.mark(0, 'p2p')
    // Enough to be written, and it ends in the middle of a block.
    const middle = 40 * blockBytes + 5_000
    await stream.send(it.content.subarray(0, middle))
    it.map.forget(0)
    await stream.send(it.content.subarray(middle))
    stream.end()
    await until(() => !it.leg.isRunning || it.leg.lastError !== undefined || it.asked > 1)
    const bytes = await it.bytes()
    for (const [start, end] of it.map.writtenRuns()) {
      expect(sha256(bytes.subarray(start, end))).toBe(sha256(it.content.subarray(start, end)))
    }
    expect(it.map.hasBlock(41 * blockBytes)).toBe(true)
  })
})

describe('stopping', () => {
  test('leaves no request open, and says what is there', async () => {
    await using it = await rig({
      answer: (request) => request.send(blockBytes),
      maxBytes: pieceLength,
    })
    await it.until(() => it.origin.openCount === 4 && it.leg.receivedBytes === 4 * blockBytes)
    await it.leg.stop()
    expect([it.leg.isRunning, it.asked]).toEqual([false, 4])
    await until(() => it.origin.openCount === 0)
    expect(it.leg.failure ?? it.leg.lastError).toBeUndefined()
    const begun = [0, 1, 2, 3].map((piece) => it.map.firstGap(piece))
    expect(begun).toEqual([0, 1, 2, 3].map((piece) => piece * pieceLength + blockBytes))
  })

  test('is for good: it starts nothing any more', async () => {
    await using it = await rig({ answer: (request) => request.begin(), maxBytes: pieceLength })
    await it.until(() => it.origin.openCount === 4)
    await it.leg.stop()
    expect(it.leg.isRunning).toBe(false)
    await until(() => it.origin.openCount === 0)
    it.pass(100)
    expect(it.asked).toBe(4)
  })

  test('waits for what is being written', async () => {
    await using it = await rig({
      sizeBytes: 64 * blockBytes,
      pieceLength: 64 * blockBytes,
      answer: (request) => request.send(40 * blockBytes),
    })
    const write = it.file.write.bind(it.file)
    let go: () => void = () => {}
    const held = new Promise<void>((resolve) => {
      go = resolve
    })
    const order: string[] = []
    vi.spyOn(it.file, 'write').mockImplementation(async (...parameters) => {
      await held
      await write(...parameters)
      order.push('written')
    })
    await it.until(() => it.leg.isWriting(0))
    const stopping = it.leg.stop().then(() => order.push('stopped'))
    // What does not wait is over before the disk has answered.
    go()
    await stopping
    expect(order[0]).toBe('written')
    expect(order.indexOf('stopped')).toBe(order.length - 1)
    expect(it.leg.isWriting(0)).toBe(false)
  })
})

test('bytes are written in batches of half a mebibyte, however small the chunks', async () => {
  await using it = await rig({ sizeBytes: 3_000_000, pieceLength: 1024 * 1024 })
  const sizes: number[] = []
  const write = it.file.write.bind(it.file)
  vi.spyOn(it.file, 'write').mockImplementation(async (at, ...chunks) => {
    sizes.push(chunks.reduce((sum, { length }) => sum + length, 0))
    await write(at, ...chunks)
  })
  await it.finish()
  expect(sha256(await it.bytes())).toBe(sha256(it.content))
  expect(sizes.slice(0, -1).filter((size) => size < 512 * 1024)).toEqual([])
})

describe('how fast it is', () => {
  test('is known once it has run for half a second', async () => {
    await using it = await rig({
      answer: (request) => request.send(pieceLength),
      options: { freeSlots: () => (it.leg.isRunning ? 0 : 1) },
    })
    expect([it.leg.busySinceMs, it.leg.bytesPerSecond]).toEqual([undefined, 0])
    await it.until(() => it.leg.receivedBytes === pieceLength)
    expect(it.leg.busySinceMs).toBe(it.nowMs)
    it.nowMs += 499
    it.leg.sample()
    expect(it.leg.knownRate).toBeUndefined()
    it.nowMs += 1
    it.leg.sample()
    expect(it.leg.knownRate).toBe(pieceLength * 2)
    expect(it.leg.bytesPerSecond).toBe(pieceLength * 2)
    await it.leg.stop()
    expect([it.leg.busySinceMs, it.leg.bytesPerSecond, it.leg.knownRate]).toEqual([
      undefined,
      0,
      pieceLength * 2,
    ])
  })
})

async function* one(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
  yield chunk
}

/** A body whose chunks are handed over one by one; `send` resolves when it has been dealt with. */
function handFed(): {
  chunks: AsyncGenerator<Uint8Array>
  send: (chunk: Uint8Array) => Promise<void>
  end: () => void
} {
  const waiting: { chunk: Uint8Array | undefined; taken: () => void }[] = []
  let wake: () => void = () => {}
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const next = waiting.shift()
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
        continue
      }
      if (next.chunk === undefined) return
      try {
        yield next.chunk
      } finally {
        next.taken()
      }
    }
  }
  function push(chunk: Uint8Array | undefined): Promise<void> {
    return new Promise((resolve) => {
      waiting.push({ chunk, taken: resolve })
      wake()
    })
  }
  return { chunks: chunks(), send: push, end: () => void push(undefined) }
}
