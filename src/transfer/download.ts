/**
 * One file of the Hub, from its identity to its place in the cache: plan, race, verify, rename, link.
 * Nothing carries its final name before its digest matched; a torrent that lied is condemned and the
 * download goes on without it, silently.
 */
import { rename } from 'node:fs/promises'
import { ConfigError, IntegrityError, isAbort } from '../errors.ts'
import type { RangeBody, RangeRequest } from '../hub/file-source.ts'
import type { PartialFile as WritableSlot } from '../hub/partial-file.ts'
import type { Place } from '../hub/place.ts'
import { log, messageOf } from '../log.ts'
import type { NativeAddon } from '../native/binding.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { pieceLengthFor } from '../torrent/piece-length.ts'
import type { BytesBySource, HubFile, InfoHash } from '../values.ts'
import type { CondemnedTorrents } from './condemned.ts'
import type { TorrentFinder } from './find-torrent.ts'
import { Journal } from './journal.ts'
import { PartialFile } from './partial-file.ts'
import { PieceMap } from './piece-map.ts'
import { type Plan, planDownload, type RacePolicy } from './plan.ts'
import { noBytes, type Phase } from './progress.ts'
import { type RaceOutcome, race, type TransferProgress } from './race.ts'
import type { SwarmLeg } from './swarm-leg.ts'
import { isBlob } from './verify.ts'

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
}

export interface FileDownload {
  readonly file: HubFile
  /** Where the file goes. */
  readonly place: Place
  /** Opens ranges at the Hub. */
  readonly source: { openRange(range: RangeRequest): Promise<RangeBody> }
  /** Everybody may read this file, or its owner agreed to share it. */
  readonly mayShare: () => Promise<boolean>
  readonly signal: AbortSignal
  readonly onProgress?: ((phase: Phase, progress: TransferProgress) => void) | undefined
}

export interface FetchedFile {
  /** The finished file. */
  readonly path: string
  /** Whether this call brought it. */
  readonly isNew: boolean
  readonly bytes: BytesBySource
  /** The torrent it came through, still in its swarm and serving `path`; its new owner takes it over. */
  readonly joined: { readonly leg: SwarmLeg; readonly offer: TorrentOffer } | undefined
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
  const slot = await place.open(file, { rename: (from, to) => mover.rename(from, to) }, { signal })
  if (slot.state === 'present') {
    const bytes = { ...noBytes(), cache: file.sizeBytes }
    return { path: slot.path, isNew: false, bytes, joined: undefined, infoHash: undefined }
  }
  await using held = slot
  const plan = planDownload({
    sizeBytes: file.sizeBytes,
    isCached: false,
    canUseSwarm: deps.swarm !== undefined && deps.finder !== undefined,
    mayShare: deps.swarm !== undefined && file.sizeBytes > 0 && (await request.mayShare()),
    canUseHttp: deps.canUseHttp,
    offline: deps.offline,
    smallFileBytes: deps.smallFileBytes,
  })
  if (plan.kind === 'impossible') throw new ConfigError(`cannot get ${file.path}: ${plan.reason}`)
  return await new FileFetch(request, deps, held, plan, mover).run()
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
  #lastProgress: TransferProgress | undefined
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
  }

  async run(): Promise<FetchedFile> {
    if (this.#plan.kind !== 'fetch') return await this.#commitEmpty()
    const map = await this.#resume()
    let swarmStart = this.#plan.swarm
    for (;;) {
      const outcome = await this.#race(map, swarmStart)
      const bytes = this.#lastProgress?.bytes ?? noBytes()
      try {
        if (await this.#isRight()) return await this.#commit(outcome.leg, bytes)
      } catch (error) {
        await outcome.leg?.leave().catch(() => {})
        throw error
      }
      await outcome.leg?.leave().catch(() => {})
      swarmStart = await this.#repent(map, outcome, swarmStart)
    }
  }

  async #isRight(): Promise<boolean> {
    this.#report('verifying')
    // Whoever waits for our lock must see that we are alive while nothing is written.
    const timer = setInterval(() => void this.#slot.touch(), touchMs)
    try {
      const { file, signal } = this.#request
      return await isBlob(this.#slot.partialPath, file, { addon: this.#deps.addon, signal })
    } finally {
      clearInterval(timer)
    }
  }

  /** The pieces an interrupted download left, when the partial file can still hold them. */
  async #resume(): Promise<PieceMap> {
    const { sizeBytes } = this.#request.file
    const pieceLength = pieceLengthFor(sizeBytes)
    const fresh = new PieceMap(sizeBytes, pieceLength)
    const map = await this.#journal?.load(sizeBytes, pieceLength)
    if (map === undefined) return fresh
    await using partial = await PartialFile.open(this.#slot.partialPath, true)
    const last = [...map.present()].at(-1)
    const reaches = last === undefined ? 0 : map.offsetOf(last) + map.lengthOf(last)
    if (last === undefined || (await partial.sizeBytes()) < reaches) return fresh
    this.#hasResumed = true
    return map
  }

  async #race(map: PieceMap, swarmStart: SwarmStart): Promise<RaceOutcome> {
    const { file, source, signal } = this.#request
    const { deps, plan } = { deps: this.#deps, plan: this.#plan }
    const { finder } = deps
    await using partial = await PartialFile.open(this.#slot.partialPath, [...map.present()].length > 0)
    try {
      return await race({
        map,
        file: partial,
        open: plan.kind === 'fetch' && plan.http !== 'never' ? (range) => source.openRange(range) : undefined,
        swarm: deps.swarm,
        findTorrent: async (inner) => await finder?.find(file, inner),
        http: plan.kind === 'fetch' ? plan.http : 'at-once',
        swarmStart,
        policy: deps.policy,
        patienceMs: deps.timeoutMs,
        signal,
        onProgress: (progress) => {
          this.#lastProgress = progress
          this.#report('downloading')
        },
        onCondemned: (offer) => deps.condemned.add(file.etag, offer.infoHash),
        onCheckpoint: (pieces) => void this.#journal?.save(pieces),
      })
    } catch (error) {
      await this.#keepOrDiscard(map, error)
      throw error
    }
  }

  #report(phase: Phase): void {
    if (this.#lastProgress !== undefined) this.#request.onProgress?.(phase, this.#lastProgress)
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
      map.drop('p2p')
      map.drop('http')
      return swarmStart
    }
    if (map.bytes().p2p > 0 && outcome.offer !== undefined) {
      log.warn(
        `${file.path}: torrent ${outcome.offer.infoHash} holds other content; it will not be used again`,
      )
      await this.#deps.condemned.add(file.etag, outcome.offer.infoHash)
      map.drop('p2p')
      this.#lies += 1
      if (this.#deps.canUseHttp) return 'never'
      if (this.#lies < maxLies) return swarmStart
    } else {
      map.drop('p2p')
      map.drop('http')
      this.#wrongCopies += 1
      if (this.#wrongCopies < maxWrongCopies) {
        log.warn(`${file.path}: what the Hub sent is not what its etag promises; fetching it again`)
        return 'never'
      }
    }
    await this.#discard()
    throw new IntegrityError(
      `${file.path} of ${file.repo} does not have the content its etag ${file.etag} promises, whoever it comes from; nothing was kept`,
    )
  }

  async #commit(leg: SwarmLeg | undefined, bytes: BytesBySource): Promise<FetchedFile> {
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
      const joined = serving && { leg: serving, offer: serving.offer }
      return { path, isNew: true, bytes, joined, infoHash: leg?.offer.infoHash }
    } catch (error) {
      await serving?.leave().catch(() => {})
      throw error
    }
  }

  async #commitEmpty(): Promise<FetchedFile> {
    await using partial = await PartialFile.open(this.#slot.partialPath, false)
    if (!(await isBlob(partial.path, this.#request.file))) {
      await this.#discard()
      throw new IntegrityError(`${this.#request.file.path} is said to be empty, and its etag says it is not`)
    }
    return {
      path: await this.#slot.commit(),
      isNew: true,
      bytes: noBytes(),
      joined: undefined,
      infoHash: undefined,
    }
  }

  async #keepOrDiscard(map: PieceMap, error: unknown): Promise<void> {
    const { http, p2p } = map.bytes()
    if (this.#journal === undefined || http + p2p === 0) return await this.#discard()
    await this.#journal.save(map)
    const why = isAbort(error, this.#request.signal) ? 'interrupted' : 'failed'
    log.debug(`${this.#request.file.path}: ${why} with ${http + p2p} bytes kept in ${this.#slot.partialPath}`)
  }

  async #discard(): Promise<void> {
    await this.#slot.discard()
    await this.#journal?.remove()
  }
}
