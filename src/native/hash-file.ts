/** Digests of whole files, computed on threads of their own. */
import type { NativeAddon, NativeHashedFile } from './binding.ts'
import { type JobOptions, runJob } from './native-job.ts'

export interface WantedDigests {
  readonly sha256: boolean
  readonly gitSha1: boolean
  /** At most so many; a digest cannot be divided, so more than one per digest are of no use. @defaultValue 1 */
  readonly threads?: number
}

/**
 * The size of the file at `path` and the digests asked for, all from reading it once. Files wait for their turn: an
 * environment hashes only as many at a time as the machine has cores (at least 4, at most 32).
 *
 * @param job `onProgress` hears of hashed and total bytes.
 * @throws {NativeError} When the file cannot be read, or changes its size or its time of modification meanwhile.
 * @throws The signal's reason.
 */
export function hashFile(
  addon: NativeAddon,
  path: string,
  digests: WantedDigests,
  job: JobOptions = {},
): Promise<NativeHashedFile> {
  return runJob((onProgress) => addon.hashFile(path, digests, onProgress), job)
}
