/** What the race does in orders of events that real peers seldom keep: its torrent says what a test has it say. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import type { Alert, PeerSight, TorrentStatus } from '../../src/native/alerts.ts'
import type { Torrent } from '../../src/native/session.ts'
import type { PieceCheck } from '../../src/native/torrent.ts'
import type { Swarm, TorrentOffer } from '../../src/swarm/swarm.ts'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'
import { defaultRacePolicy } from '../../src/transfer/plan.ts'
import { type RaceOptions, race } from '../../src/transfer/race.ts'
import { until as untilAsync } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 4 * blockBytes
const capMs = 3_000
vi.setConfig({ testTimeout: 2 * capMs })
const until = (holds: () => boolean): Promise<void> => untilAsync(async () => holds(), capMs)

class Gate {
  open: () => void = () => {}
  readonly passed = new Promise<void>((resolve) => {
    this.open = resolve
  })
}

const seed = { isSeed: true, numPieces: 1, sliceId: undefined } as unknown as PeerSight
const offer = {
  infoHash: '0'.repeat(64),
  pieceLength,
  announceUrls: [],
  peers: [],
  isPromising: false,
  mayBeCrowd: false,
  isTied: false,
} as unknown as TorrentOffer

/** A torrent that says what it is told to say. */
class ScriptedTorrent {
  readonly isRemoved = false
  readonly listeners = new Set<(alert: Alert) => void>()
  /** Pieces it was asked to check, in order, and those whose answer is still to come. */
  readonly asked: number[] = []
  readonly pending = new Map<number, ((answer: PieceCheck) => void)[]>()
  peersInSight: PeerSight[] = []
  looks = 0
  counters = { payloadDownload: 0, failedBytes: 0 }
  /** What a question for the status waits for. */
  held: Promise<void> = Promise.resolve()
  onStatus: (torrent: ScriptedTorrent) => void = () => {}

  onAlert(listener: (alert: Alert) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  tell(alert: Partial<Alert>): void {
    for (const listener of this.listeners) listener(alert as Alert)
  }

  async status(): Promise<TorrentStatus> {
    this.onStatus(this)
    await this.held
    const state = { state: 'downloading', hasMetadata: true, redundantBytes: 0, numPeers: 1 }
    return { ...state, ...this.counters } as unknown as TorrentStatus
  }

  async peers(): Promise<PeerSight[]> {
    this.looks += 1
    return this.peersInSight
  }

  async pieceAvailability(): Promise<Uint32Array> {
    return new Uint32Array()
  }

  async unfinishedPieces(): Promise<[]> {
    return []
  }

  announcePiece(piece: number): Promise<PieceCheck> {
    this.asked.push(piece)
    return new Promise((resolve) => this.pending.set(piece, [...(this.pending.get(piece) ?? []), resolve]))
  }

  /** Answers everybody who asked for the piece. */
  answer(piece: number, hasPassed: boolean): void {
    for (const resolve of this.pending.get(piece) ?? []) resolve({ hasPassed, wasThere: false } as PieceCheck)
    this.pending.delete(piece)
  }

  /** Who is there from now on; returns when the race has seen them. */
  async meet(peers: PeerSight[]): Promise<void> {
    this.peersInSight = peers
    const { looks } = this
    await until(() => this.looks >= looks + 2)
  }

  sharePieces(): void {}
  setPiecePriority(): void {}
  setPiecePriorities(): void {}
  setPieceDeadline(): void {}
  setFlags(): void {}
}

interface Setup extends Partial<RaceOptions> {
  readonly pieces: number
  /** Pieces that are there at the start, from HTTP. */
  readonly present?: readonly number[]
  readonly onJoin?: (torrent: ScriptedTorrent) => void
}

/** A race that runs, and the torrent it joins again and again. */
async function startRace(setup: Setup) {
  const { pieces, present = [], onJoin, ...options } = setup
  const folder = await temporaryDirectory()
  const file = await PartialFile.open(join(folder.path, 'partial'), false)
  const map = new PieceMap(pieces * pieceLength, pieceLength)
  await file.write(0, new Uint8Array(map.sizeBytes))
  for (const piece of present) map.mark(piece, 'http')
  const torrent = new ScriptedTorrent()
  const swarm = {
    checksInPlace: true,
    join: async () => {
      onJoin?.(torrent)
      return torrent as unknown as Torrent
    },
    leave: async () => {},
  }
  const controller = new AbortController()
  const condemned: TorrentOffer[] = []
  const running = race({
    map,
    file,
    unfinished: [],
    open: undefined,
    swarm: swarm as unknown as Swarm,
    findTorrent: async () => offer,
    http: options.open === undefined ? 'never' : 'with-swarm',
    swarmStart: 'at-once',
    policy: { ...defaultRacePolicy, tickMs: 4, joinDelayMs: 0 },
    patienceMs: 3_000,
    signal: controller.signal,
    listener: { piece() {}, written() {}, takenBack() {}, unfinished() {}, final() {} },
    onCondemned: async (which) => void condemned.push(which),
    ...options,
  })
  running.catch(() => {}) // A test waits for it later, or not at all.
  await until(() => torrent.listeners.size > 0)
  return {
    map,
    torrent,
    running,
    condemned,
    abort: (reason: unknown) => controller.abort(reason),
    [Symbol.asyncDispose]: async () => {
      controller.abort(new Error('the test is over'))
      // A race that never ends is what a test has failed for: it does not keep the others.
      await Promise.race([running.catch(() => {}), sleep(capMs, undefined, { ref: false })])
      await file[Symbol.asyncDispose]()
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** A server whose answers wait until a test lets them go, one piece after the other. */
function gatedServer(content = 1) {
  const opened: number[] = []
  const gates = new Map<number, Gate>()
  const gate = (piece: number): Gate => {
    const found = gates.get(piece) ?? new Gate()
    gates.set(piece, found)
    return found
  }
  const open: RaceOptions['open'] = async ({ start, end, signal }) => {
    opened.push(start / pieceLength)
    const gone = new Gate()
    signal.addEventListener('abort', gone.open)
    async function* batches(): AsyncGenerator<Uint8Array[]> {
      for (let at = start; at < end; at += pieceLength) {
        await Promise.race([gate(at / pieceLength).passed, gone.passed])
        signal.throwIfAborted()
        yield [new Uint8Array(pieceLength).fill(content)]
      }
    }
    return { start, end, batches: batches() }
  }
  return { open, opened, let: (piece: number) => gate(piece).open() }
}

test('a piece whose check is under way when the peers change is checked once, and an aborted race ends', async () => {
  await using scene = await startRace({ pieces: 5, present: [0, 1, 2, 3] })
  const { torrent } = scene
  await torrent.meet([seed])
  await torrent.meet([])
  await torrent.meet([seed])
  // Three are in hand at once.
  for (const piece of [0, 1]) torrent.answer(piece, true)
  await until(() => torrent.pending.has(3))
  await torrent.meet([seed])
  for (const piece of [2, 3]) torrent.answer(piece, true)
  const reason = new Error('enough')
  scene.abort(reason)
  await expect(scene.running).rejects.toBe(reason)
  expect(torrent.asked).toEqual([0, 1, 2, 3])
})

test('a damaged piece is not held against its torrent when the peers change before it has come again', async () => {
  const server = gatedServer()
  await using scene = await startRace({ pieces: 5, present: [0, 1, 2, 3], open: server.open })
  const { torrent } = scene
  await torrent.meet([seed])
  await torrent.meet([])
  await torrent.meet([seed])
  torrent.answer(0, false)
  await until(() => !scene.map.has(0))
  for (const piece of [1, 2, 3]) {
    await until(() => torrent.pending.has(piece))
    torrent.answer(piece, true)
    await torrent.meet([seed])
    torrent.answer(0, false)
  }
  await torrent.meet([seed])
  for (const piece of [0, 4]) {
    server.let(piece)
    await until(() => torrent.pending.has(piece))
    torrent.answer(piece, true)
  }
  await scene.running
  expect(scene.condemned).toEqual([])
})

test('pieces that a torrent refuses while it is being left for its lies are not missing', async () => {
  const server = gatedServer()
  await using scene = await startRace({ pieces: 3, open: server.open })
  const { torrent } = scene
  await torrent.meet([seed])
  for (const piece of [0, 1, 2]) server.let(piece)
  await until(() => torrent.pending.size === 3)
  torrent.answer(0, false)
  await until(() => torrent.pending.has(0))
  const held = new Gate()
  torrent.held = held.passed
  let isAsked = false
  torrent.answer(0, false)
  await until(() => scene.map.has(0) || scene.map.isFull(0))
  torrent.onStatus = () => {
    isAsked = true
  }
  await until(() => isAsked)
  for (const piece of [1, 2]) torrent.answer(piece, false)
  await new Promise(setImmediate)
  held.open()
  await scene.running
  expect(scene.condemned).toEqual([offer])
})

test('a torrent that refuses what came again while nobody could look has contradicted the Hub', async () => {
  const server = gatedServer(0)
  await using scene = await startRace({ pieces: 3, present: [0, 1], open: server.open })
  const { torrent } = scene
  await torrent.meet([seed])
  torrent.answer(1, true)
  torrent.answer(0, false)
  await until(() => server.opened.includes(0))
  await torrent.meet([])
  server.let(0)
  await until(() => scene.map.has(0))
  await torrent.meet([seed])
  torrent.answer(0, false)
  await until(() => scene.condemned.length > 0)
  server.let(2)
  await scene.running
  expect(server.opened.filter((piece) => piece === 0)).toHaveLength(1)
})

test('a swarm of liars is joined again ever more seldom, and no longer than there is patience', async () => {
  let nowMs = 0
  const joins: number[] = []
  await using scene = await startRace({
    pieces: 100,
    patienceMs: 30_000,
    nowMs: () => nowMs,
    policy: { ...defaultRacePolicy, tickMs: 1 },
    onJoin: (torrent) => {
      joins.push(nowMs)
      torrent.counters = { payloadDownload: 0, failedBytes: 0 }
      let asked = 0
      torrent.onStatus = () => {
        nowMs += 250
        asked += 1
        if (asked === 2) torrent.counters.payloadDownload = pieceLength
        if (asked !== 3) return
        torrent.counters.failedBytes = pieceLength
        torrent.tell({ type: 'hash_failed', piece: 0 })
      }
    },
  })
  await expect(scene.running).rejects.toThrow('no peer sent anything for 30 s')
  const waits = joins
    .slice(1)
    .map((ms, at) => Math.floor((ms - (joins[at] ?? 0)) / defaultRacePolicy.stallMs))
  expect(waits.length).toBeGreaterThan(4)
  expect(waits.slice(0, 4)).toEqual([1, 2, 4, 4])
  expect(nowMs).toBeLessThan(35_000)
})

test('a slow peer that brings bytes is not left for the rubbish that others sent before', async () => {
  let nowMs = 0
  let joins = 0
  await using _ = await startRace({
    pieces: 100,
    nowMs: () => nowMs,
    policy: { ...defaultRacePolicy, tickMs: 1 },
    onJoin: (torrent) => {
      joins += 1
      torrent.onStatus = () => {
        nowMs += 250
        if (nowMs === 1_000) torrent.counters.payloadDownload = 50 * pieceLength
        if (nowMs === 1_250) {
          torrent.counters.failedBytes = 50 * pieceLength
          torrent.tell({ type: 'hash_failed', piece: 0 })
        }
        if (nowMs > 1_250) torrent.counters.payloadDownload += blockBytes
      }
    },
  })
  await until(() => nowMs > 10_000)
  expect(joins).toBe(1)
})
