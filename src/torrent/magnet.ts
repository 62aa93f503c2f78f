/**
 * Magnet links, out and in. The `magnet-uri` package is not used: it expands `so=0-999999999` into an array,
 * lets `__proto__=` reach an object's prototype, takes any 40 characters for a hash and throws URIError on a stray `%`.
 */
import { parsePeerAddress } from '../config.ts'
import { TorrentError } from '../errors.ts'
import { asInfoHash, type InfoHash, type PeerAddress } from '../values.ts'

/** What goes into a magnet link. At least one of the two hashes must be there; a hybrid torrent has both. */
export interface MagnetParts {
  readonly infoHashV1?: InfoHash | undefined
  readonly infoHashV2?: InfoHash | undefined
  /** Shown by clients until they have the torrent. For blob torrents the etag. */
  readonly name?: string | undefined
  /** Announce URLs. */
  readonly trackers?: readonly string[] | undefined
  readonly sizeBytes?: number | undefined
}

/** What a magnet link says. All of it is a claim by whoever made the link. */
export interface Magnet {
  /** The v2 hash when there is one, else the v1 hash. */
  readonly infoHash: InfoHash
  readonly infoHashV1: InfoHash | undefined
  readonly infoHashV2: InfoHash | undefined
  /** For display only: free text, never a path. */
  readonly name: string | undefined
  /** Announce URLs (http, https, udp), in order, each once. */
  readonly trackers: readonly string[]
  readonly sizeBytes: number | undefined
  readonly peers: readonly PeerAddress[]
}

const maxLength = 16 * 1024
const maxTrackers = 64
const maxPeers = 64
const maxNameLength = 1024

/**
 * The magnet link of a torrent.
 *
 * @throws {RangeError} If there is no info hash, or one is of the wrong kind.
 * @see BEP 9 for `xt`, `dn`, `tr`; BEP 52 for `urn:btmh`.
 */
export function makeMagnet(parts: MagnetParts): string {
  const { infoHashV1, infoHashV2 } = parts
  if (infoHashV1 === undefined && infoHashV2 === undefined)
    throw new RangeError('a magnet link needs an info hash')
  if (infoHashV1 !== undefined && infoHashV1.length !== 40)
    throw new RangeError('a v1 info hash has 40 hex digits')
  if (infoHashV2 !== undefined && infoHashV2.length !== 64)
    throw new RangeError('a v2 info hash has 64 hex digits')
  const query: string[] = []
  if (infoHashV1 !== undefined) query.push(`xt=urn:btih:${infoHashV1}`)
  // 12 20: the multihash prefix for SHA-256 of 32 bytes.
  if (infoHashV2 !== undefined) query.push(`xt=urn:btmh:1220${infoHashV2}`)
  if (parts.name !== undefined) query.push(`dn=${encodeURIComponent(parts.name)}`)
  if (parts.sizeBytes !== undefined) query.push(`xl=${parts.sizeBytes}`)
  for (const tracker of parts.trackers ?? []) query.push(`tr=${encodeURIComponent(tracker)}`)
  return `magnet:?${query.join('&')}`
}

/**
 * Reads a magnet link: v1 (hex or base32), v2 or both. Parameters we do not know are skipped.
 *
 * @throws {TorrentError} If it is no magnet link, holds no info hash, a broken one, or two different ones of a kind.
 */
export function parseMagnet(text: string): Magnet {
  if (text.length > maxLength)
    throw new TorrentError(`a magnet link of ${text.length} characters is too long`)
  if (!/^magnet:\?/i.test(text)) throw new TorrentError('a magnet link starts with "magnet:?"')
  const query = new URLSearchParams(text.slice('magnet:?'.length))
  const hashes = readTopics(query)
  const infoHash = hashes.v2 ?? hashes.v1
  if (infoHash === undefined) throw new TorrentError('the magnet link names no BitTorrent info hash')
  const sizeBytes = /^\d{1,16}$/.test(query.get('xl') ?? '') ? Number(query.get('xl')) : undefined
  return {
    infoHash,
    infoHashV1: hashes.v1,
    infoHashV2: hashes.v2,
    name: readName(query.get('dn')),
    trackers: valuesOf(query, 'tr').filter(isTrackerUrl).slice(0, maxTrackers),
    sizeBytes: Number.isSafeInteger(sizeBytes) ? sizeBytes : undefined,
    peers: valuesOf(query, 'x.pe').flatMap(readPeer).slice(0, maxPeers),
  }
}

function readTopics(query: URLSearchParams): { v1: InfoHash | undefined; v2: InfoHash | undefined } {
  let v1: InfoHash | undefined
  let v2: InfoHash | undefined
  for (const topic of valuesOf(query, 'xt')) {
    const [, scheme, value] = /^urn:(btih|btmh):(.*)$/is.exec(topic) ?? []
    if (scheme === undefined || value === undefined) continue
    if (scheme.toLowerCase() === 'btih') v1 = sameOrFirst(v1, readV1(value))
    else v2 = sameOrFirst(v2, readV2(value))
  }
  return { v1, v2 }
}

function sameOrFirst(known: InfoHash | undefined, found: InfoHash): InfoHash {
  if (known !== undefined && known !== found) throw new TorrentError('the magnet link names two torrents')
  return found
}

function readV1(value: string): InfoHash {
  const hex = value.length === 32 ? base32ToHex(value) : value.toLowerCase()
  const infoHash = hex?.length === 40 ? asInfoHash(hex) : undefined
  if (infoHash === undefined) throw new TorrentError('the magnet link has a broken v1 info hash')
  return infoHash
}

function readV2(value: string): InfoHash {
  const hex = /^1220(.{64})$/.exec(value.toLowerCase())?.[1]
  const infoHash = hex === undefined ? undefined : asInfoHash(hex)
  if (infoHash === undefined)
    throw new TorrentError('the magnet link has a v2 info hash that is not a SHA-256 multihash')
  return infoHash
}

/** RFC 4648 base32 of 20 bytes: 32 characters, no padding, no bits left over. */
function base32ToHex(text: string): string | undefined {
  let bits = 0n
  for (const character of text.toUpperCase()) {
    const value = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(character)
    if (value < 0) return undefined
    bits = (bits << 5n) | BigInt(value)
  }
  return bits.toString(16).padStart(40, '0')
}

/** Parameters may be numbered: `tr.1`, `xt.2`. */
function valuesOf(query: URLSearchParams, key: string): string[] {
  const values = new Set<string>()
  for (const [name, value] of query) {
    if (name === key || (name.startsWith(`${key}.`) && /^\d+$/.test(name.slice(key.length + 1))))
      values.add(value)
  }
  return [...values]
}

function readName(text: string | null): string | undefined {
  return text && text.length <= maxNameLength && !/\p{Cc}/u.test(text) ? text : undefined
}

function isTrackerUrl(text: string): boolean {
  return /^(?:https?|udp):\/\//i.test(text) && URL.canParse(text)
}

function readPeer(text: string): PeerAddress[] {
  try {
    const peer = parsePeerAddress(text)
    return peer.port > 0 ? [peer] : []
  } catch {
    return []
  }
}
