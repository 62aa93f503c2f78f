/** libtorrent takes another port when the one it was asked for is taken, and says nothing. */
import { parsePeerAddress } from '../config.ts'
import type { PeerAddress } from '../values.ts'

/** `port N is taken; listening on M instead`, or `undefined` where all is as it was asked for. */
export function movedPort(asked: readonly string[], actual: readonly PeerAddress[]): string | undefined {
  const wanted = asked.map(parsePeerAddress)
  // Port 0 leaves the choice to the system: then every port is as asked.
  if (wanted.some(({ port }) => port === 0)) return undefined
  const isWanted = (port: number): boolean => wanted.some((each) => each.port === port)
  const moved = actual.find(({ port }) => !isWanted(port))
  if (moved === undefined) return undefined
  const isSameFamily = ({ host }: PeerAddress): boolean => host.includes(':') === moved.host.includes(':')
  const from = wanted.find(isSameFamily) ?? wanted[0]
  return from && `port ${from.port} is taken; listening on ${moved.port} instead`
}
