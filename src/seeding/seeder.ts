/**
 * Gives back what was downloaded. Blobs wait in a queue, are asked about, get their torrent, are registered, and are then
 * served from where they lie until their time is up, or until not everybody may have them any more. Nothing here can hurt
 * whoever asked for the download: `seed` returns at once, and what fails is logged and shows in `status`.
 *
 *     waiting -> hashing -> seeding -> ended
 *        |          |          |----> failed      the file cannot be served
 *        |          `----------|
 *        `---------------------`----> withdrawn   the Hub says no; or, while seeding, nothing for a week
 *
 * It waits, with an `error`, while the Hub does not say whether it may begin.
 */
import { IntegrityError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import type { Torrent } from '../native/session.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import type { BlobRef, Etag, InfoHash } from '../values.ts'
import { type SeederClock, systemClock } from './clock.ts'
import { lookEveryMs, Permission, type Permit, type VerdictQuestion } from './permission.ts'
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
  /** Asked before anything is shared, and daily. `async () => 'public'` for what nobody guards. */
  readonly verdict: VerdictQuestion
  /** Whether the file must be compared with its etag first: one that was not verified just now. @defaultValue false */
  readonly check?: boolean | undefined
  /** A torrent that serves this very path already, from the download that just ended. */
  readonly joined?: { readonly torrent: Torrent; readonly offer: TorrentOffer } | undefined
  /** The file's torrent, made while it was downloaded. */
  readonly made?: StoredTorrent | undefined
}

/** `withdrawn`: not everybody may have it, or not any more. */
export type SeedState = 'waiting' | 'hashing' | 'seeding' | 'ended' | 'failed' | 'withdrawn'

export interface SeedStatus {
  readonly etag: Etag
  readonly sizeBytes: number
  readonly label: string
  readonly path: string
  readonly state: SeedState
  readonly infoHash: InfoHash | undefined
  /** Why it failed, was withdrawn, or has to wait. */
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
  readonly permission: Permission
  joined: SeedRequest['joined']
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
  /** @defaultValue the computer's */
  readonly clock?: SeederClock | undefined
}

/** The longest delay a Node timer takes. */
const maxTimerMs = 2_147_483_647

export class Seeder {
  readonly #deps: SeederDeps
  readonly #clock: SeederClock
  readonly #entries = new Map<Etag, Entry>()
  #queue: Promise<void> = Promise.resolve()
  #looking: Promise<void> | undefined
  #stopLooking: (() => void) | undefined
  #isClosed = false

  constructor(deps: SeederDeps) {
    this.#deps = deps
    this.#clock = deps.clock ?? systemClock
  }

  /** Queues a blob. A blob that is seeded already stays as it is; its time starts anew. */
  seed(request: SeedRequest): void {
    if (this.#isClosed || request.blob.sizeBytes === 0) return
    const known = this.#entries.get(request.blob.etag)
    if (known !== undefined && !isOver(known.state)) {
      known.permission.add(request.label, request.verdict)
      if (known.state === 'seeding') this.#schedule(known, request.forMs)
      if (isHeld(known)) this.#enqueue(known)
      // Another torrent of the same content: one of them is enough.
      if (request.joined !== undefined) this.#drop(request.joined.torrent)
      return
    }
    const entry: Entry = {
      request,
      permission: new Permission(),
      joined: request.joined,
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
    entry.permission.add(request.label, request.verdict)
    this.#entries.set(request.blob.etag, entry)
    this.#stopLooking ??= this.#clock.every(lookEveryMs, () => void this.recheck())
    this.#enqueue(entry)
  }

  /**
   * Asks again about what nobody has asked about for a day, and about what could not begin. Happens by itself every hour;
   * resolves when all that is refused has left its swarm. What may begin now is in the queue: see `settled`.
   */
  recheck(): Promise<void> {
    this.#looking ??= this.#recheck().finally(() => {
      this.#looking = undefined
    })
    return this.#looking
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
    this.#stopLooking?.()
    await this.stop()
    await this.#queue
    await this.#looking
  }

  #enqueue(entry: Entry): void {
    entry.error = undefined
    this.#queue = this.#queue.then(() => this.#start(entry))
  }

  async #start(entry: Entry): Promise<void> {
    if (entry.controller.signal.aborted) return
    const { blob, label, forMs } = entry.request
    try {
      if (!(await this.#mayStart(entry))) return
      const { joined } = entry
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

  /** Nothing of a blob is given to anybody, or told to a tracker, before this says yes. */
  async #mayStart(entry: Entry): Promise<boolean> {
    const permit = await this.#ask(entry)
    if (permit.says === 'yes') return true
    const { joined, request } = entry
    log.info(`not seeding ${request.label}: ${permit.reason}`)
    if (permit.says === 'no') {
      await this.#withdraw(entry, permit.reason)
    } else if (joined !== undefined) {
      // Its download was allowed to be in the swarm; that is over.
      entry.joined = undefined
      await this.#deps.swarm.leave(joined.torrent)
      await keepTorrent(request.blob, joined.offer, this.#deps)
    }
    entry.error = permit.reason
    return false
  }

  #ask(entry: Entry): Promise<Permit> {
    return entry.permission.ask(this.#clock.now(), entry.controller.signal)
  }

  async #recheck(): Promise<void> {
    const refused = new Map<string, string[]>()
    for (const entry of this.#dueEntries()) {
      if (this.#isClosed) return
      // It may have ended while another one was asked about.
      if (entry.state !== 'seeding') continue
      try {
        const permit = await this.#ask(entry)
        if (permit.says !== 'no') continue
        await this.#withdraw(entry, permit.reason)
        refused.set(permit.reason, [...(refused.get(permit.reason) ?? []), entry.request.label])
      } catch (error) {
        if (!entry.controller.signal.aborted)
          log.warn(`asking about ${entry.request.label}: ${messageOf(error)}`)
      }
    }
    // After the others: the Hub answers only so many questions, and what is seeded must not lose its permission to these.
    for (const entry of this.#entries.values()) if (isHeld(entry)) this.#enqueue(entry)
    // A repository has many files, and one line says it.
    for (const [reason, [first, ...others]] of refused) {
      const more = others.length === 0 ? '' : ` and ${others.length} more`
      log.warn(`${first}${more}: no longer seeded: ${reason}`)
    }
  }

  /** Those to ask about again, the ones that have waited longest first. */
  #dueEntries(): Entry[] {
    const nowMs = this.#clock.now()
    return [...this.#entries.values()]
      .filter(({ state, permission }) => state === 'seeding' && permission.isDue(nowMs))
      .toSorted((one, other) => one.permission.grantedMs - other.permission.grantedMs)
  }

  async #withdraw(entry: Entry, reason: string): Promise<void> {
    await this.#end(entry)
    entry.state = 'withdrawn'
    entry.error = reason
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
    const torrent = entry.torrent ?? entry.joined?.torrent
    if (torrent !== undefined) this.#drop(torrent)
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
    const { path } = entry.request
    const { joined } = entry
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
    const torrent = entry.torrent ?? entry.joined?.torrent
    if (torrent !== undefined && !torrent.isRemoved) {
      entry.uploadedBytes =
        (await torrent.status().catch(() => undefined))?.payloadUpload ?? entry.uploadedBytes
      await this.#deps.swarm.leave(torrent)
    }
    if (!isOver(entry.state)) entry.state = 'ended'
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

/** Whether it waits for the Hub, and not for its turn. */
function isHeld({ state, error }: Entry): boolean {
  return state === 'waiting' && error !== undefined
}

/** Whether nothing more comes of it unless it is asked for anew. */
function isOver(state: SeedState): boolean {
  return state === 'ended' || state === 'failed' || state === 'withdrawn'
}
