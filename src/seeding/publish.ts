/** Makes a blob known: its torrent, from the store or freshly hashed, and its rows at the trackers. */
import { log, messageOf } from '../log.ts'
import type { NativeAddon } from '../native/binding.ts'
import { createBlobTorrent } from '../torrent/create.ts'
import type { TrackerClient } from '../tracker/client.ts'
import type { BlobRef } from '../values.ts'
import type { StoredTorrent, TorrentStore } from './torrent-store.ts'

export interface PublishDeps {
  readonly addon: NativeAddon
  readonly store: TorrentStore
  readonly trackers: readonly TrackerClient[]
  /** Hashing threads. */
  readonly threads: number
}

/**
 * The torrent of a blob. One of the store was made of content that was right; libtorrent finds out when that has changed.
 *
 * @param options.check Whether content that is hashed now must be compared with the etag, in the same pass.
 * @returns `undefined` for an empty blob.
 * @throws {NativeError} When the file cannot be read.
 * @throws {IntegrityError} When the content is not the blob's.
 */
export async function torrentOf(
  blob: BlobRef,
  path: string,
  deps: PublishDeps,
  options: { readonly check: boolean; readonly signal: AbortSignal },
): Promise<StoredTorrent | undefined> {
  const stored = await deps.store.load(blob)
  if (stored !== undefined) return stored
  const created = await createBlobTorrent(deps.addon, path, blob, {
    announceUrls: deps.trackers.map((tracker) => tracker.announceUrl),
    threads: deps.threads,
    background: true,
    ...options,
  })
  if (created === undefined) return undefined
  await keepTorrent(blob, created, deps)
  return created
}

/** Stores a torrent of verified content, so that it is not hashed again. Failing to costs time later, nothing else. */
export async function keepTorrent(
  blob: BlobRef,
  torrent: StoredTorrent,
  deps: Pick<PublishDeps, 'store'>,
): Promise<void> {
  await deps.store
    .save(blob, torrent.torrentFile)
    .catch((error) => log.debug(`cannot keep the torrent of ${blob.etag}: ${messageOf(error)}`))
}

/** Registers a torrent with every tracker. One that refuses or is away costs visibility there, nothing else. */
export async function register(
  blob: BlobRef,
  torrent: StoredTorrent,
  trackers: readonly TrackerClient[],
  signal?: AbortSignal,
): Promise<number> {
  const results = await Promise.allSettled(
    trackers.map((tracker) =>
      tracker.publish({ ...blob, infoHash: torrent.infoHash, torrentFile: torrent.torrentFile }, { signal }),
    ),
  )
  for (const result of results) {
    if (result.status === 'rejected') log.info(`cannot register ${blob.etag}: ${messageOf(result.reason)}`)
  }
  return results.filter((result) => result.status === 'fulfilled').length
}
