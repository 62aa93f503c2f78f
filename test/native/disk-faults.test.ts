import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  access,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { hasPiece } from '../../src/native/alerts.ts'
import type { DiskBackend, Torrent } from '../../src/native/session.ts'
import type { InfoHash, PeerAddress } from '../../src/values.ts'
import { startBadPeer } from '../fakes/bad-peer.ts'
import {
  addressOf,
  diskBackends,
  formats,
  makeTorrent,
  nextAlert,
  openSession,
  someBytes,
  until,
} from '../support/native-rig.ts'
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { makeFolderTorrent } from '../torrent/fixtures/make-torrent.ts'

const pieceLength = 32 * 1024
const errno = { eperm: 1, enoent: 2, eio: 5, efbig: 27, enospc: 28, eloop: 40 } as const

/**
 * Ways to make a folder full: for root a file system of 4 MiB, which ends with the process; for everybody a limit on the
 * size of a file, which libtorrent treats alike.
 */
const fullFolders = {
  'file system': {
    shell: [
      'sh',
      '-c',
      // Where the root is no mount point of its own, as in a chroot, it cannot be made private.
      `propagation=private; unshare -m true 2>/dev/null || propagation=unchanged
      exec unshare -m --propagation $propagation sh -c 'mount -t tmpfs -o size=4m none "$0" && exec "$@"' "$0" "$@"`,
    ],
    fileLimit: '',
    value: errno.enospc,
  },
  'file size limit': { shell: ['sh', '-c', 'exec "$@"'], fileLimit: String(2 << 20), value: errno.efbig },
} as const
const fullKinds = (['file system', 'file size limit'] as const).filter(
  (kind) => kind === 'file size limit' || process.getuid?.() === 0,
)

async function fillUp(kind: (typeof fullKinds)[number], diskBackend: DiskBackend) {
  await using folder = await temporaryDirectory()
  const full = join(folder.path, 'full')
  await mkdir(full)
  const { shell, fileLimit } = fullFolders[kind]
  const script = fileURLToPath(new URL('fixtures/disk-full.mjs', import.meta.url))
  const command = [...shell, full, process.execPath, script, folder.path, full, diskBackend, fileLimit]
  const child = spawn(command[0] as string, command.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
  const [said, exit] = await Promise.all([text(child.stdout), once(child, 'exit')])
  const [fault, end] = said.trim().split('\n')
  expect(exit).toEqual([0, null])
  return { fault: JSON.parse(fault as string), end, target: join(full, 'target') }
}

test.each(fullKinds)('with the posix backend, a full %s is a file_error', async (kind) => {
  const { fault, target } = await fillUp(kind, 'posix')
  expect(fault).toEqual({ value: fullFolders[kind].value, file: target, operation: 'file_write' })
})

test.each(fullKinds)(
  'with our own backend, a full %s is a file_error, and the download goes on when there is room and it has looked again',
  async (kind) => {
    const { fault, end, target } = await fillUp(kind, 'own')
    expect(fault).toEqual({ value: fullFolders[kind].value, file: target, operation: 'file_write' })
    expect(end).toBe('finished')
  },
)

/** A seed of one file, and where it is. */
async function startSeed(folder: string, bytes: Uint8Array, flags: object) {
  const { torrentFile, path } = await makeTorrent(folder, bytes)
  const session = openSession()
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder,
    renamedFiles: { 0: path },
    flags,
  })
  await nextAlert(torrent, 'torrent_checked')
  return { session, torrent, path, torrentFile }
}

async function download(folder: string, torrentFile: Uint8Array, peer: PeerAddress) {
  const session = openSession({ listen_interfaces: '127.0.0.2:0' })
  const target = join(folder, 'copy')
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder,
    renamedFiles: { 0: target },
    peers: [peer],
  })
  return { session, torrent, target }
}

const modes = { 'in seed mode': { seed_mode: true }, 'found complete': {} } as const

describe.each(Object.entries(modes))('a seed %s', (_, flags) => {
  test.each([
    ['vanished', (path: string) => rm(path), errno.enoent],
    ['was truncated', (path: string) => truncate(path, 50_000), undefined],
  ] as const)('whose file %s says so and makes no file', async (_, harm, value) => {
    await using folder = await temporaryDirectory()
    const seed = await startSeed(folder.path, someBytes(200_000), flags)
    await using _seeding = seed.session
    await harm(seed.path)
    const before = await stat(seed.path).catch(() => undefined)
    const fault = nextAlert(seed.torrent, 'file_error')
    const leech = await download(folder.path, seed.torrentFile, await addressOf(seed.session))
    await using _leeching = leech.session
    expect(await fault).toMatchObject({ file: seed.path })
    if (value !== undefined) expect((await fault).error.value).toBe(value)
    expect((await stat(seed.path).catch(() => undefined))?.size).toBe(before?.size)
  })
})

test('a disk that cannot be read while seeding is a file_error', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  await using seeding = openSession()
  // Its first page cannot be mapped, and so reading there is EIO.
  const broken = '/proc/self/mem'
  const seed = await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: broken },
    flags: { seed_mode: true, upload_mode: true, no_verify_files: true },
  })
  const fault = nextAlert(seed, 'file_error')
  const leech = await download(folder.path, torrentFile, await addressOf(seeding))
  await using _leeching = leech.session
  expect(await fault).toMatchObject({ file: broken, operation: 'file_read', error: { value: errno.eio } })
})

test('a file deleted while it is being seeded is not served any longer, open or not', async () => {
  await using folder = await temporaryDirectory()
  const seed = await startSeed(folder.path, someBytes(40 * 32_768), { seed_mode: true, upload_mode: true })
  await using _seeding = seed.session
  seed.session.exemptLocalPeers(false)
  seed.torrent.setRateLimits({ uploadBytesPerSecond: 300_000 })
  const leech = await download(folder.path, seed.torrentFile, await addressOf(seed.session))
  await using _leeching = leech.session
  await until(async () => (await leech.torrent.status()).totalDone > 0)
  const fault = nextAlert(seed.torrent, 'file_error')
  await rm(seed.path)
  expect((await fault).error.value).toBe(errno.enoent)
  await expect(access(seed.path)).rejects.toMatchObject({ code: 'ENOENT' })
})

test('a torrent added in seed mode whose file is missing or short is never written to', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(200_000)
  const seed = await startSeed(folder.path, bytes, { seed_mode: true, upload_mode: true })
  await using _seeding = seed.session
  const peers = [await addressOf(seed.session)]
  const [missing, short] = [join(folder.path, 'missing'), join(folder.path, 'short')]
  await writeFile(short, bytes.subarray(0, 70_000))
  for (const path of [missing, short]) {
    await using session = openSession({ listen_interfaces: '127.0.0.2:0' })
    const torrent = await session.addTorrent({
      torrentFile: seed.torrentFile,
      savePath: folder.path,
      renamedFiles: { 0: path },
      flags: { seed_mode: true },
      peers,
    })
    const fault = await nextAlert(torrent, 'file_error')
    expect(fault).toMatchObject({ file: path, operation: 'file_write', error: { value: errno.eperm } })
  }
  await expect(access(missing)).rejects.toMatchObject({ code: 'ENOENT' })
  expect((await readFile(short)).equals(bytes.subarray(0, 70_000))).toBe(true)
})

test('a file that vanishes in the middle of its download is an error, not a new file with holes', async () => {
  await using folder = await temporaryDirectory()
  const seed = await startSeed(folder.path, someBytes(40 * 32_768), { seed_mode: true, upload_mode: true })
  await using _seeding = seed.session
  seed.session.exemptLocalPeers(false)
  seed.torrent.setRateLimits({ uploadBytesPerSecond: 300_000 })
  const leech = await download(folder.path, seed.torrentFile, await addressOf(seed.session))
  await using _leeching = leech.session
  await until(async () => (await leech.torrent.status()).totalDone > 0)
  const fault = nextAlert(leech.torrent, 'file_error')
  await rm(leech.target)
  expect(await fault).toMatchObject({ file: leech.target, error: { value: errno.enoent } })
  await expect(access(leech.target)).rejects.toMatchObject({ code: 'ENOENT' })
})

describe('a symbolic link in the save path', () => {
  const files = { 'a/b/large.bin': someBytes(100_000), 'c.bin': someBytes(1000) }
  const { torrentFile } = makeFolderTorrent('repo', files, { pieceLength: 32_768 })

  /** A download of `files`, in which `repo/<link>` leads outside before it begins. */
  async function downloadThrough(
    folder: string,
    link: string,
  ): Promise<{ error: number; outside: string[] }> {
    const [source, target, outside] = ['from', 'to', 'outside'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ]
    await mkdir(join(source, 'repo/a/b'), { recursive: true })
    for (const [path, content] of Object.entries(files)) await writeFile(join(source, 'repo', path), content)
    await mkdir(outside)
    await mkdir(join(target, 'repo', link, '..'), { recursive: true })
    await symlink(outside, join(target, 'repo', link))
    await using seeding = openSession()
    await seeding.addTorrent({ torrentFile, savePath: source, flags: { seed_mode: true, upload_mode: true } })
    await using session = openSession({ listen_interfaces: '127.0.0.2:0' })
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: target,
      peers: [await addressOf(seeding)],
    })
    const { error } = await nextAlert(torrent, 'file_error')
    return { error: error.value, outside: await readdir(outside) }
  }

  test.each(['a', 'a/b', 'c.bin', 'a/b/large.bin'])('at %s is not followed', async (link) => {
    await using folder = await temporaryDirectory()
    expect(await downloadThrough(folder.path, link)).toEqual({ error: errno.eloop, outside: [] })
  })

  test('put in the place of a file after the check is not followed either', async () => {
    await using folder = await temporaryDirectory()
    const seed = await startSeed(folder.path, someBytes(100_000), { seed_mode: true, upload_mode: true })
    await using _seeding = seed.session
    const outside = join(folder.path, 'outside')
    await writeFile(outside, '')
    await using session = openSession({ listen_interfaces: '127.0.0.2:0' })
    const torrent = await session.addTorrent({ torrentFile: seed.torrentFile, savePath: folder.path })
    await nextAlert(torrent, 'torrent_checked')
    await symlink(outside, join(folder.path, 'blob'))
    const fault = nextAlert(torrent, 'file_error')
    torrent.connectPeer(await addressOf(seed.session))
    expect((await fault).error.value).toBe(errno.eloop)
    expect((await stat(outside)).size).toBe(0)
  })

  test('is not followed when files are deleted', async () => {
    await using folder = await temporaryDirectory()
    const outside = join(folder.path, 'outside')
    for (const [path, content] of Object.entries(files)) {
      await mkdir(join(folder.path, 'repo', path, '..'), { recursive: true })
      await writeFile(join(folder.path, 'repo', path), content)
    }
    await using session = openSession()
    const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
    await nextAlert(torrent, 'torrent_finished')
    await rename(join(folder.path, 'repo/a'), outside)
    await symlink(outside, join(folder.path, 'repo/a'))
    await expect(torrent.remove({ deleteFiles: true })).rejects.toMatchObject({ value: errno.eloop })
    expect(await readdir(join(outside, 'b'))).toEqual(['large.bin'])
    await expect(access(join(folder.path, 'repo/c.bin'))).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('as the save path itself, or on the way to an absolute path, was given by the caller', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(100_000)
    const seed = await startSeed(folder.path, bytes, { seed_mode: true, upload_mode: true })
    await using _seeding = seed.session
    await mkdir(join(folder.path, 'real'))
    const linked = join(folder.path, 'linked')
    await symlink(join(folder.path, 'real'), linked)
    await using session = openSession({ listen_interfaces: '127.0.0.2:0' })
    const torrent = await session.addTorrent({
      torrentFile: seed.torrentFile,
      savePath: linked,
      renamedFiles: { 0: join(linked, 'deeper/target') },
      peers: [await addressOf(seed.session)],
    })
    await nextAlert(torrent, 'torrent_finished')
    expect((await readFile(join(folder.path, 'real/deeper/target'))).equals(bytes)).toBe(true)
  })
})

test('a name given to a file later can lead neither nowhere nor upwards out of the save path', async () => {
  await using folder = await temporaryDirectory()
  const save = join(folder.path, 'save')
  await mkdir(save)
  const { torrentFile, path } = await makeTorrent(save, someBytes(100_000))
  await using session = openSession()
  const torrent = await session.addTorrent({ torrentFile, savePath: save, renamedFiles: { 0: path } })
  await nextAlert(torrent, 'torrent_finished')
  await expect(torrent.renameFile(0, '/proc/nowhere/blob')).rejects.toMatchObject({ value: errno.enoent })
  await expect(torrent.renameFile(0, '../escaped')).rejects.toMatchObject({ operation: 'renameFile' })
  expect(await readdir(folder.path)).toEqual(['save'])
  await access(path)
})

test('what is not a regular file is refused without waiting for it', async () => {
  await using folder = await temporaryDirectory()
  const seed = await startSeed(folder.path, someBytes(100_000), { seed_mode: true, upload_mode: true })
  await using _seeding = seed.session
  await using session = openSession({ listen_interfaces: '127.0.0.2:0' })
  const torrent = await session.addTorrent({
    torrentFile: seed.torrentFile,
    savePath: folder.path,
    // Writing to it is "no space", reading from it never ends.
    renamedFiles: { 0: '/dev/full' },
    peers: [await addressOf(seed.session)],
  })
  expect(await nextAlert(torrent, 'file_error')).toMatchObject({ file: '/dev/full' })
})

describe.each(diskBackends)('with the %s disk backend', (diskBackend) => {
  // By peers alone libtorrent does not always get there: it may ban the honest one for what the liar sent.
  test.each(formats)(
    'what a lying peer sent of a %s torrent is replaced by pieces from elsewhere',
    async (format) => {
      await using folder = await temporaryDirectory()
      const pieces = 31
      const bytes = someBytes(30 * pieceLength + 5, format)
      const { torrentFile, infoHashV1, infoHashV2 } = await makeTorrent(folder.path, bytes, { format })
      const infoHash = (format === 'v2' ? infoHashV2 : infoHashV1) as InfoHash
      await using liar = await startBadPeer('127.0.0.3', infoHash, pieces)
      await using session = openSession({}, { diskBackend })
      const target = join(folder.path, 'target')
      const torrent = await session.addTorrent({
        torrentFile,
        savePath: folder.path,
        renamedFiles: { 0: target },
        peers: [liar.address],
      })
      await nextAlert(torrent, 'hash_failed')
      session.banPeer(liar.address.host)
      for (let tries = 0; tries < 3; tries++) {
        const { pieces: had } = await torrent.status()
        for (let piece = 0; piece < pieces; piece++) {
          if (hasPiece(had, piece)) continue
          torrent.addPiece(piece, bytes.subarray(piece * pieceLength, (piece + 1) * pieceLength), {
            overwrite: true,
          })
        }
      }
      await until(async () => (await torrent.status()).isSeeding)
      expect((await readFile(target)).equals(bytes)).toBe(true)
    },
  )

  test('a transfer that is removed or closed at any moment ends in time, and leaves no file open', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(100 * 32_768)
    const { torrentFile, path } = await makeTorrent(folder.path, bytes)
    for (let round = 0; round < rounds(8, 60); round++) {
      await using seeding = openSession({}, { diskBackend })
      await using session = openSession({}, { diskBackend })
      const seed = await seeding.addTorrent({
        torrentFile,
        savePath: folder.path,
        renamedFiles: { 0: path },
        flags: { seed_mode: true, upload_mode: true },
      })
      const target = join(folder.path, `target-${round}`)
      const torrent = await session.addTorrent({
        torrentFile,
        savePath: folder.path,
        renamedFiles: { 0: target },
        peers: [await addressOf(seeding)],
      })
      await hasGot(torrent, (bytes.length * round) / rounds(8, 60))
      switch (round % 4) {
        case 0:
          await torrent.remove({ deleteFiles: true })
          await expect(access(target)).rejects.toMatchObject({ code: 'ENOENT' })
          break
        case 1:
          await seed.remove()
          break
        case 2:
          await Promise.all([session.close(), seeding.close()])
          break
        default:
          torrent.forceRecheck()
      }
    }
    const open = await readdir('/proc/self/fd')
    const links = await Promise.all(open.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
    expect(links.filter((link) => link.startsWith(folder.path))).toEqual([])
  })
})

async function hasGot(torrent: Torrent, bytes: number): Promise<void> {
  await until(async () => (await torrent.status()).totalDone >= bytes)
}
