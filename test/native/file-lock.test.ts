import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { tryLock, unlock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

/** What huggingface_hub does through its `filelock`: holds the lock until its stdin ends, and says so. */
const python = `
import fcntl, sys
file = open(sys.argv[1], 'w')
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print('taken', flush=True)
else:
    print('held', flush=True)
    sys.stdin.read()
`

interface Holder extends AsyncDisposable {
  readonly says: string
}

async function startPython(path: string): Promise<Holder> {
  const child = spawn('/usr/bin/python3', ['-c', python, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exit = once(child, 'exit')
  const [says] = (await once(createInterface(child.stdout), 'line')) as [string]
  return {
    says,
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await exit
    },
  }
}

test('a lock that Python holds is not to be had, and one of ours is not for Python', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'lock')
  const addon = requireAddon()
  await using file = await open(path, 'w')
  {
    await using holder = await startPython(path)
    expect(holder.says).toBe('held')
    expect(tryLock(addon, file.fd)).toBe(false)
  }
  expect(tryLock(addon, file.fd)).toBe(true)
  {
    await using loser = await startPython(path)
    expect(loser.says).toBe('taken')
  }
  unlock(addon, file.fd)
  await using winner = await startPython(path)
  expect(winner.says).toBe('held')
})

test('two descriptors of one process exclude each other, and closing gives the lock back', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'lock')
  const addon = requireAddon()
  const first = await open(path, 'w')
  await using second = await open(path, 'w')
  expect(tryLock(addon, first.fd)).toBe(true)
  expect(tryLock(addon, first.fd)).toBe(true)
  expect(tryLock(addon, second.fd)).toBe(false)
  await first.close()
  expect(tryLock(addon, second.fd)).toBe(true)
})

test('a descriptor that is not open is a NativeError, and one that is none a RangeError or TypeError', () => {
  const addon = requireAddon()
  const refusal = expect.objectContaining({
    name: 'NativeError',
    operation: 'tryLock',
    category: 'system',
    value: 9,
  })
  expect(() => tryLock(addon, 1_000_000)).toThrow(refusal)
  expect(() => unlock(addon, 1_000_000)).toThrow(expect.objectContaining({ operation: 'unlock' }))
  expect(() => tryLock(addon, -1)).toThrow(RangeError)
  expect(() => tryLock(addon, '1' as unknown as number)).toThrow(TypeError)
})
