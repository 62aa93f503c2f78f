/**
 * Who writes to a partial file, for file systems whose locks lie: on some network mounts everybody gets the lock.
 * Two writers of one file would be worse than wasted bandwidth, because one of them may publish it while the other
 * still writes bytes that nobody has verified. So the holder of the lock also puts a claim beside it: a file
 * created exclusively, which network file systems do right, and kept fresh while its owner lives.
 */
import { randomUUID } from 'node:crypto'
import { lstat, readFile, rm, unlink, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'

/** A claim whose owner has not refreshed it for this long is worth nothing, in ms. */
const staleAfterMs = 30_000
const refreshEveryMs = 5_000

/** Gives a claim up. Idempotent; does not throw. */
export type GiveUpClaim = () => Promise<void>

/** The claims of this process. */
const ours = new Set<string>()

/** Where the claim that goes with a lock is. Beside the lock: clients ignore what they do not know there. */
export function claimPathOf(lockPath: string): string {
  return `${lockPath}.llmpt`
}

/**
 * Claims the partial file that goes with `lockPath`; the caller has the lock.
 *
 * @param isCertain Whether the lock is known to work: then whatever claim is there was left by the dead.
 * @returns `undefined` when somebody else who lives has it: the lock lies.
 */
export async function claimPartial(
  lockPath: string,
  options: { isCertain: boolean },
): Promise<GiveUpClaim | undefined> {
  const path = claimPathOf(lockPath)
  const id = randomUUID()
  if (options.isCertain) await rm(path, { force: true })
  // Twice: the claim of somebody who died is removed once.
  for (let attempt = 0; attempt < 2; attempt++) {
    if (await create(path, `${hostname()}\n${process.pid}\n${id}\n`)) return hold(path, id)
    if (await isHeld(path)) return undefined
    await rm(path, { force: true })
  }
  return undefined
}

async function create(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

function hold(path: string, id: string): GiveUpClaim {
  ours.add(id)
  const timer = setInterval(() => {
    const now = new Date()
    utimes(path, now, now).catch(() => undefined)
  }, refreshEveryMs)
  timer.unref()
  let given: Promise<void> | undefined
  const giveUp = async (): Promise<void> => {
    clearInterval(timer)
    ours.delete(id)
    const text = await readFile(path, 'utf8').catch(() => '')
    // Whoever thought us dead has put a claim of their own there.
    if (text.includes(id)) await unlink(path).catch(() => undefined)
  }
  return () => (given ??= giveUp())
}

async function isHeld(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  if (found === undefined) return false
  // By the real clock on both sides: file systems know no other. One that lies in the future is no older than now.
  if (Date.now() - found.mtimeMs > staleAfterMs) return false
  if (!found.isFile()) return false
  const [host, pid, id] = (await readFile(path, 'utf8').catch(() => '')).split('\n')
  // Created, and not written yet.
  if (!id) return true
  if (host !== hostname()) return true
  if (Number(pid) !== process.pid) return isAlive(Number(pid))
  // Ours, or a worker thread's; or that of a process before us with the same number, as containers have them.
  return ours.has(id) || found.mtimeMs > Date.now() - process.uptime() * 1000
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
