/**
 * Two hands, one piece map. The race owns the clock: it starts HTTP and the swarm, looks at both every tick,
 * lets `decideHttp` say who works, and ends when every piece is there or when nobody can bring the rest.
 *
 * A torrent is a hint. One whose hashes refuse what the Hub gave twice is condemned on the spot: what its
 * peers brought is dropped, what HTTP brought stays.
 */
import { createHash } from 'node:crypto'
import { SwarmError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import type { BytesBySource } from '../values.ts'
import { HttpLeg, type PieceSink, type RangeOpener } from './http-leg.ts'
import type { PartialFile } from './partial-file.ts'
import type { PieceMap, PieceSource } from './piece-map.ts'
import { decideHttp, type RacePolicy, type RaceView } from './plan.ts'
import { SwarmLeg } from './swarm-leg.ts'

/** How far a transfer is. Rates in bytes per second; `bytes` counts what this call brought, and what was there before as cache. */
export interface TransferProgress {
  readonly sizeBytes: number
  readonly bytes: BytesBySource
  readonly httpRate: number
  readonly p2pRate: number
  readonly peers: number
}

export interface RaceOptions {
  readonly map: PieceMap
  readonly file: PartialFile
  /** `undefined`: no HTTP. */
  readonly open: RangeOpener | undefined
  readonly swarm: Swarm | undefined
  /** Finds a torrent; called at most once, at the start or when HTTP fails. Never throws but for an abort. */
  readonly findTorrent: (signal: AbortSignal) => Promise<TorrentOffer | undefined>
  readonly http: 'at-once' | 'after-head-start' | 'never'
  readonly swarmStart: 'at-once' | 'when-http-fails' | 'never'
  readonly policy: RacePolicy
  /** How long nothing at all may happen before the race is lost. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
  /** Called when a torrent's hashes contradict what the Hub serves, twice and alike. */
  readonly onCondemned?: ((offer: TorrentOffer) => Promise<void>) | undefined
  /** Called now and then with pieces that are safe to go on from. */
  readonly onCheckpoint?: ((map: PieceMap) => void) | undefined
  readonly nowMs?: () => number
}

export interface RaceOutcome {
  /**
   * The swarm this file came from, still joined and complete there; its new owner releases or leaves it. It does not
   * write to the file any more.
   */
  readonly leg: SwarmLeg | undefined
  /** The torrent that was used, whether it is still joined or not. */
  readonly offer: TorrentOffer | undefined
}

type SwarmState =
  | { kind: 'none' }
  | { kind: 'asking' }
  | { kind: 'joining'; offer: TorrentOffer }
  | { kind: 'joined'; leg: SwarmLeg }

const checkpointMs = 2_000
/** Pieces in libtorrent's hands at once; each is held in memory until it is written and checked. */
const maxGiven = 3

/** Fetches every missing piece of `map` into `file`. @throws The last error of whoever failed last; the signal's reason. */
export async function race(options: RaceOptions): Promise<RaceOutcome> {
  options.signal.throwIfAborted()
  return await new Race(options).run()
}

class Race {
  readonly #options: RaceOptions
  readonly #nowMs: () => number
  readonly #startedMs: number
  readonly #inner = new AbortController()
  readonly #http: HttpLeg | undefined
  /** What HTTP brought for a piece that the torrent refused, as a digest. */
  readonly #refused = new Map<number, string>()
  readonly #given = new Set<Promise<void>>()
  #giveError: { error: unknown } | undefined
  #swarm: SwarmState = { kind: 'none' }
  #swarmWasAsked = false
  #swarmError: Error | undefined
  #offer: TorrentOffer | undefined
  #joining: Promise<void> = Promise.resolve()
  #resumed: Record<PieceSource, number>
  #checkpointedMs: number
  #changedMs: number
  #doneBytes = 0
  #sampling = false
  #finish: (error?: unknown) => void = () => {}

  constructor(options: RaceOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#startedMs = this.#checkpointedMs = this.#changedMs = this.#nowMs()
    this.#resumed = options.map.bytes()
    if (options.open !== undefined && options.http !== 'never') {
      this.#http = new HttpLeg({
        map: options.map,
        open: options.open,
        sinkFor: (piece) => this.#sinkFor(piece),
        settle: () => this.#settleGiven(),
        claimPieces: () => this.#claimPieces(),
        onClaim: (first, end) => this.#joinedLeg()?.claim(first, end),
        nowMs: this.#nowMs,
        rateWindowMs: options.policy.stallMs,
      })
    }
  }

  async run(): Promise<RaceOutcome> {
    const { signal, policy, map } = this.#options
    const over = new Promise<void>((resolve, reject) => {
      this.#finish = (error) => (error === undefined ? resolve() : reject(error))
    })
    over.catch(() => {}) // It may be settled before anybody waits; the `await` below is what counts.
    const abort = (): void => this.#finish(signal.reason)
    signal.addEventListener('abort', abort)
    const timer = setInterval(() => void this.#tick(), policy.tickMs)
    try {
      if (map.isComplete) this.#finish()
      else {
        if (this.#options.swarmStart === 'at-once') this.#askForTorrent()
        void this.#tick()
      }
      await over
      await this.#end()
      return { leg: await this.#survivor(), offer: this.#offer }
    } catch (error) {
      await this.#end()
      await this.#abandon(this.#joinedLeg())
      throw error
    } finally {
      clearInterval(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  async #end(): Promise<void> {
    this.#inner.abort(new DOMException('the race is over', 'AbortError'))
    await this.#http?.stop()
    // A swarm that is just being joined, or told of what is there, is libtorrent at work on our file.
    await this.#joining
    this.#report()
    this.#options.onCheckpoint?.(this.#options.map)
  }

  /** The leg that may go on serving the file: only one that cannot write to it any more. */
  async #survivor(): Promise<SwarmLeg | undefined> {
    const leg = this.#joinedLeg()
    if (leg === undefined) return undefined
    if (await leg.seal().catch(() => false)) return leg
    await this.#abandon(leg)
    return undefined
  }

  async #abandon(leg: SwarmLeg | undefined): Promise<void> {
    await leg?.leave().catch((error) => log.debug(`leaving the swarm: ${messageOf(error)}`))
  }

  #joinedLeg(): SwarmLeg | undefined {
    return this.#swarm.kind === 'joined' ? this.#swarm.leg : undefined
  }

  // The swarm's side

  #askForTorrent(): void {
    const { swarm, swarmStart } = this.#options
    if (this.#swarmWasAsked || swarm === undefined || swarmStart === 'never') return
    this.#swarmWasAsked = true
    this.#swarm = { kind: 'asking' }
    this.#joining = this.#join(swarm).catch((error) => {
      if (this.#inner.signal.aborted) return
      this.#swarmError = error instanceof Error ? error : new Error(String(error))
      log.debug(`the swarm cannot be used: ${messageOf(error)}`)
      this.#swarm = { kind: 'none' }
      void this.#tick()
    })
  }

  async #join(swarm: Swarm): Promise<void> {
    const signal = this.#inner.signal
    const offer = await this.#options.findTorrent(signal)
    if (signal.aborted) return
    if (offer === undefined) {
      this.#swarm = { kind: 'none' }
      void this.#tick()
      return
    }
    this.#offer = offer
    this.#swarm = { kind: 'joining', offer }
    const leg = await SwarmLeg.join({
      swarm,
      offer,
      path: this.#options.file.path,
      map: this.#options.map,
      nowMs: this.#nowMs,
      rateWindowMs: this.#options.policy.stallMs,
      signal,
      onPiece: (piece, source) => this.#have(piece, source),
      onError: (error) => void this.#loseSwarm(error),
    })
    if (signal.aborted) return await this.#abandon(leg)
    this.#swarm = leg === undefined ? { kind: 'none' } : { kind: 'joined', leg }
    if (leg === undefined) return
    const next = this.#options.map.nextMissing() ?? 0
    this.#http?.shrinkClaim(next, this.#claimPieces())
    await leg.catchUp(
      (piece) => this.#readPiece(piece),
      // Only the journal vouches for such a piece, or a peer was faster with a bad one: it is fetched again.
      (piece) => this.#options.map.forget(piece),
    )
  }

  #readPiece(piece: number): Promise<Uint8Array> {
    const { map, file } = this.#options
    return file.read(map.offsetOf(piece), map.lengthOf(piece))
  }

  /** The torrent is of no more use, but nothing says it lied. */
  async #loseSwarm(error: Error): Promise<void> {
    const leg = this.#joinedLeg()
    this.#swarmError = error
    this.#swarm = { kind: 'none' }
    await this.#abandon(leg)
    await this.#tick()
  }

  /** The torrent contradicts the Hub: what its peers brought is worth nothing. */
  async #condemn(): Promise<void> {
    const leg = this.#joinedLeg()
    if (leg === undefined) return
    await this.#options.onCondemned?.(leg.offer)
    log.warn(`torrent ${leg.offer.infoHash} contradicts what the Hub serves; it will not be used again`)
    this.#options.map.drop('p2p')
    await this.#loseSwarm(new SwarmError('the torrent contradicts what the Hub serves'))
  }

  // HTTP's side

  #claimPieces(): number {
    const { map, policy } = this.#options
    return this.#joinedLeg() === undefined
      ? map.count
      : Math.max(1, Math.ceil(policy.claimBytes / map.pieceLength))
  }

  #sinkFor(piece: number): PieceSink {
    const leg = this.#joinedLeg()
    return leg === undefined ? this.#directSink() : this.#swarmSink(leg, piece)
  }

  #directSink(): PieceSink {
    const { map, file } = this.#options
    return {
      write: (piece, offset, bytes) => file.write(map.offsetOf(piece) + offset, bytes),
      finish: async (piece) => {
        // A swarm that joined while this piece was under way has not seen it.
        const leg = this.#joinedLeg()
        if (leg === undefined) this.#have(piece, 'http')
        else await this.#give(leg, piece, await this.#readPiece(piece))
      },
    }
  }

  #swarmSink(leg: SwarmLeg, piece: number): PieceSink {
    const buffer = new Uint8Array(this.#options.map.lengthOf(piece))
    return {
      write: async (_piece, offset, bytes) => buffer.set(bytes, offset),
      finish: async () => {
        this.#giveSoon(leg, piece, buffer)
        if (this.#given.size >= maxGiven) await Promise.race(this.#given)
      },
    }
  }

  /** libtorrent checks a piece while the next one arrives. */
  #giveSoon(leg: SwarmLeg, piece: number, data: Uint8Array): void {
    const giving: Promise<void> = this.#give(leg, piece, data)
      .catch((error) => {
        this.#giveError ??= { error }
      })
      .finally(() => this.#given.delete(giving))
    this.#given.add(giving)
  }

  async #settleGiven(): Promise<void> {
    await Promise.all(this.#given)
    const failed = this.#giveError
    this.#giveError = undefined
    if (failed !== undefined) throw failed.error
  }

  async #give(leg: SwarmLeg, piece: number, data: Uint8Array): Promise<void> {
    const verdict = await leg.give(piece, data)
    if (verdict === 'accepted') return
    const { map, file } = this.#options
    if (verdict === 'rejected') {
      const digest = createHash('sha256').update(data).digest('hex')
      const isSameAgain = this.#refused.get(piece) === digest
      this.#refused.set(piece, digest)
      // Once can be a bad connection, or a peer's bad blocks in the same piece: it is fetched again.
      if (!isSameAgain) return
      await this.#condemn()
    }
    await file.write(map.offsetOf(piece), data)
    this.#have(piece, 'http')
  }

  // Both

  #have(piece: number, source: PieceSource): void {
    const { map } = this.#options
    if (!map.mark(piece, source)) return
    if (map.isComplete) this.#finish()
  }

  async #tick(): Promise<void> {
    if (this.#inner.signal.aborted || this.#sampling) return
    this.#sampling = true
    this.#http?.sample()
    const leg = this.#joinedLeg()
    await leg?.sample().catch((error) => {
      log.debug(`cannot look at the swarm: ${messageOf(error)}`)
      if (leg.torrent.isRemoved) void this.#loseSwarm(error)
    })
    this.#sampling = false
    if (this.#inner.signal.aborted) return
    try {
      this.#report()
      this.#decide()
    } catch (error) {
      this.#finish(error) // The caller's own onProgress threw.
    }
  }

  #decide(): void {
    const http = this.#http
    if (http !== undefined && http.failure === undefined) {
      const action = decideHttp(this.#view(http), this.#options.policy)
      if (action === 'start') http.start(() => this.#httpEnded(http))
      else if (action === 'stop') void http.stop()
      if (http.lastError !== undefined) this.#askForTorrent()
    }
    if (this.#nobodyIsLeft()) this.#finish(http?.failure ?? this.#swarmError ?? this.#noSwarm())
    else if (this.#nowMs() - this.#changedMs > this.#options.patienceMs && !http?.isRunning) {
      this.#finish(
        http?.failure ?? new SwarmError(`no peer sent anything for ${this.#options.patienceMs / 1000} s`),
      )
    }
  }

  #httpEnded(http: HttpLeg): void {
    if (http.failure !== undefined) this.#askForTorrent()
    void this.#tick()
  }

  #nobodyIsLeft(): boolean {
    const httpCan = this.#http !== undefined && this.#http.failure === undefined
    const swarmCan = this.#swarm.kind !== 'none'
    const swarmMay =
      !this.#swarmWasAsked && this.#options.swarm !== undefined && this.#options.swarmStart !== 'never'
    return !httpCan && !swarmCan && !swarmMay
  }

  #noSwarm(): SwarmError {
    return new SwarmError('no tracker knows a torrent of this file, and HTTP may not be used')
  }

  #view(http: HttpLeg): RaceView {
    const leg = this.#joinedLeg()
    const { map } = this.#options
    return {
      nowMs: this.#nowMs(),
      startedMs: this.#startedMs,
      remainingBytes: map.sizeBytes - this.#doneBytes,
      swarm: this.#isWaitingWorthIt() ? this.#swarm.kind : 'none',
      joinedMs: leg?.joinedMs ?? 0,
      swarmRate: leg?.bytesPerSecond ?? 0,
      swarmProgressMs: leg?.progressMs ?? 0,
      swarmHasDelivered: leg?.hasDelivered ?? false,
      httpRunning: http.isRunning,
      httpStartedMs: http.startedMs,
      httpRate: http.bytesPerSecond,
      httpKnownRate: http.knownRate,
      httpProgressMs: http.progressMs,
    }
  }

  /** HTTP waits for a swarm only where somebody is known to be, and not at all for a small file. */
  #isWaitingWorthIt(): boolean {
    const state = this.#swarm
    if (this.#options.http === 'at-once' && !this.#joinedLeg()?.hasDelivered) return false
    if (state.kind === 'joining') return state.offer.isPromising
    if (state.kind === 'joined') return state.leg.offer.isPromising || state.leg.hasDelivered
    return true
  }

  #report(): void {
    const { map, onProgress, onCheckpoint } = this.#options
    const now = this.#nowMs()
    const leg = this.#joinedLeg()
    const bytes = map.bytes()
    const done = bytes.http + bytes.p2p
    if (done !== this.#doneBytes || this.#http?.isRunning) this.#changedMs = now
    this.#changedMs = Math.max(this.#changedMs, leg?.progressMs ?? 0)
    this.#doneBytes = done
    const resumed = Math.min(done, this.#resumed.http + this.#resumed.p2p)
    onProgress?.({
      sizeBytes: map.sizeBytes,
      bytes: {
        http: Math.max(0, bytes.http - this.#resumed.http),
        p2p: Math.max(0, bytes.p2p - this.#resumed.p2p),
        cache: resumed,
      },
      httpRate: this.#http?.isRunning ? this.#http.bytesPerSecond : 0,
      p2pRate: leg?.bytesPerSecond ?? 0,
      peers: leg?.latest?.numPeers ?? 0,
    })
    if (now - this.#checkpointedMs >= checkpointMs) {
      this.#checkpointedMs = now
      onCheckpoint?.(map)
    }
  }
}
