/** Torrents of blobs: what is kept, what has to make room, and how a kept torrent looks right now. */

import { makeMagnet } from '../../torrent/magnet.ts'
import type { Etag } from '../../values.ts'
import { type BlobRow, maxCandidatesPerBlob, maxPeersPerAnswer } from '../protocol.ts'
import type { NewTorrent, StoredTotals, TorrentRow, TrackerDatabase } from './database.ts'
import type { TrackerLimits } from './limits.ts'
import type { SwarmStore } from './swarm-store.ts'

/** What became of a torrent that was published. */
export type PublishOutcome =
  | 'created'
  | 'exists'
  | 'blob-is-full'
  | 'publisher-has-enough'
  | 'tracker-is-full'

/** Torrents of one blob from one network: a wrong one and its correction, or the two formats. */
const maxCandidatesPerPublisher = 2
const evictionPage = 100
const maxEvictionPages = 20

/** A torrent, and who stands for it right now. */
interface Standing {
  readonly torrent: TorrentRow
  /** Where its seeders are. */
  readonly networks: ReadonlySet<string>
  readonly seeders: number
}

/** Database and swarms together. */
export class Catalog {
  readonly #database: TrackerDatabase
  readonly #swarms: SwarmStore
  readonly #limits: TrackerLimits
  readonly #clock: () => number
  #totals: StoredTotals

  constructor(database: TrackerDatabase, swarms: SwarmStore, limits: TrackerLimits, clock: () => number) {
    this.#database = database
    this.#swarms = swarms
    this.#limits = limits
    this.#clock = clock
    this.#totals = database.totals()
  }

  /** Rows for these blobs; within each blob those first that most networks stand for. */
  lookup(etags: readonly Etag[], announceUrl: string): BlobRow[] {
    const byEtag = new Map<Etag, TorrentRow[]>(etags.map((etag) => [etag, []]))
    for (const torrent of this.#database.torrentsOf(etags)) {
      if (!this.#isExpired(torrent)) byEtag.get(torrent.etag)?.push(torrent)
    }
    return [...byEtag.values()].flatMap((torrents) =>
      torrents
        .map((torrent) => this.#standingOf(torrent))
        .sort((a, b) => byStanding(b, a))
        .map(({ torrent }) => this.#describe(torrent, announceUrl)),
    )
  }

  /** The .torrent file with this info hash or announce key. */
  torrentFile(hash: string): Uint8Array | undefined {
    const torrent = this.#database.torrentBy(hash)
    return torrent === undefined || this.#isExpired(torrent) ? undefined : this.#database.bytesOf(torrent.id)
  }

  /**
   * Keeps a torrent. Whoever published first owns nothing: several torrents of one blob stand side by side, at most two
   * of them from one network, and what makes room is what nobody seeds. A newcomer without seeders never displaces a
   * torrent that others than its own publisher stand for.
   *
   * @param network Who published it, see `networkOf`.
   */
  publish(torrent: NewTorrent, network: string): PublishOutcome {
    const known = this.#database.torrentBy(torrent.infoHash)
    if (known !== undefined) {
      this.#database.addPublisher(known.id, network)
      // Somebody has the content, though nobody has announced yet.
      this.#database.record(new Map([[known.announceKey, { seededAtMs: this.#clock(), completed: 0 }]]))
      return 'exists'
    }
    this.flush()
    const siblings = this.#database.torrentsOf([torrent.etag])
    const ids = this.#database.publishedFrom(network, torrent.etag)
    const own = siblings.filter(({ id }) => ids.has(id))
    let replaced: TorrentRow | undefined
    if (own.length >= maxCandidatesPerPublisher) {
      replaced = this.#dispensable(own, network)
      if (replaced === undefined) return 'publisher-has-enough'
    } else if (siblings.length >= maxCandidatesPerBlob) {
      replaced = this.#weakest(siblings, torrent)
      if (replaced === undefined) return 'blob-is-full'
    } else if (this.#isFull(torrent)) {
      if (!this.#makeRoom(torrent)) return 'tracker-is-full'
    }
    this.#database.insert(torrent, network, this.#clock(), replaced?.id)
    this.#count(replaced === undefined ? 1 : 0, torrent.torrent.length - (replaced?.torrentBytes ?? 0))
    return 'created'
  }

  /** Writes down who was seeded, forgets who was not for too long. */
  sweep(): void {
    this.#swarms.sweep()
    this.flush()
    this.#database.deleteUnseededSince(this.#oldestSeeded())
    this.#totals = this.#database.totals()
  }

  /** Writes down what happened in the swarms since the last time. */
  flush(): void {
    this.#database.record(this.#swarms.takeActivity())
  }

  #describe(torrent: TorrentRow, announceUrl: string): BlobRow {
    const keys = swarmKeysOf(torrent)
    const pending = keys.reduce((sum, key) => sum + this.#swarms.pendingCompleted(key), 0)
    return {
      kind: 'blob',
      etag: torrent.etag,
      size: torrent.sizeBytes,
      info_hash: torrent.infoHash,
      announce_key: torrent.announceKey,
      magnet_link: makeMagnet({
        infoHashV1: torrent.infoHashV1,
        infoHashV2: torrent.infoHash,
        name: torrent.etag,
        sizeBytes: torrent.sizeBytes,
        trackers: [announceUrl],
      }),
      piece_length: torrent.pieceLength,
      status: 'active',
      created_at: new Date(torrent.createdAtMs).toISOString(),
      publishers: torrent.publishers,
      stats: { ...this.#seedersAndLeechers(torrent), completed: torrent.completed + pending },
      peers: this.#swarms.select(keys, maxPeersPerAnswer).map(({ host, port }) => ({ ip: host, port })),
    }
  }

  #seedersAndLeechers(torrent: TorrentRow): { seeders: number; leechers: number } {
    const { seeders, leechers } = this.#swarms.countsOf(swarmKeysOf(torrent))
    return { seeders, leechers }
  }

  #seedersOf(torrent: Pick<TorrentRow, 'announceKey' | 'infoHashV1'>): number {
    return this.#swarms.countsOf(swarmKeysOf(torrent)).seeders
  }

  #isExpired(torrent: TorrentRow): boolean {
    return torrent.seededAtMs < this.#oldestSeeded() && this.#seedersOf(torrent) === 0
  }

  /** A seeder may be silent for two intervals: nothing expires sooner, however short the configured time. */
  #oldestSeeded(): number {
    return this.#clock() - Math.max(this.#limits.unseededTtlMs, 2 * this.#limits.intervalMs)
  }

  /** Which of a full blob's torrents goes for `newcomer`; `undefined` if all of them are better. */
  #weakest(torrents: readonly TorrentRow[], newcomer: NewTorrent): TorrentRow | undefined {
    const [last] = this.#weakestFirst(torrents)
    if (last === undefined) return undefined
    const newcomerNetworks = this.#swarms.seederNetworks(swarmKeysOf(newcomer)).size
    const isWeaker = last.networks.size === 0 || last.networks.size < newcomerNetworks
    return isWeaker ? last.torrent : undefined
  }

  /**
   * Which of a network's own torrents goes for another one from there. Only one that nobody else published or seeds:
   * a neighbour behind the same address cannot take away what others rely on.
   */
  #dispensable(own: readonly TorrentRow[], network: string): TorrentRow | undefined {
    return this.#weakestFirst(own).find(
      ({ torrent, networks }) =>
        torrent.publishers === 1 && [...networks].every((other) => other === network),
    )?.torrent
  }

  #weakestFirst(torrents: readonly TorrentRow[]): Standing[] {
    return torrents
      .map((torrent) => this.#standingOf(torrent))
      .sort(
        (a, b) =>
          byStanding(a, b) || a.torrent.seededAtMs - b.torrent.seededAtMs || a.torrent.id - b.torrent.id,
      )
  }

  #standingOf(torrent: TorrentRow): Standing {
    const keys = swarmKeysOf(torrent)
    const networks = this.#swarms.seederNetworks(keys)
    return { torrent, networks, seeders: this.#swarms.countsOf(keys).seeders }
  }

  #isFull(newcomer: NewTorrent): boolean {
    const { torrents, torrentBytes } = this.#totals
    return (
      torrents >= this.#limits.maxTorrents ||
      torrentBytes + newcomer.torrent.length > this.#limits.maxTorrentBytes
    )
  }

  /** Deletes torrents without seeders, unseeded longest first, until there is room. */
  #makeRoom(newcomer: NewTorrent): boolean {
    this.flush()
    let seeded = 0
    for (let page = 0; page < maxEvictionPages; page++) {
      const oldest = this.#database.longestUnseeded(evictionPage, seeded)
      for (const torrent of oldest) {
        if (this.#seedersOf(torrent) > 0) {
          seeded++
          continue
        }
        this.#database.delete(torrent.id)
        this.#count(-1, -torrent.torrentBytes)
        if (!this.#isFull(newcomer)) return true
      }
      if (oldest.length < evictionPage) return false
    }
    return false
  }

  /** Adding up all rows takes too long to do it for every publish. */
  #count(torrents: number, torrentBytes: number): void {
    this.#totals = {
      torrents: this.#totals.torrents + torrents,
      torrentBytes: this.#totals.torrentBytes + torrentBytes,
    }
  }
}

/**
 * Weaker first. Networks count: ports of one address cost nothing, so seeders themselves only decide between equals,
 * as in a lab where everybody has one address.
 */
function byStanding(a: Standing, b: Standing): number {
  return (
    a.networks.size - b.networks.size || a.torrent.publishers - b.torrent.publishers || a.seeders - b.seeders
  )
}

/** The swarms of a torrent: a hybrid's v1 peers are in another one than its v2 peers. */
function swarmKeysOf(torrent: Pick<TorrentRow, 'announceKey' | 'infoHashV1'>): string[] {
  return torrent.infoHashV1 === undefined ? [torrent.announceKey] : [torrent.announceKey, torrent.infoHashV1]
}
