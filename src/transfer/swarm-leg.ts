/**
 * The swarm hand of a download: one torrent whose file is the partial file. libtorrent fetches and checks pieces on
 * its own threads; pieces that HTTP wrote into the same file are checked by the torrent too (`give`), so both hands
 * fill one piece map, and what came from the Hub can be passed on at once.
 */
import { dirname } from 'node:path'
import { getSystemErrorName } from 'node:util'
import { CacheError, NativeError, SwarmError } from '../errors.ts'
import { asCacheError } from '../hub/cache-files.ts'
import {
  type Alert,
  type AlertError,
  hasPiece,
  type PeerSight,
  type TorrentStatus,
  type UnfinishedPiece,
} from '../native/alerts.ts'
import type { Torrent } from '../native/session.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { settledStatus } from '../swarm/torrent-status.ts'
import type { PieceMap, PieceSource } from './piece-map.ts'
import { RateWindow } from './rate.ts'

/** A piece handed in is hashed within milliseconds; libtorrent that says nothing for this long has ignored it. */
const verdictDeadlineMs = 5_000
/** Pieces in libtorrent's hands at once. */
const maxGiven = 3
/** More changes than this at once are told as one. */
const maxSingleChanges = 32

export type Verdict = 'accepted' | 'rejected' | 'ignored'

export interface SwarmLegOptions {
  readonly swarm: Swarm
  readonly offer: TorrentOffer
  readonly path: string
  readonly map: PieceMap
  /** How much each piece is wanted from peers: 0 (not at all) to 7. */
  readonly priorityOf: (piece: number) => number
  /** Blocks that peers brought in an earlier attempt. */
  readonly unfinished: readonly UnfinishedPiece[]
  /** Under which name this download shares the origin with others. */
  readonly sliceId: string
  /** The bytes of a piece that is on disk. */
  readonly read: (piece: number) => Promise<Uint8Array>
  readonly nowMs: () => number
  readonly rateWindowMs: number
  readonly signal: AbortSignal
  /** A piece passed its hash. */
  readonly onPiece: (piece: number, source: PieceSource) => void
  /** libtorrent cannot go on: disk error, torrent error. */
  readonly onError: (error: Error) => void
}

export class SwarmLeg {
  readonly torrent: Torrent
  readonly offer: TorrentOffer
  readonly #options: SwarmLegOptions
  readonly #rate: RateWindow
  readonly #priorities: Uint8Array
  /** Pieces whose answer is still to come; alerts of them may be about what peers brought. */
  readonly #announced = new Set<number>()
  /** Pieces from elsewhere: libtorrent finds them right, the swarm did not bring them. */
  readonly #given = new Set<number>()
  /** Pieces libtorrent has. */
  readonly #seen = new Set<number>()
  readonly #verdicts = new Map<number, (verdict: Verdict) => void>()
  /** Pieces with a deadline. */
  readonly #hurried = new Set<number>()
  readonly #waiting: (() => void)[] = []
  #inHand = 0
  #isReleased = false
  readonly #stopListening: () => void
  #bestBytes = 0
  #failedBytes = 0
  joinedMs = 0
  /** When peers last brought new bytes. Rubbish counts until its piece has failed. */
  progressMs = 0
  /** What peers have brought since a piece last passed; rubbish, too. */
  newBytes = 0
  /** When peers brought their first bytes. */
  firstMs: number | undefined
  latest: TorrentStatus | undefined
  /** How many pieces of its peers failed their hash. */
  hashFailures = 0
  /** Who is connected, and for each piece how many of them have it; as of the last `look`. */
  peers: readonly PeerSight[] = []
  availability: Uint32Array = new Uint32Array()
  unfinished: readonly UnfinishedPiece[]

  private constructor(torrent: Torrent, priorities: Uint8Array, options: SwarmLegOptions) {
    this.torrent = torrent
    this.offer = options.offer
    this.#options = options
    this.#priorities = priorities
    this.unfinished = options.unfinished
    this.#rate = new RateWindow(options.rateWindowMs)
    this.#stopListening = torrent.onAlert((alert) => this.#hear(alert))
  }

  /**
   * Joins the swarm. Nothing counts as there before it was given, or came from peers.
   *
   * @returns `undefined` when this process has that torrent in use for another file.
   */
  static async join(options: SwarmLegOptions): Promise<SwarmLeg | undefined> {
    const { map, swarm, offer, path, unfinished, sliceId } = options
    const priorities = Uint8Array.from({ length: map.count }, (_, piece) => options.priorityOf(piece))
    const torrent = await swarm.join(offer, {
      path,
      mode: 'download',
      progress: { priorities, unfinished, sliceId },
    })
    if (torrent === undefined) return undefined
    const leg = new SwarmLeg(torrent, priorities, options)
    // Nobody waits for verdicts any more when the race is over.
    options.signal.addEventListener('abort', () => leg.#settleAll(), { once: true })
    try {
      const status = await settledStatus(torrent, options.signal)
      leg.joinedMs = leg.progressMs = options.nowMs()
      leg.#adopt(status)
      return leg
    } catch (error) {
      await leg.leave()
      throw error
    }
  }

  get bytesPerSecond(): number {
    return this.#rate.bytesPerSecond
  }

  /** Connected peers that have anything to give. */
  get sources(): number {
    return this.peers.reduce((sum, peer) => sum + (peer.numPieces > 0 ? 1 : 0), 0)
  }

  /** Whether peers have sent anything, and more may be on its way. */
  async hasReceived(): Promise<boolean> {
    const status = await this.torrent.status().catch(() => this.latest)
    return (status?.payloadDownload ?? 0) > 0
  }

  /** Whether libtorrent has found the piece right. */
  hasSeen(piece: number): boolean {
    return this.#seen.has(piece)
  }

  /** Asks libtorrent how it is doing; called by the race's tick. */
  async sample(): Promise<void> {
    const status = await this.torrent.status()
    this.latest = status
    const now = this.#options.nowMs()
    const bytes = status.payloadDownload - status.failedBytes - status.redundantBytes
    this.#rate.add(now, Math.max(0, bytes))
    // What others bring is not measured against rubbish that has failed.
    this.#bestBytes -= status.failedBytes - this.#failedBytes
    this.#failedBytes = status.failedBytes
    if (bytes > this.#bestBytes) {
      this.newBytes += bytes - this.#bestBytes
      this.#bestBytes = bytes
      this.progressMs = now
      this.firstMs ??= now
    }
  }

  /** Asks who is there, what they have, and what libtorrent is working on. */
  async look(): Promise<void> {
    const [peers, availability, unfinished] = await Promise.all([
      this.torrent.peers(),
      this.torrent.pieceAvailability(),
      this.torrent.unfinishedPieces(),
    ])
    this.peers = peers
    this.availability = availability
    this.unfinished = unfinished
  }

  /** The part of `look` that a crash would make dear: what of its pieces libtorrent has on disk. */
  async lookAtUnfinished(): Promise<void> {
    this.unfinished = await this.torrent.unfinishedPieces()
  }

  /** Tells libtorrent how much each piece is wanted now. */
  prioritize(): void {
    if (this.torrent.isRemoved) return
    const changed: number[] = []
    for (let piece = 0; piece < this.#priorities.length; piece++) {
      const priority = this.#options.priorityOf(piece)
      if (this.#priorities[piece] === priority) continue
      this.#priorities[piece] = priority
      changed.push(piece)
    }
    if (changed.length === 0) return
    // A single change takes a piece with a deadline only as far as "wanted"; all of them at once mean what they say.
    const isHurried = changed.filter((piece) => this.#hurried.delete(piece)).length > 0
    if (isHurried || changed.length > maxSingleChanges) this.torrent.setPiecePriorities(this.#priorities)
    else for (const piece of changed) this.torrent.setPiecePriority(piece, this.#priorities[piece] ?? 0)
  }

  /** Asks for a piece that is wanted within `deadlineMs`, ahead of all others. */
  hurry(piece: number, deadlineMs: number): void {
    if (this.torrent.isRemoved || this.#hurried.has(piece) || this.#priorities[piece] === 0) return
    this.#hurried.add(piece)
    this.torrent.setPieceDeadline(piece, deadlineMs)
  }

  /**
   * Has the torrent check a piece that is on disk, complete and not from its peers; then it is announced to them. Not
   * twice at once for the same piece.
   */
  async give(piece: number): Promise<Verdict> {
    await this.#turn()
    try {
      if (this.torrent.isRemoved || this.#options.signal.aborted) return 'ignored'
      if (this.#seen.has(piece)) return 'accepted'
      return await this.#give(piece)
    } finally {
      this.#inHand -= 1
      this.#waiting.shift()?.()
    }
  }

  async #give(piece: number): Promise<Verdict> {
    const { swarm, read } = this.#options
    const data = swarm.checksInPlace ? undefined : await read(piece)
    if (data !== undefined) this.#given.add(piece)
    const verdict = new Promise<Verdict>((resolve) => this.#verdicts.set(piece, resolve))
    const timer = setTimeout(() => this.#settle(piece, 'ignored'), verdictDeadlineMs)
    try {
      if (data === undefined) void this.#announce(piece)
      else this.torrent.addPiece(piece, data, { overwrite: true })
      const result = await verdict
      if (result !== 'accepted') this.#given.delete(piece)
      return result
    } finally {
      clearTimeout(timer)
      this.#verdicts.delete(piece)
    }
  }

  async #announce(piece: number): Promise<void> {
    this.#announced.add(piece)
    try {
      const { hasPassed, wasThere } = await this.torrent.announcePiece(piece)
      this.#announced.delete(piece)
      if (hasPassed && !wasThere) this.#given.add(piece)
      if (hasPassed && !this.#isReleased) this.#passed(piece)
      this.#settle(piece, hasPassed ? 'accepted' : 'rejected')
    } catch (error) {
      this.#announced.delete(piece)
      // Also one of our own making must not be lost: nobody waits for this.
      if (!this.torrent.isRemoved && !this.#isReleased) this.#options.onError(this.#failureToRead(error))
      this.#settle(piece, 'ignored')
    }
  }

  #failureToRead(error: unknown): Error {
    if (error instanceof NativeError) return failureOf(error, this.#options.path)
    return error instanceof Error ? error : new Error(String(error))
  }

  #passed(piece: number): void {
    this.#seen.add(piece)
    this.newBytes = 0
    this.#options.onPiece(piece, this.#given.has(piece) ? 'http' : 'p2p')
  }

  /** HTTP is about to write into the pieces `[first, end)`, too. */
  share(first: number, end: number): void {
    if (!this.torrent.isRemoved && this.#options.swarm.checksInPlace) this.torrent.sharePieces(first, end)
  }

  async #turn(): Promise<void> {
    if (this.#inHand >= maxGiven) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#inHand += 1
  }

  /**
   * Keeps libtorrent from ever writing to the file again, and says whether it has all of it. A leg that has not must
   * not outlive its race: what it still fetched would go into a file that has been verified.
   */
  async seal(): Promise<boolean> {
    if (this.torrent.isRemoved) return false
    this.torrent.setFlags({ upload_mode: true })
    const { pieces } = await this.torrent.status()
    const { count } = this.#options.map
    for (let piece = 0; piece < count; piece++) if (!hasPiece(pieces, piece)) return false
    return true
  }

  /** Ends the leg; the torrent stays in its swarm and belongs to the caller. */
  release(): Torrent {
    this.#isReleased = true
    this.#stopListening()
    this.#settleAll()
    return this.torrent
  }

  async leave(): Promise<void> {
    this.release()
    await this.#options.swarm.leave(this.torrent)
  }

  /** Leaves for good with a file that is complete and right, when the trackers can be told. */
  retire(): void {
    this.#options.swarm.retire(this.release())
  }

  #adopt(status: TorrentStatus): void {
    this.latest = status
    if (status.pieces === undefined) return
    for (let piece = 0; piece < this.#options.map.count; piece++) {
      if (!hasPiece(status.pieces, piece)) continue
      this.#seen.add(piece)
      this.#options.onPiece(piece, 'p2p')
    }
  }

  #hear(alert: Alert): void {
    switch (alert.type) {
      case 'piece_finished':
        // The answer to an announce says whose piece it is.
        if (this.#announced.has(alert.piece)) break
        this.#passed(alert.piece)
        this.#settle(alert.piece, 'accepted')
        break
      case 'hash_failed':
        if (this.#announced.has(alert.piece)) break
        if (!this.#verdicts.has(alert.piece)) this.hashFailures += 1
        this.#settle(alert.piece, 'rejected')
        break
      case 'torrent_error':
      case 'file_error':
        this.#options.onError(failureOf(alert.error, alert.file))
        break
      case 'torrent_removed':
        this.#settleAll()
        break
    }
  }

  #settle(piece: number, verdict: Verdict): void {
    this.#verdicts.get(piece)?.(verdict)
    this.#verdicts.delete(piece)
  }

  #settleAll(): void {
    for (const piece of [...this.#verdicts.keys()]) this.#settle(piece, 'ignored')
  }
}

/** What the file system refused is a matter of the cache, whoever asked it: HTTP would meet the same disk. */
function failureOf({ category, message, value }: AlertError | NativeError, file: string): Error {
  const swarmError = new SwarmError(`${message} (${file})`)
  // On Windows the system's numbers are not those Node has names for.
  const isErrno = category === 'generic' || (category === 'system' && process.platform !== 'win32')
  if (!isErrno || value <= 0) return swarmError
  const cause = Object.assign(new Error(message), { code: getSystemErrorName(-value), path: file })
  const cacheError = asCacheError(cause, dirname(file))
  return cacheError instanceof CacheError ? cacheError : swarmError
}
