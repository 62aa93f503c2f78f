/**
 * From a blob to a torrent worth joining. The tracker client has checked that what it hands out is a torrent of
 * exactly this blob; whether its bytes are the Hub's shows only at the end.
 */
import { unlessAborted } from '../abort.ts'
import type { TorrentOffer } from '../swarm/swarm.ts'
import { parseMetainfo } from '../torrent/metainfo.ts'
import type { BlobCandidate } from '../tracker/client.ts'
import type { TrackerSet } from '../tracker/tracker-set.ts'
import type { BlobRef, Etag, InfoHash, PeerAddress } from '../values.ts'
import type { CondemnedTorrents } from './condemned.ts'

export interface TorrentFinderDeps {
  readonly trackers: TrackerSet
  readonly condemned: CondemnedTorrents
  /** Peers to try besides those the trackers name. */
  readonly peers: readonly PeerAddress[]
  /** Whether this machine has found the torrent's bytes to be those of the blob. */
  readonly isKnown: (blob: BlobRef, infoHash: InfoHash) => Promise<boolean>
}

/** At how many addresses somebody must have published the same torrent of a blob before it is believed unseen. */
const minPublishers = 2

/** Of several candidates for one blob, how many are fetched before giving up. */
const maxTried = 4

export class TorrentFinder {
  readonly #deps: TorrentFinderDeps
  readonly #asked = new Map<Etag, Promise<readonly BlobCandidate[]>>()

  constructor(deps: TorrentFinderDeps) {
    this.#deps = deps
  }

  /** Asks about many blobs in one request, ahead of `find`. */
  ask(blobs: readonly BlobRef[], signal?: AbortSignal): void {
    const lookup = this.#deps.trackers.lookup(blobs, { signal })
    for (const { etag } of blobs) {
      const answer = lookup.then((found) => found.get(etag) ?? [])
      answer.catch(() => this.#asked.delete(etag))
      this.#asked.set(etag, answer)
    }
  }

  /** Whether any tracker knows a torrent of this blob that has not lied. Costs at most one look-up. */
  async knows(blob: BlobRef, signal?: AbortSignal): Promise<boolean> {
    return (await this.#candidates(blob, signal)).length > 0
  }

  /** The best torrent of a blob, or `undefined`. @throws Only the signal's reason. */
  async find(blob: BlobRef, signal?: AbortSignal): Promise<TorrentOffer | undefined> {
    const candidates = await this.#candidates(blob, signal)
    for (const candidate of candidates.slice(0, maxTried)) {
      const torrentFile = await this.#deps.trackers.fetchTorrent(candidate, { signal })
      if (torrentFile !== undefined) return await this.#offerOf(candidate, torrentFile)
    }
    return undefined
  }

  async #candidates(blob: BlobRef, signal: AbortSignal | undefined): Promise<readonly BlobCandidate[]> {
    if (!this.#asked.has(blob.etag)) this.ask([blob], signal)
    // An answer is good for one download: by the next one, other peers will be there.
    const answer = this.#asked.get(blob.etag)
    // Whoever asked ahead did so for the whole call; this file may be there before the trackers have answered.
    const candidates = (answer && (await unlessAborted(answer, signal))) ?? []
    this.#asked.delete(blob.etag)
    const kept: BlobCandidate[] = []
    for (const candidate of candidates) {
      if (!(await this.#deps.condemned.has(blob.etag, candidate.infoHash))) kept.push(candidate)
    }
    return kept
  }

  async #offerOf(candidate: BlobCandidate, torrentFile: Uint8Array): Promise<TorrentOffer> {
    const { infoHash, pieceLength } = parseMetainfo(torrentFile)
    return {
      infoHash,
      torrentFile,
      pieceLength,
      announceUrls: this.#deps.trackers.announceUrls,
      peers: [...candidate.peers, ...this.#deps.peers],
      isPromising: candidate.seeders > 0 || candidate.peers.length > 0 || this.#deps.peers.length > 0,
      mayBeCrowd: candidate.leechers > 0,
      isTied: candidate.publishers >= minPublishers || (await this.#deps.isKnown(candidate, infoHash)),
    }
  }
}
