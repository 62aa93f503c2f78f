/** The hash whose digest is an etag. */
import type { Hash } from 'node:crypto'
import type { digestOf } from '../values.ts'

/**
 * A hash to feed the content of a file with, from its first byte; in hex, its digest is the etag of that content.
 *
 * @param sizeBytes Of the whole content: git hashes a header before it that says so.
 * @see https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
 */
export function contentHash(digest: ReturnType<typeof digestOf>, sizeBytes: number): Hash {
  // Loaded when there is something to hash: the hook is in programs that have nothing else to do with it.
  const { createHash } = process.getBuiltinModule('node:crypto')
  return digest === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${sizeBytes}\0`)
}
