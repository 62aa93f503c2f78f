import { describe, expect, test } from 'vitest'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'
import {
  decideHttp,
  defaultRacePolicy,
  type HttpMode,
  type JoinView,
  letsHttpFinish,
  type PieceChoice,
  type PlanInput,
  pickRange,
  planDownload,
  type RacePolicy,
  type RaceView,
} from '../../src/transfer/plan.ts'

const big: PlanInput = {
  sizeBytes: 10_000_000,
  canUseSwarm: true,
  mayShare: true,
  canUseHttp: true,
  offline: false,
  smallFileBytes: 1_048_576,
}

describe('planDownload', () => {
  test.each<[string, Partial<PlanInput>, object]>([
    ['a large file comes from both at once', {}, { http: 'with-swarm', swarm: 'at-once' }],
    ['a small file goes over HTTP', { sizeBytes: 1_048_575 }, { http: 'at-once', swarm: 'when-http-fails' }],
    ['the limit itself is not small', { sizeBytes: 1_048_576 }, { http: 'with-swarm', swarm: 'at-once' }],
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
    ['an empty file needs no source', { sizeBytes: 0, canUseHttp: false, canUseSwarm: false }, 'empty'],
    ['offline without a cached copy is impossible', { offline: true }, 'impossible'],
    ['no source at all is impossible', { canUseHttp: false, canUseSwarm: false }, 'impossible'],
    ['a private file without HTTP is impossible', { canUseHttp: false, mayShare: false }, 'impossible'],
  ])('%s', (_name, change, kind) => {
    expect(planDownload({ ...big, ...change }).kind).toBe(kind)
  })
})

const now = 100_000
const ago = (ms: number): number => now - ms

/** Joined just now: nobody in sight yet, nothing from anybody. */
const joined: RaceView = {
  nowMs: now,
  startedMs: now,
  remainingBytes: 100_000_000,
  swarm: 'joined',
  isPromising: true,
  isDeserted: false,
  joinedMs: now,
  mayBeCrowd: false,
  isCrowd: false,
  swarmRate: 0,
  swarmProgressMs: now,
  swarmFirstMs: undefined,
  swarmHasWork: true,
  httpBusyMs: 0,
  httpRate: 0,
  httpKnownRate: undefined,
}
/** Peers have been bringing pieces for 10 s. */
const delivering: RaceView = {
  ...joined,
  startedMs: ago(11_000),
  joinedMs: ago(10_500),
  swarmFirstMs: ago(10_000),
  swarmRate: 10_000_000,
}
const crowd: RaceView = { ...delivering, isCrowd: true }
/** Both hands at work, for long enough to compare them. */
const both: RaceView = { ...delivering, httpBusyMs: 5_000, httpRate: 10_000_000, httpKnownRate: 10_000_000 }

type Row = readonly [name: string, base: RaceView, change: Partial<RaceView>, mode: HttpMode]

function decide(base: RaceView, change: Partial<RaceView>, policy: Partial<RacePolicy> = {}): HttpMode {
  return decideHttp({ ...base, ...change }, { ...defaultRacePolicy, ...policy })
}

describe('a swarm whose torrent is known', () => {
  const empty: JoinView = {
    elapsedMs: 1_000,
    remainingBytes: 100_000_000,
    isHttpRunning: true,
    httpRate: 100_000_000,
    isEmpty: true,
  }

  test.each<[string, Partial<JoinView>, Partial<RacePolicy>, boolean]>([
    ['waits when it is empty and HTTP needs a second for the rest', {}, {}, true],
    ['waits at first when it is empty, whatever HTTP has shown', { elapsedMs: 0, httpRate: 0 }, {}, true],
    ['is joined when it is empty and HTTP needs ten', { httpRate: 10_000_000 }, {}, false],
    ['is joined when it is empty and HTTP stands still', { httpRate: 0 }, {}, false],
    ['is joined when HTTP has ended', { isHttpRunning: false }, {}, false],
    ['is joined at once when somebody is there', { elapsedMs: 0, isEmpty: false }, {}, false],
    ['waits at first for a few bytes', { elapsedMs: 0, isEmpty: false, remainingBytes: 1_000 }, {}, true],
    ['waits no longer than that for somebody', { isEmpty: false, remainingBytes: 1_000 }, {}, false],
    ['is joined at once when it has a head start', { elapsedMs: 0 }, { headStartMs: 500 }, false],
  ])('%s', (_name, change, policy, waits) => {
    expect(letsHttpFinish({ ...empty, ...change }, { ...defaultRacePolicy, ...policy })).toBe(waits)
  })
})

describe('without a head start HTTP', () => {
  test.each<Row>([
    ['takes everything while there is no torrent', joined, { swarm: 'none' }, 'all'],
    ['begins while the tracker is asked', joined, { swarm: 'asking' }, 'all'],
    ['begins while the torrent is joined', joined, { swarm: 'joining' }, 'all'],
    [
      'scatters already while a crowd is being joined',
      joined,
      { swarm: 'joining', mayBeCrowd: true },
      'scatter',
    ],
    ['takes everything where no crowd is to be expected', joined, {}, 'all'],
    ['scatters while a crowd may arrive', joined, { mayBeCrowd: true, joinedMs: ago(2_999) }, 'scatter'],
    [
      'takes everything when it has scattered long enough',
      joined,
      { mayBeCrowd: true, joinedMs: ago(3_000) },
      'all',
    ],
    ['takes its slice once a crowd is seen', joined, { isCrowd: true, mayBeCrowd: true }, 'slice'],
    ['keeps to its slice while the crowd brings pieces', crowd, {}, 'slice'],
    ['keeps to its slice just before a stall', crowd, { swarmProgressMs: ago(1_499) }, 'slice'],
    ['takes over at once from a swarm that everybody has left', crowd, { isDeserted: true }, 'all'],
    ['takes over a swarm that has stalled', crowd, { swarmProgressMs: ago(1_500) }, 'all'],
    [
      'takes over from nobody where the swarm has nothing to do',
      crowd,
      { swarmProgressMs: ago(1_500), swarmHasWork: false },
      'slice',
    ],
    ['takes more than a slice of a crowd too slow', crowd, { httpKnownRate: 20_000_001 }, 'all'],
    ['leaves a crowd half as fast alone', crowd, { httpKnownRate: 20_000_000 }, 'slice'],
    [
      'gives a crowd time to get going',
      crowd,
      { httpKnownRate: 20_000_001, swarmFirstMs: ago(2_999) },
      'slice',
    ],
    ['has given a crowd its time', crowd, { httpKnownRate: 20_000_001, swarmFirstMs: ago(3_000) }, 'all'],
    ['works beside a swarm that is as fast', both, {}, 'all'],
    ['works beside a swarm not quite four times as fast', both, { swarmRate: 39_999_999 }, 'all'],
    ['rests beside a swarm four times as fast', both, { swarmRate: 40_000_000 }, 'rest'],
    ['does not rest before rates can be compared', both, { swarmRate: 40_000_000, httpBusyMs: 749 }, 'all'],
    ['rests as soon as they can', both, { swarmRate: 40_000_000, httpBusyMs: 750 }, 'rest'],
    [
      'does not rest beside a stalled swarm, however fast it was',
      both,
      { swarmRate: 40_000_000, swarmProgressMs: ago(1_500) },
      'all',
    ],
    [
      'goes on resting while the swarm is twice as fast',
      both,
      { httpBusyMs: 0, httpRate: 0, swarmRate: 20_000_000 },
      'rest',
    ],
    ['comes back when the swarm is not', both, { httpBusyMs: 0, httpRate: 0, swarmRate: 19_999_999 }, 'all'],
    ['comes in where it was never measured', delivering, { swarmRate: 1e9 }, 'all'],
  ])('%s', (_name, base, change, mode) => {
    expect(decide(base, change)).toBe(mode)
  })
})

describe('with a head start for the swarm HTTP', () => {
  const early = { startedMs: ago(1_499) }
  const late = { startedMs: ago(1_500) }
  test.each<Row>([
    ['waits for the tracker', joined, { ...early, swarm: 'asking' }, 'rest'],
    ['has waited long enough for the tracker', joined, { ...late, swarm: 'asking' }, 'all'],
    ['waits for libtorrent', joined, { ...early, swarm: 'joining' }, 'rest'],
    ['has waited long enough for libtorrent', joined, { ...late, swarm: 'joining' }, 'all'],
    ['waits for the first bytes', joined, early, 'rest'],
    ['has waited long enough for the first bytes', joined, late, 'all'],
    ['waits for a crowd, too', joined, { ...early, isCrowd: true }, 'rest'],
    ['waits no longer than for those', both, { ...early, swarmRate: 1 }, 'all'],
    ['takes its slice after that', joined, { ...late, isCrowd: true }, 'slice'],
    ['does not wait for peers that nobody knows of', joined, { ...early, isPromising: false }, 'all'],
    ['does not wait where there is no torrent', joined, { ...early, swarm: 'none' }, 'all'],
    ['leaves everything to a swarm that brings it soon', delivering, { remainingBytes: 30_000_000 }, 'rest'],
    ['shows what it can do when that takes longer', delivering, { remainingBytes: 30_000_001 }, 'all'],
    [
      'does not judge a swarm that has just begun',
      delivering,
      { remainingBytes: 30_000_001, joinedMs: ago(2_999) },
      'rest',
    ],
    [
      'judges it when its time is up',
      delivering,
      { remainingBytes: 30_000_001, joinedMs: ago(3_000) },
      'all',
    ],
    ['comes in for a swarm that gives nothing any more', delivering, { swarmRate: 0 }, 'all'],
    ['takes over a swarm that has stalled', delivering, { swarmProgressMs: ago(1_500) }, 'all'],
    [
      'does not take over just before',
      delivering,
      { swarmProgressMs: ago(1_499), remainingBytes: 1 },
      'rest',
    ],
    ['rests beside a swarm that is as fast', both, {}, 'rest'],
    ['works beside a slower one', both, { swarmRate: 9_999_999 }, 'all'],
    ['works until rates can be compared', both, { httpBusyMs: 749 }, 'all'],
    ['rests as soon as they can be compared', both, { httpBusyMs: 750 }, 'rest'],
    ['goes on resting at 0.8 of its own rate', both, { httpBusyMs: 0, swarmRate: 8_000_000 }, 'rest'],
    ['comes back below that', both, { httpBusyMs: 0, swarmRate: 7_999_999 }, 'all'],
    ['takes its slice of a crowd', crowd, {}, 'slice'],
  ])('%s', (_name, base, change, mode) => {
    expect(decide(base, change, { headStartMs: 1_500 })).toBe(mode)
  })
})

describe('the figures of the policy decide', () => {
  test.each<[string, RaceView, Partial<RacePolicy>, HttpMode]>([
    ['when a swarm is stalled', { ...crowd, swarmProgressMs: ago(100) }, { stallMs: 100 }, 'all'],
    ['how long HTTP scatters', { ...joined, mayBeCrowd: true, joinedMs: ago(60) }, { scatterMs: 50 }, 'all'],
    ['when HTTP rests', { ...both, swarmRate: 20_000_000 }, { restRatio: 2 }, 'rest'],
    ['when HTTP comes back', { ...both, httpBusyMs: 0, swarmRate: 25e6 }, { resumeRatio: 3 }, 'all'],
    [
      'when a crowd can be too slow',
      { ...crowd, swarmFirstMs: ago(200), httpKnownRate: 1e9 },
      { probeAfterMs: 100 },
      'all',
    ],
  ])('%s', (_name, view, policy, mode) => {
    expect(decide(view, {}, policy)).toBe(mode)
  })
})

describe('pickRange', () => {
  const blocksPerPiece = 4
  const pieceLength = blocksPerPiece * blockBytes
  /** Six pieces, the last one of one whole block and a short one. */
  const sizeBytes = 5 * pieceLength + blockBytes + 100
  const anything = (): boolean => true

  /** Offset of a block of a piece. */
  function at(piece: number, block = 0): number {
    return piece * pieceLength + block * blockBytes
  }

  function mapWith(fill: (map: PieceMap) => void): PieceMap {
    const map = new PieceMap(sizeBytes, pieceLength)
    fill(map)
    return map
  }

  type Range = readonly [start: number, end: number]
  test.each<[string, (map: PieceMap) => void, Partial<Omit<PieceChoice, 'map'>>, Range | undefined]>([
    ['is all of an empty file', () => {}, {}, [0, sizeBytes]],
    ['begins where it is told to', () => {}, { from: 2 }, [at(2), sizeBytes]],
    ['begins with the first piece that is missing', (map) => map.mark(0, 'p2p'), {}, [at(1), sizeBytes]],
    ['begins with the first gap of a piece', (map) => map.write(0, at(0, 2)), {}, [at(0, 2), sizeBytes]],
    [
      'begins with a gap before blocks that are there',
      (map) => map.write(at(0, 1), at(0, 3)),
      {},
      [at(0), sizeBytes],
    ],
    ['passes over a piece that is full', (map) => map.write(0, at(1)), {}, [at(1), sizeBytes]],
    ['stops before a piece that is there', (map) => map.mark(3, 'http'), {}, [0, at(3)]],
    ['stops before a piece that is begun', (map) => map.write(at(3, 2), at(3, 3)), {}, [0, at(3)]],
    ['stops before a piece that is full', (map) => map.write(at(3), at(4)), {}, [0, at(3)]],
    ['stops before a piece that is taken', () => {}, { mayTake: (piece) => piece !== 2 }, [0, at(2)]],
    ['passes over pieces that are taken', () => {}, { mayTake: (piece) => piece > 2 }, [at(3), sizeBytes]],
    ['never goes around the end', () => {}, { from: 4 }, [at(4), sizeBytes]],
    [
      'is looked for from the front when there is nothing behind',
      (map) => {
        for (const piece of [3, 4, 5]) map.mark(piece, 'p2p')
      },
      { from: 3 },
      [0, at(3)],
    ],
    ['may begin after the last piece', () => {}, { from: 6 }, [0, sizeBytes]],
    ['has as many whole pieces as fit', () => {}, { maxBytes: 2 * pieceLength }, [0, at(2)]],
    ['has one less when one byte is missing', () => {}, { maxBytes: 2 * pieceLength - 1 }, [0, at(1)]],
    ['has one piece however little is asked for', () => {}, { maxBytes: 1 }, [0, at(1)]],
    [
      'is measured from its first gap',
      (map) => map.write(0, at(0, 3)),
      { maxBytes: pieceLength + blockBytes },
      [at(0, 3), at(2)],
    ],
    [
      'ends with the file in a short last piece',
      () => {},
      { from: 5, maxBytes: 10 * pieceLength },
      [at(5), sizeBytes],
    ],
    [
      'takes in a short last piece that just fits',
      () => {},
      { from: 4, maxBytes: pieceLength + blockBytes + 100 },
      [at(4), sizeBytes],
    ],
    [
      'leaves out a short last piece that does not',
      () => {},
      { from: 4, maxBytes: pieceLength + blockBytes + 99 },
      [at(4), at(5)],
    ],
    [
      'begins in the short last block',
      (map) => map.write(at(5), at(5, 1)),
      { from: 5 },
      [at(5, 1), sizeBytes],
    ],
    [
      'is nothing when every piece is there or full',
      (map) => {
        for (const piece of [0, 1, 2, 3, 4]) map.mark(piece, 'http')
        map.write(at(5), sizeBytes)
      },
      {},
      undefined,
    ],
    ['is nothing when every piece is taken', () => {}, { mayTake: () => false }, undefined],
  ])('%s', (_name, fill, choice, expected) => {
    const range = pickRange({
      map: mapWith(fill),
      from: 0,
      mayTake: anything,
      maxBytes: Number.POSITIVE_INFINITY,
      ...choice,
    })
    expect(range).toEqual(expected && { start: expected[0], end: expected[1] })
  })

  test('is nothing in a file without pieces', () => {
    const map = new PieceMap(0, pieceLength)
    expect(pickRange({ map, from: 0, mayTake: anything, maxBytes: 1 })).toBeUndefined()
  })
})
