/** Many things at once, and not too many. */

/**
 * Runs `work` for every item, at most `limit` at a time, in order. The first failure stops new work, waits for
 * what is under way, and is thrown.
 */
export async function forEachBounded<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]()
  await workTogether(Math.min(limit, items.length), () => queue, work)
}

/** The same, but every second worker begins at the end of the items and goes backwards. */
export async function forEachFromBothEnds<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let [first, end] = [0, items.length]
  const forward = (function* (): Generator<T> {
    while (first < end) yield items[first++] as T
  })()
  const backward = (function* (): Generator<T> {
    while (first < end) yield items[--end] as T
  })()
  await workTogether(Math.min(limit, items.length), (worker) => (worker % 2 === 0 ? forward : backward), work)
}

async function workTogether<T>(
  workers: number,
  queueOf: (worker: number) => Iterator<T>,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let failure: { error: unknown } | undefined
  const run = async (_: unknown, worker: number): Promise<void> => {
    const queue = queueOf(worker)
    // Not `for … of`: who leaves such a loop ends the queue for all.
    for (let next = queue.next(); !next.done; next = queue.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failure ??= { error }
      }
      if (failure !== undefined) return
    }
  }
  await Promise.all(Array.from({ length: workers }, run))
  if (failure !== undefined) throw failure.error
}
