import { getEventListeners } from 'node:events'
import { describe, expect, test } from 'vitest'
import { unlessAborted } from '../src/abort.ts'

const never = new Promise<never>(() => {})

describe('waiting unless a signal aborts', () => {
  test('ends with what the promise brings, and leaves no listener behind', async () => {
    const { signal } = new AbortController()
    await expect(unlessAborted(Promise.resolve(7), signal)).resolves.toBe(7)
    await expect(unlessAborted(Promise.reject(new Error('no')), signal)).rejects.toThrow('no')
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test("ends with the signal's reason as soon as it aborts", async () => {
    const controller = new AbortController()
    const waiting = unlessAborted(never, controller.signal)
    controller.abort('enough')
    await expect(waiting).rejects.toBe('enough')
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
  })

  test('does not begin under a signal that has aborted, even when the promise is settled', async () => {
    await expect(unlessAborted(Promise.resolve(7), AbortSignal.abort('late'))).rejects.toBe('late')
  })

  test('ends with the promise when there is no signal', async () => {
    await expect(unlessAborted(Promise.resolve(7), undefined)).resolves.toBe(7)
  })
})
