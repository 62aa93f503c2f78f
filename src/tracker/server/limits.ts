/** What a tracker allows, and for how long it remembers. */

/** At most `count` requests in a window that starts with the first. */
export interface Rate {
  readonly count: number
  readonly windowMs: number
}

export interface TrackerLimits {
  /** How often peers should announce. Those silent for twice as long are forgotten. */
  readonly intervalMs: number
  /** How soon peers may announce again. */
  readonly minIntervalMs: number
  /** Announces and scrapes of one address (IPv6: of one /64), over all torrents together. */
  readonly announceRate: Rate
  /** Publishes of one address (IPv6: of one /64), refused ones included. */
  readonly publishRate: Rate
  /** Body of one publish. */
  readonly maxPublishBytes: number
  /** Publishes whose bodies are read at once. */
  readonly maxPublishesAtOnce: number
  /** Swarms in memory; the one announced to longest ago makes room. */
  readonly maxSwarms: number
  readonly maxPeersPerSwarm: number
  /** Peers in memory, all swarms together. */
  readonly maxPeers: number
  /** Peers of one address (IPv6: of one /64) in one swarm. */
  readonly maxPeersPerAddress: number
  /** Torrents in the database; the one unseeded longest makes room. */
  readonly maxTorrents: number
  /** Bytes of .torrent files in the database. */
  readonly maxTorrentBytes: number
  /** A torrent nobody seeded for so long is deleted. */
  readonly unseededTtlMs: number
  readonly maxConnections: number
}

const minute = 60_000
const mebibyte = 1024 * 1024

/**
 * Generous enough for a machine that seeds thousands of blobs, each of them a torrent; intervals as on the existing
 * network.
 */
export const defaultLimits: TrackerLimits = {
  intervalMs: 30 * minute,
  minIntervalMs: 15 * minute,
  announceRate: { count: 10_000, windowMs: 15 * minute },
  publishRate: { count: 5000, windowMs: 15 * minute },
  maxPublishBytes: 4 * mebibyte,
  maxPublishesAtOnce: 64,
  maxSwarms: 100_000,
  maxPeersPerSwarm: 2000,
  maxPeers: 200_000,
  maxPeersPerAddress: 256,
  maxTorrents: 200_000,
  maxTorrentBytes: 8 * 1024 * mebibyte,
  unseededTtlMs: 7 * 24 * 60 * minute,
  maxConnections: 4096,
}
