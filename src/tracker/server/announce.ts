/** `/announce` (BEP 3, 7, 23) and `/scrape` (BEP 48): always HTTP 200, always bencode, errors included. */
import { isIPv4 } from 'node:net'
import bencode from 'bencode'
import { maxPeersPerAnswer } from '../protocol.ts'
import { isLocalAddress, normalAddress } from './address.ts'
import type { TrackerLimits } from './limits.ts'
import { parseRawQuery, type RawQuery, swarmKeyOf, textParameter } from './raw-query.ts'
import type { Announce, SwarmPeer, SwarmStore } from './swarm-store.ts'

/** What the answers are made from. */
export interface AnnounceContext {
  readonly swarms: SwarmStore
  readonly limits: TrackerLimits
  readonly trustProxy: boolean
}

const maxScrapedTorrents = 200

/** Why a request was refused, in the words of the protocol. */
export function failure(reason: string): Uint8Array {
  return bencode.encode({ 'failure reason': reason })
}

/**
 * Takes an announce and answers it.
 *
 * @param requestTarget The request's path and query, undecoded.
 * @param address Whom it came from.
 */
export function answerAnnounce(requestTarget: string, address: string, context: AnnounceContext): Uint8Array {
  const query = parseRawQuery(requestTarget)
  const infoHash = query.get('info_hash')?.[0]
  const port = textParameter(query, 'port')
  if (!infoHash?.length || !query.get('peer_id')?.[0]?.length || port === '') {
    return failure('invalid request: missing required parameters')
  }
  const key = swarmKeyOf(infoHash)
  if (key === undefined) return failure('invalid request: invalid info_hash')
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535) {
    return failure(`invalid request: invalid port: ${port.slice(0, 20)}`)
  }
  const announce: Announce = {
    host: announcedHost(query, address, context.trustProxy),
    port: Number(port),
    isSeeder: isSeeder(textParameter(query, 'left')),
    event: eventOf(textParameter(query, 'event')),
  }
  context.swarms.announce(key, announce)
  const wanted = announce.event === 'stopped' ? 0 : wantedPeers(textParameter(query, 'numwant'))
  const peers = context.swarms.select([key], wanted, announce)
  const { seeders, leechers } = context.swarms.counts(key)
  return bencode.encode({
    complete: seeders,
    incomplete: leechers,
    interval: Math.round(context.limits.intervalMs / 1000),
    'min interval': Math.round(context.limits.minIntervalMs / 1000),
    ...peerLists(peers, textParameter(query, 'compact') === '1'),
  })
}

/** Counts of the swarms asked for; zeros for those nobody is in. */
export function answerScrape(requestTarget: string, { swarms }: AnnounceContext): Uint8Array {
  const asked = parseRawQuery(requestTarget).get('info_hash') ?? []
  if (asked.length === 0) return failure('invalid request: missing required parameters')
  const keys = new Set(asked.slice(0, maxScrapedTorrents).map(swarmKeyOf))
  if (keys.has(undefined)) return failure('invalid request: invalid info_hash')
  const files = [...keys].sort().flatMap((key = '') => {
    const { seeders, leechers, completed } = swarms.counts(key)
    const counts = { complete: seeders, downloaded: completed, incomplete: leechers }
    return [Buffer.from('20:'), Buffer.from(key, 'hex'), bencode.encode(counts)]
  })
  // By hand: the package takes binary keys in a Map, but sorts them as the decimal text of their bytes.
  return Buffer.concat([Buffer.from('d5:filesd'), ...files, Buffer.from('ee')])
}

/**
 * Anybody could register anybody with `ip=`. It is heard only behind our own proxy and from inside its network, where
 * the proxy sees a local address that is of no use to peers outside.
 */
function announcedHost(query: RawQuery, address: string, trustProxy: boolean): string {
  if (!trustProxy || !isLocalAddress(address)) return address
  return normalAddress(textParameter(query, 'ip')) ?? address
}

/** Nothing left to get, or nothing said about it, is a seeder: as on the existing network. */
function isSeeder(left: string): boolean {
  return !/^-?\d+$/.test(left) || Number(left) === 0
}

function eventOf(text: string): Announce['event'] {
  return text === 'started' || text === 'completed' || text === 'stopped' ? text : 'none'
}

/** Clients say -1 when they leave it to the tracker. */
function wantedPeers(text: string): number {
  const wanted = /^\d{1,9}$/.test(text) ? Number(text) : 0
  return wanted === 0 ? maxPeersPerAnswer : Math.min(wanted, maxPeersPerAnswer)
}

/** `peers` is always there; `peers6` only when there is somebody in it. */
function peerLists(peers: readonly SwarmPeer[], isCompact: boolean): Record<string, unknown> {
  const v4 = peers.filter((peer) => isIPv4(peer.host))
  const v6 = peers.filter((peer) => !isIPv4(peer.host))
  const list = (some: readonly SwarmPeer[]): unknown =>
    isCompact
      ? Buffer.concat(some.map((peer) => peer.compact))
      : some.map((peer) => ({ ip: peer.host, 'peer id': '', port: peer.port }))
  return { peers: list(v4), ...(v6.length === 0 ? {} : { peers6: list(v6) }) }
}
