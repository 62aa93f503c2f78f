import { describe, expect, test } from 'vitest'
import { LiveFile } from '../../src/transfer/live-file.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'

const pieceLength = 4 * blockBytes
/** Three pieces; the last one has one block and 100 bytes. */
const sizeBytes = 2 * pieceLength + blockBytes + 100
/** The last block waits for the digest. */
const lastBlock = 2 * pieceLength + blockBytes

function rig(): { map: PieceMap; live: LiveFile; signal: AbortSignal; controller: AbortController } {
  const map = new PieceMap(sizeBytes, pieceLength)
  const controller = new AbortController()
  return { map, live: new LiveFile('/partial', map), signal: controller.signal, controller }
}

/** Whether a promise has settled once everything that is due has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const later = new Promise((resolve) => setImmediate(() => resolve(isPending)))
  return (await Promise.race([promise.catch(() => {}), later])) === isPending
}

describe('let out at once', () => {
  test('are pieces and blocks from HTTP, to the first gap', () => {
    const { map, live } = rig()
    map.mark(0, 'http')
    map.write(pieceLength, pieceLength + 2 * blockBytes)
    map.write(pieceLength + 3 * blockBytes, 2 * pieceLength)
    expect(live.readableEnd(0)).toBe(pieceLength + 2 * blockBytes)
    expect(live.readableEnd(blockBytes + 7)).toBe(pieceLength + 2 * blockBytes)
    expect(live.readableEnd(2 * pieceLength - 1)).toBe(2 * pieceLength)
  })

  test('are pieces from peers once their torrent is trusted and found them right', () => {
    const { map, live } = rig()
    map.mark(0, 'http')
    map.mark(1, 'p2p')
    map.write(2 * pieceLength, 2 * pieceLength + blockBytes)
    expect(live.readableEnd(0)).toBe(pieceLength)
    live.trustPeers(() => true)
    expect(live.readableEnd(0)).toBe(lastBlock)
    live.trustPeers((piece) => piece !== 1)
    expect(live.readableEnd(0)).toBe(pieceLength)
  })
})

describe('held back', () => {
  test('is the last block until the digest has matched', () => {
    const { map, live } = rig()
    for (let piece = 0; piece < map.count; piece++) map.mark(piece, 'http')
    expect(live.readableEnd(0)).toBe(lastBlock)
    expect(live.readableEnd(lastBlock)).toBe(lastBlock)
    live.finish()
    expect(live.readableEnd(0)).toBe(sizeBytes)
  })

  test('are pieces that peers completed, even where HTTP brought a part', () => {
    const { map, live } = rig()
    map.write(0, 2 * blockBytes)
    expect(live.readableEnd(0)).toBe(2 * blockBytes)
    map.mark(0, 'p2p')
    expect(live.readableEnd(0)).toBe(0)
  })

  test('are the pieces of peers who lost their trust', () => {
    const { map, live } = rig()
    live.trustPeers(() => true)
    live.distrustPeers()
    map.mark(0, 'p2p')
    expect(live.readableEnd(0)).toBe(0)
  })

  test('are blocks of a piece that somebody else may be writing', () => {
    const { map, live } = rig()
    map.write(0, 2 * blockBytes)
    live.watch((piece) => piece === 0)
    expect(live.readableEnd(0)).toBe(0)
  })
})

describe('a reader', () => {
  test('waits for what is not there, and gets no more than it asked for', async () => {
    const { map, live, signal } = rig()
    const reader = live.reader(blockBytes, sizeBytes)
    const end = reader.advance(100, signal)
    map.write(0, blockBytes)
    live.changed()
    expect(await isPending(end)).toBe(true)
    map.write(blockBytes, 2 * blockBytes)
    live.changed()
    expect(await end).toBe(blockBytes + 100)
    expect(await reader.advance(sizeBytes, signal)).toBe(2 * blockBytes)
  })

  test('is known by the first byte it waits for, until it has it or has gone', async () => {
    const { map, live, signal, controller } = rig()
    const readers = [pieceLength + 5, 3].map((start) => live.reader(start, sizeBytes))
    const patience = new AbortController()
    expect(live.wanted()).toEqual([])
    const [later, sooner] = readers.map((reader, index) =>
      reader.advance(10, index === 0 ? patience.signal : signal),
    )
    expect(live.wanted()).toEqual([pieceLength + 5, 3].map((offset) => offset))
    controller.abort(new Error('I am off'))
    await expect(sooner).rejects.toThrow('I am off')
    expect(live.wanted()).toEqual([pieceLength + 5])
    map.mark(1, 'http')
    live.changed()
    expect(await later).toBe(pieceLength + 15)
    expect(live.wanted()).toEqual([])
  })

  test('that was given bytes which turn out wrong fails, and no other does', async () => {
    const { map, live, signal } = rig()
    map.mark(0, 'http')
    map.mark(1, 'http')
    const misled = live.reader(0, sizeBytes)
    const lucky = live.reader(pieceLength, sizeBytes)
    await misled.advance(10, signal)
    await lucky.advance(10, signal)
    live.retract(0)
    await expect(misled.advance(10, signal)).rejects.toMatchObject({ code: 'ERR_LLMPT_INTEGRITY' })
    expect(await lucky.advance(10, signal)).toBe(pieceLength + 20)
  })

  test('fails with its file, also one that comes later', async () => {
    const { live, signal } = rig()
    const waiting = live.reader(0, sizeBytes).advance(10, signal)
    live.fail(new Error('the disk is full'))
    await expect(waiting).rejects.toThrow('the disk is full')
    await expect(live.reader(0, 10).advance(10, signal)).rejects.toThrow('the disk is full')
  })
})
