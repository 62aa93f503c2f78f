/**
 * What a download does, decided before it starts, and when HTTP runs, decided while it goes on.
 * Pure functions of plain values, so that every rule is a row of a table test.
 */

export interface PlanInput {
  readonly sizeBytes: number
  /** The complete, right-sized file is in the cache. */
  readonly isCached: boolean
  /** Addon loaded, P2P not switched off, and someone who could name peers. */
  readonly canUseSwarm: boolean
  /** The file can be had without a token, or its owner opted in. */
  readonly mayShare: boolean
  readonly canUseHttp: boolean
  readonly offline: boolean
  readonly smallFileBytes: number
}

export type Plan =
  | { readonly kind: 'cached' }
  /** Nothing to fetch: an empty file. */
  | { readonly kind: 'empty' }
  | { readonly kind: 'impossible'; readonly reason: string }
  | {
      readonly kind: 'fetch'
      readonly http: 'at-once' | 'after-head-start' | 'never'
      readonly swarm: 'at-once' | 'when-http-fails' | 'never'
    }

/** Decides where a file comes from. */
export function planDownload(input: PlanInput): Plan {
  if (input.isCached) return { kind: 'cached' }
  if (input.offline)
    return { kind: 'impossible', reason: 'it is not in the cache, and HF_HUB_OFFLINE is set' }
  if (input.sizeBytes === 0) return { kind: 'empty' }
  const swarm = input.canUseSwarm && input.mayShare
  if (!swarm && !input.canUseHttp) {
    return { kind: 'impossible', reason: 'HTTP is switched off and the swarm cannot be used' }
  }
  if (!swarm) return { kind: 'fetch', http: 'at-once', swarm: 'never' }
  if (!input.canUseHttp) return { kind: 'fetch', http: 'never', swarm: 'at-once' }
  if (input.sizeBytes < input.smallFileBytes)
    return { kind: 'fetch', http: 'at-once', swarm: 'when-http-fails' }
  return { kind: 'fetch', http: 'after-head-start', swarm: 'at-once' }
}

/** The figures of the race; each can be replaced in tests. */
export interface RacePolicy {
  /** How long HTTP waits to hear whether there is a torrent at all. */
  readonly lookupGraceMs: number
  /** How long a swarm with a torrent may take to its first bytes before HTTP starts. */
  readonly headStartMs: number
  /** A source without a new byte for this long is stalled, and the other takes over. */
  readonly stallMs: number
  /** When a swarm that delivers would need longer than this, HTTP runs once to learn which is faster. */
  readonly probeAfterMs: number
  /** HTTP yields when the swarm is at least this many times as fast as it. */
  readonly yieldRatio: number
  /** HTTP comes back when the swarm falls below this share of what HTTP last gave. */
  readonly resumeRatio: number
  /** How much HTTP claims at a time while a swarm is there. */
  readonly claimBytes: number
  /** How often the race looks at its sources. */
  readonly tickMs: number
}

export const defaultRacePolicy: RacePolicy = {
  lookupGraceMs: 300,
  headStartMs: 1_500,
  stallMs: 2_000,
  probeAfterMs: 3_000,
  yieldRatio: 1,
  resumeRatio: 0.8,
  claimBytes: 8 * 1024 * 1024,
  tickMs: 100,
}

/** What the race knows of its two sources at one moment. Times in ms on one clock, rates in bytes per second. */
export interface RaceView {
  readonly nowMs: number
  readonly startedMs: number
  readonly remainingBytes: number
  /** `asking`: no answer about a torrent yet. `joining`: there is one, its files are being checked. */
  readonly swarm: 'none' | 'asking' | 'joining' | 'joined'
  readonly joinedMs: number
  readonly swarmRate: number
  /** When the swarm last brought something new; `joinedMs` when it never did. */
  readonly swarmProgressMs: number
  readonly swarmHasDelivered: boolean
  readonly httpRunning: boolean
  readonly httpStartedMs: number
  readonly httpRate: number
  /** HTTP's rate when it last ran long enough to tell; `undefined` when it never did. */
  readonly httpKnownRate: number | undefined
  readonly httpProgressMs: number
}

export type HttpAction = 'start' | 'stop' | 'leave'

/** Whether HTTP should run now. */
export function decideHttp(view: RaceView, policy: RacePolicy): HttpAction {
  return view.httpRunning ? decideRunning(view, policy) : decideIdle(view, policy)
}

function decideIdle(view: RaceView, policy: RacePolicy): HttpAction {
  if (view.swarm === 'none') return 'start'
  if (view.swarm === 'asking') return view.nowMs - view.startedMs >= policy.lookupGraceMs ? 'start' : 'leave'
  if (!view.swarmHasDelivered) {
    // The head start runs from the first moment, so that a slow look-up does not add to it.
    return view.nowMs - view.startedMs >= policy.headStartMs ? 'start' : 'leave'
  }
  if (view.nowMs - view.swarmProgressMs >= policy.stallMs) return 'start'
  if (view.httpKnownRate !== undefined) {
    return view.swarmRate < view.httpKnownRate * policy.resumeRatio ? 'start' : 'leave'
  }
  const longEnough = view.nowMs - view.joinedMs >= policy.probeAfterMs
  const etaMs = (view.remainingBytes / Math.max(1, view.swarmRate)) * 1000
  return longEnough && etaMs > policy.probeAfterMs ? 'start' : 'leave'
}

function decideRunning(view: RaceView, policy: RacePolicy): HttpAction {
  if (view.swarm !== 'joined' || !view.swarmHasDelivered) return 'leave'
  const swarmIsAlive = view.nowMs - view.swarmProgressMs < policy.stallMs
  if (!swarmIsAlive) return 'leave'
  if (view.nowMs - view.httpProgressMs >= policy.stallMs) return 'stop'
  // A rate needs a moment of both running before it says anything.
  const comparable = view.nowMs - Math.max(view.httpStartedMs, view.joinedMs) >= policy.stallMs / 2
  return comparable && view.swarmRate >= view.httpRate * policy.yieldRatio ? 'stop' : 'leave'
}
