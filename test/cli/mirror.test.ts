import { realpath, writeFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { runCli } from './support.ts'

const files = { 'config.json': '{}', 'model.bin': { seed: 'mirrored', sizeBytes: 300_000 } }

test('download and verify --repair go to the mirrors that --mirror names while the Hub is out of order', async () => {
  await using home = await temporaryDirectory()
  await using hub = await startHub(files)
  await using broken = await startHub(files)
  await using mirror = await startHub(files)
  await hub.setAvailability('hub', 'refused')
  await broken.setAvailability('hub', 'refused')
  const where = { home: home.path, env: { HF_ENDPOINT: hub.url } }
  const mirrors = ['--mirror', broken.url, '--mirror', mirror.url]
  const { exitCode, lines } = await runCli(['download', 'acme/tiny', ...mirrors], where)
  expect([exitCode, lines.length]).toEqual([0, 1])
  const model = await realpath(`${lines[0]}/model.bin`)
  expect(await sha256Of(model)).toBe(hub.file('model.bin').sha256)
  await writeFile(model, 'what a disk makes of it')
  const verified = await runCli(['verify', 'acme/tiny', '--repair', ...mirrors], where)
  expect(verified.exitCode).toBe(0)
  expect(await sha256Of(model)).toBe(hub.file('model.bin').sha256)
})

test('a mirror that is no address is wrong use', async () => {
  const { exitCode, stderr } = await runCli(['download', 'acme/tiny', '--mirror', 'm.example'])
  expect(exitCode).toBe(2)
  expect(stderr).toContain('--mirror')
})
