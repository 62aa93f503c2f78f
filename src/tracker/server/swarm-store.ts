/**
 * Who is in which swarm, in memory only: after a restart everybody is back within one interval.
 *
 * Peers of a swarm are kept in the order of their last announce, swarms in the order of the last announce to them, so
 * whatever has to go (expired, or one too many) stands in front.
 */
import { compactPeer, networkOf } from './address.ts'
import type { TrackerLimits } from './limits.ts'

/** A peer of a swarm. */
export interface SwarmPeer {
  readonly host: string
  readonly port: number
  readonly isSeeder: boolean
  /** As announce answers carry it, 6 or 18 bytes. */
  readonly compact: Buffer
}

/** One announce that was understood. */
export interface Announce {
  readonly host: string
  readonly port: number
  readonly isSeeder: boolean
  readonly event: 'started' | 'completed' | 'stopped' | 'none'
}

/** How many are in a swarm, and how many said that they finished. */
export interface SwarmCounts {
  readonly seeders: number
  readonly leechers: number
  readonly completed: number
}

/** What happened in a swarm since it was last asked for. */
export interface Activity {
  seededAtMs: number | undefined
  completed: number
}

interface StoredPeer extends SwarmPeer {
  readonly network: string
  readonly lastSeenMs: number
}

interface Swarm {
  readonly peers: Map<string, StoredPeer>
  readonly perNetwork: Map<string, number>
  seeders: number
  completed: number
}

/** Of the peers a leecher gets, the part that should be seeders; the others can trade. */
const seederShare = 0.3
/** Swarms whose activity is remembered between two sweeps. */
const maxActivity = 100_000

export class SwarmStore {
  readonly #swarms = new Map<string, Swarm>()
  readonly #limits: TrackerLimits
  readonly #clock: () => number
  readonly #random: () => number
  #activity = new Map<string, Activity>()
  #totalPeers = 0

  constructor(limits: TrackerLimits, clock: () => number, random: () => number = Math.random) {
    this.#limits = limits
    this.#clock = clock
    this.#random = random
  }

  /** @param key The first 20 bytes of the info hash, 40 hex digits. */
  announce(key: string, { host, port, isSeeder, event }: Announce): void {
    const id = `${host} ${port}`
    if (event === 'stopped') {
      const swarm = this.#fresh(key)
      if (swarm !== undefined) this.#remove(key, swarm, id)
      return
    }
    const swarm = this.#fresh(key) ?? { peers: new Map(), perNetwork: new Map(), seeders: 0, completed: 0 }
    this.#swarms.delete(key)
    this.#swarms.set(key, swarm)
    this.#take(swarm, id)
    const network = networkOf(host)
    this.#makeRoom(swarm, network)
    const lastSeenMs = this.#clock()
    swarm.peers.set(id, { host, port, isSeeder, compact: compactPeer(host, port), network, lastSeenMs })
    swarm.perNetwork.set(network, (swarm.perNetwork.get(network) ?? 0) + 1)
    if (isSeeder) swarm.seeders++
    if (event === 'completed') swarm.completed++
    this.#totalPeers++
    this.#note(key, isSeeder, event === 'completed')
    this.#evictSwarms()
  }

  counts(key: string): SwarmCounts {
    const swarm = this.#fresh(key)
    if (swarm === undefined) return { seeders: 0, leechers: 0, completed: 0 }
    return { seeders: swarm.seeders, leechers: swarm.peers.size - swarm.seeders, completed: swarm.completed }
  }

  /** Counts of several swarms that are one torrent (a hybrid is in two): whoever is in both counts once. */
  countsOf(keys: readonly string[]): Omit<SwarmCounts, 'completed'> {
    const [first] = keys
    if (keys.length === 1 && first !== undefined) return this.counts(first)
    const peers = new Map(keys.flatMap((key) => [...(this.#fresh(key)?.peers ?? [])]))
    const seeders = [...peers.values()].filter((peer) => peer.isSeeder).length
    return { seeders, leechers: peers.size - seeders }
  }

  /** The networks that the seeders of several swarms are in: whoever claims many ports is one of them. */
  seederNetworks(keys: readonly string[]): ReadonlySet<string> {
    const networks = new Set<string>()
    for (const key of keys) {
      for (const peer of this.#fresh(key)?.peers.values() ?? []) if (peer.isSeeder) networks.add(peer.network)
    }
    return networks
  }

  /**
   * Peers worth knowing for `asker`: only leechers for a seeder; for a leecher, or nobody in particular, about 30 %
   * seeders, at random, one kind filled up from the other.
   */
  select(
    keys: readonly string[],
    count: number,
    asker?: { readonly host: string; readonly port: number; readonly isSeeder: boolean },
  ): SwarmPeer[] {
    const peers = new Map(keys.flatMap((key) => [...(this.#fresh(key)?.peers ?? [])]))
    if (asker !== undefined) peers.delete(`${asker.host} ${asker.port}`)
    const seeders: SwarmPeer[] = []
    const leechers: SwarmPeer[] = []
    for (const peer of peers.values()) (peer.isSeeder ? seeders : leechers).push(peer)
    if (asker?.isSeeder) return this.#sample(leechers, count)
    const fewestSeeders = Math.ceil(count * seederShare)
    const numLeechers = Math.min(leechers.length, count - Math.min(seeders.length, fewestSeeders))
    return [...this.#sample(seeders, count - numLeechers), ...this.#sample(leechers, numLeechers)]
  }

  /** What happened since the last call, by swarm key. */
  takeActivity(): ReadonlyMap<string, Activity> {
    const activity = this.#activity
    this.#activity = new Map()
    return activity
  }

  /** Finished downloads that `takeActivity` has not handed out yet. */
  pendingCompleted(key: string): number {
    return this.#activity.get(key)?.completed ?? 0
  }

  /** Drops whoever has been silent for two intervals. */
  sweep(): void {
    for (const key of [...this.#swarms.keys()]) this.#fresh(key)
  }

  /** Peers in memory, those included that no sweep has found expired yet. */
  get totalPeers(): number {
    return this.#totalPeers
  }

  /** Swarms in memory. */
  get totalSwarms(): number {
    return this.#swarms.size
  }

  /** The swarm without its expired peers; `undefined` if nobody is left. */
  #fresh(key: string): Swarm | undefined {
    const swarm = this.#swarms.get(key)
    if (swarm === undefined) return undefined
    const oldest = this.#clock() - 2 * this.#limits.intervalMs
    for (const [id, peer] of swarm.peers) {
      if (peer.lastSeenMs > oldest) break
      this.#take(swarm, id)
    }
    if (swarm.peers.size > 0) return swarm
    this.#swarms.delete(key)
    return undefined
  }

  #remove(key: string, swarm: Swarm, id: string): void {
    this.#take(swarm, id)
    if (swarm.peers.size === 0) this.#swarms.delete(key)
  }

  #take(swarm: Swarm, id: string): void {
    const peer = swarm.peers.get(id)
    if (peer === undefined) return
    swarm.peers.delete(id)
    if (peer.isSeeder) swarm.seeders--
    const left = (swarm.perNetwork.get(peer.network) ?? 1) - 1
    if (left === 0) swarm.perNetwork.delete(peer.network)
    else swarm.perNetwork.set(peer.network, left)
    this.#totalPeers--
  }

  /** One address that claims many ports pushes out its own, not the others. */
  #makeRoom(swarm: Swarm, network: string): void {
    if ((swarm.perNetwork.get(network) ?? 0) >= this.#limits.maxPeersPerAddress) {
      for (const [id, peer] of swarm.peers) {
        if (peer.network !== network) continue
        this.#take(swarm, id)
        break
      }
    }
    const [oldest] = swarm.peers.keys()
    if (swarm.peers.size >= this.#limits.maxPeersPerSwarm && oldest !== undefined) this.#take(swarm, oldest)
  }

  #evictSwarms(): void {
    for (const [key, swarm] of this.#swarms) {
      if (this.#swarms.size <= this.#limits.maxSwarms && this.#totalPeers <= this.#limits.maxPeers) return
      // The one just announced to stands last, and stays.
      if (this.#swarms.size === 1) return
      this.#totalPeers -= swarm.peers.size
      this.#swarms.delete(key)
    }
  }

  #note(key: string, isSeeder: boolean, isCompleted: boolean): void {
    const activity = this.#activity.get(key) ?? { seededAtMs: undefined, completed: 0 }
    if (isSeeder) activity.seededAtMs = this.#clock()
    if (isCompleted) activity.completed++
    if (isSeeder || isCompleted) this.#activity.set(key, activity)
    const [oldest] = this.#activity.keys()
    if (this.#activity.size > maxActivity && oldest !== undefined) this.#activity.delete(oldest)
  }

  /** `count` of `items` at random; shuffles the front of `items`. */
  #sample(items: SwarmPeer[], count: number): SwarmPeer[] {
    const taken = Math.min(count, items.length)
    for (let index = 0; index < taken; index++) {
      const other = index + Math.floor(this.#random() * (items.length - index))
      const swap = items[index]
      const chosen = items[other]
      if (swap === undefined || chosen === undefined) break
      items[index] = chosen
      items[other] = swap
    }
    return items.slice(0, taken)
  }
}
