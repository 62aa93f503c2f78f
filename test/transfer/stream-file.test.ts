/** Growing files and who reads them: what is let out when, and what becomes of the download. */
import { open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { noiseBytes } from '../../src/demo/hub.ts'
import { IntegrityError } from '../../src/errors.ts'
import { LiveFile } from '../../src/transfer/live-file.ts'
import { PieceMap } from '../../src/transfer/piece-map.ts'
import { type BringEvents, SharedFiles } from '../../src/transfer/stream-file.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const block = 16_384
const pieceLength = 4 * block
const sizeBytes = 10 * pieceLength - 100
const lastBlock = Math.floor((sizeBytes - 1) / block) * block
const bytes = noiseBytes('growing', sizeBytes)

/** A file in ten pieces of four blocks, none of them there. */
function newLive(path = '') {
  const map = new PieceMap(sizeBytes, pieceLength)
  return { map, live: new LiveFile(path, map) }
}

describe('of a growing file', () => {
  test('blocks and pieces that HTTP brought are let out at once', () => {
    const { map, live } = newLive()
    expect(live.readableEnd(0)).toBe(0)
    map.write(0, block)
    expect(live.readableEnd(0)).toBe(block)
    map.mark(0, 'http')
    map.write(pieceLength, pieceLength + 2 * block)
    expect(live.readableEnd(5)).toBe(pieceLength + 2 * block)
    expect(live.readableEnd(3 * pieceLength)).toBe(3 * pieceLength)
  })

  test('a block is not let out while peers write to its piece, which could be over it', () => {
    const { map, live } = newLive()
    const inFlux = new Set([0])
    live.watch((piece) => inFlux.has(piece))
    map.write(0, block)
    expect(live.readableEnd(0)).toBe(0)
    inFlux.clear()
    expect(live.readableEnd(0)).toBe(block)
  })

  test('pieces that peers brought are let out when a trusted torrent has found them right, and nobody writes to them', () => {
    const { map, live } = newLive()
    const inFlux = new Set<number>()
    live.watch((piece) => inFlux.has(piece))
    map.mark(0, 'p2p')
    map.mark(1, 'p2p')
    expect(live.readableEnd(0)).toBe(0)
    live.trustPeers((piece) => piece === 0)
    expect(live.readableEnd(0)).toBe(pieceLength)
    live.trustPeers(() => true)
    inFlux.add(1)
    expect(live.readableEnd(0)).toBe(pieceLength)
    inFlux.clear()
    expect(live.readableEnd(0)).toBe(2 * pieceLength)
    live.distrustPeers()
    expect(live.readableEnd(0)).toBe(0)
  })

  test('the last block is let out when the digest has matched, and everything with it', () => {
    const { map, live } = newLive()
    for (let piece = 0; piece < 10; piece++) map.mark(piece, 'http')
    expect(live.readableEnd(0)).toBe(lastBlock)
    expect(live.readableEnd(sizeBytes - 1)).toBe(sizeBytes - 1)
    map.drop('http')
    live.finish()
    expect(live.readableEnd(0)).toBe(sizeBytes)
  })

  test('what is wanted is what is missing where somebody waits, within what they asked for', async () => {
    const { map, live } = newLive()
    const never = new AbortController()
    const [one, two, three] = [
      live.reader(0, sizeBytes),
      live.reader(6 * pieceLength, sizeBytes),
      live.reader(0, 10),
    ]
    expect(live.wanted()).toEqual([])
    const waiting = [one, two, three].map((reader) => reader.advance(1000, never.signal).catch(() => {}))
    expect(live.wanted()).toEqual([0, 6 * pieceLength, 0])
    // There, and not to be let out yet: what comes after it is of use.
    map.mark(0, 'p2p')
    expect(live.wanted()).toEqual([pieceLength, 6 * pieceLength])
    never.abort()
    await Promise.all(waiting)
    expect(live.wanted()).toEqual([])
  })

  test('whoever was given bytes that turn out wrong fails; others do not', async () => {
    const { map, live } = newLive()
    const { signal } = new AbortController()
    live.trustPeers(() => true)
    map.mark(0, 'p2p')
    map.mark(1, 'p2p')
    const [misled, behind, beside] = [
      live.reader(0, sizeBytes),
      live.reader(0, sizeBytes),
      live.reader(pieceLength, sizeBytes),
    ]
    await misled.advance(pieceLength, signal)
    await misled.advance(1, signal)
    await behind.advance(pieceLength, signal)
    live.retract(1)
    expect(() => misled.throwIfFailed()).toThrow(IntegrityError)
    await expect(misled.advance(1, signal)).rejects.toThrow(IntegrityError)
    expect(() => behind.throwIfFailed()).not.toThrow()
    expect(() => beside.throwIfFailed()).not.toThrow()
  })

  test('a reader that comes after the download failed fails, too', async () => {
    const { live } = newLive()
    live.fail(new RangeError('no'))
    await expect(live.reader(0, 1).advance(1, new AbortController().signal)).rejects.toThrow('no')
  })
})

/** A download that a test moves on by hand, and what its stream gives. */
async function newShared() {
  const folder = await temporaryDirectory()
  const path = join(folder.path, 'partial')
  const finalPath = join(folder.path, 'final')
  const { map, live } = newLive(path)
  const begun: { signal: AbortSignal; events: BringEvents; settle: PromiseWithResolvers<string> }[] = []
  const files = new SharedFiles()
  const offered = files.offer('key', {
    sizeBytes,
    isCached: false,
    bring: (signal, events) => {
      const settle = promiseWithResolvers<string>()
      signal.addEventListener('abort', () => settle.reject(signal.reason))
      begun.push({ signal, events, settle })
      return settle.promise
    },
  })
  await writeFile(path, bytes)
  const read = (start = 0, end = sizeBytes, signal?: AbortSignal) =>
    offered.open({ start, end }, signal).getReader()
  return {
    map,
    live,
    begun,
    files,
    path,
    finalPath,
    read,
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

interface PromiseWithResolvers<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: unknown) => void
}

function promiseWithResolvers<T>(): PromiseWithResolvers<T> {
  let resolve: (value: T) => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

async function readRest(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(chunks)
    chunks.push(value)
  }
}

/** Time for what was just set off, such as a stream's first pull. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
}

describe('a shared download', () => {
  test('starts when the first body is read, once for all of them', async () => {
    await using shared = await newShared()
    const readers = [shared.read(), shared.read(), shared.read(0, 10)]
    expect(shared.begun).toHaveLength(0)
    const reads = readers.map((reader) => reader.read())
    await turn()
    expect(shared.begun).toHaveLength(1)
    shared.map.write(0, block)
    shared.begun[0]?.events.onLive(shared.live)
    expect((await Promise.all(reads)).map(({ value }) => value?.length)).toEqual([block, block, 10])
    await Promise.all(readers.map((reader) => reader.cancel()))
  })

  test('is given up at once when its last reader cancels or aborts, with its reason', async () => {
    await using shared = await newShared()
    const controller = new AbortController()
    const [one, two] = [shared.read(), shared.read(0, sizeBytes, controller.signal)]
    const reads = [one.read(), two.read()]
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    await one.cancel(new RangeError('one'))
    await turn()
    expect(shared.begun[0]?.signal.aborted).toBe(false)
    controller.abort(new RangeError('two'))
    await expect(reads[1]).rejects.toThrow('two')
    expect(shared.begun[0]?.signal.reason).toEqual(new RangeError('two'))
    // Whoever comes now begins anew.
    const next = shared.read()
    void next.read().catch(() => {})
    await turn()
    expect(shared.begun).toHaveLength(2)
    await next.cancel()
  })

  test('goes on for a moment when a range has been read, so that the next range joins it', async () => {
    await using shared = await newShared()
    shared.map.mark(0, 'http')
    const first = readRest(shared.read(0, 100))
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    expect((await first).equals(bytes.subarray(0, 100))).toBe(true)
    expect((await readRest(shared.read(100, 200))).equals(bytes.subarray(100, 200))).toBe(true)
    expect(shared.begun).toHaveLength(1)
    const given = new Promise((resolve) => shared.begun[0]?.signal.addEventListener('abort', resolve))
    await given
  })

  test('that is renamed before it was opened is read under its last name', async () => {
    await using shared = await newShared()
    const reading = readRest(shared.read())
    reading.catch(() => {})
    await turn()
    await rename(shared.path, shared.finalPath)
    shared.begun[0]?.events.onLive(shared.live)
    await turn()
    shared.begun[0]?.settle.resolve(shared.finalPath)
    expect((await reading).equals(bytes)).toBe(true)
  })

  test('that is renamed while it is read gives the rest, and then its end', async () => {
    await using shared = await newShared()
    shared.map.mark(0, 'http')
    const reader = shared.read()
    const first = reader.read()
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    expect((await first).value).toHaveLength(pieceLength)
    await rename(shared.path, shared.finalPath)
    shared.begun[0]?.settle.resolve(shared.finalPath)
    expect((await readRest(reader)).equals(bytes.subarray(pieceLength))).toBe(true)
  })

  test('that fails fails its readers with the same error, whether they wait for bytes or for the file', async () => {
    await using shared = await newShared()
    shared.map.mark(0, 'http')
    const early = readRest(shared.read())
    early.catch(() => {})
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    await turn()
    shared.begun[0]?.settle.reject(new RangeError('no'))
    await expect(early).rejects.toThrow('no')
    const late = readRest(shared.read())
    late.catch(() => {})
    await turn()
    shared.begun[1]?.settle.reject(new RangeError('neither'))
    await expect(late).rejects.toThrow('neither')
  })

  test('whose file is cut while it is read fails, rather than end early', async () => {
    await using shared = await newShared()
    shared.map.mark(0, 'http')
    shared.map.mark(1, 'http')
    const handle = await open(shared.path, 'r+')
    await handle.truncate(pieceLength)
    await handle.close()
    const reading = readRest(shared.read())
    reading.catch(() => {})
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    await expect(reading).rejects.toMatchObject({ code: 'ERR_LLMPT_CACHE' })
  })

  test('says what it has to give now', async () => {
    await using shared = await newShared()
    const range = { start: 10, end: 20 }
    expect(shared.files.hasNow('key', range)).toBe(false)
    const reader = shared.read()
    void reader.read().catch(() => {})
    await turn()
    shared.begun[0]?.events.onLive(shared.live)
    expect(shared.files.hasNow('key', range)).toBe(false)
    shared.map.mark(0, 'http')
    expect(shared.files.hasNow('key', range)).toBe(true)
    expect(shared.files.hasNow('key', { start: 10, end: pieceLength + 1 })).toBe(false)
    expect(shared.files.hasNow('other', range)).toBe(false)
    await reader.cancel()
    await rm(shared.path)
  })
})
