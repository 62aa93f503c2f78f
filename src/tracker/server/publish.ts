/** What a publisher sends, checked: the tracker takes nobody's word for what it can compute. */
import * as v from 'valibot'
import { TorrentError } from '../../errors.ts'
import {
  checkBlobTorrent,
  defaultMetainfoLimits,
  type Metainfo,
  parseMetainfo,
} from '../../torrent/metainfo.ts'
import { asEtag, asInfoHash } from '../../values.ts'
import { announceKeyOf, type PublishBlobBody, readPublishBody } from '../protocol.ts'
import type { NewTorrent } from './database.ts'

/** A torrent to keep, or why not. */
export type CheckedPublish = { readonly torrent: NewTorrent } | { readonly error: string }

/** A blob torrent is one file: a handful of values, whatever its size. */
const limits = { ...defaultMetainfoLimits, maxDepth: 10, maxTokens: 1000 }

const kindSchema = v.looseObject({ kind: v.optional(v.unknown()) })
const requiredSchema = v.looseObject({ etag: v.string(), info_hash: v.string(), torrent_data: v.string() })

/** Checks the body of a publish, from the shape inwards. */
export function checkPublish(body: unknown): CheckedPublish {
  const outer = v.safeParse(kindSchema, body)
  if (!outer.success) return { error: 'invalid request body' }
  if (outer.output.kind !== 'blob') {
    return { error: 'this tracker takes torrents of single files only: kind must be "blob"' }
  }
  const required = v.safeParse(requiredSchema, body)
  if (!required.success) return { error: 'etag, info_hash and torrent_data are required, as strings' }
  if (asEtag(required.output.etag) === undefined) {
    return { error: 'etag must be 64 or 40 lower-case hex digits' }
  }
  if (asInfoHash(required.output.info_hash) === undefined) {
    return { error: 'info_hash must be 64 lower-case hex digits' }
  }
  const claim = readPublishBody(body)
  if (claim === undefined) return { error: 'invalid request body' }
  const bytes = fromBase64(claim.torrent_data)
  if (bytes === undefined) return { error: 'torrent_data must be valid base64' }
  try {
    return checkTorrent(claim, bytes, parseMetainfo(bytes, limits))
  } catch (error) {
    if (error instanceof TorrentError) return { error: `invalid torrent bencode: ${error.message}` }
    throw error
  }
}

function checkTorrent(claim: PublishBlobBody, torrent: Uint8Array, metainfo: Metainfo): CheckedPublish {
  const { infoHash, infoHashV1, pieceLength, totalBytes: sizeBytes } = metainfo
  if (claim.info_hash !== infoHash) {
    return { error: `info_hash mismatch: client provided ${claim.info_hash} but we calculated ${infoHash}` }
  }
  const announceKey = announceKeyOf(infoHash)
  if (claim.announce_key !== undefined && claim.announce_key !== announceKey) {
    return {
      error: `announce_key mismatch: client provided ${claim.announce_key.slice(0, 80)} but we calculated ${announceKey}`,
    }
  }
  const reasons = checkBlobTorrent(metainfo, { etag: claim.etag, sizeBytes: claim.size ?? sizeBytes })
  if (reasons.length > 0) return { error: `not a blob torrent: ${reasons.join('; ')}` }
  return { torrent: { etag: claim.etag, infoHash, infoHashV1, announceKey, sizeBytes, pieceLength, torrent } }
}

/** Node skips what is not base64, so that many texts decode to the same bytes: only the right one is taken. */
function fromBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.length > 0 && bytes.toString('base64') === text ? bytes : undefined
}
