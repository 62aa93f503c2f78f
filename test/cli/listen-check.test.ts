import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { movedPort } from '../../src/cli/listen-check.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { runCli } from './support.ts'

const at = (host: string, port: number) => ({ host, port })

test.each([
  [['127.0.0.1:0'], [at('127.0.0.1', 4000)], undefined],
  [['127.0.0.1:4000'], [at('127.0.0.1', 4000)], undefined],
  [['0.0.0.0:4000', '[::]:4000'], [at('10.0.0.1', 4000), at('::1', 4000)], undefined],
  [['127.0.0.1:4000'], [], undefined],
  [['127.0.0.1:4000'], [at('127.0.0.1', 4001)], 'port 4000 is taken; listening on 4001 instead'],
  [
    ['0.0.0.0:4000', '[::]:4002'],
    [at('10.0.0.1', 4000), at('::1', 4003)],
    'port 4002 is taken; listening on 4003 instead',
  ],
])('asked for %j, got %j', (asked, actual, words) => {
  expect(movedPort(asked, actual)).toBe(words)
})

test('the doctor warns of a port that is taken', async () => {
  await using temp = await temporaryDirectory()
  await using taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const args = ['doctor', '--listen', `127.0.0.1:${port}`]
  const env = { HF_ENDPOINT: 'http://127.0.0.1:1' }
  const { stdout } = await runCli(args, { home: temp.path, env })
  expect(stdout).toMatch(new RegExp(`^warn  listen   port ${port} is taken; listening on \\d+ instead$`, 'm'))
})
