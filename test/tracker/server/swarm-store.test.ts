import { describe, expect, test } from 'vitest'
import { defaultLimits, type TrackerLimits } from '../../../src/tracker/server/limits.ts'
import { type Announce, SwarmStore } from '../../../src/tracker/server/swarm-store.ts'

const key = 'aa'.repeat(20)

function storeWith(limits: Partial<TrackerLimits> = {}): { store: SwarmStore; clock: { now: number } } {
  const clock = { now: 1_000_000 }
  return { store: new SwarmStore({ ...defaultLimits, ...limits }, () => clock.now), clock }
}

function peer(n: number, options: Partial<Announce> = {}): Announce {
  return { host: `10.0.${n >> 8}.${n & 255}`, port: 6881, isSeeder: false, event: 'none', ...options }
}

describe('what a leecher gets', () => {
  test.each([
    // seeders, leechers, wanted -> seeders, leechers
    [100, 100, 50, 15, 35],
    [100, 0, 50, 50, 0],
    [0, 100, 50, 0, 50],
    [100, 10, 50, 40, 10],
    [5, 100, 50, 5, 45],
    [1, 100, 50, 1, 49],
    [3, 3, 50, 3, 3],
    [100, 100, 1, 1, 0],
    [100, 100, 0, 0, 0],
  ])(
    'of %i seeders and %i leechers, wanting %i: %i and %i',
    (seeders, leechers, wanted, someSeeders, someLeechers) => {
      const { store } = storeWith()
      for (let n = 0; n < seeders; n++) store.announce(key, peer(n, { isSeeder: true }))
      for (let n = 0; n < leechers; n++) store.announce(key, peer(1000 + n))
      const selected = store.select([key], wanted)
      expect(selected.filter((one) => one.isSeeder)).toHaveLength(someSeeders)
      expect(selected.filter((one) => !one.isSeeder)).toHaveLength(someLeechers)
      expect(new Set(selected.map((one) => one.host)).size).toBe(selected.length)
    },
  )

  test('is drawn anew each time, and everybody gets a turn', () => {
    const { store } = storeWith()
    for (let n = 0; n < 100; n++) store.announce(key, peer(n))
    const seen = new Set<string>()
    for (let draw = 0; draw < 100; draw++) for (const one of store.select([key], 10)) seen.add(one.host)
    expect(seen.size).toBe(100)
  })
})

describe('expiry', () => {
  test('a peer is forgotten after two intervals of silence, one that announces is not', () => {
    const { store, clock } = storeWith({ intervalMs: 1000 })
    store.announce(key, peer(1))
    store.announce(key, peer(2, { isSeeder: true }))
    clock.now += 1999
    store.announce(key, peer(1))
    expect(store.counts(key)).toMatchObject({ seeders: 1, leechers: 1 })
    clock.now += 1
    expect(store.counts(key)).toMatchObject({ seeders: 0, leechers: 1 })
    clock.now += 1999
    expect(store.select([key], 50)).toEqual([])
  })

  test('a sweep frees what nobody asks for any more', () => {
    const { store, clock } = storeWith({ intervalMs: 1000 })
    for (let n = 0; n < 100; n++) store.announce(n.toString(16).padStart(40, '0'), peer(n))
    expect([store.totalSwarms, store.totalPeers]).toEqual([100, 100])
    clock.now += 2000
    store.sweep()
    expect([store.totalSwarms, store.totalPeers]).toEqual([0, 0])
  })

  test('a swarm whose last peer stopped is gone', () => {
    const { store } = storeWith()
    store.announce(key, peer(1))
    store.announce(key, peer(1, { event: 'stopped' }))
    store.announce('bb'.repeat(20), peer(1, { event: 'stopped' }))
    expect([store.totalSwarms, store.totalPeers]).toEqual([0, 0])
  })
})

describe('bounds', () => {
  test('a full swarm forgets who announced longest ago', () => {
    const { store } = storeWith({ maxPeersPerSwarm: 3 })
    for (const n of [1, 2, 3, 1, 4]) store.announce(key, peer(n))
    expect(
      store
        .select([key], 50)
        .map((one) => one.host)
        .sort(),
    ).toEqual(['10.0.0.1', '10.0.0.3', '10.0.0.4'])
  })

  test('an address that claims many ports pushes out its own', () => {
    const { store } = storeWith({ maxPeersPerAddress: 2 })
    store.announce(key, peer(1))
    for (let port = 1; port <= 10; port++) store.announce(key, peer(2, { port }))
    const ports = store.select([key], 50).map((one) => `${one.host} ${one.port}`)
    expect(ports.sort()).toEqual(['10.0.0.1 6881', '10.0.0.2 10', '10.0.0.2 9'])
  })

  test('addresses of one IPv6 /64 are one', () => {
    const { store } = storeWith({ maxPeersPerAddress: 2 })
    for (let n = 1; n <= 5; n++) store.announce(key, peer(0, { host: `2001:db8:0:1::${n}` }))
    store.announce(key, peer(0, { host: '2001:db8:0:2::1' }))
    expect(store.counts(key).leechers).toBe(3)
  })

  test('too many swarms, or peers in all, cost the swarm announced to longest ago', () => {
    const keys = ['1', '2', '3', '4'].map((digit) => digit.repeat(40))
    const [a = '', b = '', c = '', d = ''] = keys
    const { store } = storeWith({ maxSwarms: 3 })
    for (const each of [a, b, c, a, d]) store.announce(each, peer(1))
    expect(keys.map((each) => store.counts(each).leechers)).toEqual([1, 0, 1, 1])
    const tight = storeWith({ maxPeers: 4 }).store
    for (const each of [a, b]) for (const n of [1, 2]) tight.announce(each, peer(n))
    tight.announce(c, peer(1))
    expect(keys.map((each) => tight.counts(each).leechers)).toEqual([0, 2, 1, 0])
    expect(tight.totalPeers).toBe(3)
  })
})

describe('hybrid torrents', () => {
  test('are two swarms in one: who is in both counts once and is handed out once', () => {
    const { store } = storeWith()
    const other = 'bb'.repeat(20)
    for (const each of [key, other]) store.announce(each, peer(1, { isSeeder: true }))
    store.announce(other, peer(2))
    expect(store.countsOf([key, other])).toEqual({ seeders: 1, leechers: 1 })
    expect(store.select([key, other], 50)).toHaveLength(2)
  })
})

describe('activity', () => {
  test('says who was seeded when, and is handed out once', () => {
    const { store, clock } = storeWith()
    store.announce(key, peer(1, { isSeeder: true, event: 'completed' }))
    store.announce('bb'.repeat(20), peer(1))
    expect(store.pendingCompleted(key)).toBe(1)
    expect([...store.takeActivity()]).toEqual([[key, { seededAtMs: clock.now, completed: 1 }]])
    expect(store.pendingCompleted(key)).toBe(0)
    expect(store.takeActivity().size).toBe(0)
  })
})
