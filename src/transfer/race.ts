/**
 * Two hands, one piece map. The race owns the clock: it starts HTTP and the swarm at the same moment, looks at both
 * every tick, lets `decideHttp` say what HTTP works on, tells the swarm which pieces to leave alone, and ends when
 * every piece is there or when nobody can bring the rest.
 *
 * Who may write a piece: its HTTP runs while it is missing; libtorrent while it has a priority and has not passed. A
 * piece is final once it is present and no write of HTTP is under way in it.
 *
 * A torrent is a hint. One whose hashes refuse what the Hub gave twice is condemned on the spot: what its peers brought
 * is dropped, what HTTP brought stays.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { SwarmError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { UnfinishedPiece } from '../native/alerts.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { Crowd } from './crowd.ts'
import { Disputes } from './disputes.ts'
import { chooseRange } from './http-choice.ts'
import { type ByteRange, HttpLeg, type RangeOpener } from './http-leg.ts'
import type { PartialFile } from './partial-file.ts'
import type { PieceMap, PieceSource } from './piece-map.ts'
import {
  decideHttp,
  type HttpMode,
  isEmptySwarm,
  type JoinView,
  letsHttpFinish,
  type RacePolicy,
  type RaceView,
} from './plan.ts'
import type { TransferProgress } from './progress.ts'
import { type Audience, Readers } from './readers.ts'
import { SwarmLeg } from './swarm-leg.ts'

/** Hears what becomes of the file's bytes, in the order it happens. */
export interface ByteListener {
  /** A piece is present. */
  piece(piece: number, source: PieceSource): void
  /** HTTP wrote these bytes. */
  written(range: ByteRange): void
  /** A piece that was present, thanks to `source`, or partly written is missing again. */
  takenBack(piece: number, source: PieceSource | undefined): void
  /** Blocks of unfinished pieces that peers brought. */
  unfinished(pieces: readonly UnfinishedPiece[]): void
  /** No byte before `endBytes` will be written again, unless it is taken back first. */
  final(endBytes: number): void
}

export interface RaceOptions {
  readonly map: PieceMap
  readonly file: PartialFile
  /** Blocks that peers brought in an earlier attempt. */
  readonly unfinished: readonly UnfinishedPiece[]
  /** `undefined`: no HTTP. */
  readonly open: RangeOpener | undefined
  readonly freeSlots?: (() => number) | undefined
  readonly swarm: Swarm | undefined
  /** Finds a torrent; called at most once, at the start or when HTTP fails. Never throws but for an abort. */
  readonly findTorrent: (signal: AbortSignal) => Promise<TorrentOffer | undefined>
  readonly http: 'at-once' | 'with-swarm' | 'never'
  readonly swarmStart: 'at-once' | 'when-http-fails' | 'never'
  readonly policy: RacePolicy
  /** How long nothing at all may happen before the race is lost. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly listener: ByteListener
  readonly audience?: Audience | undefined
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
  /** Called when a torrent's hashes contradict what the Hub serves, twice and alike. */
  readonly onCondemned?: ((offer: TorrentOffer) => Promise<void>) | undefined
  readonly nowMs?: () => number
  readonly random?: () => number
}

export interface RaceOutcome {
  /**
   * The swarm this file came from, still joined and complete there; its new owner releases or leaves it. It does not
   * write to the file any more.
   */
  readonly leg: SwarmLeg | undefined
  /** The torrent that was used, whether it is still joined or not. */
  readonly offer: TorrentOffer | undefined
  /**
   * Whether libtorrent, before it was left, may have written a peer's late block over bytes that were final: a digest of
   * them has to be made anew.
   */
  readonly isUncertain: boolean
  /** Whether HTTP wrote into pieces that peers completed, and that libtorrent hashed from memory. */
  readonly isMixed: boolean
}

type SwarmState =
  | { kind: 'none' }
  | { kind: 'asking' }
  | { kind: 'joining'; offer: TorrentOffer }
  | { kind: 'joined'; leg: SwarmLeg }

/** Every how many ticks the race asks who is there; it costs libtorrent more than a status. */
const ticksPerLook = 3
/** How much peers may bring before it is noted which blocks they brought; a crash costs no more of their pieces. */
const unnotedBytes = 4 * 1024 * 1024
/** Until a swarm has been joined for this long, its rate says little. */
const rateKnownMs = 500
/** How long the swarm may take to check what HTTP brought last, so that it can go on giving without a gap. */
const lastChecksMs = 1_000
/** How long the swarm must have nothing to do before it fetches what HTTP is at, too. */
const starvedMs = 300
/** How many times `stallMs` the swarm may be silent at most before it is joined again, however often that was no use. */
const maxRejoinStalls = 4
const normalPriority = 4
const firstPriority = 7
const lastPriority = 1
/** How far ahead of HTTP peers are kept away. */
const lookaheadMs = 2_000
/** Requests at a time of each peer of a crowd: one on its way while the other arrives. */
const sliceRuns = 2

/** Fetches every missing piece of `map` into `file`. @throws The last error of whoever failed last; the signal's reason. */
export async function race(options: RaceOptions): Promise<RaceOutcome> {
  options.signal.throwIfAborted()
  return await new Race(options).run()
}

class Race {
  readonly #options: RaceOptions
  readonly #map: PieceMap
  readonly #policy: RacePolicy
  readonly #nowMs: () => number
  readonly #random: () => number
  readonly #startedMs: number
  readonly #inner = new AbortController()
  readonly #http: HttpLeg | undefined
  readonly #crowd: Crowd
  readonly #readers: Readers | undefined
  readonly #disputes = new Disputes()
  #isReopening = false
  readonly #checks = new Set<Promise<void>>()
  /** Pieces whose check, or what follows from it, is under way. */
  readonly #checking = new Map<number, { leg: SwarmLeg }>()
  /** Pieces HTTP was asked for, or wrote into. */
  readonly #httpPieces = new Set<number>()
  #mode: HttpMode = 'rest'
  #swarm: SwarmState = { kind: 'none' }
  #swarmWasAsked = false
  #swarmError: Error | undefined
  #offer: TorrentOffer | undefined
  #joining: Promise<void> = Promise.resolve()
  readonly #resumed: Record<PieceSource, number>
  #httpNext: readonly [first: number, end: number] = [0, 0]
  #isUncertain = false
  #isMixed = false
  /** First piece that is not final. */
  #finalPiece = 0
  #starvedSinceMs: number | undefined
  #outcastAtBytes = Number.POSITIVE_INFINITY
  #uselessRejoins = 0
  #changedMs: number
  #doneBytes = 0
  /** What peers brought at most, since the last new piece, before they were left without another one. */
  #uselessBytes = 0
  #ticks = 0
  #isTicking = false
  #notedMs: number
  #isNoting = false
  #finish: (error?: unknown) => void = () => {}

  constructor(options: RaceOptions) {
    this.#options = options
    this.#map = options.map
    this.#policy = options.policy
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#random = options.random ?? Math.random
    this.#startedMs = this.#changedMs = this.#notedMs = this.#nowMs()
    this.#resumed = options.map.bytes()
    this.#crowd = new Crowd(options.map, options.policy.orphanMs, this.#startedMs)
    if (options.open !== undefined && options.http !== 'never') this.#http = this.#newHttpLeg(options.open)
    if (options.audience !== undefined) this.#readers = this.#newReaders(options.audience)
  }

  #newReaders(audience: Audience): Readers {
    const { file, open } = this.#options
    return new Readers({
      audience,
      map: this.#map,
      file,
      open,
      isClaimed: (piece) => this.#http?.isClaimed(piece) ?? false,
      nowMs: this.#nowMs,
      signal: this.#inner.signal,
      onContradiction: () => this.#track(this.#condemn()),
    })
  }

  #newHttpLeg(open: RangeOpener): HttpLeg {
    const { file, freeSlots, policy } = this.#options
    return new HttpLeg({
      map: this.#map,
      file,
      open,
      freeSlots,
      maxRuns: () => (this.#isAmongCrowd() || this.#mode !== 'all' ? sliceRuns : Number.POSITIVE_INFINITY),
      next: (maxBytes) => this.#next(maxBytes),
      onWritten: (range) => this.#written(range),
      onRunEnd: () => this.#runEnded(),
      mayGiveUp: () => !this.#swarmIsAlive(),
      nowMs: this.#nowMs,
      rateWindowMs: policy.stallMs,
      stallMs: policy.stallMs,
    })
  }

  async run(): Promise<RaceOutcome> {
    const { signal } = this.#options
    let over = this.#ending()
    const abort = (): void => this.#finish(signal.reason)
    signal.addEventListener('abort', abort)
    const timer = setInterval(() => void this.#tick(), this.#policy.tickMs)
    this.#options.audience?.watch((piece) => this.#isInFlux(piece))
    const noteTimer = setInterval(() => void this.#noteUnfinished(), this.#policy.tickMs / 4)
    try {
      this.#advanceFinal()
      for (let piece = 0; piece < this.#map.count; piece++) if (this.#map.isFull(piece)) this.#full(piece)
      if (this.#map.isComplete) this.#finish()
      else {
        if (this.#options.swarmStart === 'at-once') this.#askForTorrent()
        void this.#tick()
      }
      await over
      for (over = this.#ending(); await this.#isTakenBackByLastChecks(); over = this.#ending()) await over
      await this.#end()
      const leg = await this.#survivor()
      return { leg, offer: this.#offer, isUncertain: this.#isUncertain, isMixed: this.#isMixed }
    } catch (error) {
      // Its last report may throw once more what ended the race: the caller's own listener.
      await this.#end().catch(() => {})
      await this.#abandon(this.#leg())
      throw error
    } finally {
      clearInterval(timer)
      clearInterval(noteTimer)
      signal.removeEventListener('abort', abort)
    }
  }

  /** Settles at the next `#finish`. */
  #ending(): Promise<void> {
    const ending = new Promise<void>((resolve, reject) => {
      this.#finish = (error) => (error === undefined ? resolve() : reject(error))
    })
    ending.catch(() => {}) // It may be settled before anybody waits; the `await` in `run` is what counts.
    return ending
  }

  async #end(): Promise<void> {
    this.#inner.abort(new DOMException('the race is over', 'AbortError'))
    await this.#http?.stop()
    // A swarm that is just being joined is libtorrent at work on our file.
    await this.#joining
    await Promise.all(this.#checks)
    this.#advanceFinal()
    this.#report()
  }

  /** The leg that may go on serving the file: only one that cannot write to it any more. */
  async #survivor(): Promise<SwarmLeg | undefined> {
    const leg = this.#leg()
    if (leg === undefined) return undefined
    if (await leg.seal().catch(() => false)) return leg
    await this.#abandon(leg)
    return undefined
  }

  async #abandon(leg: SwarmLeg | undefined): Promise<void> {
    // Blocks that were asked for before a piece was HTTP's are written when they come.
    if (await leg?.hasReceived()) this.#isUncertain = true
    await leg?.leave().catch((error) => log.debug(`leaving the swarm: ${messageOf(error)}`))
  }

  #leg(): SwarmLeg | undefined {
    return this.#swarm.kind === 'joined' ? this.#swarm.leg : undefined
  }

  // The swarm's side

  #askForTorrent(): void {
    const { swarm, swarmStart } = this.#options
    if (this.#swarmWasAsked || swarm === undefined || swarmStart === 'never') return
    this.#swarmWasAsked = true
    this.#swarm = { kind: 'asking' }
    this.#joining = this.#failing(this.#join(swarm))
  }

  #failing(joining: Promise<void>): Promise<void> {
    return joining.catch((error) => {
      if (this.#inner.signal.aborted) return
      this.#swarmError = error instanceof Error ? error : new Error(String(error))
      log.debug(`the swarm cannot be used: ${messageOf(error)}`)
      this.#swarm = { kind: 'none' }
      void this.#tick()
    })
  }

  async #join(swarm: Swarm): Promise<void> {
    const { signal } = this.#inner
    const offer = await this.#options.findTorrent(signal)
    if (signal.aborted) return
    if (offer === undefined) {
      this.#swarm = { kind: 'none' }
      void this.#tick()
      return
    }
    this.#offer = offer
    this.#swarm = { kind: 'joining', offer }
    await this.#letHttpFinish(isEmptySwarm(offer), signal)
    if (signal.aborted) return
    await this.#enter(swarm, offer, this.#unfinished())
    this.#changedMs = this.#nowMs()
  }

  async #enter(swarm: Swarm, offer: TorrentOffer, unfinished: readonly UnfinishedPiece[]): Promise<void> {
    const { signal } = this.#inner
    this.#swarm = { kind: 'joining', offer }
    const leg = await SwarmLeg.join({
      swarm,
      offer,
      path: this.#options.file.path,
      map: this.#map,
      priorityOf: (piece) => this.#priorityOf(piece),
      unfinished,
      sliceId: this.#crowd.ownId,
      read: (piece) => this.#readPiece(piece),
      nowMs: this.#nowMs,
      rateWindowMs: this.#policy.stallMs,
      signal,
      onPiece: (piece, source) => this.#have(piece, source),
      onError: (error) => void this.#loseSwarm(error),
    })
    if (signal.aborted) return await this.#abandon(leg)
    this.#swarm = leg === undefined ? { kind: 'none' } : { kind: 'joined', leg }
    for (const piece of this.#httpPieces) if (!this.#map.has(piece)) leg?.share(piece, piece + 1)
    void this.#tick()
  }

  #readPiece(piece: number): Promise<Uint8Array> {
    return this.#options.file.read(this.#map.offsetOf(piece), this.#map.lengthOf(piece))
  }

  async #letHttpFinish(isEmpty: boolean, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && letsHttpFinish(this.#joinView(isEmpty), this.#policy))
      await sleep(this.#policy.tickMs, undefined, { signal }).catch(() => {})
  }

  #joinView(isEmpty: boolean): JoinView {
    return {
      elapsedMs: this.#nowMs() - this.#startedMs,
      remainingBytes: this.#remainingBytes(),
      isHttpRunning: this.#http?.isRunning ?? false,
      httpRate: this.#http?.bytesPerSecond ?? 0,
      isEmpty,
    }
  }

  /** Parts of pieces that peers, or HTTP before it was interrupted, left on disk, and that nobody is at now. */
  #unfinished(): UnfinishedPiece[] {
    const isFree = (piece: number): boolean =>
      !this.#map.has(piece) && !this.#map.isFull(piece) && !this.#http?.isClaimed(piece)
    const found = new Map<number, Uint8Array>()
    for (const { piece, blocks } of this.#options.unfinished) if (isFree(piece)) found.set(piece, blocks)
    for (let piece = 0; piece < this.#map.count; piece++) {
      if (!this.#map.isStarted(piece) || !isFree(piece)) continue
      const theirs = found.get(piece)
      found.set(
        piece,
        this.#map.writtenBlocks(piece).map((bits, at) => bits | (theirs?.[at] ?? 0)),
      )
    }
    return [...found].map(([piece, blocks]) => ({ piece, blocks }))
  }

  /**
   * libtorrent sometimes bans an honest peer for what a liar sent of the same piece, and then has nobody. Bans end with the
   * torrent's stay in the session: whoever has no other source joins again, without the blocks that may be rubbish. It waits
   * the longer for that the more often it was no use, so that a piece which takes its time is not thrown away each time.
   */
  #rejoinIfOutcast(): void {
    const leg = this.#leg()
    const { swarm } = this.#options
    const isAlone = this.#http === undefined || this.#http.failure !== undefined
    if (leg === undefined || swarm === undefined || !isAlone || leg.hashFailures === 0) return
    const remainingBytes = this.#remainingBytes()
    if (remainingBytes < this.#outcastAtBytes) this.#uselessRejoins = 0
    const stalls = Math.min(2 ** this.#uselessRejoins, maxRejoinStalls)
    const isStalled = this.#nowMs() - leg.progressMs >= this.#policy.stallMs * stalls
    if (!isStalled || remainingBytes === 0) return
    this.#outcastAtBytes = remainingBytes
    this.#uselessRejoins += 1
    this.#uselessBytes = Math.max(this.#uselessBytes, leg.newBytes)
    log.debug(`joining the swarm of ${leg.offer.infoHash} again: its peers were banned for what a liar sent`)
    const { offer } = leg
    this.#swarm = { kind: 'joining', offer }
    this.#joining = this.#failing(
      this.#abandon(leg).then(async () => {
        if (!this.#inner.signal.aborted) await this.#enter(swarm, offer, [])
      }),
    )
  }

  /** The torrent is of no more use, but nothing says it lied. */
  async #loseSwarm(error: Error): Promise<void> {
    const leg = this.#leg()
    this.#swarmError = error
    this.#swarm = { kind: 'none' }
    await this.#abandon(leg)
    for (const piece of this.#disputes.end()) if (this.#map.isFull(piece)) this.#have(piece, 'http')
    await this.#tick()
  }

  /** The torrent contradicts the Hub: what its peers brought is worth nothing. */
  async #condemn(): Promise<void> {
    const leg = this.#leg()
    if (leg === undefined) return
    this.#swarm = { kind: 'none' }
    log.warn(`torrent ${leg.offer.infoHash} contradicts what the Hub serves; it will not be used again`)
    await this.#abandon(leg)
    for (const piece of [...this.#map.present()]) {
      if (this.#map.sourceOf(piece) === 'p2p') this.#takeBack(piece)
    }
    await this.#options.onCondemned?.(leg.offer)
    await this.#loseSwarm(new SwarmError('the torrent contradicts what the Hub serves'))
  }

  /** Whether peers bring anything, or could any moment. */
  #swarmIsAlive(): boolean {
    const leg = this.#leg()
    return (
      leg !== undefined &&
      leg.firstMs !== undefined &&
      this.#nowMs() - leg.progressMs < this.#options.patienceMs
    )
  }

  /** How much libtorrent should want a piece now. */
  #priorityOf(piece: number): number {
    if (this.#map.has(piece) || this.#map.isFull(piece)) return 0
    if (this.#disputes.isReserved(piece) && this.#httpCan()) return 0
    if (this.#http?.isClaimed(piece)) return this.#isStarved() ? lastPriority : 0
    if (this.#crowd.isThere) return this.#crowd.isForUs(piece) ? firstPriority : lastPriority
    const [first, end] = this.#httpNext
    return piece >= first && piece < end ? lastPriority : normalPriority
  }

  #isAmongCrowd(): boolean {
    return this.#crowd.isThere && (this.#leg()?.peers.length ?? 0) > 0
  }

  #isStarved(): boolean {
    return this.#starvedSinceMs !== undefined && this.#nowMs() - this.#starvedSinceMs >= starvedMs
  }

  #prioritize(): void {
    this.#httpNext = this.#whatHttpReaches()
    this.#leg()?.prioritize()
  }

  /** HTTP works from the front: the pieces it will reach soon, as `[first, end)`, are not worth a peer's time. */
  #whatHttpReaches(): readonly [first: number, end: number] {
    if (this.#http === undefined || !this.#http.isRunning || this.#mode !== 'all') return [0, 0]
    const bytes = (this.#http.bytesPerSecond * lookaheadMs) / 1000
    const first = Math.max(this.#finalPiece, this.#readers?.wantedPiece ?? 0)
    return [first, first + Math.ceil(bytes / this.#map.pieceLength)]
  }

  /** Whether bytes on disk may be others a moment later. The Hub's, once more, are the same. */
  #isInFlux(piece: number): boolean {
    if (this.#map.has(piece)) return this.#http?.isWriting(piece) ?? false
    return this.#leg()?.unfinished.some((other) => other.piece === piece) ?? false
  }

  // HTTP's side

  /** What HTTP asks for next. The swarm hears of it before HTTP writes any of it. */
  #next(maxBytes: number): ByteRange | undefined {
    const range = this.#choose(maxBytes)
    if (range !== undefined) this.#shareWithHttp(range)
    return range
  }

  /** From here on libtorrent hashes what is in the file, not what its peers sent. */
  #shareWithHttp(range: ByteRange): void {
    const last = this.#map.pieceAt(range.end - 1)
    for (let piece = this.#map.pieceAt(range.start); piece <= last; piece++) {
      if (this.#httpPieces.has(piece)) continue
      this.#httpPieces.add(piece)
      this.#leg()?.share(piece, piece + 1)
    }
  }

  #choose(maxBytes: number): ByteRange | undefined {
    const http = this.#http
    const busy = this.#busy(this.#leg())
    return chooseRange({
      map: this.#map,
      mode: this.#mode,
      maxBytes,
      remainingBytes: this.#remainingBytes(),
      isAlone: !http?.isRunning,
      isAmongCrowd: this.#isAmongCrowd(),
      firstPiece: this.#finalPiece,
      wantedPiece: this.#readers?.wantedPiece,
      somewhere: () => this.#somewhere(),
      isReserved: (piece) => this.#disputes.isReserved(piece),
      isClaimed: (piece) => http?.isClaimed(piece) ?? false,
      isOurs: (piece) => this.#isOurs(piece),
      isBusy: (piece) => busy.has(piece),
    })
  }

  #somewhere(): number {
    return Math.floor(this.#random() * this.#map.count)
  }

  #isOurs(piece: number): boolean {
    return this.#crowd.isOurs(piece, this.#nowMs())
  }

  /** Pieces that peers are bringing, or of which they brought a part before and may bring the rest. */
  #busy(leg: SwarmLeg | undefined): Set<number> {
    if (leg !== undefined) return this.#atWork(leg)
    const left = this.#swarm.kind === 'none' ? [] : this.#options.unfinished
    return new Set(left.map(({ piece }) => piece))
  }

  /** Pieces peers are bringing now. */
  #atWork(leg: SwarmLeg): Set<number> {
    const isStalled = this.#nowMs() - leg.progressMs >= this.#policy.stallMs
    return new Set(isStalled ? [] : leg.unfinished.map(({ piece }) => piece))
  }

  #remainingBytes(): number {
    const { http, p2p } = this.#map.bytes()
    return this.#map.sizeBytes - http - p2p
  }

  #runEnded(): void {
    if (this.#inner.signal.aborted) return
    const http = this.#http
    if (http?.lastError !== undefined) this.#askForTorrent()
    if (http?.failure !== undefined) void this.#tick()
    else http?.pump()
    this.#prioritize()
  }

  #written(range: ByteRange): void {
    this.#options.listener.written(range)
    this.#shareWithHttp(range) // A server that ignores ranges sends what nobody asked for.
    const last = this.#map.pieceAt(range.end - 1)
    for (let piece = this.#map.pieceAt(range.start); piece <= last; piece++) {
      if (this.#map.isFull(piece)) this.#full(piece)
    }
    this.#advanceFinal()
  }

  /** HTTP has brought a whole piece. Where somebody could use it, the torrent checks it first. */
  #full(piece: number): void {
    const leg = this.#leg()
    if (leg !== undefined && leg.peers.length > 0) this.#check(leg, piece)
    else this.#have(piece, 'http')
  }

  /** Has the torrent check a piece from HTTP; whatever comes of it, the race goes on meanwhile. */
  #check(leg: SwarmLeg, piece: number): void {
    if (this.#disputes.isWaiting(piece) || this.#checking.get(piece)?.leg === leg) return
    void this.#track(this.#exclusively(leg, piece, () => this.#settle(leg, piece)))
  }

  /** While `work` goes on, no check of the piece begins: bytes that are refused twice must have come twice to matter. */
  async #exclusively(leg: SwarmLeg, piece: number, work: () => Promise<void>): Promise<void> {
    const holder = { leg }
    this.#checking.set(piece, holder)
    try {
      await work()
    } finally {
      if (this.#checking.get(piece) === holder) this.#checking.delete(piece)
    }
  }

  /** The race does not end before this has. */
  #track(work: Promise<void>): Promise<void> {
    const check: Promise<void> = work
      .catch((error) => this.#finish(error))
      .finally(() => this.#checks.delete(check))
    this.#checks.add(check)
    return check
  }

  async #settle(leg: SwarmLeg, piece: number): Promise<void> {
    const verdict = await leg.give(piece)
    if (this.#inner.signal.aborted || verdict === 'accepted') return
    if (!this.#map.has(piece) && !this.#map.isFull(piece)) return
    if (this.#leg() === leg && verdict === 'rejected') {
      if (this.#disputes.admit(piece, this.#httpCan())) await this.#dispute(leg, piece)
      return
    }
    if (!this.#map.isFull(piece)) return
    // What libtorrent has not checked it may still write to.
    if (this.#leg() === leg)
      await this.#loseSwarm(new SwarmError('libtorrent does not check what it was given'))
    // What a torrent says that was left says nothing any more.
    this.#full(piece)
  }

  /** Once can be a bad connection, a damaged file, or a peer's bad blocks: the piece is fetched again. */
  async #dispute(leg: SwarmLeg, piece: number): Promise<void> {
    const digest = createHash('sha256')
      .update(await this.#readPiece(piece))
      .digest('hex')
    if (this.#inner.signal.aborted) return
    const isOurs = this.#leg() === leg
    if (isOurs && !this.#disputes.isRepeated(piece, digest)) {
      this.#takeBack(piece)
      if (!this.#httpCan()) this.#disputes.settle(piece, false)
      this.#http?.pump()
      this.#prioritize()
      return
    }
    if (isOurs) await this.#condemn()
    if (this.#map.isFull(piece)) this.#have(piece, 'http')
  }

  /** What waited for the outcome of a dispute is disputed itself. One after the other: each is read as a whole. */
  #reopen(): void {
    if (!this.#isReopening && this.#disputes.anyWaits) void this.#track(this.#disputeNext())
  }

  async #disputeNext(): Promise<void> {
    this.#isReopening = true
    try {
      for (;;) {
        const leg = this.#leg()
        const piece = leg && this.#disputes.admitNext(this.#httpCan())
        if (leg === undefined || piece === undefined || this.#inner.signal.aborted) return
        await this.#exclusively(leg, piece, () => this.#dispute(leg, piece))
      }
    } finally {
      this.#isReopening = false
    }
  }

  // Both

  #have(piece: number, source: PieceSource): void {
    if (source === 'p2p' && (this.#map.isStarted(piece) || this.#http?.isWriting(piece))) this.#isMixed = true
    if (!this.#map.mark(piece, source)) return
    if (source === 'http' && !this.#leg()?.hasSeen(piece)) this.#disputes.suspend(piece)
    else this.#disputes.settle(piece, source === 'http')
    this.#reopen()
    this.#options.listener.piece(piece, source)
    this.#advanceFinal()
    if (this.#map.isComplete) this.#finish()
  }

  #takeBack(piece: number): void {
    const source = this.#map.sourceOf(piece)
    this.#map.forget(piece)
    this.#finalPiece = Math.min(this.#finalPiece, piece)
    this.#options.listener.takenBack(piece, source)
  }

  #advanceFinal(): void {
    const before = this.#finalPiece
    while (this.#finalPiece < this.#map.count) {
      if (!this.#map.has(this.#finalPiece) || this.#http?.isWriting(this.#finalPiece)) break
      this.#finalPiece += 1
    }
    if (this.#finalPiece > before) this.#options.listener.final(this.#map.endOf(this.#finalPiece - 1))
  }

  /** What HTTP brought while nobody was there to see it, now that somebody is. */
  #catchUp(leg: SwarmLeg): void {
    for (const piece of this.#map.present()) {
      if (!leg.hasSeen(piece) && !this.#disputes.isWaiting(piece)) this.#check(leg, piece)
    }
  }

  /**
   * Waits a moment, so that a swarm that has all but the last few pieces from HTTP can go on giving them without a gap.
   * `true` when a piece turned out wrong, and the race goes on.
   */
  async #isTakenBackByLastChecks(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, lastChecksMs)
    })
    await Promise.race([late, Promise.all(this.#checks)])
    clearTimeout(timer)
    this.#options.signal.throwIfAborted()
    return !this.#map.isComplete
  }

  async #tick(): Promise<void> {
    if (this.#inner.signal.aborted || this.#isTicking) return
    this.#isTicking = true
    try {
      this.#http?.sample()
      await this.#sampleSwarm()
      if (this.#inner.signal.aborted) return
      this.#report()
      await this.#decide()
    } catch (error) {
      this.#finish(error) // The caller's own onProgress threw.
    } finally {
      this.#isTicking = false
    }
  }

  async #sampleSwarm(): Promise<void> {
    const leg = this.#leg()
    if (leg === undefined) return
    try {
      const hadPeers = leg.peers.length > 0
      await leg.sample()
      if (this.#crowd.isThere || this.#ticks++ % ticksPerLook === 0) {
        await leg.look()
        this.#see(leg)
      }
      if (!hadPeers && leg.peers.length > 0) this.#catchUp(leg)
    } catch (error) {
      log.debug(`cannot look at the swarm: ${messageOf(error)}`)
      if (leg.torrent.isRemoved && this.#leg() === leg)
        await this.#loseSwarm(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Who else fetches this file, and how much of it anybody has. */
  #see(leg: SwarmLeg): void {
    const { isNew, hasChanged } = this.#crowd.see(leg, this.#nowMs())
    if (isNew || (hasChanged && this.#mode !== 'all')) this.#http?.trim((piece) => this.#isOurs(piece))
    this.#note(leg)
  }

  /** On a fast link a tick is long: a piece of 16 MiB begins and ends between two looks. */
  async #noteUnfinished(): Promise<void> {
    const leg = this.#leg()
    if (leg === undefined || this.#isNoting || this.#inner.signal.aborted) return
    const now = this.#nowMs()
    const isKnown = now - leg.joinedMs >= rateKnownMs
    if (isKnown && (leg.bytesPerSecond * (now - this.#notedMs)) / 1000 < unnotedBytes) return
    this.#isNoting = true
    try {
      await leg.lookAtUnfinished()
      if (!this.#inner.signal.aborted && this.#leg() === leg) this.#note(leg)
    } catch (error) {
      log.debug(`cannot look at the swarm: ${messageOf(error)}`)
    } finally {
      this.#isNoting = false
    }
  }

  #note(leg: SwarmLeg): void {
    this.#notedMs = this.#nowMs()
    this.#options.listener.unfinished(leg.unfinished)
  }

  async #decide(): Promise<void> {
    const http = this.#http
    if (http !== undefined && http.failure === undefined) {
      this.#mode = decideHttp(this.#view(http), this.#policy)
      if (this.#options.http === 'at-once' && this.#mode === 'rest') this.#mode = 'all'
      if (this.#mode === 'rest') http.share(0)
      http.pump()
      if (http.lastError !== undefined) this.#askForTorrent()
    }
    this.#rejoinIfOutcast()
    this.#reopen()
    this.#share()
    this.#prioritize()
    this.#serveReaders()
    if (this.#nobodyIsLeft()) this.#finish(http?.failure ?? this.#swarmError ?? this.#noSwarm())
    else if (this.#isOutOfPatience()) {
      this.#finish(
        http?.failure ??
          http?.lastError ??
          new SwarmError(`no peer sent anything for ${this.#options.patienceMs / 1000} s`),
      )
    }
  }

  /** Near the end all that is missing is in HTTP's hands: a swarm that could bring some of it gets its share. */
  #share(): void {
    const leg = this.#leg()
    const http = this.#http
    const now = this.#nowMs()
    const isIdle =
      leg !== undefined &&
      leg.sources > 0 &&
      http?.isRunning &&
      !this.#crowd.isThere &&
      !this.#hasFreePieces()
    if (!isIdle) {
      this.#starvedSinceMs = undefined
      return
    }
    this.#starvedSinceMs ??= now
    const both = http.bytesPerSecond + leg.bytesPerSecond
    if (both > 0) http.share(http.bytesPerSecond / both)
  }

  #hasFreePieces(): boolean {
    for (let piece = this.#finalPiece; piece < this.#map.count; piece++) {
      if (this.#map.has(piece) || this.#map.isFull(piece)) continue
      if (!this.#http?.isClaimed(piece)) return true
    }
    return false
  }

  /** Pieces that readers wait for come first, from both hands. */
  #serveReaders(): void {
    const leg = this.#leg()
    const spare = this.#mode === 'all' ? this.#readers?.spare(leg) : undefined
    if (spare !== undefined) this.#http?.makeRoom(spare)
    if (leg !== undefined) this.#readers?.serve(leg)
  }

  #isOutOfPatience(): boolean {
    const http = this.#http
    if (http?.isRunning) return false
    const endMs = this.#changedMs + this.#options.patienceMs
    // There is no use in waiting for a server that wants a pause until after that.
    const isFutile = http !== undefined && http.notBeforeMs > endMs && !this.#swarmMay()
    return isFutile || this.#nowMs() > endMs
  }

  #nobodyIsLeft(): boolean {
    return !this.#httpCan() && !this.#swarmMay()
  }

  /** Whether there is a swarm, or may be one yet. */
  #swarmMay(): boolean {
    const { swarm, swarmStart } = this.#options
    const mayAsk = !this.#swarmWasAsked && swarm !== undefined && swarmStart !== 'never'
    return this.#swarm.kind !== 'none' || mayAsk
  }

  #httpCan(): boolean {
    return this.#http !== undefined && this.#http.failure === undefined
  }

  #noSwarm(): SwarmError {
    return new SwarmError('no tracker knows a torrent of this file, and HTTP may not be used')
  }

  #view(http: HttpLeg): RaceView {
    const leg = this.#leg()
    const nowMs = this.#nowMs()
    return {
      nowMs,
      startedMs: this.#startedMs,
      remainingBytes: this.#remainingBytes(),
      swarm: this.#swarm.kind,
      isPromising: this.#swarm.kind === 'asking' || (this.#offer?.isPromising ?? false),
      joinedMs: leg?.joinedMs ?? 0,
      mayBeCrowd: this.#offer?.mayBeCrowd ?? false,
      isCrowd: this.#crowd.isThere,
      swarmRate: leg?.bytesPerSecond ?? 0,
      swarmProgressMs: leg?.progressMs ?? 0,
      swarmFirstMs: leg?.firstMs,
      isDeserted: leg?.firstMs !== undefined && leg.latest?.numPeers === 0,
      swarmHasWork: this.#hasFreePieces(),
      httpBusyMs: http.busySinceMs === undefined ? 0 : nowMs - http.busySinceMs,
      httpRate: http.bytesPerSecond,
      httpKnownRate: http.knownRate,
    }
  }

  #report(): void {
    const { onProgress } = this.#options
    const leg = this.#leg()
    const bytes = this.#map.bytes()
    const done = bytes.http + bytes.p2p
    if (done !== this.#doneBytes) this.#uselessBytes = 0
    if (done !== this.#doneBytes || this.#http?.isRunning) this.#changedMs = this.#nowMs()
    // Liars send the same rubbish each time the swarm is joined again.
    else if (leg !== undefined && leg.newBytes > this.#uselessBytes)
      this.#changedMs = Math.max(this.#changedMs, leg.progressMs)
    this.#doneBytes = done
    const resumed = Math.min(done, this.#resumed.http + this.#resumed.p2p)
    onProgress?.({
      sizeBytes: this.#map.sizeBytes,
      bytes: {
        http: Math.max(0, bytes.http - this.#resumed.http),
        p2p: Math.max(0, bytes.p2p - this.#resumed.p2p),
        cache: resumed,
      },
      httpRate: this.#http?.bytesPerSecond ?? 0,
      p2pRate: leg?.bytesPerSecond ?? 0,
      peers: leg?.latest?.numPeers ?? 0,
    })
  }
}
