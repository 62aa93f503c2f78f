/**
 * What a download does, decided before it starts, and when HTTP runs, decided while it goes on.
 * Pure functions of plain values, so that every rule is a row of a table test.
 */

import type { ByteRange } from './http-leg.ts'
import type { PieceMap } from './piece-map.ts'

export interface PlanInput {
  readonly sizeBytes: number
  /** Addon loaded, P2P not switched off, and someone who could name peers. */
  readonly canUseSwarm: boolean
  /** The file can be had without a token, or its owner opted in. */
  readonly mayShare: boolean
  readonly canUseHttp: boolean
  readonly offline: boolean
  readonly smallFileBytes: number
}

export type Plan =
  /** Nothing to fetch: an empty file. */
  | { readonly kind: 'empty' }
  | { readonly kind: 'impossible'; readonly reason: string }
  | {
      readonly kind: 'fetch'
      readonly http: 'at-once' | 'with-swarm' | 'never'
      readonly swarm: 'at-once' | 'when-http-fails' | 'never'
    }

const noSource =
  'HTTP is switched off (HF_P2P_WEBSEED=0), and there is no swarm for it: it needs the addon, a tracker (HF_P2P_TRACKER), and a file that everybody may read'

/** Decides where a file comes from. */
export function planDownload(input: PlanInput): Plan {
  if (input.offline)
    return { kind: 'impossible', reason: 'it is not in the cache, and HF_HUB_OFFLINE is set' }
  if (input.sizeBytes === 0) return { kind: 'empty' }
  const swarm = input.canUseSwarm && input.mayShare
  if (!swarm && !input.canUseHttp) {
    return { kind: 'impossible', reason: noSource }
  }
  if (!swarm) return { kind: 'fetch', http: 'at-once', swarm: 'never' }
  if (!input.canUseHttp) return { kind: 'fetch', http: 'never', swarm: 'at-once' }
  if (input.sizeBytes < input.smallFileBytes)
    return { kind: 'fetch', http: 'at-once', swarm: 'when-http-fails' }
  return { kind: 'fetch', http: 'with-swarm', swarm: 'at-once' }
}

/** The figures of the race; each can be replaced in tests. */
export interface RacePolicy {
  /** How long HTTP leaves a swarm in which peers are known to be, or a look-up, alone. 0: both begin at once. */
  readonly headStartMs: number
  /** How long joining a swarm waits where HTTP is at work and has little left to bring. */
  readonly joinDelayMs: number
  /** A swarm in which nobody is known to be is joined when HTTP needs longer than this for the rest. */
  readonly emptySwarmMs: number
  /** A source without a new byte for this long is stalled, and the other takes over. */
  readonly stallMs: number
  /** HTTP rests when the swarm is at least this many times as fast as it. */
  readonly restRatio: number
  /** HTTP comes back when the swarm falls below this many times what HTTP last gave. */
  readonly resumeRatio: number
  /**
   * How long a crowd of peers may take to get going before it can be too slow. After a head start, a swarm that needs
   * longer than this for the rest is measured against HTTP.
   */
  readonly probeAfterMs: number
  /** A crowd that needs longer than this for the rest is measured against HTTP. */
  readonly slowMs: number
  /** How long HTTP takes pieces here and there, so that peers that arrive together do not all fetch the same ones. */
  readonly scatterMs: number
  /** How long nobody may have brought a piece that another peer ought to fetch from the Hub before we do. */
  readonly orphanMs: number
  /** How often the race looks at its sources. */
  readonly tickMs: number
}

export const defaultRacePolicy: RacePolicy = {
  headStartMs: 0,
  joinDelayMs: 250,
  emptySwarmMs: 1_500,
  stallMs: 1_500,
  restRatio: 4,
  resumeRatio: 2,
  probeAfterMs: 3_000,
  slowMs: 30_000,
  scatterMs: 3_000,
  orphanMs: 1_500,
  tickMs: 100,
}

/** What a race that has found a torrent knows before it joins. */
export interface JoinView {
  /** Since the race began. */
  readonly elapsedMs: number
  readonly remainingBytes: number
  readonly isHttpRunning: boolean
  /** Bytes per second. */
  readonly httpRate: number
  /** Whether nobody is known to be there. */
  readonly isEmpty: boolean
}

/** So few bytes HTTP may bring before a swarm could be joined. */
const briefBytes = 8 * 1024 * 1024

/** Whether nobody is known to be in the swarm of a torrent, nor about to come. */
export function isEmptySwarm(offer: { isPromising: boolean; mayBeCrowd: boolean }): boolean {
  return !offer.isPromising && !offer.mayBeCrowd
}

/**
 * Whether a swarm is joined only later, if at all. Opening a session takes the event loop some 30 ms, and its threads take
 * more of a busy machine: not for what HTTP is about to bring anyway.
 */
export function letsHttpFinish(view: JoinView, policy: RacePolicy): boolean {
  if (!view.isHttpRunning || policy.headStartMs > 0) return false
  const { remainingBytes, httpRate, isEmpty } = view
  if (view.elapsedMs < policy.joinDelayMs) return isEmpty || remainingBytes <= briefBytes
  return isEmpty && (remainingBytes / Math.max(1, httpRate)) * 1000 <= policy.emptySwarmMs
}

/** What the race knows of its two sources at one moment. Times in ms on one clock, rates in bytes per second. */
export interface RaceView {
  readonly nowMs: number
  readonly startedMs: number
  readonly remainingBytes: number
  /** `asking`: no answer about a torrent yet. `joining`: there is one, and it is being added. */
  readonly swarm: 'none' | 'asking' | 'joining' | 'joined'
  /** Whether peers are known to be there, or may be. */
  readonly isPromising: boolean
  readonly joinedMs: number
  /** Whether others may be about to fetch the file, too. */
  readonly mayBeCrowd: boolean
  /** Whether peers that fetch the file themselves have been seen: they share the Hub's bytes with us. */
  readonly isCrowd: boolean
  readonly swarmRate: number
  /** When the swarm last brought something new; `joinedMs` when it never did. */
  readonly swarmProgressMs: number
  /** When peers brought their first bytes; `undefined` when they never did. */
  readonly swarmFirstMs: number | undefined
  /** Whether everybody who was there has gone. */
  readonly isDeserted: boolean
  /** Whether there is anything left that the swarm may fetch. */
  readonly swarmHasWork: boolean
  /** How long at least one request has been under way; 0 when none is. */
  readonly httpBusyMs: number
  readonly httpRate: number
  /** HTTP's rate when it last ran long enough to tell; `undefined` when it never did. */
  readonly httpKnownRate: number | undefined
}

/**
 * What HTTP does: nothing (`rest`), whatever is missing (`all`), whatever is missing but in scattered places
 * (`scatter`), or only what no peer in sight has and falls to us (`slice`).
 */
export type HttpMode = 'rest' | 'all' | 'scatter' | 'slice'

/** Decides what HTTP does now. */
export function decideHttp(view: RaceView, policy: RacePolicy): HttpMode {
  if (view.swarm === 'none') return 'all'
  if (isHeadStart(view, policy)) return 'rest'
  if (view.swarm === 'asking') return 'all'
  if (view.swarmFirstMs === undefined) return beforeDelivery(view, policy)
  const isSilent = view.swarmHasWork && view.nowMs - view.swarmProgressMs >= policy.stallMs
  if (isSilent || view.isDeserted) return 'all'
  if (view.isCrowd) return isSlowerThanHttp(view, view.swarmFirstMs, policy) ? 'all' : 'slice'
  if (policy.headStartMs > 0) return afterHeadStart(view, policy)
  return isMuchFasterThanHttp(view, policy) ? 'rest' : 'all'
}

function isHeadStart(view: RaceView, policy: RacePolicy): boolean {
  const isOver = view.nowMs - view.startedMs >= policy.headStartMs
  return !isOver && view.isPromising && view.swarmFirstMs === undefined
}

function beforeDelivery(view: RaceView, policy: RacePolicy): HttpMode {
  // Peers who have the pieces and do not give them are no reason to leave them to them.
  if (view.isCrowd && view.nowMs - view.swarmProgressMs < policy.stallMs) return 'slice'
  const isFresh = view.swarm === 'joining' || view.nowMs - view.joinedMs < policy.scatterMs
  return isFresh && view.mayBeCrowd ? 'scatter' : 'all'
}

/** In a crowd HTTP's own share is small, so that only a swarm far below it is a reason to take more. */
function isSlowerThanHttp(view: RaceView, swarmFirstMs: number, policy: RacePolicy): boolean {
  const isSettled = view.nowMs - swarmFirstMs >= policy.probeAfterMs
  if (view.httpKnownRate !== undefined) return isSettled && view.swarmRate < view.httpKnownRate / 2
  // Where a slow swarm has everything, HTTP has nothing to show what it can do by.
  return isSettled && etaMs(view) > policy.slowMs
}

function isMuchFasterThanHttp(view: RaceView, policy: RacePolicy): boolean {
  if (view.httpBusyMs > 0) {
    // A rate needs a moment of both running before it says anything.
    return view.httpBusyMs >= policy.stallMs / 2 && view.swarmRate >= view.httpRate * policy.restRatio
  }
  return view.httpKnownRate !== undefined && view.swarmRate >= view.httpKnownRate * policy.resumeRatio
}

/** Whoever gave the swarm a head start wants it to bring everything, unless HTTP is the faster one. */
function afterHeadStart(view: RaceView, policy: RacePolicy): HttpMode {
  if (view.httpBusyMs > 0) {
    const isComparable = view.httpBusyMs >= policy.stallMs / 2
    return isComparable && view.swarmRate >= view.httpRate ? 'rest' : 'all'
  }
  if (view.httpKnownRate !== undefined) return view.swarmRate >= view.httpKnownRate * 0.8 ? 'rest' : 'all'
  const isLongEnough = view.nowMs - view.joinedMs >= policy.probeAfterMs
  return isLongEnough && etaMs(view) > policy.probeAfterMs ? 'all' : 'rest'
}

/** How long the swarm alone would need for the rest. */
function etaMs({ remainingBytes, swarmRate }: RaceView): number {
  return (remainingBytes / Math.max(1, swarmRate)) * 1000
}

/** Pieces as `pickRange` sees them. */
export interface PieceChoice {
  readonly map: PieceMap
  /** Where to begin to look; it goes on from the first piece after the last one. */
  readonly from: number
  readonly mayTake: (piece: number) => boolean
  readonly maxBytes: number
}

/** The next bytes to fetch: from the first gap in a piece that may be taken, to the end of the last such piece in a row. */
export function pickRange({ map, from, mayTake, maxBytes }: PieceChoice): ByteRange | undefined {
  for (let step = 0; step < map.count; step++) {
    const piece = (from + step) % map.count
    const start = map.has(piece) ? undefined : map.firstGap(piece)
    if (start === undefined || !mayTake(piece)) continue
    let last = piece
    while (last + 1 < map.count && map.endOf(last + 1) - start <= maxBytes && isUntouched(map, last + 1)) {
      if (!mayTake(last + 1)) break
      last += 1
    }
    return { start, end: map.endOf(last) }
  }
  return undefined
}

function isUntouched(map: PieceMap, piece: number): boolean {
  return !map.has(piece) && !map.isStarted(piece)
}
