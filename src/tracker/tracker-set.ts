/** Several trackers as one. */
import { TrackerError } from '../errors.ts'
import type { BlobRef } from '../values.ts'
import { type BlobCandidate, type CandidatesByEtag, mergeCandidates } from './candidate.ts'
import type { RequestOptions, TrackerClient } from './client.ts'

export interface LookupOptions extends RequestOptions {
  /** How long to wait for other trackers once every blob has a seeded torrent. @defaultValue 250 */
  readonly graceMs?: number | undefined
}

const defaultGraceMs = 250

/** All trackers of a configuration: asked at once, none waited for longer than it is worth. */
export class TrackerSet {
  readonly clients: readonly TrackerClient[]
  /** Where torrent clients announce: all of them. */
  readonly announceUrls: readonly string[]

  constructor(clients: readonly TrackerClient[]) {
    this.clients = clients
    this.announceUrls = [...new Set(clients.map((client) => client.announceUrl))]
  }

  /**
   * Asks all trackers and merges what they say. A silent one costs its own deadline at most, and only `graceMs` once
   * nothing is missing.
   *
   * @throws the signal's reason; nothing else.
   */
  async lookup(
    blobs: readonly BlobRef[],
    { signal, graceMs = defaultGraceMs }: LookupOptions = {},
  ): Promise<CandidatesByEtag> {
    signal?.throwIfAborted()
    const wanted = blobs.filter((blob) => blob.sizeBytes > 0)
    const answers: CandidatesByEtag[] = []
    const merged = (): CandidatesByEtag => mergeCandidates(answers, this.announceUrls)
    const rest = new AbortController()
    const onAbort = (): void => rest.abort(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    let grace: NodeJS.Timeout | undefined
    try {
      await new Promise<void>((resolve, reject) => {
        const all = this.clients.map(async (client) => {
          answers.push(await client.lookup(wanted, { signal: rest.signal }))
          if (isComplete(wanted, merged())) grace ??= setTimeout(resolve, graceMs)
        })
        Promise.all(all).then(() => resolve(), reject)
      })
      return merged()
    } finally {
      clearTimeout(grace)
      signal?.removeEventListener('abort', onAbort)
      rest.abort(
        new TrackerError('others answered first', this.clients.map((client) => client.url).join(', ')),
      )
    }
  }

  /**
   * The candidate's .torrent file, from the tracker that named it or else from the others. See
   * `TrackerClient.fetchTorrent`.
   *
   * @throws the signal's reason; nothing else.
   */
  async fetchTorrent(
    candidate: BlobCandidate,
    options: RequestOptions = {},
  ): Promise<Uint8Array | undefined> {
    const isNamer = (client: TrackerClient): number => (client.url === candidate.trackerUrl ? 1 : 0)
    for (const client of this.clients.toSorted((a, b) => isNamer(b) - isNamer(a))) {
      const torrent = await client.fetchTorrent(candidate, options)
      if (torrent !== undefined) return torrent
    }
    return undefined
  }
}

function isComplete(blobs: readonly BlobRef[], found: CandidatesByEtag): boolean {
  return blobs.every((blob) => (found.get(blob.etag)?.[0]?.seeders ?? 0) > 0)
}
