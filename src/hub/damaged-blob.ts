/**
 * A blob whose content is not what its name promises leaves the place where clients look for it, by a rename, and stays
 * beside it under a name that nobody asks for, until a repair or a later check finds the right content in its place, or
 * until it is swept after some days. Its snapshot links then lead to nothing, which every client takes for "not there:
 * download it".
 */
import type { Stats } from 'node:fs'
import { lstat, rename, rm, utimes } from 'node:fs/promises'
import { dirname } from 'node:path'
import { log, messageOf } from '../log.ts'
import type { Etag, RepoRef } from '../values.ts'
import { makeFolderBelow } from './cache-files.ts'
import { damagedBlobPath, isReachedWithoutLinks, lockPath, repoFolder } from './cache-layout.ts'
import { type FileLocks, tryToOwn } from './partial-file.ts'

/** What was looked at, so that nothing else is moved in its place. */
export type SeenFile = Pick<Stats, 'dev' | 'ino' | 'size' | 'mtimeMs'>

/** Whether nobody has replaced or written the file since. */
export function isSameFile(one: SeenFile, other: SeenFile | undefined): boolean {
  const keys = ['dev', 'ino', 'size', 'mtimeMs'] as const
  return other !== undefined && keys.every((key) => one[key] === other[key])
}

/** A content of a repository. */
export interface BlobPlace {
  readonly cacheDir: string
  readonly repo: RepoRef
  readonly etag: Etag
}

/**
 * Runs `work` while nobody else writes this content, or answers `busy` at once. Where there are no locks it just runs,
 * and is told that it has none.
 */
export async function whileOwning<T>(
  place: BlobPlace,
  locks: FileLocks | undefined,
  work: (hasLock: boolean) => Promise<T>,
): Promise<T | 'busy'> {
  const owned = await tryToOwn(lockPath(place.cacheDir, place.repo, place.etag), locks)
  if (owned === 'busy') return 'busy'
  try {
    return await work(owned !== undefined)
  } finally {
    await owned?.release()
  }
}

/** Where a damaged file went; `busy`: somebody is writing this content; `changed`: it is not the file that was seen. */
export type SetAside = { readonly movedTo: string } | 'busy' | 'changed'

/**
 * Moves the file at `path`, a blob or a copy in a snapshot, out of every client's way. One that is reached through a link
 * by now is not moved: it may be anybody's. That narrows what somebody else who can write to the cache may do, and no
 * more: between the look and the rename there is still a moment.
 *
 * @param seen The file whose content was found wrong.
 * @throws The file system's error.
 */
export async function setAside(
  place: BlobPlace,
  path: string,
  seen: SeenFile,
  locks: FileLocks | undefined,
): Promise<SetAside> {
  return await whileOwning(place, locks, async () => {
    const isInPlace = await isReachedWithoutLinks(place.cacheDir, path).catch(() => false)
    if (!isInPlace || !isSameFile(seen, await lstat(path).catch(() => undefined))) return 'changed'
    const movedTo = damagedBlobPath(place.cacheDir, place.repo, place.etag)
    await makeFolderBelow(repoFolder(place.cacheDir, place.repo), dirname(movedTo))
    await rename(path, movedTo)
    // From now on the sweep counts.
    const now = new Date()
    await utimes(movedTo, now, now).catch((error) =>
      log.debug(`${movedTo} keeps its time: ${messageOf(error)}`),
    )
    return { movedTo }
  })
}

/** Removes what was set aside, once the right content is there. Failing to is no error: the sweep comes by some day. */
export async function removeDamaged(place: BlobPlace, locks: FileLocks | undefined): Promise<void> {
  const path = damagedBlobPath(place.cacheDir, place.repo, place.etag)
  if (!(await lstat(path).catch(() => undefined))?.isFile()) return
  await whileOwning(place, locks, () => rm(path, { force: true })).catch((error) =>
    log.debug(`${path} stays behind: ${messageOf(error)}`),
  )
}
