/** Digests of whole files, computed on a thread of their own. */
import type { NativeAddon, NativeFileDigests } from './binding.ts'
import { type JobOptions, runJob } from './native-job.ts'

/**
 * The size of the file at `path` and the digests asked for, all from one pass.
 *
 * @param job `onProgress` hears of hashed and total bytes.
 * @throws {NativeError} When the file cannot be read, or changes its size meanwhile.
 * @throws The signal's reason.
 */
export function hashFile(
  addon: NativeAddon,
  path: string,
  digests: { readonly sha256: boolean; readonly gitSha1: boolean },
  job: JobOptions = {},
): Promise<NativeFileDigests> {
  return runJob((onProgress) => addon.hashFile(path, digests, onProgress), job)
}
