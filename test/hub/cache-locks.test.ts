import { existsSync } from 'node:fs'
import { lstat, mkdir, open, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { blobPath, blobsFolder, lockPath } from '../../src/hub/cache-layout.ts'
import {
  type CacheDeps,
  type FileLocks,
  linkSnapshot,
  openBlob,
  type Waiting,
} from '../../src/hub/cache-writer.ts'
import { claimPathOf } from '../../src/hub/partial-claim.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { errorOf, fakeLocks, hubFile, openForWriting, tiny } from './fixtures.ts'

const file = hubFile('a', 'hello')
const addonUrl = new URL('../../build/Release/llmpt_native.node', import.meta.url)
const addon: FileLocks | undefined = existsSync(addonUrl)
  ? createRequire(import.meta.url)(addonUrl.pathname)
  : undefined

/** Every look at a busy lock is one step of this clock, and calls back. */
function steppedClock(onStep: (step: number) => Promise<void> | void): CacheDeps & { steps: number } {
  const clock = {
    steps: 0,
    now: () => clock.steps * 1000,
    sleep: async (_ms: number, signal?: AbortSignal) => {
      clock.steps++
      await onStep(clock.steps)
      signal?.throwIfAborted()
    },
  }
  return clock
}

describe.each<[string, FileLocks | undefined]>([
  ['a fake lock', fakeLocks()],
  ['flock of the addon', addon],
])('with %s', (_, locks) => {
  const withLocks = test.skipIf(locks === undefined)
  const deps = { locks }

  withLocks(
    'the holder owns the resumable partial file, and the lock file is as Python leaves it',
    async () => {
      await using cache = await temporaryDirectory()
      const slot = await openForWriting(cache.path, file, deps)
      expect(slot.partialPath).toBe(`${blobPath(cache.path, tiny, file.etag)}.llmpt.incomplete`)
      expect(slot.isResumable).toBe(true)
      await writeFile(slot.partialPath, 'hel')
      await slot.release()
      const again = await openForWriting(cache.path, file, deps)
      expect(await readFile(again.partialPath, 'utf8')).toBe('hel')
      await writeFile(again.partialPath, 'hello')
      await again.commit()
      await linkSnapshot(cache.path, file)
      const lock = await lstat(lockPath(cache.path, tiny, file.etag))
      expect([lock.size, lock.mode & 0o777]).toEqual([0, 0o664])
      expect(await checkCacheContract(cache.path)).toEqual([])
    },
  )

  withLocks('a second writer waits, and gets the finished blob', async () => {
    await using cache = await temporaryDirectory()
    const first = await openForWriting(cache.path, file, deps)
    const waited: Waiting[] = []
    const clock = steppedClock(async (step) => {
      if (step === 3) {
        await writeFile(first.partialPath, 'hello')
        await first.commit()
      }
    })
    const onWaiting = (waiting: Waiting): unknown => waited.push(waiting)
    const second = await openBlob(cache.path, tiny, file, { ...clock, locks }, { onWaiting })
    expect(second).toEqual({ state: 'present', path: blobPath(cache.path, tiny, file.etag) })
    expect(waited.map(({ waitedMs }) => waitedMs)).toEqual([0, 1000, 2000])
    expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([file.etag])
  })

  withLocks('a blob that appears while the lock is still held is enough for those who wait', async () => {
    await using cache = await temporaryDirectory()
    await using _first = await openForWriting(cache.path, file, deps)
    const clock = steppedClock(async (step) => {
      if (step === 2) await writeFile(blobPath(cache.path, tiny, file.etag), 'hello')
    })
    expect((await openBlob(cache.path, tiny, file, { ...clock, locks })).state).toBe('present')
    expect(clockSteps(clock)).toBe(2)
  })

  withLocks('a second writer goes on where the first has given up', async () => {
    await using cache = await temporaryDirectory()
    const first = await openForWriting(cache.path, file, deps)
    await writeFile(first.partialPath, 'hel')
    const clock = steppedClock(async (step) => {
      if (step === 2) await first.release()
    })
    await using second = await openForWriting(cache.path, file, { ...clock, locks })
    expect(second.isResumable).toBe(true)
    expect(await readFile(second.partialPath, 'utf8')).toBe('hel')
  })

  withLocks('a holder that writes nothing is not waited for; one that writes is', async () => {
    await using cache = await temporaryDirectory()
    await using first = await openForWriting(cache.path, file, deps)
    let written = 0
    const clock = steppedClock(async (step) => {
      if (step <= 40) await writeFile(first.partialPath, 'x'.repeat(++written))
    })
    await using second = await openForWriting(cache.path, file, { ...clock, locks, stalledAfterMs: 15_000 })
    expect(second.isResumable).toBe(false)
    expect(second.partialPath).not.toBe(first.partialPath)
    expect([written, clockSteps(clock) >= 55, clockSteps(clock) < 60]).toEqual([40, true, true])
  })

  withLocks('touch keeps those waiting who cannot see bytes', async () => {
    await using cache = await temporaryDirectory()
    const first = await openForWriting(cache.path, file, deps)
    await writeFile(first.partialPath, 'hello')
    const clock = steppedClock(async (step) => {
      await utimes(first.partialPath, step, step)
      if (step < 30) return
      await first.touch()
      await first.commit()
    })
    const second = await openBlob(cache.path, tiny, file, { ...clock, locks, stalledAfterMs: 5000 })
    expect(second.state).toBe('present')
    expect(clockSteps(clock)).toBe(30)
  })

  withLocks("waiting ends with the signal's reason", async () => {
    await using cache = await temporaryDirectory()
    await using _first = await openForWriting(cache.path, file, deps)
    const controller = new AbortController()
    const reason = new Error('enough')
    const clock = steppedClock((step) => {
      if (step === 2) controller.abort(reason)
    })
    const pending = openBlob(cache.path, tiny, file, { ...clock, locks }, { signal: controller.signal })
    expect(await errorOf(pending)).toBe(reason)
  })

  withLocks('a lock file that was deleted while held is not mistaken for the lock', async () => {
    await using cache = await temporaryDirectory()
    await using first = await openForWriting(cache.path, file, deps)
    const path = lockPath(cache.path, tiny, file.etag)
    await rm(path)
    const clock = steppedClock(() => undefined)
    const locks2 = deletesOnce(path, locks)
    await using second = await openForWriting(cache.path, file, { ...clock, locks: locks2 })
    // Both could lock a file of that name, but the partial file has one owner.
    expect(first.isResumable).toBe(true)
    expect(second.isResumable).toBe(false)
    expect((await lstat(path)).isFile()).toBe(true)
  })

  withLocks('those who wait see how far the other is, holes of the file not counted', async () => {
    await using cache = await temporaryDirectory()
    const big = hubFile('big', Buffer.alloc(10_000_000))
    await using first = await openForWriting(cache.path, big, deps)
    const seen: (number | undefined)[] = []
    const clock = steppedClock(async (step) => {
      await using partial = await open(first.partialPath, 'a+')
      if (step === 1) await partial.truncate(10_000_000)
      else await partial.truncate(step === 2 ? 500_000 : 20_000_000)
      if (step >= 2) await writeFile(first.partialPath, Buffer.alloc(step === 2 ? 500_000 : 20_000_000, 1))
      if (step === 4) await first.release()
    })
    const onWaiting = ({ bytesSoFar }: Waiting): unknown => seen.push(bytesSoFar)
    await using _second = await openForWriting(cache.path, big, { ...clock, locks }, { onWaiting })
    expect(seen).toEqual([undefined, 0, 500_000, 10_000_000])
  })

  withLocks('whoever gives up waiting does so at once, and leaves nothing open', async () => {
    await using cache = await temporaryDirectory()
    await using _first = await openForWriting(cache.path, file, deps)
    const controller = new AbortController()
    const before = (await readdir('/proc/self/fd')).length
    // Whoever waited for the next look would wait for weeks.
    const sleep = (_ms: number, signal?: AbortSignal): Promise<void> =>
      delay(2 ** 31 - 1, undefined, { signal })
    const pending = errorOf(
      openBlob(
        cache.path,
        tiny,
        file,
        { ...deps, sleep },
        {
          signal: controller.signal,
          onWaiting: () => setImmediate(() => controller.abort(new Error('enough'))),
        },
      ),
    )
    expect((await pending).message).toBe('enough')
    // What an earlier test left to the collector may go meanwhile.
    expect((await readdir('/proc/self/fd')).length).toBeLessThanOrEqual(before)
  })

  withLocks('many at once: one writes, all get the blob', async () => {
    await using cache = await temporaryDirectory()
    let writers = 0
    const one = async (): Promise<string> => {
      const slot = await openBlob(cache.path, tiny, file, deps)
      if (slot.state === 'present') return slot.path
      writers++
      await writeFile(slot.partialPath, 'hello')
      return await slot.commit()
    }
    const paths = await Promise.all(Array.from({ length: 6 }, one))
    expect(new Set(paths).size).toBe(1)
    expect(writers).toBe(1)
    expect(await readFile(paths[0] ?? '', 'utf8')).toBe('hello')
  })
})

test('a file system without locks costs the resumption and nothing else', async () => {
  await using cache = await temporaryDirectory()
  const locks: FileLocks = {
    tryLock: () => {
      throw Object.assign(new Error('no locks available'), { code: 'ENOLCK' })
    },
    unlock: () => undefined,
  }
  const before = (await readdir('/proc/self/fd')).length
  await using slot = await openForWriting(cache.path, file, { locks })
  expect(slot.isResumable).toBe(false)
  expect(await readdir('/proc/self/fd')).toHaveLength(before)
})

test('where nothing can be put beside the lock, the lock is enough', async () => {
  await using cache = await temporaryDirectory()
  await mkdir(`${claimPathOf(lockPath(cache.path, tiny, file.etag))}/in-the-way`, { recursive: true })
  await using slot = await openForWriting(cache.path, file, { locks: fakeLocks(), stalledAfterMs: 500 })
  expect(slot.isResumable).toBe(true)
})

test('a link in place of the lock file is not followed', async () => {
  await using cache = await temporaryDirectory()
  await using outside = await temporaryDirectory()
  const victim = `${outside.path}/victim`
  await writeFile(victim, 'precious')
  const path = lockPath(cache.path, tiny, file.etag)
  await mkdir(dirname(path), { recursive: true })
  await symlink(victim, path)
  await using slot = await openForWriting(cache.path, file, { locks: fakeLocks() })
  expect(slot.isResumable).toBe(false)
  expect(await readFile(victim, 'utf8')).toBe('precious')
})

function clockSteps(clock: CacheDeps & { steps: number }): number {
  return clock.steps
}

/** Deletes the lock file right after the first lock on it was taken, as a cache cleaner would. */
function deletesOnce(path: string, locks: FileLocks | undefined): FileLocks {
  let isFirst = true
  return {
    tryLock(fd) {
      const taken = locks?.tryLock(fd) ?? false
      if (isFirst) createRequire(import.meta.url)('node:fs').rmSync(path)
      isFirst = false
      return taken
    },
    unlock: (fd) => locks?.unlock(fd),
  }
}
