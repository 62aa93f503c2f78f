import { randomBytes } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import bencode from 'bencode'
import { describe, expect, test } from 'vitest'
import { type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import { requireAddon } from '../../src/native/load.ts'
import { baseSettings, Session } from '../../src/native/session.ts'
import { createTorrentOf } from '../../src/torrent/create.ts'
import { makeMagnet } from '../../src/torrent/magnet.ts'
import { parseMetainfo } from '../../src/torrent/metainfo.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { Cli, runCli } from './support.ts'

const sizeBytes = 3_000_000
const content = noiseBytes('torrent', sizeBytes)
const listen = ['--listen', '127.0.0.1:0']

/** A file and its torrent in `folder`. */
async function makeFile(folder: string): Promise<{ file: string; torrent: string; infoHash: string }> {
  const file = join(folder, 'model.bin')
  const torrent = join(folder, 'model.bin.torrent')
  await writeFile(file, content)
  const created = await createTorrentOf(requireAddon(), file)
  if (created === undefined) throw new Error('no torrent')
  await writeFile(torrent, created.torrentFile)
  return { file, torrent, infoHash: created.infoHash }
}

/** Seeds the file with the command itself. */
async function startSeed(file: string, torrent: string): Promise<{ cli: Cli; peer: string }> {
  const cli = new Cli(['torrent', 'seed', file, '--torrent', torrent, ...listen, '--json'])
  const { port } = await cli.event('seeding')
  return { cli, peer: `127.0.0.1:${port}` }
}

function startOrigin(bytes: Buffer = content): Promise<HubServer> {
  return startHub({ 'model.bin': { content: bytes, storage: 'lfs' } })
}

function urlOf(hub: HubServer): string {
  return `${hub.url}/acme/tiny/resolve/main/model.bin`
}

async function expectFile(path: string): Promise<void> {
  expect((await readFile(path)).equals(content)).toBe(true)
}

describe('torrent create', () => {
  test('writes the torrent that everybody makes of this file, and tells all about it', async () => {
    await using temp = await temporaryDirectory()
    const { file, infoHash } = await makeFile(temp.path)
    const tracker = 'http://tracker.example/announce'
    const cli = await runCli(['torrent', 'create', file, '--tracker', tracker, '--json'], { cwd: temp.path })
    expect([cli.exitCode, cli.stderr]).toEqual([0, ''])
    const path = join(temp.path, 'model.bin.torrent')
    expect(cli.events()).toEqual([
      {
        event: 'done',
        path,
        infoHash,
        infoHashV2: infoHash,
        pieceLength: 262_144,
        sizeBytes,
        magnet: expect.stringMatching(/^magnet:\?xt=urn:btmh:1220[0-9a-f]{64}&dn=model\.bin&xl=3000000&tr=/),
        elapsedMs: expect.any(Number),
      },
    ])
    expect(parseMetainfo(await readFile(path))).toMatchObject({
      infoHash,
      name: 'model.bin',
      trackers: [tracker],
    })
  })

  test.each([
    ['v1', 40],
    ['v2', 64],
    ['hybrid', 64],
  ] as const)('makes %s torrents with the piece length it is told', async (format, digits) => {
    await using temp = await temporaryDirectory()
    const { file } = await makeFile(temp.path)
    const out = join(temp.path, 'out.torrent')
    const args = ['torrent', 'create', file, '--format', format, '--piece-length', '64KiB', '--out', out]
    const { exitCode, lines } = await runCli(args)
    expect([exitCode, lines]).toEqual([0, [out]])
    const metainfo = parseMetainfo(await readFile(out))
    expect(metainfo).toMatchObject({ format, pieceLength: 65_536 })
    expect(metainfo.infoHash).toHaveLength(digits)
  })

  test.each([
    ['empty.bin', 'is empty'],
    ['missing.bin', 'there is no file missing.bin'],
    ['.', 'only single files'],
  ])('fails for %s', async (name, words) => {
    await using temp = await temporaryDirectory()
    await writeFile(join(temp.path, 'empty.bin'), '')
    const { exitCode, stderr } = await runCli(['torrent', 'create', name], { cwd: temp.path })
    expect([exitCode, stderr.includes(words)]).toEqual([1, true])
    expect(await readdir(temp.path)).toEqual(['empty.bin'])
  })
})

describe('torrent seed', () => {
  test('refuses a file that is not the torrent’s, and leaves it as it is', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent } = await makeFile(temp.path)
    const wrong = Buffer.from(content)
    wrong[2_000_000] = (wrong[2_000_000] ?? 0) ^ 1
    await writeFile(file, wrong)
    const cli = await runCli(['torrent', 'seed', file, '--torrent', torrent, ...listen, '--json'])
    expect([cli.exitCode, cli.events('seeding').length]).toEqual([1, 0])
    expect(cli.events('error')[0]?.['message']).toContain('is not what the torrent describes')
    expect((await readFile(file)).equals(wrong)).toBe(true)
  })

  test('refuses a file of another size', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent } = await makeFile(temp.path)
    await writeFile(file, 'short')
    const { exitCode, stderr } = await runCli(['torrent', 'seed', file, '--torrent', torrent])
    expect(exitCode).toBe(1)
    expect(stderr).toContain('has 5 bytes')
  })
})

describe('torrent get', () => {
  test('waits behind the gate, says done, gives to others, and tells its numbers at the end', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent } = await makeFile(temp.path)
    const { cli: seed, peer } = await startSeed(file, torrent)
    await using _seed = seed
    const out = join(temp.path, 'out')
    await using cli = new Cli([
      'torrent',
      'get',
      torrent,
      '--gate',
      '--out',
      out,
      ...listen,
      '--peer',
      peer,
      '--seed',
    ])
    await cli.until(() => cli.lines.length > 0, 'RIG READY')
    // By the time another has fetched it all, one that does not wait would have begun.
    await runCli(['torrent', 'get', torrent, '--out', join(temp.path, 'other'), ...listen, '--peer', peer])
    expect(cli.lines).toEqual(['RIG READY'])
    await expect(readdir(out)).rejects.toThrow('ENOENT')
    cli.write('go\n')
    await cli.until(() => cli.lines.length > 1, 'done')
    expect(cli.lines).toEqual(['RIG READY', 'done'])
    expect(await readdir(out)).toEqual(['model.bin'])
    await expectFile(join(out, 'model.bin'))
    cli.kill('SIGTERM')
    expect(await cli.ended()).toBe(0)
    expect(cli.lines[2]).toBe('RIG STAT {"redundant":0,"failed":0,"http_pieces":0}')
    seed.kill('SIGTERM')
    expect(await seed.ended()).toBe(0)
  })

  test('goes on seeding what it got', async () => {
    await using temp = await temporaryDirectory()
    const { torrent } = await makeFile(temp.path)
    await using origin = await startOrigin()
    const args = (out: string): string[] => [
      'torrent',
      'get',
      torrent,
      '--out',
      join(temp.path, out),
      ...listen,
    ]
    await using first = new Cli([...args('first'), '--url', urlOf(origin), '--seed', '--json'])
    const { listen: addresses } = await first.event('seeding')
    const [peer] = addresses as string[]
    expect(first.lines).toContain('done')
    const second = await runCli([...args('second'), '--peer', peer as string, '--json'])
    expect(second.events('done')[0]).toMatchObject({ bytes: { p2p: sizeBytes, http: 0, cache: 0 } })
    await expectFile(join(temp.path, 'second', 'model.bin'))
  })

  test('fetches over HTTP where nobody is, and every piece is checked by the torrent', async () => {
    await using temp = await temporaryDirectory()
    const { torrent, infoHash } = await makeFile(temp.path)
    await using origin = await startOrigin()
    const out = join(temp.path, 'out')
    const cli = await runCli([
      'torrent',
      'get',
      torrent,
      '--out',
      out,
      '--url',
      urlOf(origin),
      ...listen,
      '--json',
    ])
    expect(cli.exitCode).toBe(0)
    const bytes = { p2p: 0, http: sizeBytes, cache: 0 }
    expect(cli.events('done')).toEqual([
      {
        event: 'done',
        path: join(out, 'model.bin'),
        infoHash,
        bytes,
        elapsedMs: expect.any(Number),
        files: [{ path: 'model.bin', size: sizeBytes, etag: null, infoHash, bytes }],
      },
    ])
    await expectFile(join(out, 'model.bin'))
    expect(origin.stats('cdn').bytesSent).toBe(sizeBytes)
  })

  test('turns to the next URL when one is dead, has something else, or breaks off, and does not come back', async () => {
    await using temp = await temporaryDirectory()
    const { torrent } = await makeFile(temp.path)
    await using other = await startOrigin(Buffer.alloc(100))
    await using broken = await startOrigin()
    await using origin = await startOrigin()
    broken.inject({ origin: 'cdn', cutAfterBytes: 100_000 })
    const urls = ['http://127.0.0.1:1/model.bin', urlOf(other), urlOf(broken), urlOf(origin)]
    const more = urls.flatMap((url) => ['--url', url])
    const args = ['torrent', 'get', torrent, '--out', join(temp.path, 'out'), ...more, ...listen]
    const { exitCode, lines } = await runCli(args)
    expect([exitCode, lines]).toEqual([0, [join(temp.path, 'out', 'model.bin')]])
    await expectFile(lines[0] as string)
    expect([other, broken].map((hub) => hub.stats('cdn').requests)).toEqual([1, 1])
  })

  test('believes the torrent when the URL sends something else', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent } = await makeFile(temp.path)
    const { cli: seed, peer } = await startSeed(file, torrent)
    await using _seed = seed
    await using liar = await startOrigin(randomBytes(sizeBytes))
    const args = [
      'torrent',
      'get',
      torrent,
      '--out',
      join(temp.path, 'out'),
      '--url',
      urlOf(liar),
      '--peer',
      peer,
    ]
    const { exitCode, lines } = await runCli([...args, ...listen])
    expect(exitCode).toBe(0)
    await expectFile(lines[0] as string)
  })

  test('wrong bytes alone never get the name', async () => {
    await using temp = await temporaryDirectory()
    const { torrent } = await makeFile(temp.path)
    await using liar = await startOrigin(randomBytes(sizeBytes))
    const out = join(temp.path, 'out')
    const args = ['torrent', 'get', torrent, '--out', out, '--url', urlOf(liar), ...listen, '--json']
    const cli = await runCli(args, { env: { HF_P2P_TIMEOUT: '1' } })
    expect([cli.exitCode, cli.events('error')[0]?.['code']]).toEqual([1, 'ERR_LLMPT_SWARM'])
    expect(cli.stderr).toContain('what --url sends is not what the torrent describes')
    expect(await readdir(out)).not.toContain('model.bin')
  })

  test('asks peers for the torrent of a magnet link', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent, infoHash } = await makeFile(temp.path)
    const { cli: seed, peer } = await startSeed(file, torrent)
    await using _seed = seed
    const magnet = makeMagnet({ infoHashV2: infoHash as Parameters<typeof makeMagnet>[0]['infoHashV2'] })
    const args = [
      'torrent',
      'get',
      magnet,
      '--out',
      join(temp.path, 'out'),
      '--peer',
      peer.replace('127.0.0.1', 'localhost'),
    ]
    const { exitCode, lines } = await runCli([...args, ...listen])
    expect(exitCode).toBe(0)
    await expectFile(lines[0] as string)
  })

  test('a magnet link that leads to nobody ends at once, or after HF_P2P_TIMEOUT', async () => {
    await using temp = await temporaryDirectory()
    const magnet = `magnet:?xt=urn:btih:${'ab'.repeat(20)}`
    const args = ['torrent', 'get', magnet, '--out', temp.path, ...listen]
    const nobody = await runCli(args)
    expect([nobody.exitCode, nobody.stdout]).toEqual([1, ''])
    expect(nobody.stderr).toContain('this magnet link names no tracker or peer: add --peer')
    const silent = await runCli([...args, '--peer', '127.0.0.1:1'], { env: { HF_P2P_TIMEOUT: '1' } })
    expect(silent.exitCode).toBe(1)
    expect(silent.stderr).toContain('no peer sent the torrent of this link within 1 s')
  })

  test('says in a sentence that a file is not there, or is no torrent', async () => {
    await using temp = await temporaryDirectory()
    await writeFile(join(temp.path, 'note.txt'), 'hello')
    const get = (name: string) => runCli(['torrent', 'get', name, '--out', '.'], { cwd: temp.path })
    expect((await get('no.torrent')).stderr).toBe('llmpt: there is no file no.torrent\n')
    expect((await get('note.txt')).stderr).toMatch(/^llmpt: note\.txt is not a torrent file: /)
  })

  test('goes on where it was interrupted', async () => {
    await using temp = await temporaryDirectory()
    const { torrent } = await makeFile(temp.path)
    await using origin = await startOrigin()
    origin.setThrottle('cdn', 1_500_000)
    const args = [
      'torrent',
      'get',
      torrent,
      '--out',
      join(temp.path, 'out'),
      '--url',
      urlOf(origin),
      ...listen,
      '--json',
    ]
    await using first = new Cli(args)
    const http = (): number =>
      (first.events('progress').at(-1)?.['bytes'] as { http: number } | undefined)?.http ?? 0
    await first.until(() => http() > 800_000, 'some pieces')
    first.kill('SIGTERM')
    expect(await first.ended()).toBe(130)
    expect(first.stderr).toMatch(
      /stopped by SIGTERM: kept .* of 2\.86 MiB; run the same command again to go on/,
    )
    const kept = http()
    origin.setThrottle('cdn', 0)
    origin.resetStats()
    const second = await runCli(args)
    expect(second.events('done')[0]).toMatchObject({ bytes: { p2p: 0, http: sizeBytes - kept, cache: kept } })
    expect(origin.stats('cdn').bytesSent).toBe(sizeBytes - kept)
    await expectFile(join(temp.path, 'out', 'model.bin'))
  })

  test('a file that is there already is taken when it is right, and never touched when it is not', async () => {
    await using temp = await temporaryDirectory()
    const { file, torrent } = await makeFile(temp.path)
    const args = ['torrent', 'get', torrent, '--out', temp.path, ...listen, '--json']
    expect((await runCli(args)).events('done')[0]).toMatchObject({
      bytes: { p2p: 0, http: 0, cache: sizeBytes },
    })
    await writeFile(file, 'my own work')
    const { exitCode, stderr } = await runCli(args)
    expect([exitCode, stderr.includes('move it away')]).toEqual([1, true])
    expect(await readFile(file, 'utf8')).toBe('my own work')
  })

  test('fetches a torrent of several files into a folder, and has no use for --url there', async () => {
    await using temp = await temporaryDirectory()
    await using seed = await seedFolder(temp.path)
    const out = join(temp.path, 'out')
    const args = ['torrent', 'get', seed.torrent, '--out', out, '--peer', seed.peer, ...listen]
    const wrong = await runCli([...args, '--url', 'http://127.0.0.1:1/'])
    expect([wrong.exitCode, wrong.stderr.includes('--url')]).toEqual([2, true])
    const { exitCode, lines } = await runCli(args)
    expect([exitCode, lines]).toEqual([0, [join(out, 'folder')]])
    expect((await readFile(join(out, 'folder', 'a.bin'))).equals(content.subarray(0, 100_000))).toBe(true)
    expect(
      (await readFile(join(out, 'folder', 'sub', 'b.bin'))).equals(content.subarray(100_000, 150_000)),
    ).toBe(true)
  })

  test.each([
    ['not a torrent', 'ERR_LLMPT_TORRENT'],
    [undefined, 'ENOENT'],
  ])('a source that is %s is an error before anything starts', async (text, code) => {
    await using temp = await temporaryDirectory()
    const source = join(temp.path, 'x.torrent')
    if (text !== undefined) await writeFile(source, text)
    const cli = await runCli(['torrent', 'get', source, '--out', temp.path, '--gate', '--json'])
    expect([cli.exitCode, cli.lines.length, cli.events('error')[0]?.['code']]).toEqual([1, 1, code])
  })
})

interface FolderSeed extends AsyncDisposable {
  readonly torrent: string
  readonly peer: string
}

/** A v1 torrent of two files, as other programs make them, and a session that seeds it. */
async function seedFolder(root: string): Promise<FolderSeed> {
  const { createHash } = await import('node:crypto')
  const { mkdir } = await import('node:fs/promises')
  const folder = join(root, 'origin', 'folder')
  await mkdir(join(folder, 'sub'), { recursive: true })
  await writeFile(join(folder, 'a.bin'), content.subarray(0, 100_000))
  await writeFile(join(folder, 'sub', 'b.bin'), content.subarray(100_000, 150_000))
  const pieceLength = 65_536
  const pieces: Buffer[] = []
  for (let start = 0; start < 150_000; start += pieceLength) {
    const piece = content.subarray(start, Math.min(start + pieceLength, 150_000))
    pieces.push(createHash('sha1').update(piece).digest())
  }
  const info = {
    files: [
      { length: 100_000, path: ['a.bin'] },
      { length: 50_000, path: ['sub', 'b.bin'] },
    ],
    name: 'folder',
    'piece length': pieceLength,
    pieces: Buffer.concat(pieces),
  }
  const torrentFile = new Uint8Array(bencode.encode({ info }) as Uint8Array)
  const torrent = join(root, 'folder.torrent')
  await writeFile(torrent, torrentFile)
  const session = new Session(requireAddon(), { ...baseSettings, listen_interfaces: '127.0.0.1:0' })
  await session.addTorrent({ torrentFile, savePath: join(root, 'origin') })
  const [address] = await session.listening()
  return { torrent, peer: `127.0.0.1:${address?.port}`, [Symbol.asyncDispose]: () => session.close() }
}
