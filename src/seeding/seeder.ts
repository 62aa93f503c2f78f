/**
 * Gives back what was downloaded. Blobs wait in a queue, get their torrent, are registered, and are then
 * served from where they lie until their time is up. Nothing here can hurt whoever asked for the download:
 * `seed` returns at once, and what fails is logged and shows in `status`.
 */
import { IntegrityError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { Torrent } from '../native/session.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import type { BlobRef, Etag, InfoHash } from '../values.ts'
import { keepTorrent, type PublishDeps, register, torrentOf } from './publish.ts'
import type { StoredTorrent } from './torrent-store.ts'

export interface SeedRequest {
  readonly blob: BlobRef
  /** The verified file; it is read, never written. */
  readonly path: string
  /** What people call it, such as `acme/tiny/model.safetensors`. */
  readonly label: string
  /** How long, from the moment it is in its swarm; `Infinity` while the process lives. */
  readonly forMs: number
  /** Whether the file must be compared with its etag first: one that was not verified just now. @defaultValue false */
  readonly check?: boolean | undefined
  /** A torrent that serves this very path already, from the download that just ended. */
  readonly joined?: { readonly torrent: Torrent; readonly offer: TorrentOffer } | undefined
  /** The file's torrent, made while it was downloaded. */
  readonly made?: StoredTorrent | undefined
}

export type SeedState = 'waiting' | 'hashing' | 'seeding' | 'ended' | 'failed'

export interface SeedStatus {
  readonly etag: Etag
  readonly sizeBytes: number
  readonly label: string
  readonly path: string
  readonly state: SeedState
  readonly infoHash: InfoHash | undefined
  /** Why it failed. */
  readonly error: string | undefined
  readonly peers: number
  /** Payload bytes sent since it is seeded. */
  readonly uploadedBytes: number
  /** Bytes per second. */
  readonly uploadRate: number
  readonly endsAt: Date | undefined
}

interface Entry {
  readonly request: SeedRequest
  state: SeedState
  error: string | undefined
  infoHash: InfoHash | undefined
  torrent: Torrent | undefined
  uploadedBytes: number
  endsAt: Date | undefined
  timer: NodeJS.Timeout | undefined
  ending: Promise<void> | undefined
  readonly controller: AbortController
}

export interface SeederDeps extends PublishDeps {
  readonly swarm: Swarm
}

/** The longest delay a Node timer takes. */
const maxTimerMs = 2_147_483_647

export class Seeder {
  readonly #deps: SeederDeps
  readonly #entries = new Map<Etag, Entry>()
  #queue: Promise<void> = Promise.resolve()
  #isClosed = false

  constructor(deps: SeederDeps) {
    this.#deps = deps
  }

  /** Queues a blob. A blob that is seeded already stays as it is; its time starts anew. */
  seed(request: SeedRequest): void {
    if (this.#isClosed || request.blob.sizeBytes === 0) return
    const known = this.#entries.get(request.blob.etag)
    if (known !== undefined && known.state !== 'ended' && known.state !== 'failed') {
      if (known.state === 'seeding') this.#schedule(known, request.forMs)
      // Another torrent of the same content: one of them is enough.
      if (request.joined !== undefined) this.#drop(request.joined.torrent)
      return
    }
    const entry: Entry = {
      request,
      state: 'waiting',
      error: undefined,
      infoHash: undefined,
      torrent: undefined,
      uploadedBytes: 0,
      endsAt: undefined,
      timer: undefined,
      ending: undefined,
      controller: new AbortController(),
    }
    this.#entries.set(request.blob.etag, entry)
    this.#queue = this.#queue.then(() => this.#start(entry))
  }

  /** Resolves when everything queued so far is seeded or has failed. */
  async settled(): Promise<void> {
    let queue: Promise<void>
    do {
      queue = this.#queue
      await queue
    } while (queue !== this.#queue)
  }

  /** One entry per blob, in the order they were asked for. */
  async status(): Promise<readonly SeedStatus[]> {
    return await Promise.all([...this.#entries.values()].map((entry) => this.#statusOf(entry)))
  }

  /** Stops seeding one blob, or all of them. The files stay. */
  async stop(etag?: Etag): Promise<void> {
    const entries = [...this.#entries.values()].filter(
      (entry) => etag === undefined || entry.request.blob.etag === etag,
    )
    await Promise.all(entries.map((entry) => this.#end(entry)))
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.stop()
    await this.#queue
  }

  async #start(entry: Entry): Promise<void> {
    if (entry.controller.signal.aborted) return
    const { blob, label, forMs, joined } = entry.request
    try {
      entry.state = 'hashing'
      const torrent = joined?.offer ?? (await this.#torrentOf(entry))
      if (torrent === undefined) return await this.#end(entry)
      entry.infoHash = torrent.infoHash
      entry.torrent = await this.#serve(entry, torrent)
      if (entry.controller.signal.aborted) return this.#drop(entry.torrent)
      entry.state = 'seeding'
      this.#watch(entry, entry.torrent)
      this.#schedule(entry, forMs)
      if (joined !== undefined) await keepTorrent(blob, torrent, this.#deps)
      await register(blob, torrent, this.#deps.trackers, entry.controller.signal)
      log.debug(`seeding ${label} (${entry.infoHash})`)
    } catch (error) {
      if (!entry.controller.signal.aborted) this.#fail(entry, error)
    }
  }

  /** A file that changes under a seed is noticed by libtorrent when it is read: it is served no longer. */
  #watch(entry: Entry, torrent: Torrent): void {
    const stop = torrent.onAlert((alert) => {
      const isBroken = alert.type === 'torrent_error' || alert.type === 'file_error'
      if (alert.type === 'torrent_removed') stop()
      else if (isBroken) this.#fail(entry, new Error(`${alert.error.message} (${alert.file})`))
      else if (alert.type === 'state_changed' && alert.state === 'downloading') {
        this.#fail(entry, new IntegrityError(`${entry.request.path} has changed since it was verified`))
      } else return
      stop()
    })
  }

  #fail(entry: Entry, error: unknown): void {
    clearTimeout(entry.timer)
    entry.state = 'failed'
    entry.error = messageOf(error)
    log.info(`not seeding ${entry.request.label}: ${entry.error}`)
    if (entry.torrent !== undefined) this.#drop(entry.torrent)
  }

  async #torrentOf(entry: Entry): Promise<StoredTorrent | undefined> {
    const { blob, path, made, check = false } = entry.request
    const { signal } = entry.controller
    if (made !== undefined) {
      await keepTorrent(blob, made, this.#deps)
      return made
    }
    return await torrentOf(blob, path, this.#deps, { check, signal })
  }

  #drop(torrent: Torrent): void {
    this.#deps.swarm.retire(torrent)
  }

  /** The torrent in its swarm, serving the blob where it lies. */
  async #serve(entry: Entry, torrent: StoredTorrent): Promise<Torrent> {
    const { joined, path } = entry.request
    if (joined !== undefined) {
      const { isSeeding, isFinished } = await joined.torrent.status()
      if (isSeeding || isFinished) return joined.torrent
      await this.#deps.swarm.leave(joined.torrent)
    }
    const offer: TorrentOffer = {
      ...torrent,
      announceUrls: this.#deps.trackers.map((tracker) => tracker.announceUrl),
      peers: [],
      isPromising: false,
      mayBeCrowd: false,
      isTied: true,
    }
    const added = await this.#deps.swarm.join(offer, { path, mode: 'seed' })
    if (added === undefined) throw new Error('its torrent is in use for another file of this process')
    return added
  }

  #schedule(entry: Entry, forMs: number): void {
    clearTimeout(entry.timer)
    entry.endsAt = Number.isFinite(forMs) ? new Date(Date.now() + forMs) : undefined
    if (!Number.isFinite(forMs)) return
    entry.timer = setTimeout(() => void this.#end(entry), Math.min(forMs, maxTimerMs))
    // Seeding never keeps a program alive; who wants to wait does so on purpose.
    entry.timer.unref()
  }

  /** Whoever ends an entry twice waits for the same end. */
  #end(entry: Entry): Promise<void> {
    entry.ending ??= this.#leave(entry).catch((error) => {
      log.debug(`ending ${entry.request.label}: ${messageOf(error)}`)
    })
    return entry.ending
  }

  async #leave(entry: Entry): Promise<void> {
    clearTimeout(entry.timer)
    entry.controller.abort(new DOMException('seeding ended', 'AbortError'))
    const torrent = entry.torrent ?? entry.request.joined?.torrent
    if (torrent !== undefined && !torrent.isRemoved) {
      entry.uploadedBytes =
        (await torrent.status().catch(() => undefined))?.payloadUpload ?? entry.uploadedBytes
      await this.#deps.swarm.leave(torrent)
    }
    if (entry.state !== 'failed') entry.state = 'ended'
  }

  async #statusOf(entry: Entry): Promise<SeedStatus> {
    const live = entry.state === 'seeding' ? await entry.torrent?.status().catch(() => undefined) : undefined
    if (live !== undefined) entry.uploadedBytes = live.payloadUpload
    return {
      ...entry.request.blob,
      label: entry.request.label,
      path: entry.request.path,
      state: entry.state,
      infoHash: entry.infoHash,
      error: entry.error,
      peers: live?.numPeers ?? 0,
      uploadedBytes: entry.uploadedBytes,
      uploadRate: live?.uploadRate ?? 0,
      endsAt: entry.endsAt,
    }
  }
}
