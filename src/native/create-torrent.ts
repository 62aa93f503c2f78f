/** Torrents of one file, hashed on threads of their own. What goes into a torrent is decided in `torrent/create.ts`. */
import type { NativeAddon, NativeCreatedTorrent, NativeCreateTorrentOptions } from './binding.ts'
import { type JobOptions, runJob } from './native-job.ts'

/**
 * A torrent of the file at `options.path`, and the digests asked for, from reading it once. Equal content, name, piece
 * length and format give an equal info hash. Files wait for their turn: an environment hashes only as many at a time as
 * the machine has cores (at least 4).
 *
 * @param job `onProgress` hears of hashed and total pieces.
 * @throws {NativeError} When the file cannot be read, is empty, or changes its size or its time of
 * modification meanwhile.
 * @throws {TypeError | RangeError} For options that make no torrent.
 * @throws The signal's reason.
 */
export function createTorrent(
  addon: NativeAddon,
  options: NativeCreateTorrentOptions,
  job: JobOptions = {},
): Promise<NativeCreatedTorrent> {
  return runJob((onProgress) => addon.createTorrent(options, onProgress), job)
}
