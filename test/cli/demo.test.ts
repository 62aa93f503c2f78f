import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { temporaryDirectory } from '../support/temp-dir.ts'

const demo = fileURLToPath(new URL('../../dist/demo/main.js', import.meta.url))

interface Run {
  readonly child: ChildProcess
  stdout: string
  stderr: string
}

function startDemo(temp: string, ...args: string[]): Run {
  const child = spawn(process.execPath, [demo, ...args], { env: { ...process.env, TMPDIR: temp } })
  const run = { child, stdout: '', stderr: '' }
  child.stdout.on('data', (text) => (run.stdout += text))
  child.stderr.on('data', (text) => (run.stderr += text))
  return run
}

test('the second user gets the whole model from the first, and one line of JSON says so', async () => {
  await using temp = await temporaryDirectory()
  const run = startDemo(temp.path, '--json', '--size', '5MB')
  const [code] = (await once(run.child, 'close')) as [number]
  expect([code, run.stdout.split('\n').length], run.stderr).toEqual([0, 2])
  expect(JSON.parse(run.stdout)).toMatchObject({
    event: 'demo',
    ok: true,
    first: { p2pBytes: 0, httpBytes: 5_000_000, storageBytes: 5_000_000, wrongFiles: [] },
    second: { p2pBytes: 5_000_000, httpBytes: 0, storageBytes: 0, wrongFiles: [] },
    problems: [],
  })
  expect(await readdir(temp.path)).toEqual([])
})

test('Ctrl-C ends it with all its processes and files', async () => {
  await using temp = await temporaryDirectory()
  const run = startDemo(temp.path, '--size', '400MB')
  await new Promise<void>((resolve) => {
    run.child.stdout?.on('data', () => run.stdout.includes('Ada: ') && resolve())
  })
  run.child.kill('SIGINT')
  const [code] = (await once(run.child, 'close')) as [number]
  expect([code, await readdir(temp.path)]).toEqual([130, []])
  // test/support/setup-env.ts fails this file if a process is left.
})
