import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { Cli, type CliOptions, runCli } from './support.ts'

const files = {
  'config.json': '{}',
  'model.bin': { content: { seed: 'seed', sizeBytes: 3_000_000 }, storage: 'lfs' },
} as const

function userOf(hub: HubServer, home: string, token?: string): CliOptions {
  return { home, env: { HF_ENDPOINT: hub.url, ...(token !== undefined && { HF_TOKEN: token }) } }
}

test('what was downloaded earlier is given to others, until a signal', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  const swarm = ['--tracker', tracker.url, '--listen', '127.0.0.1:0', '--json']
  const [first, second] = [join(temp.path, 'first'), join(temp.path, 'second')]
  expect((await runCli(['download', 'acme/tiny'], userOf(hub, first))).exitCode).toBe(0)
  await using seeding = new Cli(['seed', 'acme/tiny@main', ...swarm], userOf(hub, first))
  await seeding.event('seeding', 2)
  await hub.setAvailability('cdn', 'refused')
  const got = await runCli(['download', 'acme/tiny', 'model.bin', ...swarm], userOf(hub, second))
  expect(got.events('done')[0]).toMatchObject({ bytes: { p2p: 3_000_000, http: 0 } })
  seeding.kill('SIGINT')
  expect(await seeding.ended()).toBe(0)
})

test('a blob that is not what its name says is not seeded', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  const options = userOf(hub, temp.path)
  const cli = await runCli(['download', 'acme/tiny', 'model.bin', '--json'], options)
  await writeFile(cli.events('done')[0]?.['path'] as string, Buffer.alloc(3_000_000))
  const args = ['seed', '--all', '--tracker', tracker.url, '--listen', '127.0.0.1:0', '--for', '1s', '--json']
  const seeding = await runCli(args, options)
  expect(seeding.exitCode).toBe(1)
  expect([seeding.events('seeding').length, seeding.events('seed-failed').length]).toEqual([0, 1])
})

test('what not everybody may see is not seeded, and it says so', async () => {
  await using temp = await temporaryDirectory()
  const tokens = { hf_demo: ['acme/secret'] }
  await using hub = await startHub([{ repo: 'acme/secret', files, isPrivate: true }], { tokens })
  const options = userOf(hub, temp.path, 'hf_demo')
  expect((await runCli(['download', 'acme/secret'], options)).exitCode).toBe(0)
  const cli = await runCli(['seed', '--all', '--tracker', 'http://127.0.0.1:1', '--json'], options)
  expect(cli.exitCode).toBe(1)
  expect(cli.events().map(({ event }) => event)).toEqual(['skipped', 'error'])
  expect(cli.events('skipped')[0]).toMatchObject({
    repo: 'acme/secret',
    reason: expect.stringContaining('not everybody'),
  })
})

test('a Hub that does not answer is no permission', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const options = userOf(hub, temp.path)
  expect((await runCli(['download', 'acme/tiny'], options)).exitCode).toBe(0)
  await hub.setAvailability('hub', 'refused')
  const cli = await runCli(['seed', 'acme/tiny', '--tracker', 'http://127.0.0.1:1', '--json'], options)
  expect(cli.exitCode).toBe(1)
  expect(cli.events('skipped')).toEqual([
    expect.objectContaining({ reason: expect.stringContaining('does not answer') }),
  ])
})

test('a repository that is not in the cache is an error that says what to do', async () => {
  await using temp = await temporaryDirectory()
  const { exitCode, stderr } = await runCli(['seed', 'acme/none', '--tracker', 'http://127.0.0.1:1'], {
    home: temp.path,
  })
  expect(exitCode).toBe(1)
  expect(stderr).toContain('"llmpt download"')
})
