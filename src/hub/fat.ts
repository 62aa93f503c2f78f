/**
 * What a file system of the FAT family cannot hold. Memory sticks and cards have them, on every operating system; it is
 * better to hear of it before a download than after.
 */
import { lstat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CacheError } from '../errors.ts'

/** `f_type` of statfs(2), as Linux has it. Windows refuses such names itself. */
const fat = 0x4d44
const exfat = 0x2011bab0
/** Four gibibytes less one. */
const maxFatBytes = 0xffff_ffff
const refused = /["*:<>?\\|\p{Cc}]/u

/** @throws {CacheError} When the file system of `folder` is known to have no room for such a file, whatever is free. */
export async function checkFat(
  folder: string,
  file: { readonly path: string; readonly sizeBytes: number },
): Promise<void> {
  const isLarge = file.sizeBytes > maxFatBytes
  const isOddName = refused.test(file.path)
  if (!isLarge && !isOddName) return
  const type = await typeOf(folder)
  const next = 'use a folder on another one (HF_HUB_CACHE, or --cache-dir)'
  if (isLarge && type === fat) {
    throw new CacheError(
      `"${file.path}" has ${file.sizeBytes} bytes, and ${folder} is on a FAT file system, which ends at 4 GiB per file: ${next}`,
    )
  }
  if (isOddName && (type === fat || type === exfat)) {
    throw new CacheError(
      `${JSON.stringify(file.path)} cannot be a file's name on the FAT file system of ${folder}: ${next}`,
    )
  }
}

async function typeOf(folder: string): Promise<number | undefined> {
  let at = folder
  while (at !== dirname(at) && !(await lstat(at).catch(() => undefined))) at = dirname(at)
  return (await statfs(at).catch(() => undefined))?.type
}
