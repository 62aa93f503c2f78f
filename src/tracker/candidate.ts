/** What lookups find: torrents that trackers say have a content. Pure. */
import { makeMagnet } from '../torrent/magnet.ts'
import type { BlobRef, Etag, InfoHash, PeerAddress } from '../values.ts'
import { maxCandidatesPerBlob, type ReadBlobRow, readPeers } from './protocol.ts'

/** A torrent that, a tracker says, has this content. */
export interface BlobCandidate extends BlobRef {
  readonly infoHash: InfoHash
  /** Made here from the info hash, the etag and our own trackers: nothing in it was chosen by others. */
  readonly magnetLink: string
  readonly seeders: number
  readonly leechers: number
  /** How many different addresses published it, as the tracker counts; 0 if it does not say. */
  readonly publishers: number
  readonly peers: readonly PeerAddress[]
  /** Base URL of the tracker that named it; of several, the one that counts most seeders. */
  readonly trackerUrl: string
}

/** Candidates by blob, the most trustworthy first. Blobs without one are not in the map. */
export type CandidatesByEtag = Map<Etag, BlobCandidate[]>

/** The tracker that sent rows. */
interface RowSource {
  readonly url: string
  readonly announceUrl: string
}

const maxMergedPeers = 200

/**
 * The rows that answer what was asked: of the right size, v2 or hybrid, each once, at most 8 for one blob. In the
 * tracker's order: it knows how many networks stand for a torrent, while seeders can be made up by one.
 */
export function candidatesFrom(
  rows: readonly ReadBlobRow[],
  wanted: ReadonlyMap<Etag, BlobRef>,
  tracker: RowSource,
): CandidatesByEtag {
  const found: CandidatesByEtag = new Map()
  for (const row of rows) {
    // A server that does not know the parameter lists everything it has.
    if (wanted.get(row.etag)?.sizeBytes !== row.size) continue
    // Blob torrents are v2 or hybrid: both have the long hash.
    if (row.info_hash.length !== 64) continue
    const candidates = found.get(row.etag) ?? []
    if (candidates.length >= maxCandidatesPerBlob || candidates.some((one) => one.infoHash === row.info_hash))
      continue
    candidates.push(candidateFrom(row, tracker))
    found.set(row.etag, candidates)
  }
  return found
}

/** One map of several: the same torrent from two trackers is one candidate with the peers of both. */
export function mergeCandidates(
  answers: readonly CandidatesByEtag[],
  announceUrls: readonly string[],
): CandidatesByEtag {
  const merged: CandidatesByEtag = new Map()
  const etags = new Set(answers.flatMap((answer) => [...answer.keys()]))
  for (const etag of etags) {
    const byHash = new Map<InfoHash, BlobCandidate>()
    // What any tracker puts first comes first, then what any puts second; of several, those that are seeded at all.
    for (let rank = 0; rank < maxCandidatesPerBlob; rank++) {
      const equals = answers.flatMap((answer) => answer.get(etag)?.[rank] ?? [])
      equals.sort((a, b) => Number(b.seeders > 0) - Number(a.seeders > 0))
      for (const candidate of equals) {
        const known = byHash.get(candidate.infoHash)
        const both = known === undefined ? candidate : mergeTwo(known, candidate, announceUrls)
        byHash.set(candidate.infoHash, both)
      }
    }
    merged.set(etag, [...byHash.values()])
  }
  return merged
}

function candidateFrom(row: ReadBlobRow, tracker: RowSource): BlobCandidate {
  return {
    etag: row.etag,
    sizeBytes: row.size,
    infoHash: row.info_hash,
    magnetLink: magnetOf(row.info_hash, { etag: row.etag, sizeBytes: row.size }, [tracker.announceUrl]),
    seeders: row.stats.seeders,
    leechers: row.stats.leechers,
    publishers: row.publishers,
    peers: readPeers(row.peers),
    trackerUrl: tracker.url,
  }
}

function mergeTwo(a: BlobCandidate, b: BlobCandidate, announceUrls: readonly string[]): BlobCandidate {
  const peers = new Map([...a.peers, ...b.peers].map((peer) => [`${peer.host} ${peer.port}`, peer]))
  return {
    ...a,
    magnetLink: magnetOf(a.infoHash, a, announceUrls),
    // The same seeders announce to both trackers: the larger count, not the sum.
    seeders: Math.max(a.seeders, b.seeders),
    leechers: Math.max(a.leechers, b.leechers),
    publishers: Math.max(a.publishers, b.publishers),
    peers: [...peers.values()].slice(0, maxMergedPeers),
    trackerUrl: b.seeders > a.seeders ? b.trackerUrl : a.trackerUrl,
  }
}

function magnetOf(infoHashV2: InfoHash, blob: BlobRef, trackers: readonly string[]): string {
  return makeMagnet({ infoHashV2, name: blob.etag, trackers, sizeBytes: blob.sizeBytes })
}
