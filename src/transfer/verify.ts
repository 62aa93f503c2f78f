/** Whether a file is what the Hub says it is. The last gate before the cache: nothing passes it on anyone's word. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { NativeAddon } from '../native/binding.ts'
import { hashFile } from '../native/hash-file.ts'
import { type BlobRef, digestOf } from '../values.ts'

/** Below this, starting a native thread costs more than hashing. */
const inProcessBytes = 1024 * 1024

export interface VerifyOptions {
  /** Hashes off the JS thread; without it, Node's own crypto does. */
  readonly addon?: NativeAddon | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Whether the file at `path` has the size and the digest that `blob` promises.
 *
 * @throws The file system's error when it cannot be read; the signal's reason.
 */
export async function isBlob(path: string, blob: BlobRef, options: VerifyOptions = {}): Promise<boolean> {
  const { size } = await stat(path)
  if (size !== blob.sizeBytes) return false
  const digest = digestOf(blob.etag)
  if (options.addon === undefined || size < inProcessBytes) {
    return (await hashWithNode(path, digest, size, options.signal)) === blob.etag
  }
  const wanted = { sha256: digest === 'sha256', gitSha1: digest === 'git-sha1' }
  const found = await hashFile(options.addon, path, wanted, { signal: options.signal })
  return (digest === 'sha256' ? found.sha256 : found.gitSha1) === blob.etag
}

async function hashWithNode(
  path: string,
  digest: 'sha256' | 'git-sha1',
  sizeBytes: number,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash(digest === 'sha256' ? 'sha256' : 'sha1')
  // git hashes a header before the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
  if (digest === 'git-sha1') hash.update(`blob ${sizeBytes}\0`)
  for await (const chunk of createReadStream(path, {
    highWaterMark: inProcessBytes,
    ...(signal && { signal }),
  })) {
    hash.update(chunk as Buffer)
  }
  return hash.digest('hex')
}
