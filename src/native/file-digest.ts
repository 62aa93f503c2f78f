/** The digests of a file that is still being written, computed on a thread of their own as the file grows. */
import type {
  NativeAddon,
  NativeFileDigest,
  NativeFileDigestOptions,
  NativeFollowedDigests,
} from './binding.ts'
import { asNativeError, callNative, callSite } from './native-error.ts'

export type FileDigestOptions = NativeFileDigestOptions
export type FollowedDigests = NativeFollowedDigests

/**
 * Follows a file as far as it is final, and reads each byte once. A moment after the last byte the digests are there,
 * and, if asked for, the file's torrent.
 *
 * It holds the descriptor from the first `advance` until it has finished, and one buffer of 1 MiB at most. Nothing of
 * it keeps the process alive. Collected before the whole file is final, it is closed.
 */
export class FileDigest implements Disposable {
  /**
   * Settles when all `sizeBytes` were hashed; for an empty file at once. Nobody needs to listen.
   *
   * Rejects with a `NativeError` when the file cannot be read, is a symbolic link, ends too early, is longer than
   * `sizeBytes` in the end, or when this was closed before.
   */
  readonly finished: Promise<FollowedDigests>
  readonly #native: NativeFileDigest

  /**
   * @param path Need not exist before the first `advance`, and may be renamed after it.
   * @throws {TypeError | RangeError} For a size that is none, or options that make no torrent.
   * @throws {NativeError} When no torrent has that many pieces.
   */
  constructor(addon: NativeAddon, path: string, options: FileDigestOptions) {
    const site = callSite(callSite)
    this.#native = callNative(() => new addon.FileDigest(path, options))
    this.finished = this.#native.finished.catch((error: unknown) => {
      throw asNativeError(error, site)
    })
    this.finished.catch(() => {})
  }

  /** How many bytes from the beginning are in the digests, or were read on their way into them. */
  get hashedBytes(): number {
    return this.#native.hashedBytes
  }

  /** How many bytes were read from the file. */
  get readBytes(): number {
    return this.#native.readBytes
  }

  /**
   * Says that the bytes `[0, endBytes)` have been written and will not be written again. Cheap.
   *
   * @throws {RangeError} When `endBytes` is below an earlier one, or above `sizeBytes`.
   */
  advance(endBytes: number): void {
    this.#native.advance(endBytes)
  }

  /** Gives up what has not finished: `finished` rejects when nothing reads the file any more. Idempotent. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
