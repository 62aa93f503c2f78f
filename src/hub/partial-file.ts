/**
 * A file on its way into a shared folder. States: waiting for another holder of the lock, then `present` (somebody
 * finished it) or `write`; from `write` exactly one of commit, discard (the bytes are worthless) or release (keep
 * them for later) ends it.
 *
 * The holder of the lock owns the partial file and may resume it. Whoever has no lock writes to a unique name: the
 * rename is atomic, and content is verified before it. A lock that lies (network file systems) is noticed by the
 * claim beside it (`partial-claim.ts`), and its second holder waits like everybody else.
 */
import { constants, type Stats } from 'node:fs'
import {
  chmod,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  stat,
  utimes,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { CacheError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import { asCacheError, clearUnsafePartial, inFolder, uniquePart } from './cache-files.ts'
import { isFileOfSize } from './cache-layout.ts'
import { claimPartial, claimPathOf, type GiveUpClaim } from './partial-claim.ts'

/** `flock(2)` on an open descriptor, as the native addon has it. */
export interface FileLocks {
  /** `false` when another holder has it. @throws when the file system knows no locks */
  tryLock(fd: number): boolean
  unlock(fd: number): void
}

/** What the cache needs from above; all of it optional. */
export interface CacheDeps {
  /** Without it nothing is locked and nothing resumed across processes. */
  readonly locks?: FileLocks | undefined
  /** Moves a finished file to its final name. @defaultValue `fs.rename` */
  readonly rename?: ((from: string, to: string) => Promise<void>) | undefined
  /** `false`: no links in snapshots, as `HF_HUB_DISABLE_SYMLINKS=1` asks for. @defaultValue whether they work there */
  readonly symlinks?: boolean | undefined
  /** Between looks at a lock that somebody else has. */
  readonly sleep?: ((ms: number, signal?: AbortSignal) => Promise<unknown>) | undefined
  /** Ms since 1970. */
  readonly now?: (() => number) | undefined
  /** A holder of the lock that writes nothing for this long is not waited for. @defaultValue 15_000 */
  readonly stalledAfterMs?: number | undefined
  /**
   * Told about every partial file that was removed because nobody would have finished it (`partial-sweep.ts`), so
   * that what belongs to it can go as well.
   */
  readonly onSwept?: ((partialPath: string) => void | Promise<void>) | undefined
}

/** How far somebody else is with what we wait for. */
export interface Waiting {
  readonly waitedMs: number
  /** What the other has on disk, in bytes, or `undefined` while there is nothing. An estimate: partial files have holes. */
  readonly bytesSoFar: number | undefined
}

/** What counts as there, and how to wait for a lock that somebody else has. */
export interface OpenOptions {
  readonly signal?: AbortSignal | undefined
  /** What is there does not count: it is written anew, and replaced when that is finished. @defaultValue false */
  readonly anew?: boolean | undefined
  /** Called at every look at a lock that somebody else has. */
  readonly onWaiting?: ((waiting: Waiting) => void) | undefined
}

/** Somebody finished it: nothing to do. */
export interface PresentFile {
  readonly state: 'present'
  readonly path: string
}

/** The names a file has on its way. */
export interface PartialPlan {
  readonly finalPath: string
  readonly lockPath: string
  /** Name of the partial file for the holder of the lock. */
  readonly lockedPath: string
  /** Name of the partial file without a lock, made from eight unique hex digits. */
  readonly uniquePath: (unique: string) => string
  readonly sizeBytes: number
  /** For messages. */
  readonly folder: string
  /** Path of what we want, when it is there. @defaultValue `finalPath`, when it has the right size */
  readonly findPresent?: (() => Promise<string | undefined>) | undefined
  /** What belongs to the final name, while the lock is still ours. */
  readonly onPublished?: (() => Promise<void>) | undefined
}

const pollMs = 100

/** Takes the lock, or waits until the file is there. All folders exist. @throws {CacheError} */
export async function openPartial(
  plan: PartialPlan,
  deps: CacheDeps = {},
  options: OpenOptions = {},
): Promise<PresentFile | PartialFile> {
  return await inFolder(plan.folder, async () => {
    const findPresent = async (): Promise<PresentFile | undefined> => {
      const path = options.anew === true ? undefined : await find(plan)
      return path === undefined ? undefined : { state: 'present', path }
    }
    const present = await findPresent()
    if (present !== undefined) {
      await removeLeftover(plan, deps)
      return present
    }
    const lock = deps.locks ? await waitForLock(plan, deps.locks, deps, options, findPresent) : undefined
    if (lock !== undefined && 'state' in lock) return lock
    try {
      // Somebody may have finished it between our look and our lock.
      const finished = lock && (await findPresent())
      if (finished !== undefined) {
        await removePartial(plan, deps)
        await lock?.release()
        return finished
      }
      const partialPath = lock ? plan.lockedPath : plan.uniquePath(uniquePart())
      const isStarted = await clearUnsafePartial(partialPath)
      return new PartialFile(plan, { partialPath, isStarted, lock, rename: deps.rename ?? rename })
    } catch (error) {
      await lock?.release()
      throw error
    }
  })
}

/** What we had of a file that another client finished: nobody will go on with it. Whoever has the lock still does. */
async function removeLeftover(plan: PartialPlan, deps: CacheDeps): Promise<void> {
  if (deps.locks === undefined) return
  const isLeft = (await isThere(plan.lockedPath)) || (await isThere(claimPathOf(plan.lockPath)))
  const owned = isLeft ? await tryToOwn(plan.lockPath, deps.locks) : undefined
  if (owned === undefined || owned === 'busy') return
  await removePartial(plan, deps)
  await owned.release()
}

/** The lock is ours. Failing to is no error: the sweep comes by some day. */
async function removePartial(plan: PartialPlan, deps: CacheDeps): Promise<void> {
  try {
    await rm(plan.lockedPath, { force: true })
    await deps.onSwept?.(plan.lockedPath)
  } catch (error) {
    log.debug(`${plan.lockedPath} stays behind: ${messageOf(error)}`)
  }
}

async function find(plan: PartialPlan): Promise<string | undefined> {
  if (plan.findPresent !== undefined) return await plan.findPresent()
  return (await isFileOfSize(plan.finalPath, plan.sizeBytes)) ? plan.finalPath : undefined
}

/** The right to write one file. Exactly one of `commit`, `discard` and `release` ends it. */
export class PartialFile implements AsyncDisposable {
  readonly state = 'write'
  /** Where to write: beside the final name. May hold bytes of an earlier try when `isResumable`. */
  readonly partialPath: string
  /** Whether the partial file is ours by the lock and outlives `release`; then its journal counts too. */
  readonly isResumable: boolean
  /** Whether an earlier try left something at `partialPath`. */
  readonly isStarted: boolean
  readonly #plan: PartialPlan
  readonly #lock: HeldLock | undefined
  readonly #rename: (from: string, to: string) => Promise<void>
  #ended: Promise<unknown> | undefined

  constructor(
    plan: PartialPlan,
    opened: {
      readonly partialPath: string
      readonly isStarted: boolean
      readonly lock: HeldLock | undefined
      readonly rename: (from: string, to: string) => Promise<void>
    },
  ) {
    this.#plan = plan
    this.partialPath = opened.partialPath
    this.isStarted = opened.isStarted
    this.isResumable = opened.lock !== undefined
    this.#lock = opened.lock
    this.#rename = opened.rename
  }

  /**
   * Gives the verified file its final name and the mode of a fresh file, and ends this. An empty file needs no
   * partial file. On failure the partial file stays and this is still open.
   *
   * @returns the final path
   * @throws {CacheError} also when the partial file has not the size that was promised
   */
  async commit(): Promise<string> {
    if (this.#ended !== undefined) throw new TypeError('this partial file has ended')
    const { finalPath, folder } = this.#plan
    await inFolder(folder, async () => {
      await this.#publish()
      await this.#plan.onPublished?.()
    })
    await this.#end(async () => undefined)
    return finalPath
  }

  /**
   * Tells those who wait for the lock that this is alive, while nothing is written for some seconds: during a long
   * verification, for instance.
   */
  async touch(): Promise<void> {
    const now = new Date()
    await utimes(this.partialPath, now, now).catch(() => undefined)
  }

  /** Deletes the partial file and ends this. Idempotent. */
  async discard(): Promise<void> {
    await this.#end(() => rm(this.partialPath, { force: true }))
  }

  /** Ends this; a resumable partial file stays for the next holder of the lock, any other goes. Idempotent. */
  async release(): Promise<void> {
    await this.#end(async () => {
      if (!this.isResumable) await rm(this.partialPath, { force: true })
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #publish(): Promise<void> {
    const { sizeBytes, finalPath } = this.#plan
    if (sizeBytes === 0) await (await open(this.partialPath, 'w')).close()
    const found = await lstat(this.partialPath)
    if (!found.isFile() || found.size !== sizeBytes) {
      throw new CacheError(
        `${this.partialPath} has ${found.size} bytes instead of ${sizeBytes}: nothing was kept of it`,
      )
    }
    const mode = 0o666 & ~process.umask()
    if ((found.mode & 0o7777) !== mode) {
      await chmod(this.partialPath, mode).catch((error: unknown) => {
        log.debug(`the mode of ${this.partialPath} stays as it is: ${messageOf(error)}`)
      })
    }
    try {
      await this.#rename(this.partialPath, finalPath)
    } catch (error) {
      // Windows does not replace a file that somebody has open; the same content is already there.
      if (!(await isFileOfSize(finalPath, sizeBytes)) || (await isThere(this.partialPath)) === false)
        throw error
      await rm(this.partialPath, { force: true })
    }
  }

  async #end(last: () => Promise<void>): Promise<void> {
    this.#ended ??= last().finally(() => this.#lock?.release())
    await this.#ended
  }
}

/** A lock we have, on the file that is still at its path. */
export interface HeldLock {
  release(): Promise<void>
}

/** `replaced`: locked, but by now another file has its name. `undefined`: no locks there. */
export type Taken = HeldLock | 'busy' | 'replaced' | undefined

/** `undefined` means: do without. */
async function waitForLock(
  plan: PartialPlan,
  locks: FileLocks,
  deps: CacheDeps,
  options: OpenOptions,
  findPresent: () => Promise<PresentFile | undefined>,
): Promise<HeldLock | PresentFile | undefined> {
  const now = deps.now ?? Date.now
  const sleep = deps.sleep ?? ((ms, signal) => delay(ms, undefined, signal ? { signal } : {}))
  const since = now()
  let progress = ''
  let progressAt = since
  let lockWorks = false
  for (;;) {
    options.signal?.throwIfAborted()
    const taken = await takeLock(plan.lockPath, locks)
    if (taken === undefined) return undefined
    const owned = typeof taken === 'string' ? undefined : await claimed(taken, plan.lockPath, lockWorks)
    if (owned !== undefined) return owned
    if (taken === 'busy') lockWorks = true
    const present = await findPresent()
    if (present !== undefined) return present
    const seen = await progressOf(plan)
    options.onWaiting?.({ waitedMs: now() - since, bytesSoFar: seen.bytes })
    if (seen.state !== progress) {
      progress = seen.state
      progressAt = now()
    } else if (now() - progressAt > (deps.stalledAfterMs ?? 15_000)) {
      log.info(`another process holds ${plan.lockPath} and writes nothing: not waiting for it`)
      return undefined
    }
    try {
      await sleep(pollMs, options.signal)
    } catch (error) {
      options.signal?.throwIfAborted()
      throw error
    }
  }
}

/**
 * The right to change what `lockPath` guards, without waiting: `busy` when somebody else is at work there, and
 * `undefined` where there are no locks.
 */
export async function tryToOwn(
  lockPath: string,
  locks: FileLocks | undefined,
): Promise<HeldLock | 'busy' | undefined> {
  const taken = locks && (await takeLock(lockPath, locks))
  if (taken === undefined) return undefined
  if (typeof taken === 'string') return 'busy'
  // Whose claim is alive works on the file, whatever the lock says.
  return (await claimed(taken, lockPath, false)) ?? 'busy'
}

/** The lock together with the claim on its partial file; `undefined`, without the lock, when another has the claim. */
async function claimed(lock: HeldLock, lockPath: string, lockWorks: boolean): Promise<HeldLock | undefined> {
  let giveUp: GiveUpClaim | undefined
  try {
    giveUp = await claimPartial(lockPath, { isCertain: lockWorks })
  } catch (error) {
    // Where no file can be made beside the lock there is nothing but the lock to believe in.
    log.debug(`no claim beside ${lockPath}: ${messageOf(error)}`)
    return lock
  }
  if (giveUp === undefined) {
    log.info(`the lock ${lockPath} does not keep others out, and somebody else is at work`)
    await lock.release()
    return undefined
  }
  return { release: () => giveUp().finally(() => lock.release()) }
}

/** One try, as Python's filelock does it, so that either client respects the other. */
export async function takeLock(path: string, locks: FileLocks): Promise<Taken> {
  let opened: LockFile | undefined
  try {
    opened = await openLockFile(path)
    const { file } = opened
    if (!locks.tryLock(file.fd)) {
      await file.close()
      return 'busy'
    }
    // Whoever tidied the cache may have deleted the file we were about to lock: then others lock another one.
    const [held, named] = await Promise.all([file.stat(), stat(path).catch(() => undefined)])
    if (named?.ino === held.ino && named.dev === held.dev) return heldLock(file, locks)
    await file.close()
    return 'replaced'
  } catch (error) {
    await opened?.file.close().catch(() => undefined)
    // Where there are no locks Python takes a file's mere existence for one, and would wait for ever.
    if (opened?.isNew) await rm(path, { force: true }).catch(() => undefined)
    log.debug(`going on without the lock ${path}: ${messageOf(asCacheError(error, dirname(path)))}`)
    return undefined
  }
}

interface LockFile {
  readonly file: FileHandle
  /** Whether it was not there before. */
  readonly isNew: boolean
}

async function openLockFile(path: string): Promise<LockFile> {
  const opened = await openOrMake(path).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    await mkdir(dirname(path), { recursive: true })
    return await openOrMake(path)
  })
  await opened.file.chmod(0o664).catch(() => undefined)
  return opened
}

async function openOrMake(path: string): Promise<LockFile> {
  // Not truncated: where there are no locks, whose lock it is stands in it.
  const flags = constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0)
  return await open(path, flags | constants.O_EXCL, 0o664).then(
    (file) => ({ file, isNew: true }),
    async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
      return { file: await open(path, flags, 0o664), isNew: false }
    },
  )
}

function heldLock(file: FileHandle, locks: FileLocks): HeldLock {
  let released: Promise<void> | undefined
  const release = async (): Promise<void> => {
    try {
      locks.unlock(file.fd)
    } finally {
      await file.close()
    }
  }
  return { release: () => (released ??= release()) }
}

/**
 * What there is of a partial file of the same content, whichever client writes it: `state` changes as long as
 * somebody does.
 */
async function progressOf(plan: PartialPlan): Promise<{ state: string; bytes: number | undefined }> {
  const folder = dirname(plan.lockedPath)
  const prefix = basename(plan.lockedPath).replace(/llmpt\.incomplete$/, '')
  const names = await readdir(folder).catch(() => [])
  const parts: string[] = []
  let latest: Stats | undefined
  for (const name of names) {
    if (!name.startsWith(prefix) || !name.endsWith('.incomplete')) continue
    const found = await lstat(join(folder, name)).catch(() => undefined)
    if (!found?.isFile()) continue
    parts.push(`${name} ${found.size} ${found.blocks} ${found.mtimeMs}`)
    // Those of the dead are older than the one that grows.
    if (latest === undefined || found.mtimeMs > latest.mtimeMs) latest = found
  }
  const bytes = latest && Math.min(plan.sizeBytes, latest.size, latest.blocks * 512)
  return { state: parts.join('\n'), bytes }
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}
