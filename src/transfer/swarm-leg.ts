/**
 * The swarm hand of a download: one torrent whose file is the partial file. libtorrent fetches and checks
 * pieces on its own threads; pieces from HTTP enter through `give`, so both hands fill one piece map.
 */

import { SwarmError } from '../errors.ts'
import { type Alert, hasPiece, type TorrentStatus } from '../native/alerts.ts'
import type { Torrent } from '../native/session.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { settledStatus } from '../swarm/torrent-status.ts'
import type { PieceMap, PieceSource } from './piece-map.ts'
import { RateWindow } from './rate.ts'

const normalPriority = 4
/** A piece handed in is hashed within milliseconds; libtorrent that says nothing for this long has ignored it. */
const verdictDeadlineMs = 5_000

export type Verdict = 'accepted' | 'rejected' | 'ignored'

export interface SwarmLegOptions {
  readonly swarm: Swarm
  readonly offer: TorrentOffer
  readonly path: string
  readonly map: PieceMap
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
  /** Pieces from HTTP, and their bytes: libtorrent counts them as done, the swarm did not bring them. */
  readonly #given = new Set<number>()
  #givenBytes = 0
  /** Pieces libtorrent has. */
  readonly #seen = new Set<number>()
  readonly #verdicts = new Map<number, (verdict: Verdict) => void>()
  readonly #stopListening: () => void
  #claimed: readonly [number, number] = [0, 0]
  #bestDoneBytes = 0
  joinedMs = 0
  /** When libtorrent last had more good bytes than ever before; bytes that fail their hash do not count. */
  progressMs = 0
  hasDelivered = false
  latest: TorrentStatus | undefined

  private constructor(torrent: Torrent, options: SwarmLegOptions) {
    this.torrent = torrent
    this.offer = options.offer
    this.#options = options
    this.#rate = new RateWindow(options.rateWindowMs)
    this.#stopListening = torrent.onAlert((alert) => this.#hear(alert))
  }

  /**
   * Joins the swarm and waits until libtorrent has checked what the file holds already.
   *
   * @returns `undefined` when this process has that torrent in use for another file.
   */
  static async join(options: SwarmLegOptions): Promise<SwarmLeg | undefined> {
    const torrent = await options.swarm.join(options.offer, { path: options.path, mode: 'download' })
    if (torrent === undefined) return undefined
    const leg = new SwarmLeg(torrent, options)
    // Nobody waits for verdicts any more when the race is over.
    options.signal.addEventListener('abort', () => leg.#settleAll(), { once: true })
    try {
      const status = await settledStatus(torrent, options.signal)
      leg.joinedMs = leg.progressMs = options.nowMs()
      leg.#bestDoneBytes = status.totalDone
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

  /** Asks libtorrent how it is doing; called by the race's tick. */
  async sample(): Promise<void> {
    const status = await this.torrent.status()
    this.latest = status
    const now = this.#options.nowMs()
    // What HTTP handed in is in `totalDone` too: only growth beyond it is the swarm's.
    const done = status.totalDone - this.#givenBytes
    this.#rate.add(now, Math.max(0, done))
    if (done > this.#bestDoneBytes) {
      this.#bestDoneBytes = done
      this.progressMs = now
      this.hasDelivered = true
    }
  }

  /** Keeps the swarm off the pieces `[first, end)`, and gives it back those claimed before. */
  claim(first: number, end: number): void {
    const [oldFirst, oldEnd] = this.#claimed
    if (this.torrent.isRemoved) return
    for (let piece = oldFirst; piece < oldEnd; piece++) {
      if (piece < first || piece >= end) this.torrent.setPiecePriority(piece, normalPriority)
    }
    for (let piece = first; piece < end; piece++) {
      if (piece < oldFirst || piece >= oldEnd) this.torrent.setPiecePriority(piece, 0)
    }
    this.#claimed = [first, end]
  }

  /** Hands a piece to libtorrent, which writes it and checks it against the torrent. */
  async give(piece: number, data: Uint8Array): Promise<Verdict> {
    if (this.torrent.isRemoved) return 'ignored'
    this.#given.add(piece)
    this.#givenBytes += this.#options.map.lengthOf(piece)
    const verdict = new Promise<Verdict>((resolve) => this.#verdicts.set(piece, resolve))
    this.torrent.addPiece(piece, data, { overwrite: true })
    const timer = setTimeout(() => this.#settle(piece, 'ignored'), verdictDeadlineMs)
    try {
      const result = await verdict
      if (result !== 'accepted' && this.#given.delete(piece))
        this.#givenBytes -= this.#options.map.lengthOf(piece)
      return result
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Takes in pieces that are on disk already but that libtorrent has not seen.
   *
   * @param onRefused Called for each one that is not what the torrent says.
   */
  async catchUp(
    read: (piece: number) => Promise<Uint8Array>,
    onRefused: (piece: number) => void,
  ): Promise<void> {
    for (const piece of this.#options.map.present()) {
      if (this.#options.signal.aborted) return
      if (this.#seen.has(piece)) continue
      if ((await this.give(piece, await read(piece))) === 'rejected') onRefused(piece)
    }
  }

  /**
   * Keeps libtorrent from ever writing to the file again, and says whether it has all of it. A leg that has not must
   * not outlive its race: what it still fetched would go into a file that has been verified.
   */
  async seal(): Promise<boolean> {
    if (this.torrent.isRemoved) return false
    this.torrent.setFlags({ upload_mode: true })
    const { pieces } = await this.torrent.status()
    for (let piece = 0; piece < this.#options.map.count; piece++) if (!hasPiece(pieces, piece)) return false
    return true
  }

  /** Lets go of the torrent without taking it out of the swarm: it has a new owner. */
  release(): Torrent {
    this.#stopListening()
    this.#settleAll()
    return this.torrent
  }

  async leave(): Promise<void> {
    this.release()
    await this.#options.swarm.leave(this.torrent)
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
        this.#seen.add(alert.piece)
        this.#options.onPiece(alert.piece, this.#given.has(alert.piece) ? 'http' : 'p2p')
        this.#settle(alert.piece, 'accepted')
        break
      case 'hash_failed':
        this.#settle(alert.piece, 'rejected')
        break
      case 'torrent_error':
      case 'file_error':
        this.#options.onError(new SwarmError(`${alert.error.message} (${alert.file})`))
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
