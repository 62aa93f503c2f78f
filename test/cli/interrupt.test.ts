import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { untilAborted } from '../../src/cli/interrupt.ts'

/** A command that never gets done with stopping. */
const stubbornFor = (graceMs: string) => `
  const { Interrupt } = await import(${JSON.stringify(new URL('../../dist/cli/interrupt.js', import.meta.url).href)})
  const { signal } = new Interrupt(${graceMs})
  signal.addEventListener('abort', () => console.log(signal.reason.message))
  setInterval(() => {}, 1000)
  console.log('up')
`

test.each(['SIGINT', 'SIGTERM'] as const)(
  'the first %s asks to stop, the second one ends at once',
  async (name) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', stubbornFor('')])
    const ended = once(child, 'close')
    try {
      const said = async (): Promise<string> =>
        String(((await once(child.stdout, 'data')) as [Buffer])[0]).trim()
      expect(await said()).toBe('up')
      child.kill(name)
      expect(await said()).toBe(`stopped by ${name}`)
      child.kill(name)
      expect(await ended).toEqual([130, null])
    } finally {
      child.kill('SIGKILL')
      await ended
    }
  },
)

test('a clean-up that does not end is ended by force', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', stubbornFor('100')])
  const ended = once(child, 'close')
  try {
    await once(child.stdout, 'data')
    child.kill('SIGTERM')
    expect(await ended).toEqual([130, null])
  } finally {
    child.kill('SIGKILL')
    await ended
  }
})

test('waiting ends when the signal aborts, also when it has before, and when the time is up', async () => {
  const controller = new AbortController()
  const waiting = untilAborted(controller.signal)
  controller.abort()
  await waiting
  await untilAborted(controller.signal)
  await untilAborted(new AbortController().signal, 1)
})
