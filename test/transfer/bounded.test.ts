import { describe, expect, test } from 'vitest'
import { forEachBounded, forEachFromBothEnds } from '../../src/transfer/bounded.ts'

test('never runs more than the limit at once, and runs everything', async () => {
  let now = 0
  let most = 0
  const seen: number[] = []
  await forEachBounded([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    now += 1
    most = Math.max(most, now)
    await new Promise((resolve) => setImmediate(resolve))
    seen.push(item)
    now -= 1
  })
  expect(most).toBe(3)
  expect(seen.sort()).toEqual([1, 2, 3, 4, 5, 6, 7])
})

test('the first failure is thrown after what was under way has ended, and nothing new starts', async () => {
  const started: number[] = []
  const ended: number[] = []
  const work = forEachBounded([1, 2, 3, 4], 2, async (item) => {
    started.push(item)
    await new Promise((resolve) => setImmediate(resolve))
    if (item === 1) throw new Error('first')
    ended.push(item)
  })
  await expect(work).rejects.toThrow('first')
  expect(started).toEqual([1, 2])
  expect(ended).toEqual([2])
})

describe('forEachFromBothEnds', () => {
  test('begins at both ends and meets in the middle, with each item done once', async () => {
    const started: number[] = []
    await forEachFromBothEnds([1, 2, 3, 4, 5, 6, 7], 2, async (item) => {
      started.push(item)
      await new Promise((resolve) => setImmediate(resolve))
    })
    expect(started).toEqual([1, 7, 2, 6, 3, 5, 4])
  })

  test('a worker that is held up leaves the rest to the others', async () => {
    let release = (): void => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const done: number[] = []
    await forEachFromBothEnds([1, 2, 3, 4, 5], 2, async (item) => {
      if (item === 1) await held
      else await new Promise((resolve) => setImmediate(resolve))
      done.push(item)
      if (done.length === 4) release()
    })
    expect(done).toEqual([5, 4, 3, 2, 1])
  })

  test('one worker goes from the first to the last', async () => {
    const done: number[] = []
    await forEachFromBothEnds([1, 2, 3], 1, async (item) => void done.push(item))
    expect(done).toEqual([1, 2, 3])
  })

  test('the first failure is thrown, and nothing new starts', async () => {
    const started: number[] = []
    const work = forEachFromBothEnds([1, 2, 3, 4], 2, async (item) => {
      started.push(item)
      if (item === 4) throw new Error('first')
      await new Promise((resolve) => setImmediate(resolve))
    })
    await expect(work).rejects.toThrow('first')
    expect(started).toEqual([1, 4])
  })
})
