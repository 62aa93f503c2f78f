import { lstat, open, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { Client } from '../../src/client.ts'
import { getConfig } from '../../src/config.ts'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { blobPath, lockPath } from '../../src/hub/cache-layout.ts'
import { tryLock } from '../../src/native/file-lock.ts'
import { requireAddon } from '../../src/native/load.ts'
import { flipBit, knowTorrent } from '../cache-check/fixtures.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { Cli, type CliOptions, runCli } from './support.ts'

const pieceLength = 256 * 1024
const modelBytes = 6_000_000
const files = {
  'config.json': '{"hidden_size": 64}',
  'model.bin': { content: { seed: 'cli', sizeBytes: modelBytes }, storage: 'lfs' },
} as const

interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly home: string
  readonly user: CliOptions
  blob(name: string): string
}

/** Somebody who has downloaded the repository. */
async function downloaded(): Promise<Scene> {
  const temp = await temporaryDirectory()
  const hub = await startHub(files)
  const user = { home: temp.path, env: { HF_ENDPOINT: hub.url } }
  const config = getConfig({ endpoint: hub.url, seed: false }, { HF_HOME: temp.path })
  await using client = new Client(config)
  await client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
  hub.resetStats()
  return {
    hub,
    home: temp.path,
    user,
    blob: (name) => blobPath(join(temp.path, 'hub'), hub.file(name), hub.file(name).etag),
    [Symbol.asyncDispose]: async () => {
      await hub.close()
      await temp[Symbol.asyncDispose]()
    },
  }
}

test('a right cache ends with 0 and a line that counts, and says nothing to programs', async () => {
  await using scene = await downloaded()
  const { exitCode, stdout, stderr } = await runCli(['verify'], scene.user)
  expect([exitCode, stdout]).toEqual([0, ''])
  expect(stderr).toMatch(/^Checked 2 files, 5\.72 MiB, in [\d.]+ s: 2 right\.\n$/)
})

test('a wrong blob ends with 1: its path is on stdout, and people are told where it is and what to do', async () => {
  await using scene = await downloaded()
  await flipBit(scene.blob('model.bin'), 3_000_000)
  const { exitCode, lines, stderr } = await runCli(['verify', 'acme/tiny'], scene.user)
  expect([exitCode, lines]).toEqual([1, [scene.blob('model.bin')]])
  expect(stderr).toContain(
    `WRONG: acme/tiny/model.bin: its content is not what its name promises; moved to ${scene.blob('model.bin')}.llmpt.damaged\n`,
  )
  expect(stderr).toMatch(/: 1 right, 1 wrong\.$/m)
  expect(stderr).toContain('Run it again with --repair, or download the repository again.')
  // What it says is so.
  const again = await runCli(['download', 'acme/tiny', 'model.bin', '--quiet'], scene.user)
  expect(await sha256Of(again.lines[0] as string)).toBe(scene.hub.file('model.bin').sha256)
})

test('--repair ends with 0, and the Hub is asked for the pieces that were hit', async () => {
  await using scene = await downloaded()
  await knowTorrent(join(scene.home, 'llmpt'), scene.hub.file('model.bin'))
  for (const piece of [2, 20]) await flipBit(scene.blob('model.bin'), piece * pieceLength + 77)
  const { exitCode, stdout, stderr } = await runCli(['verify', '--repair'], scene.user)
  expect([exitCode, stdout]).toEqual([0, ''])
  expect(stderr).toContain('repaired: acme/tiny/model.bin: 2 pieces wrong; fetched 512 KiB\n')
  expect(scene.hub.stats('cdn').bytesSent).toBe(2 * pieceLength)
  expect(await sha256Of(scene.blob('model.bin'))).toBe(scene.hub.file('model.bin').sha256)
})

test('with --json each file is an event, and so is the end', async () => {
  await using scene = await downloaded()
  await flipBit(scene.blob('config.json'), 3)
  await writeFile(join(dirname(scene.blob('config.json')), 'odd'), '')
  const cli = await runCli(['verify', '--json'], scene.user)
  expect([cli.exitCode, cli.stderr]).toEqual([1, ''])
  const events = cli.events('file')
  expect(events).toHaveLength(3)
  const { etag } = scene.hub.file('config.json')
  expect(events.find(({ verdict }) => verdict === 'wrong')).toEqual({
    event: 'file',
    verdict: 'wrong',
    path: scene.blob('config.json'),
    repo: 'acme/tiny',
    repoType: 'model',
    etag,
    size: 19,
    names: ['config.json'],
    reason: 'its content is not what its name promises',
    movedTo: `${scene.blob('config.json')}.llmpt.damaged`,
  })
  expect(cli.events('progress').at(-1)).toMatchObject({ files: { done: 2, total: 2 } })
  expect(cli.events('done')).toEqual([
    {
      event: 'done',
      right: 1,
      wrong: 1,
      missing: 0,
      repaired: 0,
      unchecked: 1,
      sizeBytes: modelBytes + 19,
      elapsedMs: expect.any(Number),
      isSound: false,
    },
  ])
})

test('what cannot be checked is said, and is nothing wrong', async () => {
  await using scene = await downloaded()
  await writeFile(join(dirname(scene.blob('config.json')), 'odd\u001b[31m'), '')
  const { exitCode, stdout, stderr } = await runCli(['verify'], scene.user)
  expect([exitCode, stdout]).toEqual([0, ''])
  expect(stderr).toMatch(/^cannot be checked: .*odd\ufffd\[31m: its name is no digest$/m)
  expect(stderr).toMatch(/: 2 right, 1 cannot be checked\.$/m)
})

test('a wrong blob that another process is writing is left alone, with a message and 1', async () => {
  await using scene = await downloaded()
  await flipBit(scene.blob('model.bin'), 0)
  const { etag } = scene.hub.file('model.bin')
  const path = lockPath(join(scene.home, 'hub'), { repoType: 'model', repo: 'acme/tiny' }, etag)
  await using lock = await open(path, 'w')
  expect(tryLock(requireAddon(), lock.fd)).toBe(true)
  const { exitCode, stderr } = await runCli(['verify', '--repair'], scene.user)
  expect(exitCode).toBe(1)
  expect(stderr).toContain('another process is at work on it: look again later')
  expect((await lstat(scene.blob('model.bin'))).size).toBe(modelBytes)
})

test('without the addon it finds and repairs the same, by whole files', async () => {
  await using scene = await downloaded()
  await knowTorrent(join(scene.home, 'llmpt'), scene.hub.file('model.bin'))
  for (const name of ['model.bin', 'config.json']) await flipBit(scene.blob(name), 5)
  const user = { ...scene.user, env: { ...scene.user.env, LLMPT_NATIVE_ADDON: '/nonexistent.node' } }
  const cli = await runCli(['verify', '--repair'], user)
  expect([cli.exitCode, cli.stdout]).toEqual([0, ''])
  expect(cli.stderr).toMatch(/: 0 right, 2 repaired\.$/m)
  expect(scene.hub.stats('cdn').bytesSent).toBe(modelBytes)
  expect(await sha256Of(scene.blob('model.bin'))).toBe(scene.hub.file('model.bin').sha256)
})

test('Ctrl-C in the middle of a huge file ends it, and nothing is taken for wrong', async () => {
  await using scene = await downloaded()
  const huge = join(dirname(scene.blob('model.bin')), 'b'.repeat(64))
  await writeFile(huge, '')
  await truncate(huge, 2 ** 40)
  await using cli = new Cli(['verify', '--json'], scene.user)
  const hashed = (): number =>
    (cli.events('progress').at(-1)?.['bytes'] as { cache: number } | undefined)?.cache ?? 0
  await cli.until(() => hashed() > 2 * modelBytes, 'some of it')
  cli.kill('SIGINT')
  expect(await cli.ended()).toBe(130)
  expect(cli.stderr).toMatch(/stopped by SIGINT: \d files? checked until then/)
  expect(cli.events('error')).toEqual([expect.objectContaining({ code: 'ERR_LLMPT_INTERRUPTED' })])
  expect((await lstat(huge)).size).toBe(2 ** 40)
})

test('Ctrl-C during a repair tells what was moved away, and the next one goes on', async () => {
  await using scene = await downloaded()
  await flipBit(scene.blob('model.bin'), 5)
  scene.hub.setThrottle('cdn', 2_000_000)
  await using cli = new Cli(['verify', '--repair', '--json'], scene.user)
  const fetched = (): number =>
    (cli.events('progress').at(-1)?.['bytes'] as { http: number } | undefined)?.http ?? 0
  await cli.until(() => fetched() > 1_000_000, 'a megabyte')
  cli.kill('SIGINT')
  expect(await cli.ended()).toBe(130)
  expect(cli.events('file').find(({ verdict }) => verdict === 'wrong')).toMatchObject({
    names: ['model.bin'],
  })
  scene.hub.setThrottle('cdn', 0)
  scene.hub.resetStats()
  const again = await runCli(['verify', '--repair'], scene.user)
  expect(again.exitCode).toBe(0)
  expect(scene.hub.stats('cdn').bytesSent).toBeLessThan(modelBytes - 500_000)
})

test('a repository that is not in the cache, and a repair offline, are refused', async () => {
  await using scene = await downloaded()
  const missing = await runCli(['verify', 'acme/other'], scene.user)
  expect(missing.exitCode).toBe(1)
  expect(missing.stderr).toContain('acme/other is not in the cache')
  const env = { ...scene.user.env, HF_HUB_OFFLINE: '1' }
  const offline = await runCli(['verify', '--repair'], { ...scene.user, env })
  expect(offline.exitCode).toBe(2)
  expect(offline.stderr).toContain('HF_HUB_OFFLINE')
  const check = await runCli(['verify'], { ...scene.user, env })
  expect(check.exitCode).toBe(0)
})
