import { describe, expect, test } from 'vitest'
import {
  decideHttp,
  defaultRacePolicy,
  type PlanInput,
  planDownload,
  type RaceView,
} from '../../src/transfer/plan.ts'

const big: PlanInput = {
  sizeBytes: 10_000_000,
  isCached: false,
  canUseSwarm: true,
  mayShare: true,
  canUseHttp: true,
  offline: false,
  smallFileBytes: 1_048_576,
}

describe('planDownload', () => {
  test.each<[string, Partial<PlanInput>, object]>([
    [
      'a large file asks the swarm first and gives it a head start',
      {},
      { http: 'after-head-start', swarm: 'at-once' },
    ],
    ['a small file goes over HTTP', { sizeBytes: 1_048_575 }, { http: 'at-once', swarm: 'when-http-fails' }],
    [
      'the limit itself is not small',
      { sizeBytes: 1_048_576 },
      { http: 'after-head-start', swarm: 'at-once' },
    ],
    ['without a swarm there is only HTTP', { canUseSwarm: false }, { http: 'at-once', swarm: 'never' }],
    ['a private file never asks the swarm', { mayShare: false }, { http: 'at-once', swarm: 'never' }],
    ['with HTTP off there is only the swarm', { canUseHttp: false }, { http: 'never', swarm: 'at-once' }],
    [
      'a small file with HTTP off too',
      { canUseHttp: false, sizeBytes: 5 },
      { http: 'never', swarm: 'at-once' },
    ],
  ])('%s', (_name, change, expected) => {
    expect(planDownload({ ...big, ...change })).toEqual({ kind: 'fetch', ...expected })
  })

  test.each<[string, Partial<PlanInput>, string]>([
    ['what is cached is not fetched, online or not', { isCached: true, offline: true }, 'cached'],
    ['an empty file needs no source', { sizeBytes: 0, canUseHttp: false, canUseSwarm: false }, 'empty'],
    ['offline without a cached copy is impossible', { offline: true }, 'impossible'],
    ['no source at all is impossible', { canUseHttp: false, canUseSwarm: false }, 'impossible'],
    ['a private file without HTTP is impossible', { canUseHttp: false, mayShare: false }, 'impossible'],
  ])('%s', (_name, change, kind) => {
    expect(planDownload({ ...big, ...change }).kind).toBe(kind)
  })
})

const idle: RaceView = {
  nowMs: 10_000,
  startedMs: 10_000,
  remainingBytes: 100_000_000,
  swarm: 'joined',
  joinedMs: 10_000,
  swarmRate: 0,
  swarmProgressMs: 10_000,
  swarmHasDelivered: false,
  httpRunning: false,
  httpStartedMs: 0,
  httpRate: 0,
  httpKnownRate: undefined,
  httpProgressMs: 0,
}
const delivering: RaceView = { ...idle, swarmHasDelivered: true, swarmRate: 50_000_000 }
const running: RaceView = {
  ...delivering,
  nowMs: 14_000,
  joinedMs: 10_000,
  swarmProgressMs: 13_950,
  httpRunning: true,
  httpStartedMs: 12_000,
  httpRate: 60_000_000,
  httpProgressMs: 13_990,
}

describe('decideHttp', () => {
  test.each<[string, RaceView, string]>([
    ['no torrent: HTTP starts', { ...idle, swarm: 'none' }, 'start'],
    ['the tracker is thinking: a short grace', { ...idle, swarm: 'asking', nowMs: 10_299 }, 'leave'],
    ['the tracker thinks for too long: HTTP starts', { ...idle, swarm: 'asking', nowMs: 10_300 }, 'start'],
    ['a torrent gets its head start', { ...idle, nowMs: 11_499 }, 'leave'],
    ['nothing within the head start: HTTP starts', { ...idle, nowMs: 11_500 }, 'start'],
    ['checking files counts against the head start', { ...idle, swarm: 'joining', nowMs: 11_500 }, 'start'],
    [
      'a swarm that delivers keeps HTTP away',
      { ...delivering, nowMs: 12_900, swarmProgressMs: 12_800 },
      'leave',
    ],
    ['a stalled swarm lets HTTP in', { ...delivering, nowMs: 12_000, swarmProgressMs: 10_000 }, 'start'],
    [
      'a swarm that will take long makes HTTP show what it can do',
      { ...delivering, nowMs: 13_000, swarmProgressMs: 12_950, swarmRate: 10_000_000 },
      'start',
    ],
    [
      'a swarm that is nearly done is left to finish',
      { ...delivering, nowMs: 13_000, swarmProgressMs: 12_950, swarmRate: 40_000_000 },
      'leave',
    ],
    [
      'HTTP known to be slower stays away',
      { ...delivering, nowMs: 20_000, swarmProgressMs: 19_950, httpKnownRate: 40_000_000 },
      'leave',
    ],
    [
      'HTTP known to be much faster comes back',
      { ...delivering, nowMs: 20_000, swarmProgressMs: 19_950, httpKnownRate: 80_000_000 },
      'start',
    ],
    ['both work while HTTP is the faster one', running, 'leave'],
    ['HTTP yields to a swarm that is as fast', { ...running, swarmRate: 60_000_000 }, 'stop'],
    [
      'but not before their rates can be compared',
      { ...running, swarmRate: 60_000_000, httpStartedMs: 13_500 },
      'leave',
    ],
    [
      'and not to a swarm that has stalled',
      { ...running, swarmRate: 60_000_000, swarmProgressMs: 11_000 },
      'leave',
    ],
    [
      'a stalled HTTP gives its pieces to a living swarm',
      { ...running, httpProgressMs: 11_900, swarmRate: 1 },
      'stop',
    ],
    [
      'a stalled HTTP goes on trying when it is alone',
      { ...running, swarm: 'none', httpProgressMs: 0 },
      'leave',
    ],
    ['HTTP goes on while the swarm has brought nothing', { ...running, swarmHasDelivered: false }, 'leave'],
  ])('%s', (_name, view, action) => {
    expect(decideHttp(view, defaultRacePolicy)).toBe(action)
  })
})
