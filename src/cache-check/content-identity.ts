/** Which etag the content of a file has. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { contentHash } from '../hub/content-hash.ts'
import type { NativeAddon } from '../native/binding.ts'
import { hashFile } from '../native/hash-file.ts'
import type { digestOf, Etag } from '../values.ts'

/** Below this, starting a native thread costs more than hashing. */
const inProcessBytes = 1024 * 1024

export interface IdentifyOptions {
  /** Hashes off the JS thread; without it, Node's own crypto does. */
  readonly addon?: NativeAddon | undefined
  readonly signal?: AbortSignal | undefined
  /** Hears of hashed bytes. */
  readonly onProgress?: ((hashedBytes: number) => void) | undefined
}

/** What a file turned out to be. */
export interface ContentIdentity {
  /** The etag that the content has. */
  readonly etag: Etag
  readonly sizeBytes: number
}

/**
 * The size and the digest of the regular file at `path`.
 *
 * @throws The file system's error, or a NativeError, when it cannot be read or has another length in the end; the
 *   signal's reason.
 */
export async function identifyContent(
  path: string,
  digest: ReturnType<typeof digestOf>,
  options: IdentifyOptions = {},
): Promise<ContentIdentity> {
  const { addon, signal, onProgress } = options
  signal?.throwIfAborted()
  // O_NONBLOCK: opening a FIFO must fail below, not wait for a writer.
  await using file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  const found = await file.stat()
  if (!found.isFile()) throw Object.assign(new Error(`${path} is no regular file`), { code: 'EINVAL' })
  if (addon !== undefined && found.size >= inProcessBytes) {
    const wanted = { sha256: digest === 'sha256', gitSha1: digest === 'git-sha1' }
    const { sizeBytes, ...hashed } = await hashFile(addon, path, wanted, { signal, onProgress })
    return { etag: (digest === 'sha256' ? hashed.sha256 : hashed.gitSha1) as Etag, sizeBytes }
  }
  const hash = contentHash(digest, found.size)
  const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(inProcessBytes, found.size)))
  for (let at = 0; at < found.size; ) {
    signal?.throwIfAborted()
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, found.size - at), at)
    if (bytesRead === 0) throw changed(path)
    hash.update(buffer.subarray(0, bytesRead))
    at += bytesRead
    onProgress?.(at)
  }
  if ((await file.stat()).size !== found.size) throw changed(path)
  return { etag: hash.digest('hex') as Etag, sizeBytes: found.size }
}

function changed(path: string): Error {
  return Object.assign(new Error(`${path} changes while it is read`), { code: 'EBUSY' })
}
