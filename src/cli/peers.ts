/** Peers as people name them. */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { ConfigError } from '../errors.ts'
import { messageOf } from '../log.ts'
import type { PeerAddress } from '../values.ts'

/** The peers by IP address: libtorrent takes no host names. @throws {ConfigError} for a host that is not known. */
export async function resolvePeers(peers: readonly PeerAddress[] = []): Promise<PeerAddress[]> {
  return await Promise.all(peers.map(resolvePeer))
}

async function resolvePeer(peer: PeerAddress): Promise<PeerAddress> {
  if (isIP(peer.host) !== 0) return peer
  try {
    return { host: (await lookup(peer.host)).address, port: peer.port }
  } catch (error) {
    throw new ConfigError(`--peer ${peer.host}:${peer.port}: the host is not known (${messageOf(error)})`, {
      cause: error,
    })
  }
}

/** `host:port`, with brackets where they belong. */
export function showAddress({ host, port }: PeerAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
