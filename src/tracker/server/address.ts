/** Who is asking. Addresses come from the connection; what a request says about itself counts only behind our own proxy. */

import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** An address in its shortest form, IPv4 where it was IPv6-mapped, without a zone; `undefined` if it is none. */
export function normalAddress(text: string): string | undefined {
  // ipaddr.js also reads "1" and "0x7f.1" as addresses.
  if (isIP(text) === 0) return undefined
  return ipaddr.process(text.replace(/%.*$/, '')).toString()
}

/** What rates and counts are kept by: an IPv4 address, or the /64 that one IPv6 host has to itself. */
export function networkOf(address: string): string {
  const parsed = ipaddr.parse(address)
  if (parsed.kind() === 'ipv4') return address
  return `${ipaddr.fromByteArray([...parsed.toByteArray().slice(0, 8), 0, 0, 0, 0, 0, 0, 0, 0]).toString()}/64`
}

/** An address and a port as announce answers carry them: 4 + 2 or 16 + 2 bytes. */
export function compactPeer(address: string, port: number): Buffer {
  return Buffer.from([...ipaddr.parse(address).toByteArray(), port >> 8, port & 0xff])
}

/**
 * The address a request came from; `undefined` if its connection is gone already.
 *
 * @param trustProxy Whether every request passes one proxy of ours. Its own word is the last in `X-Forwarded-For`;
 *   what stands before that was written by whoever asked.
 */
export function addressOf(request: IncomingMessage, trustProxy: boolean): string | undefined {
  const socketAddress = normalAddress(request.socket.remoteAddress ?? '')
  if (!trustProxy || socketAddress === undefined) return socketAddress
  const forwarded = [request.headers['x-forwarded-for']].flat().join(',').split(',').at(-1)?.trim()
  const real = [request.headers['x-real-ip']].flat()[0]?.trim()
  return normalAddress(forwarded ?? '') ?? normalAddress(real ?? '') ?? socketAddress
}

const localRanges = new Set(['private', 'loopback', 'linkLocal', 'uniqueLocal', 'carrierGradeNat'])

/** Whether an address means nothing outside its own network. */
export function isLocalAddress(address: string): boolean {
  return localRanges.has(ipaddr.parse(address).range())
}
