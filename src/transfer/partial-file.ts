/** The private file a download grows in, beside its blob. Written at offsets, by us or by libtorrent. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CacheError } from '../errors.ts'
import { asCacheError } from '../hub/cache-files.ts'

export class PartialFile implements AsyncDisposable {
  readonly path: string
  readonly #handle: FileHandle

  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  /** Opens or creates the file; `keep` goes on with what it holds. @throws {CacheError} */
  static async open(path: string, keep: boolean): Promise<PartialFile> {
    try {
      const flags =
        constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0) | (keep ? 0 : constants.O_TRUNC)
      return new PartialFile(path, await open(path, flags, 0o666))
    } catch (error) {
      throw asCacheError(error, dirname(path))
    }
  }

  /** Writes `chunks` one after the other from `offset`. @throws {CacheError} */
  async write(offset: number, ...chunks: Uint8Array[]): Promise<void> {
    try {
      let at = offset
      let left = chunks
      while (left.length > 0) {
        const { bytesWritten } = await this.#handle.writev(left, at)
        at += bytesWritten
        left = withoutFirst(left, bytesWritten)
      }
    } catch (error) {
      throw asCacheError(error, dirname(this.path))
    }
  }

  /** Exactly `length` bytes from `offset`. @throws {CacheError} When the file is shorter. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length)
    let filled = 0
    while (filled < length) {
      const { bytesRead } = await this.#handle.read(bytes, filled, length - filled, offset + filled)
      if (bytesRead === 0)
        throw new CacheError(`${this.path} ends at ${offset + filled}, before byte ${offset + length}`)
      filled += bytesRead
    }
    return bytes
  }

  async sizeBytes(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#handle.close()
  }
}

/** What is left of `chunks` after their first `bytes`. */
function withoutFirst(chunks: Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes
  const left: Uint8Array[] = []
  for (const chunk of chunks) {
    if (skip >= chunk.length) skip -= chunk.length
    else {
      left.push(skip === 0 ? chunk : chunk.subarray(skip))
      skip = 0
    }
  }
  return left
}
