/** The digests of a download, computed while it arrives: they are ready a moment after its last byte. */
import type { Hash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, read } from 'node:fs'
import { promisify } from 'node:util'
import { NativeError } from '../errors.ts'
import { contentHash } from '../hub/content-hash.ts'
import type { NativeAddon } from '../native/binding.ts'
import { FileDigest, type FileDigestOptions, type FollowedDigests } from '../native/file-digest.ts'
import { asInfoHash, type InfoHash } from '../values.ts'

export type { FileDigestOptions } from '../native/file-digest.ts'

export interface PrefixDigests {
  /** 64 hex digits, if asked for. */
  readonly sha256?: string
  /** 40 hex digits, if asked for: git's blob SHA-1. */
  readonly gitSha1?: string
  /** If asked for, the complete v2 `.torrent`; absent without the addon, and for an empty file. */
  readonly torrentFile?: Uint8Array
  /** Comes with `torrentFile`. */
  readonly infoHash?: InfoHash
}

/** A file that is hashed from its beginning, as far as it is final. */
export interface PrefixDigest {
  /**
   * Says that the bytes `[0, endBytes)` have been written and will not be written again. Cheap. The first call opens
   * the file, which may be renamed afterwards.
   *
   * @throws {RangeError} When `endBytes` is below an earlier one, or above the file's size.
   */
  advance(endBytes: number): void
  /** How many bytes from the beginning are in the digests, or were read on their way into them. */
  readonly hashedBytes: number
  /**
   * Settles when the whole file was hashed; for an empty one at once. Nobody needs to listen, and it does not keep
   * the process alive. Rejects with a `NativeError` when the file cannot be read, is a symbolic link, has another
   * length in the end, or when this was closed before.
   */
  readonly finished: Promise<PrefixDigests>
  /** Gives up what has not finished. Idempotent. */
  close(): void
}

/**
 * Hashes the file at `path` while it grows, off the JS thread. Without the addon Node's own crypto does it in steps of
 * 1 MiB, and there is no torrent. Either holds a descriptor until it has finished: close what will not.
 *
 * @throws {TypeError | RangeError} For a size that is none, or options that make no torrent.
 */
export function followDigest(
  addon: NativeAddon | undefined,
  path: string,
  options: FileDigestOptions,
): PrefixDigest {
  return addon === undefined ? new NodeDigest(path, options) : new AddonDigest(addon, path, options)
}

class AddonDigest implements PrefixDigest {
  readonly finished: Promise<PrefixDigests>
  readonly #digest: FileDigest

  constructor(addon: NativeAddon, path: string, options: FileDigestOptions) {
    this.#digest = new FileDigest(addon, path, options)
    this.finished = this.#digest.finished.then(toDigests)
    this.finished.catch(() => {})
  }

  get hashedBytes(): number {
    return this.#digest.hashedBytes
  }

  advance(endBytes: number): void {
    this.#digest.advance(endBytes)
  }

  close(): void {
    this.#digest.close()
  }
}

function toDigests({ sizeBytes: _, infoHashV2, ...digests }: FollowedDigests): PrefixDigests {
  const infoHash = asInfoHash(infoHashV2 ?? '')
  return { ...digests, ...(infoHash && { infoHash }) }
}

const operation = 'fileDigest'
const stepBytes = 1024 * 1024
const readAsync = promisify(read)

/** The same with Node's own crypto. At most one step is under way, and it owns the descriptor meanwhile. */
class NodeDigest implements PrefixDigest {
  readonly finished: Promise<PrefixDigests>
  readonly #path: string
  readonly #sizeBytes: number
  readonly #sha256: Hash | undefined
  readonly #gitSha1: Hash | undefined
  #fd: number | undefined
  #buffer: Buffer | undefined
  #endBytes = 0
  #hashedBytes = 0
  #isHashing = false
  #isOver = false
  #resolve!: (digests: PrefixDigests) => void
  #reject!: (error: unknown) => void

  constructor(path: string, options: FileDigestOptions) {
    const { sizeBytes } = options
    requireWithin('sizeBytes', sizeBytes, 0, Number.MAX_SAFE_INTEGER)
    this.#path = path
    this.#sizeBytes = sizeBytes
    this.#sha256 = options.sha256 ? contentHash('sha256', sizeBytes) : undefined
    this.#gitSha1 = options.gitSha1 ? contentHash('git-sha1', sizeBytes) : undefined
    this.finished = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.finished.catch(() => {})
    if (sizeBytes === 0) this.#finish()
  }

  get hashedBytes(): number {
    return this.#hashedBytes
  }

  advance(endBytes: number): void {
    requireWithin('endBytes', endBytes, this.#endBytes, this.#sizeBytes)
    this.#endBytes = endBytes
    if (this.#isOver || !this.#open() || this.#isHashing) return
    this.#isHashing = true
    void this.#hash()
  }

  close(): void {
    if (this.#isOver) return
    this.#isOver = true
    if (!this.#isHashing) this.#fail(this.#cancelled())
  }

  /** At once, not in a while: the file may get another name as soon as `advance` has returned. */
  #open(): boolean {
    try {
      // O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
      this.#fd ??= openSync(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      return true
    } catch (error) {
      this.#fail(error)
      return false
    }
  }

  async #hash(): Promise<void> {
    try {
      while (!this.#isOver && this.#hashedBytes < this.#endBytes) await this.#step()
      this.#isHashing = false
      if (this.#isOver) this.#fail(this.#cancelled())
      else if (this.#hashedBytes === this.#sizeBytes) this.#finish()
    } catch (error) {
      this.#isHashing = false
      this.#fail(error)
    }
  }

  async #step(): Promise<void> {
    const length = Math.min(stepBytes, this.#endBytes - this.#hashedBytes)
    this.#buffer ??= Buffer.allocUnsafeSlow(Math.min(stepBytes, this.#sizeBytes))
    const { bytesRead } = await readAsync(this.#fd as number, this.#buffer, 0, length, this.#hashedBytes)
    if (bytesRead === 0) throw this.#wrongSize()
    const bytes = this.#buffer.subarray(0, bytesRead)
    this.#sha256?.update(bytes)
    this.#gitSha1?.update(bytes)
    this.#hashedBytes += bytesRead
  }

  #finish(): void {
    // The digests of a part are not those of the file, and what was cut off may come back different.
    if (this.#fd !== undefined && fstatSync(this.#fd).size !== this.#sizeBytes) throw this.#wrongSize()
    this.#release()
    const sha256 = this.#sha256?.digest('hex')
    const gitSha1 = this.#gitSha1?.digest('hex')
    this.#resolve({
      ...(sha256 !== undefined && { sha256 }),
      ...(gitSha1 !== undefined && { gitSha1 }),
    })
  }

  #fail(error: unknown): void {
    this.#release()
    this.#reject(error instanceof NativeError ? error : this.#systemError(error as NodeJS.ErrnoException))
  }

  #release(): void {
    this.#isOver = true
    this.#buffer = undefined
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  #cancelled(): NativeError {
    return this.#error('Operation canceled', 'generic', 125)
  }

  /** libtorrent's own words and number, as the addon gives them. */
  #wrongSize(): NativeError {
    return this.#error('mismatching file size', 'libtorrent', 134)
  }

  #systemError(cause: NodeJS.ErrnoException): NativeError {
    return this.#error(cause.message, 'system', -(cause.errno ?? 0), { cause })
  }

  #error(message: string, category: string, value: number, options?: ErrorOptions): NativeError {
    const text = `${operation}: ${message} (${this.#path})`
    return new NativeError(text, { operation, category, value }, options)
  }
}

function requireWithin(what: string, value: number, lowest: number, highest: number): void {
  if (Number.isInteger(value) && value >= lowest && value <= highest) return
  throw new RangeError(`${what} must be an integer from ${lowest} to ${highest}`)
}
