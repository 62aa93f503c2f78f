/**
 * Wiring: builds each part once for one configuration and hands them to each other. The addon, undici and the
 * session are touched on first use only.
 */
import { availableParallelism } from 'node:os'
import type { Config } from './config.ts'
import type { HubAccess } from './hub/ask.ts'
import { Endpoints } from './hub/endpoints.ts'
import { HubHttp } from './hub/http.ts'
import type { FileLocks } from './hub/partial-file.ts'
import { cachePlace, localPlace, type Place } from './hub/place.ts'
import { readToken } from './hub/token.ts'
import { Visibility } from './hub/visibility.ts'
import { VisibilityMemory } from './hub/visibility-memory.ts'
import type { NativeAddon } from './native/binding.ts'
import { tryLock, unlock } from './native/file-lock.ts'
import { loadAddon } from './native/load.ts'

import { keepSecret } from './redact.ts'
import type { SeederClock } from './seeding/clock.ts'

import { keepTorrent } from './seeding/publish.ts'
import { Seeder } from './seeding/seeder.ts'
import { type StoredTorrent, TorrentStore } from './seeding/torrent-store.ts'
import { Swarm } from './swarm/swarm.ts'
import { TrackerClient } from './tracker/client.ts'
import { TrackerSet } from './tracker/tracker-set.ts'
import { CondemnedTorrents } from './transfer/condemned.ts'
import type { DownloadDeps } from './transfer/download.ts'
import { TorrentFinder } from './transfer/find-torrent.ts'
import { removeJournal, sweepJournals } from './transfer/journal.ts'
import { defaultRacePolicy, type RacePolicy } from './transfer/plan.ts'
import type { BlobRef } from './values.ts'

/** A Hub or a mirror as somebody with one token sees it, and what the Hub shows to everybody. */
export type Access = HubAccess & { readonly visibility: Visibility }

/** What tests replace. */
export interface ClientOverrides {
  readonly policy?: Partial<RacePolicy> | undefined
  readonly clock?: SeederClock | undefined
}

/** A program that uses more tokens than these, each for a while, costs an object each time, and no more memory. */
const mostAccesses = 256

export class Parts {
  readonly config: Config
  readonly #policy: RacePolicy
  readonly #http: HubHttp
  /** `undefined` without mirrors. */
  readonly #endpoints: Endpoints | undefined
  readonly #clock: SeederClock | undefined
  readonly #condemned: CondemnedTorrents
  readonly #trackers: readonly TrackerClient[]
  readonly #trackerSet: TrackerSet
  readonly #accesses = new Map<string, Access>()
  readonly #visibilities = new Map<string, Visibility>()
  readonly #visibilityMemory: VisibilityMemory | undefined
  #token: Promise<string | undefined> | undefined
  #swarm: Swarm | undefined
  #seeder: Seeder | undefined
  readonly #store: TorrentStore
  #hasTidied = false
  #closing: Promise<void> | undefined

  constructor(config: Config, { policy, clock }: ClientOverrides = {}) {
    this.config = config
    this.#http = new HubHttp({ now: clock?.now })
    this.#clock = clock
    this.#policy = { ...defaultRacePolicy, headStartMs: config.headStartMs, ...policy }
    const { endpoint, mirrors } = config
    this.#endpoints = mirrors.length === 0 ? undefined : new Endpoints(endpoint, mirrors, this.#http.now)
    this.#condemned = new CondemnedTorrents(config.stateDir)
    this.#store = new TorrentStore(config.stateDir)
    // Who shares nothing keeps no record of what could be.
    const mayShare = config.p2p && config.trackers.length > 0
    this.#visibilityMemory = mayShare ? new VisibilityMemory(config.stateDir, this.#http.now) : undefined
    this.#trackers = config.trackers.map((url) => new TrackerClient({ url }))
    this.#trackerSet = new TrackerSet(this.#trackers)
  }

  /** The configured Hub with the configured token. @throws {ConfigError} When the token cannot be one. */
  async ownAccess(): Promise<Access> {
    this.#token ??= readToken(this.config)
    return this.access(this.config.endpoint, await this.#token)
  }

  /** A Hub as somebody else sees it: a hooked program may use several tokens and endpoints. */
  access(endpoint: string, token: string | undefined): Access {
    // Also when it is known here: the tokens of many others may have come since.
    if (token !== undefined) keepSecret(token)
    const key = `${endpoint} ${token ?? ''}`
    const known = this.#accesses.get(key)
    if (known !== undefined) return known
    const endpoints = endpoint === this.config.endpoint ? this.#endpoints : undefined
    const hub: HubAccess = { http: this.#http, endpoint, token, endpoints }
    // What a mirror shows to everybody may be what it fetched with a token of its own: the Hub decides.
    const authority = this.config.mirrors.includes(endpoint) ? this.config.endpoint : endpoint
    const access = { ...hub, visibility: this.#visibilityAt(authority) }
    this.#accesses.set(key, access)
    const [oldest] = this.#accesses.keys()
    if (this.#accesses.size > mostAccesses && oldest !== undefined) this.#accesses.delete(oldest)
    return access
  }

  /** What the configured Hub shows to everybody. */
  get visibility(): Visibility {
    return this.#visibilityAt(this.config.endpoint)
  }

  /** What everybody sees there does not depend on who asks. */
  #visibilityAt(endpoint: string): Visibility {
    const known = this.#visibilities.get(endpoint)
    if (known !== undefined) return known
    const hub = { http: this.#http, endpoint }
    const made = new Visibility({ hub, memory: this.#visibilityMemory, rules: this.config })
    this.#visibilities.set(endpoint, made)
    return made
  }

  addon(): NativeAddon | undefined {
    const loaded = loadAddon()
    return 'addon' in loaded ? loaded.addon : undefined
  }

  /** The swarm, when it may and can be used: switched on, addon there, somebody to name peers. */
  swarm(): Swarm | undefined {
    if (!this.config.p2p || this.config.offline || this.#trackers.length === 0) return undefined
    const addon = this.addon()
    if (addon === undefined) return undefined
    this.#swarm ??= new Swarm(addon, this.config)
    return this.#swarm
  }

  /** The seeder, made when there is something to seed. */
  seeder(): Seeder | undefined {
    const addon = this.addon()
    const swarm = this.swarm()
    if (addon === undefined || swarm === undefined) return undefined
    this.#seeder ??= new Seeder({
      addon,
      swarm,
      store: this.#store,
      trackers: this.#trackers,
      clock: this.#clock,
      // Hashing for others must leave room for whoever we are a guest of.
      threads: Math.max(1, availableParallelism() - 1),
    })
    return this.#seeder
  }

  /** The seeder, when anything was ever seeded. */
  get existingSeeder(): Seeder | undefined {
    return this.#seeder
  }

  /** Where torrents that are made here announce. */
  get announceUrls(): readonly string[] {
    return this.#trackers.map((tracker) => tracker.announceUrl)
  }

  /** Looks for torrents during one call. */
  finder(): TorrentFinder | undefined {
    if (this.swarm() === undefined) return undefined
    return new TorrentFinder({
      trackers: this.#trackerSet,
      condemned: this.#condemned,
      peers: this.config.peers,
      isKnown: async (blob, infoHash) => (await this.#store.load(blob))?.infoHash === infoHash,
    })
  }

  /** The locks that other clients respect; `undefined` without the addon. */
  locks(): FileLocks | undefined {
    const addon = this.addon()
    return addon && { tryLock: (fd) => tryLock(addon, fd), unlock: (fd) => unlock(addon, fd) }
  }

  /** The torrent of a blob that this machine has found right before. */
  async keptTorrent(blob: BlobRef): Promise<StoredTorrent | undefined> {
    return await this.#store.load(blob)
  }

  place(localDir: string | undefined): Place {
    const locks = this.locks()
    const onSwept = (partialPath: string): Promise<void> => removeJournal(this.config.stateDir, partialPath)
    const deps = { locks, onSwept, ...(!this.config.symlinks && { symlinks: false }) }
    if (!this.#hasTidied) sweepJournals(this.config.stateDir)
    this.#hasTidied = true
    const { cacheDir } = this.config
    return localDir === undefined ? cachePlace(cacheDir, deps) : localPlace(localDir, deps, cacheDir)
  }

  /** @param options.http Whether the Hub and its storage may be asked for content, as far as the configuration allows it. */
  downloadDeps(finder: TorrentFinder | undefined, options: { readonly http: boolean }): DownloadDeps {
    const { stateDir, smallFileBytes, timeoutMs, http, offline } = this.config
    return {
      addon: this.addon(),
      swarm: this.swarm(),
      finder,
      condemned: this.#condemned,
      stateDir,
      policy: this.#policy,
      smallFileBytes,
      timeoutMs,
      canUseHttp: http && options.http,
      offline,
      onTied: (file, offer) => keepTorrent(file, offer, { store: this.#store }),
    }
  }

  /** Idempotent. Stops seeding, tells the trackers, closes connections. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#seeder?.close()
      await this.#swarm?.close()
      await this.#http.close()
      await this.#visibilityMemory?.idle()
    })()
    return this.#closing
  }
}
