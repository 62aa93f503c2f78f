import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { type Cli, runCli } from './support.ts'

function stateOf(cli: Cli, check: string): unknown {
  const checks = cli.events('doctor')[0]?.['checks'] as { check: string; state: string }[] | undefined
  return checks?.find((each) => each.check === check)?.state
}

test('where all is well, every line says ok', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  const env = { HF_ENDPOINT: hub.url, HF_P2P_TRACKER: tracker.url }
  const { exitCode, lines } = await runCli(['doctor', '--listen', '127.0.0.1:0'], { home: temp.path, env })
  expect(exitCode).toBe(0)
  const words = lines
    .filter((line) => !line.startsWith(' '))
    .map((line) => line.split(/\s+/).slice(0, 2).join(' '))
  const checks = ['Node', 'addon', 'cache', 'links', 'locks', 'listen', 'token', 'Hub', 'tracker']
  expect(words.map((word) => word.replace('warn cache', 'ok cache'))).toEqual(
    checks.map((check) => `ok ${check}`),
  )
})

test('what is away is a warning with advice, and the token is never shown', async () => {
  await using temp = await temporaryDirectory()
  const env = {
    HF_ENDPOINT: 'http://127.0.0.1:1',
    HF_P2P_TRACKER: 'http://127.0.0.1:1',
    HF_TOKEN: 'hf_verysecret',
    LLMPT_NATIVE_ADDON: '/nonexistent.node',
  }
  const cli = await runCli(['doctor', '--json'], { home: temp.path, env })
  expect(cli.exitCode).toBe(0)
  const checks = ['addon', 'locks', 'listen', 'Hub', 'tracker']
  expect(checks.map((check) => stateOf(cli, check))).toEqual(checks.map(() => 'warn'))
  expect(cli.stdout + cli.stderr).not.toContain('verysecret')
})

test('a cache that cannot be written to is a failure', async () => {
  await using temp = await temporaryDirectory()
  const inTheWay = join(temp.path, 'file')
  await writeFile(inTheWay, '')
  const cli = await runCli(['doctor', '--cache-dir', join(inTheWay, 'hub'), '--json'], { home: temp.path })
  expect([cli.exitCode, stateOf(cli, 'cache')]).toEqual([1, 'fail'])
})
