/** What reaches TypeScript when the system refuses: full disks, broken ones, spent descriptors. */
import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hasPiece } from '../../src/native/alerts.ts'
import type { DiskBackend } from '../../src/native/session.ts'
import { runFixture } from '../support/native-child.ts'
import {
  addressOf,
  diskBackends,
  makeTorrent,
  nextAlert,
  openSession,
  someBytes,
} from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const errno = { eperm: 1, eio: 5, eagain: 11, enospc: 28 } as const

/** A download of 100 000 bytes into `target`, from a seed that has them. */
async function downloadTo(
  folder: string,
  target: string,
  diskBackend: DiskBackend,
  params: { havePieces?: Uint8Array; flags?: Record<string, boolean> } = {},
) {
  const { torrentFile, path } = await makeTorrent(folder, someBytes(100_000))
  const seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  await seeding.addTorrent({
    torrentFile,
    savePath: folder,
    renamedFiles: { 0: path },
    flags: { seed_mode: true, upload_mode: true },
  })
  const session = openSession({}, { diskBackend })
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: folder,
    renamedFiles: { 0: target },
    peers: [await addressOf(seeding)],
    ...params,
  })
  return {
    torrent,
    torrentFile,
    [Symbol.asyncDispose]: async () => void (await Promise.all([session.close(), seeding.close()])),
  }
}

describe.each(diskBackends)('with the %s disk backend', (diskBackend) => {
  test('a disk that cannot be written to is a file_error, and pauses the torrent', async () => {
    await using folder = await temporaryDirectory()
    // Its first page cannot be mapped, and so writing there is EIO.
    const broken = '/proc/self/mem'
    await using scene = await downloadTo(folder.path, broken, diskBackend, { havePieces: new Uint8Array(1) })
    expect(await nextAlert(scene.torrent, 'file_error')).toMatchObject({
      file: broken,
      operation: 'file_write',
      error: { value: errno.eio },
    })
    expect(await scene.torrent.status()).toMatchObject({ isPaused: true, totalDone: 0 })
  })

  test('a disk that cannot be read for the hash of a piece is a file_error, and pauses the torrent', async () => {
    await using folder = await temporaryDirectory()
    const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
    await using session = openSession({}, { diskBackend })
    const broken = '/proc/self/mem'
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: folder.path,
      renamedFiles: { 0: broken },
      havePieces: new Uint8Array(1),
      // Both blocks of the first piece: it is hashed at once.
      unfinishedPieces: [{ piece: 0, blocks: Uint8Array.of(0xc0) }],
    })
    expect(await nextAlert(torrent, 'file_error')).toMatchObject({
      file: broken,
      error: { value: errno.eio },
    })
    const status = await torrent.status()
    expect(status).toMatchObject({ isPaused: true })
    expect(hasPiece(status.pieces, 0)).toBe(false)
  })
})

test('a torrent in seed mode whose files are not looked at is never written to either', async () => {
  await using folder = await temporaryDirectory()
  const target = join(folder.path, 'missing')
  await using scene = await downloadTo(folder.path, target, 'own', {
    flags: { seed_mode: true, no_verify_files: true },
  })
  // It finds out that it has nothing when somebody looks, and would then fetch everything.
  const fault = nextAlert(scene.torrent, 'file_error')
  scene.torrent.forceRecheck()
  expect(await fault).toMatchObject({
    file: target,
    operation: 'file_write',
    error: { value: errno.eperm },
  })
  await expect(access(target)).rejects.toMatchObject({ code: 'ENOENT' })
})

test('resume data of a seed makes a torrent that may be written to, unless its flags say otherwise', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(100_000)
  const { torrentFile, path } = await makeTorrent(folder.path, bytes)
  await using seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  const seed = await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true, upload_mode: true },
  })
  const resumeData = await seed.saveResumeData()
  await using session = openSession()
  const target = join(folder.path, 'target')
  const torrent = await session.addTorrent({
    resumeData,
    savePath: folder.path,
    renamedFiles: { 0: target },
    havePieces: new Uint8Array(1),
    flags: { seed_mode: false, upload_mode: false },
    peers: [await addressOf(seeding)],
  })
  await nextAlert(torrent, 'torrent_finished')
  expect((await readFile(target)).equals(bytes)).toBe(true)
})

test.each([
  ['rename', 'file_renamed'],
  ['check', 'torrent_finished'],
])(
  'where all descriptors are spent, idle files of the backend are given up for a %s',
  async (task, answer) => {
    await using folder = await temporaryDirectory()
    const { stdout, stderr, code } = await runFixture('spent-descriptors.mjs', { args: [folder.path, task] })
    expect(stderr).toBe('')
    expect(stdout.trim().split('\n')).toEqual(['EMFILE', answer])
    expect(code).toBe(0)
  },
)

test('a thread that cannot be started is a NativeError with the number of the system', async () => {
  await using folder = await temporaryDirectory()
  const { stdout } = await runFixture('no-threads.mjs', { args: [folder.path] })
  expect(JSON.parse(stdout)).toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'hashFile',
    value: errno.eagain,
  })
})

test('unfinished pieces that name blocks past the end of their piece are a RangeError', async () => {
  await using folder = await temporaryDirectory()
  // The last piece has one block, and less than that.
  const { torrentFile } = await makeTorrent(folder.path, someBytes(3 * 32_768 + 10))
  await using session = openSession()
  const add = (piece: number, blocks: number) =>
    session.addTorrent({
      torrentFile,
      savePath: folder.path,
      havePieces: new Uint8Array(1),
      unfinishedPieces: [{ piece, blocks: Uint8Array.of(blocks) }],
    })
  for (const [piece, blocks] of [
    [3, 0xc0],
    [3, 0x01],
    [0, 0xe0],
  ] as const)
    await expect(add(piece, blocks)).rejects.toThrow(RangeError)
  const torrent = await add(0, 0x80)
  expect(await torrent.status()).toMatchObject({ totalDone: 16_384 })
})
