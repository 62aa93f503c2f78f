/**
 * One file of the Hub, from its identity to its place in the cache: plan, race, verify, rename, link. The file's digest
 * follows what is there while it arrives, so that it is known moments after the last byte.
 *
 * Nothing carries its final name before its digest matched; a torrent that lied is condemned and the download goes on
 * without it, silently.
 */
import { rename } from 'node:fs/promises'
import { ConfigError, type HubError, IntegrityError, isAbort, NativeError, SwarmError } from '../errors.ts'
import type { PartialFile as WritableSlot } from '../hub/partial-file.ts'
import type { Place } from '../hub/place.ts'
import type { RangeBody, RangeRequest } from '../hub/range-body.ts'
import { log, messageOf } from '../log.ts'
import type { UnfinishedPiece } from '../native/alerts.ts'
import type { NativeAddon } from '../native/binding.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { torrentCreator } from '../torrent/create.ts'
import { pieceLengthFor } from '../torrent/piece-length.ts'
import { type BytesBySource, digestOf, type HubFile, type InfoHash } from '../values.ts'
import type { CondemnedTorrents } from './condemned.ts'
import { followDigest } from './digest.ts'
import type { TorrentFinder } from './find-torrent.ts'
import { isTransient } from './http-leg.ts'
import { Journal } from './journal.ts'
import { LiveFile } from './live-file.ts'
import { PartialFile } from './partial-file.ts'
import { leftIn, raceInPartial } from './partial-race.ts'
import { PieceMap } from './piece-map.ts'
import { isEmptySwarm, type Plan, planDownload, type RacePolicy } from './plan.ts'
import { noBytes, type Phase, type TransferProgress } from './progress.ts'
import type { ByteListener, RaceOutcome } from './race.ts'
import { type FinishedDigest, RunningDigest } from './running-digest.ts'
import type { SwarmLeg } from './swarm-leg.ts'
import { checkWritable, fetchWhole, maxWholeBytes, placeWhole, type WholeFile } from './whole-file.ts'

/** What the transfer room needs from outside; the client builds it once. */
export interface DownloadDeps {
  readonly addon: NativeAddon | undefined
  readonly swarm: Swarm | undefined
  readonly finder: TorrentFinder | undefined
  readonly condemned: CondemnedTorrents
  readonly stateDir: string
  readonly policy: RacePolicy
  readonly smallFileBytes: number
  readonly timeoutMs: number
  readonly canUseHttp: boolean
  readonly offline: boolean
  /** Every piece of a file whose digest matched was found right by this torrent. */
  readonly onTied?: ((file: HubFile, offer: TorrentOffer) => Promise<void>) | undefined
}

export interface FileDownload {
  readonly file: HubFile
  /** Where the file goes. */
  readonly place: Place
  /** What is there does not count. It stays until the new content is verified. @defaultValue false */
  readonly anew?: boolean | undefined
  /** Opens ranges at the Hub. */
  readonly source: { openRange(range: RangeRequest): Promise<RangeBody>; freeSlots?(): number }
  /** Everybody may read this file, or its owner agreed to share it. */
  readonly mayShare: (signal: AbortSignal) => Promise<boolean>
  /** Trackers for the torrent that is made of a file that came without one; `undefined`: none is made. */
  readonly torrentFor?: { readonly announceUrls: readonly string[] } | undefined
  readonly signal: AbortSignal
  readonly onProgress?: ((phase: Phase, progress: TransferProgress) => void) | undefined
  /** Called once the file can be read while it grows; not for a file that is there, or that another process brings. */
  readonly onLive?: ((live: LiveFile) => void) | undefined
}

/** A torrent that was made of the file's own bytes. */
export interface MadeTorrent {
  readonly torrentFile: Uint8Array
  readonly infoHash: InfoHash
  readonly pieceLength: number
}

export interface FetchedFile {
  /** The finished file. */
  readonly path: string
  /** Whether this call brought it. */
  readonly isNew: boolean
  readonly bytes: BytesBySource
  /** The torrent it came through, still in its swarm and serving `path`; its new owner takes it over. */
  readonly joined: { readonly leg: SwarmLeg; readonly offer: TorrentOffer } | undefined
  /** The torrent made on the way, when there was none to come through. */
  readonly made: MadeTorrent | undefined
  readonly infoHash: InfoHash | undefined
}

/**
 * Makes sure the content of `file` is in its place.
 *
 * @throws {IntegrityError} When even a fresh copy from the Hub is not what its etag promises.
 * @throws {HubError | SwarmError | CacheError} When no source could bring it, or the disk refused.
 * @throws The signal's reason.
 */
export async function fetchFile(request: FileDownload, deps: DownloadDeps): Promise<FetchedFile> {
  const { file, place, signal } = request
  const mover: Mover = { rename }
  const slot = await place.open(
    file,
    { rename: (from, to) => mover.rename(from, to) },
    {
      signal,
      anew: request.anew,
      onWaiting: (seen) =>
        request.onProgress?.('waiting', elsewhere(file, (seen as { bytesSoFar?: number }).bytesSoFar)),
    },
  )
  if (slot.state === 'present') {
    const bytes = { ...noBytes(), cache: file.sizeBytes }
    return { path: slot.path, isNew: false, bytes, joined: undefined, made: undefined, infoHash: undefined }
  }
  await using held = slot
  const plan = planDownload({
    sizeBytes: file.sizeBytes,
    canUseSwarm: deps.swarm !== undefined && deps.finder !== undefined,
    // Finding out may take a question to the Hub: HTTP does not wait for the answer.
    mayShare: deps.canUseHttp || (deps.swarm !== undefined && (await request.mayShare(signal))),
    canUseHttp: deps.canUseHttp,
    offline: deps.offline,
    smallFileBytes: deps.smallFileBytes,
  })
  if (plan.kind === 'impossible')
    throw new ConfigError(`cannot get ${file.path} of ${file.repo}: ${plan.reason}`)
  const whole = comesWhole(request, held, plan) ? await wholeOf(request, held, deps.policy) : undefined
  if (whole?.kind !== 'right') return await new FileFetch(request, deps, held, plan, mover).run(whole)
  const bytes = { ...noBytes(), http: file.sizeBytes }
  const path = await placeWhole(held, whole.content)
  return { path, isNew: true, bytes, joined: undefined, made: undefined, infoHash: undefined }
}

/** A small file that nobody reads while it comes, of which nothing is there yet, and that peers need not bring. */
function comesWhole({ file, onLive }: FileDownload, slot: WritableSlot, plan: Plan): boolean {
  if (plan.kind !== 'fetch' || plan.http !== 'at-once' || plan.swarm === 'at-once') return false
  return file.sizeBytes <= maxWholeBytes && !slot.isStarted && onLive === undefined
}

async function wholeOf(
  request: FileDownload,
  slot: WritableSlot,
  { stallMs }: RacePolicy,
): Promise<WholeFile> {
  const { file, source, signal, onProgress } = request
  const onBytes = (http: number): void =>
    onProgress?.('downloading', {
      sizeBytes: file.sizeBytes,
      bytes: { ...noBytes(), http },
      httpRate: 0,
      p2pRate: 0,
      peers: 0,
    })
  await checkWritable(slot)
  return await fetchWhole({ file, openRange: (range) => source.openRange(range), stallMs, signal, onBytes })
}

/** What another process has of the file so far. */
function elsewhere(file: HubFile, bytesSoFar = 0): TransferProgress {
  const bytes = { ...noBytes(), cache: bytesSoFar }
  return { sizeBytes: file.sizeBytes, bytes, httpRate: 0, p2pRate: 0, peers: 0 }
}

/** Who gives the finished file its name: the file system, or libtorrent for a file it serves. */
interface Mover {
  rename: (from: string, to: string) => Promise<void>
}

type SwarmStart = 'at-once' | 'when-http-fails' | 'never'

/** How often the Hub may send a wrong copy before it is believed to have no other. */
const maxWrongCopies = 2
/** How many torrents may lie in one call when there is no HTTP to turn to. */
const maxLies = 4
const touchMs = 5_000

class FileFetch {
  readonly #request: FileDownload
  readonly #deps: DownloadDeps
  readonly #slot: WritableSlot
  readonly #plan: Plan
  readonly #mover: Mover
  readonly #journal: Journal | undefined
  readonly #digest: RunningDigest
  #live: LiveFile | undefined
  #lastProgress: TransferProgress | undefined
  #offer: TorrentOffer | undefined
  /** Why the Hub does not give the file; it is not asked again. */
  #refusal: HubError | undefined
  #hasResumed = false
  #lies = 0
  #wrongCopies = 0

  constructor(request: FileDownload, deps: DownloadDeps, slot: WritableSlot, plan: Plan, mover: Mover) {
    this.#request = request
    this.#deps = deps
    this.#slot = slot
    this.#plan = plan
    this.#mover = mover
    // A partial file under a unique name is nobody's to go on from.
    this.#journal = slot.isResumable
      ? new Journal(deps.stateDir, slot.partialPath, request.file.etag)
      : undefined
    this.#digest = new RunningDigest(() => this.#startDigest())
  }

  /** @param whole How it went over HTTP alone, if that was tried. */
  async run(whole: Exclude<WholeFile, { kind: 'right' }> | undefined): Promise<FetchedFile> {
    if (this.#plan.kind !== 'fetch') return await this.#commitEmpty()
    try {
      return await this.#run(
        whole === undefined ? this.#plan.swarm : this.#swarmAfter(whole, this.#plan.swarm),
      )
    } finally {
      this.#digest.close()
      this.#journal?.close()
    }
  }

  /** Who was asked already is not asked for as if for the first time. @throws {HubError} When nobody else can be asked. */
  #swarmAfter(whole: Exclude<WholeFile, { kind: 'right' }>, planned: SwarmStart): SwarmStart {
    if (whole.kind === 'wrong') return this.#refuseCopy()
    if (!isTransient(whole.error)) {
      if (planned === 'never') throw whole.error
      this.#refusal = whole.error
    }
    return planned === 'never' ? planned : 'at-once'
  }

  async #run(firstSwarmStart: SwarmStart): Promise<FetchedFile> {
    const { map, unfinished } = await this.#resume()
    this.#live = new LiveFile(this.#slot.partialPath, map)
    let swarmStart = firstSwarmStart
    let left = unfinished
    for (;;) {
      const outcome = await this.#race(map, left, swarmStart)
      left = []
      if (outcome.isUncertain) this.#digest.takenBack(0)
      const bytes = this.#lastProgress?.bytes ?? noBytes()
      try {
        const digest = await this.#rightDigest()
        if (digest !== undefined) return await this.#commit(outcome, bytes, digest)
      } catch (error) {
        await outcome.leg?.leave().catch(() => {})
        throw error
      }
      await outcome.leg?.leave().catch(() => {})
      swarmStart = await this.#repent(map, outcome, swarmStart)
    }
  }

  #startDigest(): ReturnType<typeof followDigest> {
    const { file, torrentFor } = this.#request
    const digest = digestOf(file.etag)
    const canMakeTorrent = this.#deps.addon !== undefined && file.sizeBytes > 0
    // A swarm that is empty may never be joined, and then nobody else makes sure of its torrent.
    const isAlone = this.#offer === undefined || isEmptySwarm(this.#offer)
    const makesTorrent = torrentFor !== undefined && canMakeTorrent && isAlone
    return followDigest(this.#deps.addon, this.#slot.partialPath, {
      sizeBytes: file.sizeBytes,
      sha256: digest === 'sha256',
      gitSha1: digest === 'git-sha1',
      ...(makesTorrent && {
        torrent: {
          name: file.etag,
          pieceLength: pieceLengthFor(file.sizeBytes),
          trackers: [...torrentFor.announceUrls],
          createdBy: torrentCreator,
        },
      }),
    })
  }

  /** What the digest found, when it is the one the etag promises. @throws The signal's reason. */
  async #rightDigest(): Promise<FinishedDigest | undefined> {
    this.#report('verifying')
    const { file, signal } = this.#request
    // Whoever waits for our lock must see that we are alive while nothing is written.
    const timer = setInterval(() => void this.#slot.touch(), touchMs)
    const abort = (): void => this.#digest.close()
    signal.addEventListener('abort', abort)
    try {
      signal.throwIfAborted()
      const found = await this.#digest.finish(file.sizeBytes, signal)
      const isRight = (digestOf(file.etag) === 'sha256' ? found.sha256 : found.gitSha1) === file.etag
      return isRight ? found : undefined
    } catch (error) {
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', abort)
      clearInterval(timer)
    }
  }

  /** What an interrupted download left, when the partial file can still hold it. */
  async #resume(): Promise<{ map: PieceMap; unfinished: readonly UnfinishedPiece[] }> {
    const { sizeBytes } = this.#request.file
    const pieceLength = pieceLengthFor(sizeBytes)
    const fresh = { map: new PieceMap(sizeBytes, pieceLength), unfinished: [] }
    const journal = this.#journal
    const left = journal && (await leftIn(this.#slot.partialPath, journal, sizeBytes, pieceLength))
    if (left === undefined) return fresh
    this.#hasResumed = true
    return left
  }

  async #race(
    map: PieceMap,
    unfinished: readonly UnfinishedPiece[],
    swarmStart: SwarmStart,
  ): Promise<RaceOutcome> {
    const { file, source, signal } = this.#request
    const { deps, plan } = { deps: this.#deps, plan: this.#plan }
    const http = plan.kind !== 'fetch' || this.#refusal !== undefined ? 'never' : plan.http
    try {
      return await raceInPartial({
        partialPath: this.#slot.partialPath,
        journal: this.#journal,
        map,
        unfinished,
        onOpen: () => {
          if (this.#live !== undefined) this.#request.onLive?.(this.#live)
        },
        open: http !== 'never' ? (range) => source.openRange(range) : undefined,
        freeSlots: source.freeSlots && (() => source.freeSlots?.() ?? 1),
        swarm: deps.swarm,
        findTorrent: (inner) => this.#findTorrent(inner),
        http,
        swarmStart,
        policy: deps.policy,
        patienceMs: deps.timeoutMs,
        signal,
        listener: this.#listener(map),
        audience: this.#request.onLive && this.#live,
        onProgress: (progress) => {
          this.#lastProgress = progress
          this.#report('downloading')
        },
        onCondemned: (offer) => deps.condemned.add(file.etag, offer.infoHash),
      })
    } catch (error) {
      await this.#keepOrDiscard(map, error)
      const isPeersFault = error instanceof SwarmError || error instanceof NativeError
      // That peers do not have it either is not why it cannot be had.
      if (isPeersFault && this.#refusal !== undefined) throw this.#refusal
      throw error instanceof SwarmError ? this.#lost(error) : error
    }
  }

  /** Which file it is that nobody brought, and what may help. */
  #lost(error: SwarmError): SwarmError {
    const { path, repo } = this.#request.file
    const next = this.#deps.canUseHttp
      ? 'try again later'
      : 'allow HTTP (HF_P2P_WEBSEED=1), or try again later'
    return new SwarmError(`${path} of ${repo}: ${error.message}; ${next}`, { cause: error })
  }

  async #findTorrent(signal: AbortSignal): Promise<TorrentOffer | undefined> {
    if (this.#deps.canUseHttp && !(await this.#request.mayShare(signal))) return undefined
    this.#offer = await this.#deps.finder?.find(this.#request.file, signal)
    return this.#offer
  }

  #listener(map: PieceMap): Partial<ByteListener> {
    return {
      piece: () => this.#live?.changed(),
      written: () => this.#live?.changed(),
      takenBack: (piece, source) => {
        // The Hub's own bytes are what a reader would have got without us, though its torrent disputes them.
        if (source === 'p2p') this.#live?.retract(piece)
        this.#digest.takenBack(map.offsetOf(piece))
      },
      final: (endBytes) => this.#digest.advance(endBytes),
    }
  }

  #report(phase: Phase): void {
    if (this.#lastProgress !== undefined) this.#request.onProgress?.(phase, this.#lastProgress)
  }

  /** Forgets what these sources brought. */
  #drop(map: PieceMap, ...sources: ('http' | 'p2p')[]): void {
    for (const piece of map.present()) {
      const source = map.sourceOf(piece)
      if (source !== undefined && sources.includes(source)) this.#live?.retract(piece)
    }
    for (const source of sources) map.drop(source)
    this.#live?.distrustPeers()
    this.#digest.takenBack(0)
  }

  /**
   * The content is wrong. Finds who may be to blame, forgets what they brought, and says whom to ask again.
   *
   * @throws {IntegrityError} When nobody is left to ask.
   */
  async #repent(map: PieceMap, outcome: RaceOutcome, swarmStart: SwarmStart): Promise<SwarmStart> {
    const { file } = this.#request
    if (this.#hasResumed) {
      // What an earlier call left can have come from anyone, and been damaged since.
      log.info(`${file.path}: what an earlier attempt left is not right; starting anew`)
      this.#hasResumed = false
      this.#drop(map, 'p2p', 'http')
      return swarmStart
    }
    if (map.bytes().p2p > 0 && outcome.offer !== undefined) {
      log.warn(
        `${file.path}: torrent ${outcome.offer.infoHash} holds other content; it will not be used again`,
      )
      await this.#deps.condemned.add(file.etag, outcome.offer.infoHash)
      this.#drop(map, 'p2p')
      this.#lies += 1
      if (this.#deps.canUseHttp) return 'never'
      if (this.#lies < maxLies) return swarmStart
    } else {
      this.#drop(map, 'p2p', 'http')
      if (this.#wrongCopies + 1 < maxWrongCopies) return this.#refuseCopy()
    }
    await this.#discard()
    throw new IntegrityError(
      `${file.path} of ${file.repo} does not have the content its etag ${file.etag} promises, whoever it comes from; nothing was kept`,
    )
  }

  /** What the Hub sent is wrong, and it is asked once more. */
  #refuseCopy(): SwarmStart {
    this.#wrongCopies += 1
    log.warn(`${this.#request.file.path}: what the Hub sent is not what its etag promises; fetching it again`)
    return 'never'
  }

  async #commit(outcome: RaceOutcome, bytes: BytesBySource, digest: FinishedDigest): Promise<FetchedFile> {
    const { leg } = outcome
    let serving = leg
    // libtorrent renames a file it serves, so that it goes on under the new name without a gap.
    this.#mover.rename = async (from, to) => {
      try {
        if (serving !== undefined) return await serving.torrent.renameFile(0, to)
      } catch (error) {
        log.debug(`libtorrent does not rename ${from}: ${messageOf(error)}`)
        await serving?.leave().catch(() => {})
        serving = undefined
      }
      await rename(from, to)
    }
    try {
      const path = await this.#slot.commit()
      await this.#journal?.remove()
      if (leg !== undefined) await this.#deps.onTied?.(this.#request.file, leg.offer)
      const joined = serving && { leg: serving, offer: serving.offer }
      const made = joined === undefined ? madeTorrent(digest, this.#request.file) : undefined
      return { path, isNew: true, bytes, joined, made, infoHash: leg?.offer.infoHash }
    } catch (error) {
      await serving?.leave().catch(() => {})
      throw error
    }
  }

  async #commitEmpty(): Promise<FetchedFile> {
    await using _partial = await PartialFile.open(this.#slot.partialPath, false)
    if ((await this.#rightDigest()) === undefined) {
      await this.#discard()
      throw new IntegrityError(`${this.#request.file.path} is said to be empty, and its etag says it is not`)
    }
    return {
      path: await this.#slot.commit(),
      isNew: true,
      bytes: noBytes(),
      joined: undefined,
      made: undefined,
      infoHash: undefined,
    }
  }

  async #keepOrDiscard(map: PieceMap, error: unknown): Promise<void> {
    if (this.#journal === undefined || (map.isEmpty && !this.#journal.hasUnfinished))
      return await this.#discard()
    const { http, p2p } = map.bytes()
    const why = isAbort(error, this.#request.signal) ? 'interrupted' : 'failed'
    log.debug(`${this.#request.file.path}: ${why} with ${http + p2p} bytes kept in ${this.#slot.partialPath}`)
  }

  async #discard(): Promise<void> {
    await this.#slot.discard()
    await this.#journal?.remove()
  }
}

function madeTorrent(digest: FinishedDigest, file: HubFile): MadeTorrent | undefined {
  const { torrentFile, infoHash } = digest
  if (torrentFile === undefined || infoHash === undefined) return undefined
  return { torrentFile, infoHash, pieceLength: pieceLengthFor(file.sizeBytes) }
}
