/**
 * Removes what crashed and cancelled downloads left behind and nobody will finish. Runs in the background, once per
 * folder and process; nothing waits for it, and its failures do not matter.
 *
 * Removed are only regular files with names of ours. `<etag>.incomplete` belongs to other clients. Lock files
 * stay: somebody may have opened one and be about to lock it.
 */
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { log, messageOf } from '../log.ts'
import { claimPathOf } from './partial-claim.ts'
import { type CacheDeps, takeLock } from './partial-file.ts'

/**
 * A partial file that can be resumed is removed when nobody has written to it for this long, and a damaged one this
 * long after it was set aside: 7 days, in ms.
 */
export const resumableKeptMs: number = 7 * 24 * 60 * 60 * 1000
/** One with a unique name, which nobody resumes, is removed after this long: 1 day, in ms. */
export const uniqueKeptMs: number = 24 * 60 * 60 * 1000

/** `blobs/<etag>.llmpt.incomplete`, and the same behind the hash of a name in a local folder. */
const resumable = /^(?:[\w-]{27}=\.)?(?:[0-9a-f]{40}|[0-9a-f]{64})\.llmpt\.incomplete$/
/** A blob with the wrong content, as `damaged-blob.ts` sets it aside. */
const damaged = /^(?:[0-9a-f]{40}|[0-9a-f]{64})\.llmpt\.damaged$/
const unique = /^(?:[\w-]{27}=\.)?(?:[0-9a-f]{40}|[0-9a-f]{64})\.[0-9a-f]{8}\.incomplete$/
const temporary = /^\.llmpt-[0-9a-f]{8}\.tmp$/

/** What a sweep needs to know. */
export interface SweepOptions extends Pick<CacheDeps, 'locks' | 'now' | 'onSwept'> {
  /** Path of the lock of a partial file by the file's name; `undefined` when it cannot be told. */
  readonly lockPathOf: (name: string) => string | undefined | Promise<string | undefined>
}

const swept = new Set<string>()

/** Sweeps `folder` in the background, the first time in this process that it is asked to. */
export function sweepInBackground(folder: string, options: SweepOptions): void {
  if (swept.has(folder)) return
  swept.add(folder)
  sweepPartials(folder, options).catch((error: unknown) => {
    log.debug(`${folder} was not tidied: ${messageOf(error)}`)
  })
}

/** Removes the forgotten partial files of `folder` and returns their paths. */
export async function sweepPartials(folder: string, options: SweepOptions): Promise<string[]> {
  const gone: string[] = []
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    if (!(await isForgotten(path, name, options)) || !(await removeUnused(path, name, options))) continue
    gone.push(path)
    await options.onSwept?.(path)
  }
  return gone
}

async function isForgotten(path: string, name: string, options: SweepOptions): Promise<boolean> {
  const isKeptLong = resumable.test(name) || damaged.test(name)
  const keptMs = isKeptLong
    ? resumableKeptMs
    : unique.test(name) || temporary.test(name)
      ? uniqueKeptMs
      : undefined
  if (keptMs === undefined) return false
  const found = await lstat(path).catch(() => undefined)
  // A link on its way to its name is a temporary file of ours, too.
  const isOurs = found?.isFile() === true || (found?.isSymbolicLink() === true && temporary.test(name))
  return isOurs && (options.now ?? Date.now)() - found.mtimeMs > keptMs
}

/** Removes `path` unless somebody works on it, which is what its lock tells. */
async function removeUnused(path: string, name: string, options: SweepOptions): Promise<boolean> {
  const lockPath = temporary.test(name) ? undefined : await options.lockPathOf(name)
  const lock = lockPath && options.locks && (await takeLock(lockPath, options.locks))
  if (typeof lock === 'string') return false
  if (lockPath === undefined || lock === undefined) {
    // Its owner may be waiting for days, and come back for it. A damaged one is nobody's.
    return !resumable.test(name) && (await remove(path))
  }
  try {
    // It may have been resumed, and given up again, before we had the lock.
    if (!(await isForgotten(path, name, options)) || !(await remove(path))) return false
    if (resumable.test(name)) await rm(claimPathOf(lockPath), { force: true }).catch(() => undefined)
    return true
  } finally {
    await lock.release()
  }
}

async function remove(path: string): Promise<boolean> {
  return await rm(path, { force: true }).then(
    () => true,
    () => false,
  )
}
