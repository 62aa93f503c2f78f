/**
 * What travels between tracker and client: shapes, limits and the words of the REST interface. Both sides use this
 * file; docs/tracker-api.md describes the same to outsiders. A field that is unknown is ignored, a row that is broken
 * is dropped: a newer server must not silence an older client.
 */
import { isIP } from 'node:net'
import * as v from 'valibot'
import { asEtag, asInfoHash, type Etag, type InfoHash, type PeerAddress } from '../values.ts'

/** Most etags in one `GET /api/v1/torrents?blob=`. */
export const maxBlobsPerLookup = 200
/** Most torrents a tracker keeps for one blob. */
export const maxCandidatesPerBlob = 8
/** Most peers in one row, and in one announce answer. */
export const maxPeersPerAnswer = 50
/** Largest torrent file worth moving: libtorrent's own limit. */
export const maxTorrentBytes = 10_000_000
/** Media type of a .torrent file. */
export const torrentMediaType = 'application/x-bittorrent'

/** Paths below the tracker's origin. */
export const paths = {
  torrents: '/api/v1/torrents',
  torrentFile: '/api/v1/torrents/torrent',
  publish: '/api/v1/publish',
} as const

/** The swarm key of a torrent in announces and handshakes: the first 20 bytes of its info hash, 40 hex digits. */
export function announceKeyOf(infoHash: InfoHash): string {
  return infoHash.slice(0, 40)
}

/** Where REST requests go: the origin of the tracker's URL, whatever its path. */
export function restUrl(trackerUrl: string, path: string): URL {
  return new URL(path, new URL(trackerUrl).origin)
}

/** Where announces go: the tracker's URL, its path kept, and `/announce`. */
export function announceUrlOf(trackerUrl: string): string {
  return `${trackerUrl.replace(/\/+$/, '')}/announce`
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const infoHash = v.pipe(
  v.string(),
  v.check((text) => asInfoHash(text) !== undefined, 'not an info hash'),
  v.transform((text) => text as InfoHash),
)
const etag = v.pipe(
  v.string(),
  v.check((text) => asEtag(text) !== undefined, 'not an etag'),
  v.transform((text) => text as Etag),
)
const peer = v.pipe(
  v.object({
    ip: v.pipe(
      v.string(),
      v.check((text) => isIP(text) !== 0, 'not an IP address'),
    ),
    port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  }),
  v.transform(({ ip, port }): PeerAddress => ({ host: ip, port })),
)

const blobRowSchema = v.object({
  kind: v.literal('blob'),
  etag,
  size: v.pipe(count, v.minValue(1)),
  info_hash: infoHash,
  status: v.optional(v.string()),
  publishers: v.optional(count, 0),
  stats: v.object({ seeders: count, leechers: count, completed: v.optional(count, 0) }),
  peers: v.optional(v.array(v.unknown()), []),
})

/** A row of kind `blob` as we read it: one torrent whose single file, it says, has the content `etag`. */
export interface ReadBlobRow {
  readonly etag: Etag
  readonly size: number
  readonly info_hash: InfoHash
  readonly publishers: number
  readonly stats: { readonly seeders: number; readonly leechers: number }
  /** Not looked at yet, see `readPeers`. */
  readonly peers: readonly unknown[]
}

const lookupSchema = v.object({ data: v.array(v.unknown()) })

/** The answer to a publish. */
export interface PublishAnswer {
  readonly info_hash: InfoHash
  readonly message: string
  readonly status: string
}

const publishAnswerSchema = v.object({
  info_hash: infoHash,
  message: v.optional(v.string(), ''),
  status: v.optional(v.string(), 'active'),
})

const publishBlobSchema = v.object({
  kind: v.literal('blob'),
  etag,
  size: v.optional(count),
  info_hash: infoHash,
  announce_key: v.optional(v.string()),
  torrent_data: v.string(),
})

/** A row of a lookup as it travels. */
export interface BlobRow {
  kind: 'blob'
  etag: Etag
  size: number
  info_hash: InfoHash
  announce_key: string
  magnet_link: string
  piece_length: number
  status: 'active'
  created_at: string
  /** How many different addresses published this torrent. */
  publishers: number
  stats: { seeders: number; leechers: number; completed: number }
  peers: { ip: string; port: number }[]
}

/** Body of `POST /api/v1/publish` for a blob torrent. Fields beside these are ignored. */
export interface PublishBlobBody {
  readonly kind: 'blob'
  readonly etag: Etag
  readonly size?: number | undefined
  readonly info_hash: InfoHash
  readonly announce_key?: string | undefined
  /** The .torrent file in base64. */
  readonly torrent_data: string
}

/** The body of a publish, or `undefined` if a field is missing or of the wrong type. */
export function readPublishBody(body: unknown): PublishBlobBody | undefined {
  const parsed = v.safeParse(publishBlobSchema, body)
  return parsed.success ? parsed.output : undefined
}

/** The answer to a publish, or `undefined` if it is none. */
export function readPublishAnswer(answer: unknown): PublishAnswer | undefined {
  const parsed = v.safeParse(publishAnswerSchema, answer)
  return parsed.success ? parsed.output : undefined
}

/** The rows of a lookup that we understand, in the tracker's order; `undefined` if this is no lookup answer at all. */
export function readLookup(answer: unknown): ReadBlobRow[] | undefined {
  const list = v.safeParse(lookupSchema, answer)
  if (!list.success) return undefined
  return list.output.data.flatMap((row) => {
    const parsed = v.safeParse(blobRowSchema, row)
    // Absent status means active: very old rows have none.
    return parsed.success && (parsed.output.status ?? 'active') === 'active' ? [parsed.output] : []
  })
}

/** The peers of a row that have an address and a port; at most `maxPeersPerAnswer`. */
export function readPeers(peers: readonly unknown[]): PeerAddress[] {
  return peers.slice(0, maxPeersPerAnswer).flatMap((entry) => {
    const parsed = v.safeParse(peer, entry)
    return parsed.success ? [parsed.output] : []
  })
}
