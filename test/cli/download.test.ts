import { once } from 'node:events'
import { readFile, readlink, stat } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { Cli, type CliEvent, type CliOptions, runCli } from './support.ts'

const modelBytes = 6_000_000
const files = {
  'config.json': '{"hidden_size": 64}',
  'model.bin': { content: { seed: 'cli', sizeBytes: modelBytes }, storage: 'lfs' },
  'extra/notes.txt': 'notes',
} as const
const totalBytes = modelBytes + 19 + 5

function userOf(hub: HubServer, home: string): CliOptions {
  return { home, env: { HF_ENDPOINT: hub.url } }
}

async function expectContent(hub: HubServer, path: string, name: string): Promise<void> {
  expect((await readFile(path)).equals(await hub.file(name).bytes())).toBe(true)
}

function fileIn(event: CliEvent, path: string): Record<string, unknown> | undefined {
  return (event['files'] as Record<string, unknown>[]).find((file) => file['path'] === path)
}

test('a repository arrives in the standard cache, and its folder is the one line on stdout', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const { exitCode, lines, stderr } = await runCli(['download', 'acme/tiny'], userOf(hub, temp.path))
  const { commit, etag } = hub.file('model.bin')
  const snapshot = join(temp.path, 'hub', 'models--acme--tiny', 'snapshots', commit)
  expect([exitCode, lines]).toEqual([0, [snapshot]])
  expect(stderr).toMatch(/^Fetched 5\.72 MiB in .*: 100 % over HTTP\.$/m)
  for (const name of Object.keys(files)) await expectContent(hub, join(snapshot, name), name)
  expect(await readlink(join(snapshot, 'model.bin'))).toBe(`../../blobs/${etag}`)
})

test('with --json there are progress events and one done event with all its fields', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const cli = await runCli(['download', 'acme/tiny', '--json'], userOf(hub, temp.path))
  expect([cli.exitCode, cli.stderr]).toEqual([0, ''])
  const progress = cli.events('progress')
  expect(progress.at(-1)).toMatchObject({ files: { done: 3, total: 3 }, sizeBytes: totalBytes, peers: 0 })
  const told = cli.events('file')
  expect(cli.events()).toHaveLength(progress.length + told.length + 1)
  expect(told.map(({ path }) => path).sort()).toEqual(Object.keys(files).sort())
  expect(told).toContainEqual({
    event: 'file',
    path: 'model.bin',
    size: modelBytes,
    bytes: { p2p: 0, http: modelBytes, cache: 0 },
  })
  const [done] = cli.events('done')
  const { commit, etag } = hub.file('model.bin')
  expect(done).toEqual({
    event: 'done',
    path: join(temp.path, 'hub', 'models--acme--tiny', 'snapshots', commit),
    commit,
    bytes: { p2p: 0, http: totalBytes, cache: 0 },
    elapsedMs: expect.any(Number),
    isUnchecked: false,
    files: expect.any(Array),
  })
  expect(fileIn(done as CliEvent, 'model.bin')).toEqual({
    path: 'model.bin',
    localPath: join(done?.['path'] as string, 'model.bin'),
    size: modelBytes,
    etag,
    infoHash: null,
    bytes: { p2p: 0, http: modelBytes, cache: 0 },
  })
})

test('one file is fetched alone, and its path is the answer', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const { exitCode, lines } = await runCli(
    ['download', 'acme/tiny', 'extra/notes.txt', '--quiet'],
    userOf(hub, temp.path),
  )
  expect(exitCode).toBe(0)
  expect(lines).toHaveLength(1)
  await expectContent(hub, lines[0] as string, 'extra/notes.txt')
  expect(hub.fileStats('model.bin').requests).toBe(0)
})

test('globs choose the files, and --local-dir the place', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const args = [
    'download',
    'acme/tiny',
    '--include',
    '*.json',
    '--include',
    '*.txt',
    '--exclude',
    'extra/*',
    '--local-dir',
    'here',
  ]
  const { exitCode, lines } = await runCli(args, { ...userOf(hub, temp.path), cwd: temp.path })
  expect([exitCode, lines]).toEqual([0, [join(temp.path, 'here')]])
  await expectContent(hub, join(temp.path, 'here', 'config.json'), 'config.json')
  await expect(stat(join(temp.path, 'here', 'extra'))).rejects.toThrow()
})

test('what is in the cache is not fetched again', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  await runCli(['download', 'acme/tiny'], userOf(hub, temp.path))
  hub.resetStats()
  const cli = await runCli(['download', 'acme/tiny', '--json'], userOf(hub, temp.path))
  expect(cli.events('done')[0]).toMatchObject({ bytes: { p2p: 0, http: 0, cache: totalBytes } })
  expect(hub.stats('cdn').requests).toBe(0)
})

test("the Hub's refusal is an error with its code, and nothing is on stdout but the event", async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const cli = await runCli(['download', 'acme/missing', '--json'], userOf(hub, temp.path))
  expect(cli.exitCode).toBe(1)
  expect(cli.events()).toEqual([
    { event: 'error', code: 'ERR_LLMPT_HUB', message: expect.stringContaining('acme/missing') },
  ])
  expect(cli.stderr).toContain('acme/missing')
})

test('without the addon it warns once and fetches over HTTP', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const options = userOf(hub, temp.path)
  const env = {
    ...options.env,
    LLMPT_NATIVE_ADDON: '/nonexistent.node',
    HF_P2P_TRACKER: 'http://127.0.0.1:1',
  }
  const { exitCode, stderr } = await runCli(['download', 'acme/tiny'], { ...options, env })
  expect(exitCode).toBe(0)
  expect(stderr.match(/no peer-to-peer/g)).toHaveLength(1)
})

test('--force-download fetches what is there', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  await runCli(['download', 'acme/tiny'], userOf(hub, temp.path))
  const cli = await runCli(['download', 'acme/tiny', '--force-download', '--json'], userOf(hub, temp.path))
  expect(cli.exitCode).toBe(0)
  expect(cli.events('done')[0]).toMatchObject({ bytes: { p2p: 0, http: totalBytes, cache: 0 } })
})

test('--local-files-only takes what is there and asks nobody', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const none = await runCli(['download', 'acme/tiny', '--local-files-only'], userOf(hub, temp.path))
  expect([none.exitCode, none.stdout]).toEqual([1, ''])
  expect(hub.requests()).toEqual([])
  const { lines } = await runCli(['download', 'acme/tiny'], userOf(hub, temp.path))
  hub.resetStats()
  const all = await runCli(['download', 'acme/tiny', '--local-files-only'], userOf(hub, temp.path))
  expect([all.exitCode, all.lines]).toEqual([0, lines])
  const one = ['download', 'acme/tiny', 'model.bin', '--local-files-only']
  const { exitCode, lines: paths } = await runCli(one, userOf(hub, temp.path))
  expect([exitCode, paths]).toEqual([0, [join(lines[0] as string, 'model.bin')]])
  expect(hub.requests()).toEqual([])
})

test('--max-workers says how many files come at a time', async () => {
  await using temp = await temporaryDirectory()
  const many = Array.from({ length: 6 }, (_, at) => [`${at}.json`, `{"number": ${at}}`])
  await using hub = await startHub(Object.fromEntries(many))
  const cli = await runCli(['download', 'acme/tiny', '--max-workers', '1', '--json'], userOf(hub, temp.path))
  const active = cli.events('progress').map((event) => (event['active'] as unknown[]).length)
  expect(cli.exitCode).toBe(0)
  expect(Math.max(...active)).toBe(1)
})

describe('--dry-run', () => {
  test('shows each file with its size and whether it is there, and fetches nothing', async () => {
    await using temp = await temporaryDirectory()
    await using hub = await startHub(files)
    await runCli(['download', 'acme/tiny', 'config.json'], userOf(hub, temp.path))
    hub.resetStats()
    const { exitCode, lines, stderr } = await runCli(
      ['download', 'acme/tiny', '--dry-run'],
      userOf(hub, temp.path),
    )
    expect(exitCode).toBe(0)
    expect(lines.toSorted()).toEqual([
      '     5 B  to download  extra/notes.txt',
      '    19 B  cached       config.json',
      '5.72 MiB  to download  model.bin',
    ])
    expect(stderr).toBe('3 files, 5.72 MiB: 2 files to download, 5.72 MiB.\n')
    expect(hub.requests().filter(({ url }) => url.includes('/resolve'))).toEqual([])
  })

  test('with --json is one event per file, and the sums', async () => {
    await using temp = await temporaryDirectory()
    await using hub = await startHub(files)
    const { lines } = await runCli(['download', 'acme/tiny'], userOf(hub, temp.path))
    const args = [
      'download',
      'acme/tiny',
      '--include',
      '*.json',
      'model.bin',
      '--dry-run',
      '--force-download',
    ]
    const cli = await runCli([...args, '--json'], userOf(hub, temp.path))
    const { commit } = hub.file('config.json')
    expect([cli.exitCode, cli.stderr]).toEqual([0, ''])
    const told = cli.events('file').toSorted((a, b) => Number(a['size']) - Number(b['size']))
    expect(told).toEqual(
      [
        ['config.json', 19],
        ['model.bin', modelBytes],
      ].map(([path, size]) => ({
        event: 'file',
        path,
        size,
        commit,
        localPath: join(lines[0] as string, String(path)),
        isCached: true,
        willDownload: true,
      })),
    )
    expect(cli.events().at(-1)).toEqual({
      event: 'done',
      dryRun: true,
      commit,
      files: { total: 2, toDownload: 2 },
      sizeBytes: modelBytes + 19,
      downloadBytes: modelBytes + 19,
      elapsedMs: expect.any(Number),
    })
  })

  test('of one file is about that file', async () => {
    await using temp = await temporaryDirectory()
    await using hub = await startHub(files)
    const args = ['download', 'acme/tiny', 'extra/notes.txt', '--dry-run', '--quiet']
    const { exitCode, lines, stderr } = await runCli(args, userOf(hub, temp.path))
    expect([exitCode, lines, stderr]).toEqual([0, ['5 B  to download  extra/notes.txt'], ''])
  })

  test('of what the repository does not have is an error', async () => {
    await using temp = await temporaryDirectory()
    await using hub = await startHub(files)
    const args = ['download', 'acme/tiny', '--include', '*.gguf', '--dry-run']
    const { exitCode, stdout, stderr } = await runCli(args, userOf(hub, temp.path))
    expect([exitCode, stdout]).toEqual([1, ''])
    expect(stderr).toContain('no file of acme/tiny matches --include "*.gguf"')
  })
})

test('Ctrl-C says what is kept, and the next run does not fetch it again', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({
    'model.bin': { content: { seed: 'slow', sizeBytes: 12_000_000 }, storage: 'lfs' },
  })
  hub.setThrottle('cdn', 4_000_000)
  await using cli = new Cli(['download', 'acme/tiny', 'model.bin', '--json'], userOf(hub, temp.path))
  const httpBytes = (): number =>
    (cli.events('progress').at(-1)?.['bytes'] as { http: number } | undefined)?.http ?? 0
  await cli.until(() => httpBytes() > 2_000_000, 'two megabytes')
  cli.kill('SIGINT')
  expect(await cli.ended()).toBe(130)
  expect(cli.stderr).toMatch(
    /stopped by SIGINT: kept [\d.]+ MiB of 11\.4 MiB; run the same command again to go on/,
  )
  expect(cli.events('error')).toEqual([expect.objectContaining({ code: 'ERR_LLMPT_INTERRUPTED' })])

  const kept = httpBytes()
  hub.setThrottle('cdn', 0)
  hub.resetStats()
  const again = await runCli(['download', 'acme/tiny', 'model.bin', '--json'], userOf(hub, temp.path))
  const [done] = again.events('done')
  expect(done?.['bytes']).toEqual({ p2p: 0, http: 12_000_000 - kept, cache: kept })
  expect(hub.stats('cdn').bytesSent).toBe(12_000_000 - kept)
  await expectContent(hub, done?.['path'] as string, 'model.bin')
})

test('what one user seeds, another gets from peers when the storage of the Hub is away', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  const swarm = ['--tracker', tracker.url, '--listen', '127.0.0.1:0']
  const seedArgs = ['download', 'acme/tiny', ...swarm, '--seed-for', 'forever', '--json']
  await using first = new Cli(seedArgs, userOf(hub, join(temp.path, 'first')))
  await first.event('seeding', 3)
  const kinds = first.events().map(({ event }) => event)
  expect(kinds.indexOf('done')).toBeLessThan(kinds.indexOf('seeding'))
  expect(first.events('seeding')).toContainEqual({
    event: 'seeding',
    label: 'acme/tiny/model.bin',
    etag: hub.file('model.bin').etag,
    infoHash: expect.stringMatching(/^[0-9a-f]{64}$/),
    sizeBytes: modelBytes,
    listen: [expect.stringMatching(/^127\.0\.0\.1:\d+$/)],
    endsAt: null,
  })
  await hub.setAvailability('cdn', 'refused')
  const second = await runCli(
    ['download', 'acme/tiny', ...swarm, '--json'],
    userOf(hub, join(temp.path, 'second')),
  )
  expect(second.exitCode).toBe(0)
  const [done] = second.events('done')
  expect(fileIn(done as CliEvent, 'model.bin')).toMatchObject({
    bytes: { p2p: modelBytes, http: 0, cache: 0 },
    infoHash: expect.stringMatching(/^[0-9a-f]{64}$/),
  })
  await expectContent(hub, join(done?.['path'] as string, 'model.bin'), 'model.bin')
  first.kill('SIGTERM')
  expect(await first.ended()).toBe(0)
  expect(first.events('ended')).toEqual([{ event: 'ended', files: 3, uploadedBytes: expect.any(Number) }])
})

test('--seed-for ends by itself', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  const args = [
    'download',
    'acme/tiny',
    '--tracker',
    tracker.url,
    '--listen',
    '127.0.0.1:0',
    '--seed-for',
    '200ms',
    '--json',
  ]
  const cli = await runCli(args, userOf(hub, temp.path))
  expect([cli.exitCode, cli.events('ended').length]).toEqual([0, 1])
})

test('the first download where there is a swarm says how to help it, and the second does not', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  const args = ['download', 'acme/tiny', '--tracker', 'http://127.0.0.1:1']
  const options = userOf(hub, temp.path)
  const quiet = await runCli([...args, '--quiet'], options)
  const first = await runCli(args, options)
  const second = await runCli(args, options)
  expect([quiet, first, second].map(({ stderr }) => stderr.includes('--seed-for 2h'))).toEqual([
    false,
    true,
    false,
  ])
})

test('named files and globs are a union, and --exclude applies to both', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ ...files, 'other.txt': 'other', 'left.md': 'left' })
  const args = ['download', 'acme/tiny', 'config.json', 'other.txt', '--include', '*.txt', '--json']
  const cli = await runCli([...args, '--exclude', 'other*'], userOf(hub, temp.path))
  const names = ((await cli.event('done'))['files'] as { path: string }[]).map(({ path }) => path)
  expect(names.sort()).toEqual(['config.json', 'extra/notes.txt'])
})

test.each([
  [['--include', '*.gguf'], 'no file of acme/tiny matches --include "*.gguf"'],
  [['config.json', '--exclude', '*.json'], 'no file of acme/tiny matches config.json --exclude "*.json"'],
  [['extra'], "--include 'extra/*'"],
])('what matches nothing is an error: %j', async (more, words) => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const { exitCode, stdout, stderr } = await runCli(
    ['download', 'acme/tiny', ...more],
    userOf(hub, temp.path),
  )
  expect([exitCode, stdout]).toEqual([1, ''])
  expect(stderr).toContain(words)
})

test('offline, it tells what is cached and does not claim that it is everything', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const { home, env } = userOf(hub, temp.path)
  await runCli(['download', 'acme/tiny', 'config.json'], { home: temp.path, env: { ...env } })
  const options: CliOptions = { ...(home !== undefined && { home }), env: { ...env, HF_HUB_OFFLINE: '1' } }
  const all = await runCli(['download', 'acme/tiny'], options)
  expect([all.exitCode, all.lines.length]).toEqual([0, 1])
  expect(all.stderr).toContain('Offline: this is what is cached; whether it is complete cannot be known')
  const none = await runCli(['download', 'acme/tiny', '--include', '*.bin'], options)
  expect([none.exitCode, none.stdout]).toEqual([1, ''])
  expect(none.stderr).toContain('no file of acme/tiny matches --include "*.bin"')
})

test('in an outage, it tells what is cached, and that the Hub does not say whether it is everything', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub(files)
  const options = userOf(hub, temp.path)
  await runCli(['download', 'acme/tiny', 'config.json'], options)
  await hub.setAvailability('hub', 'refused')
  const all = await runCli(['download', 'acme/tiny'], options)
  expect([all.exitCode, all.lines.length]).toEqual([0, 1])
  expect(all.stderr).toContain('The Hub does not answer: this is what is cached; whether it is complete')
  expect(all.stderr).toContain('connection refused')
  const none = await runCli(['download', 'acme/tiny', '--include', '*.bin', '--json'], options)
  expect([none.exitCode, none.events('done')]).toEqual([1, []])
  expect(none.stdout).toContain('in the cache, and the Hub does not answer')
  const one = await runCli(['download', 'acme/tiny', 'config.json', '--json'], options)
  expect(one.events('done')).toEqual([expect.objectContaining({ isUnchecked: true })])
  expect(one.events('file')).toEqual([expect.objectContaining({ path: 'config.json' })])
})

test('a tracker that does not answer is named, when seeding and when there is no other source', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  const swarm = ['download', 'acme/tiny', '--tracker', 'http://127.0.0.1:1', '--listen', '127.0.0.1:0']
  const seeding = await runCli([...swarm, '--seed-for', '200ms'], userOf(hub, join(temp.path, 'first')))
  expect(seeding.stderr.match(/nobody can find these files until it does/g)).toHaveLength(1)
  const alone = await runCli([...swarm, '--no-http'], userOf(hub, join(temp.path, 'second')))
  expect(alone.exitCode).toBe(1)
  expect(alone.stderr).toContain('no tracker could be asked (http://127.0.0.1:1')
})

test('a failed download does not ask for help', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  const args = ['download', 'acme/missing', '--tracker', 'http://127.0.0.1:1']
  const { exitCode, stderr } = await runCli(args, userOf(hub, temp.path))
  expect([exitCode, stderr.includes('--seed-for 2h')]).toEqual([1, false])
})

test('--seed-for says that a private repository is not seeded', async () => {
  await using temp = await temporaryDirectory()
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  await using hub = await startHub([{ repo: 'acme/secret', files, isPrivate: true }], {
    tokens: { hf_demo: ['acme/secret'] },
  })
  const args = ['download', 'acme/secret', '--tracker', tracker.url, '--listen', '127.0.0.1:0']
  const env = { HF_ENDPOINT: hub.url, HF_TOKEN: 'hf_demo' }
  const cli = await runCli([...args, '--seed-for', '1h', '--json'], { home: temp.path, env })
  expect(cli.exitCode).toBe(0)
  expect(cli.events('skipped')).toEqual([
    expect.objectContaining({ repo: 'acme/secret', reason: expect.stringContaining('not everybody') }),
  ])
  expect(cli.stderr).toContain('acme/secret is not seeded')
})

test('a port that is taken is told, with the one that is used instead', async () => {
  await using temp = await temporaryDirectory()
  await using hub = await startHub({ 'config.json': '{}' })
  await using tracker = await startTracker({ dataDir: join(temp.path, 'tracker') })
  await using taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const args = ['download', 'acme/tiny', '--tracker', tracker.url, '--listen', `127.0.0.1:${port}`]
  const { stderr } = await runCli([...args, '--seed-for', '200ms'], userOf(hub, temp.path))
  expect(stderr).toMatch(new RegExp(`port ${port} is taken; listening on \\d+ instead`))
})
