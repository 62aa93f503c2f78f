/** Digests for comparing files: vitest's deep equality takes seconds per megabyte. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'

export async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
