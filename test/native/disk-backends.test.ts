import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hasPiece } from '../../src/native/alerts.ts'
import type { Session, Torrent } from '../../src/native/session.ts'
import {
  addressOf,
  diskBackends,
  formats,
  nextAlert,
  openSession,
  someBytes,
  until,
} from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { makeFolderTorrent } from '../torrent/fixtures/make-torrent.ts'

const pieceLength = 64 * 1024
const blockLength = 16 * 1024

type Files = Readonly<Record<string, Buffer>>

/** What a repository may look like to a disk: empty files, sub folders, one block, one piece, one byte more. */
const snapshot: Files = {
  '.gitattributes': someBytes(1519, 'a'),
  'config.json': someBytes(blockLength, 'b'),
  'empty.txt': Buffer.alloc(0),
  'model-00001.safetensors': someBytes(7 * pieceLength + 3 * blockLength + 5, 'c'),
  'model-00002.safetensors': someBytes(4 * pieceLength, 'd'),
  'onnx/deep/er/empty': Buffer.alloc(0),
  'onnx/deep/model.onnx': someBytes(pieceLength + 1, 'e'),
  'onnx/model.onnx': someBytes(pieceLength, 'f'),
  'tokenizer.json': someBytes(3, 'g'),
}
const kinds: Readonly<Record<string, Files>> = {
  'many files': snapshot,
  'one file': { 'sub/only.bin': someBytes(5 * pieceLength + 100, 'h') },
  'one short piece': { 'sub/only.bin': someBytes(17_000, 'i') },
}

async function writeFiles(folder: string, files: Files): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
}

/** Path and digest of every file below a folder. */
async function filesBelow(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    found[path.slice(folder.length + 1)] = digestOf(await readFile(path))
  }
  return found
}

const digestOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
const digestsOf = (files: Files): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([path, bytes]) => [path, digestOf(bytes)]))

/** A seed of these files, in a folder named as the torrent. */
async function seedOf(session: Session, savePath: string, torrentFile: Uint8Array): Promise<Torrent> {
  const torrent = await session.addTorrent({
    torrentFile,
    savePath,
    flags: { seed_mode: true, upload_mode: true },
  })
  await nextAlert(torrent, 'torrent_checked')
  return torrent
}

const pairs = diskBackends.flatMap((from) => diskBackends.map((to) => [from, to] as const))
const cases = formats.flatMap((format) => Object.keys(kinds).map((kind) => [format, kind] as const))

describe.each(pairs)('from a seed with %s files to a download with %s ones', (from, to) => {
  test.each(cases)('a %s torrent of %s arrives byte for byte', async (format, kind) => {
    await using folder = await temporaryDirectory()
    const files = kinds[kind] as Files
    const { torrentFile } = makeFolderTorrent('repo', files, { format, pieceLength })
    const [source, target] = [join(folder.path, 'from'), join(folder.path, 'to')]
    await writeFiles(join(source, 'repo'), files)
    await using seeding = openSession({}, { diskBackend: from })
    await seedOf(seeding, source, torrentFile)
    await using session = openSession({}, { diskBackend: to })
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: target,
      peers: [await addressOf(seeding)],
    })
    await nextAlert(torrent, 'torrent_finished')
    expect(await torrent.status()).toMatchObject({ isSeeding: true, failedBytes: 0 })
    expect(await filesBelow(join(target, 'repo'))).toEqual(digestsOf(files))
  })
})

describe.each(diskBackends)('with the %s disk backend', (diskBackend) => {
  const open = (): Session => openSession({}, { diskBackend })

  test.each(formats)('a %s torrent is checked as it lies on the disk, damage included', async (format) => {
    await using folder = await temporaryDirectory()
    const { torrentFile } = makeFolderTorrent('repo', snapshot, { format, pieceLength })
    await writeFiles(join(folder.path, 'repo'), snapshot)
    const large = join(folder.path, 'repo', 'model-00001.safetensors')
    const damaged = Buffer.from(snapshot['model-00001.safetensors'] as Buffer)
    damaged.writeUInt8((damaged.readUInt8(2 * pieceLength) + 1) & 255, 2 * pieceLength + 9)
    await writeFile(large, damaged)
    await using session = open()
    const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
    await nextAlert(torrent, 'torrent_checked')
    const missing = await missingPieces(torrent)
    expect(missing).toHaveLength(1)
    await writeFile(large, snapshot['model-00001.safetensors'] as Buffer)
    const checked = nextAlert(torrent, 'torrent_checked')
    torrent.forceRecheck()
    await checked
    expect(await missingPieces(torrent)).toEqual([])
  })

  test.each(formats)(
    'a %s download of which some files are there asks only for the others',
    async (format) => {
      await using folder = await temporaryDirectory()
      const { torrentFile } = makeFolderTorrent('repo', snapshot, { format, pieceLength })
      const [source, target] = [join(folder.path, 'from'), join(folder.path, 'to')]
      await writeFiles(join(source, 'repo'), snapshot)
      const { 'model-00001.safetensors': large, ...rest } = snapshot
      await writeFiles(join(target, 'repo'), rest)
      await using seeding = openSession()
      await seedOf(seeding, source, torrentFile)
      await using session = open()
      const torrent = await session.addTorrent({
        torrentFile,
        savePath: target,
        peers: [await addressOf(seeding)],
      })
      await nextAlert(torrent, 'torrent_finished')
      const { payloadDownload } = await torrent.status()
      // In a v1 torrent, pieces at its ends belong to its neighbours as well.
      expect(payloadDownload).toBeLessThan((large as Buffer).length + 2 * pieceLength)
      expect(await filesBelow(join(target, 'repo'))).toEqual(digestsOf(snapshot))
    },
  )

  test.each(formats)(
    'a %s download stopped half way goes on from its resume data without a check',
    async (format) => {
      await using folder = await temporaryDirectory()
      const files = { 'a/large.bin': someBytes(40 * pieceLength + 11, format), 'b.bin': someBytes(1000) }
      const { torrentFile } = makeFolderTorrent('repo', files, { format, pieceLength })
      const [source, target] = [join(folder.path, 'from'), join(folder.path, 'to')]
      await writeFiles(join(source, 'repo'), files)
      await using seeding = openSession()
      const seed = await seedOf(seeding, source, torrentFile)
      seeding.exemptLocalPeers(false)
      seed.setRateLimits({ uploadBytesPerSecond: 10 * pieceLength })
      let resumeData: Uint8Array
      let had: number
      {
        await using session = open()
        const torrent = await session.addTorrent({
          torrentFile,
          savePath: target,
          peers: [await addressOf(seeding)],
        })
        await until(async () => (await torrent.status()).totalDone > 10 * pieceLength)
        resumeData = await torrent.saveResumeData()
        had = 42 - (await missingPieces(torrent)).length
      }
      seed.setRateLimits({})
      await using session = open()
      const torrent = await session.addTorrent({ resumeData, savePath: target })
      const states: string[] = []
      torrent.onAlert((alert) => {
        if (alert.type === 'fastresume_rejected') states.push(alert.type)
      })
      await nextAlert(torrent, 'torrent_checked')
      expect((await torrent.status()).totalDone).toBeGreaterThan((had - 3) * pieceLength)
      const finished = nextAlert(torrent, 'torrent_finished')
      torrent.connectPeer(await addressOf(seeding))
      await finished
      const { payloadDownload, failedBytes } = await torrent.status()
      expect(failedBytes).toBe(0)
      expect(payloadDownload).toBeLessThan((42 - had + 3) * pieceLength)
      expect(states).toEqual([])
      expect(await filesBelow(join(target, 'repo'))).toEqual(digestsOf(files))
    },
  )

  test('resume data of a file that is gone is refused, and the file is fetched again', async () => {
    await using folder = await temporaryDirectory()
    const { torrentFile } = makeFolderTorrent('repo', snapshot, { pieceLength })
    await writeFiles(join(folder.path, 'from', 'repo'), snapshot)
    let resumeData: Uint8Array
    {
      await using session = open()
      const torrent = await session.addTorrent({ torrentFile, savePath: join(folder.path, 'from') })
      await nextAlert(torrent, 'torrent_finished')
      resumeData = await torrent.saveResumeData()
    }
    const { 'onnx/model.onnx': _gone, ...rest } = snapshot
    const target = join(folder.path, 'to')
    await writeFiles(join(target, 'repo'), rest)
    await using seeding = openSession()
    await seedOf(seeding, join(folder.path, 'from'), torrentFile)
    await using session = open()
    const torrent = await session.addTorrent({
      resumeData,
      savePath: target,
      peers: [await addressOf(seeding)],
    })
    const [rejected] = await Promise.all([
      nextAlert(torrent, 'fastresume_rejected'),
      nextAlert(torrent, 'torrent_finished'),
    ])
    expect(rejected.file).toBe(join(target, 'repo', 'onnx/model.onnx'))
    expect(await filesBelow(join(target, 'repo'))).toEqual(digestsOf(snapshot))
  })

  test('renaming moves a file, inside the save path and out of it, and seeding goes on', async () => {
    await using folder = await temporaryDirectory()
    const { torrentFile } = makeFolderTorrent('repo', snapshot, { format: 'v1', pieceLength })
    await writeFiles(join(folder.path, 'repo'), snapshot)
    await using session = open()
    const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
    await nextAlert(torrent, 'torrent_finished')
    await torrent.renameFile(3, 'repo/moved/large.bin')
    await torrent.renameFile(4, join(folder.path, 'elsewhere/second.bin'))
    expect(Object.keys(await filesBelow(folder.path)).sort()).toEqual(
      [
        ...Object.keys(snapshot)
          .filter((path) => !path.startsWith('model-'))
          .map((path) => `repo/${path}`),
        'elsewhere/second.bin',
        'repo/moved/large.bin',
      ].sort(),
    )
    const checked = nextAlert(torrent, 'torrent_checked')
    torrent.forceRecheck()
    await checked
    expect(await missingPieces(torrent)).toEqual([])
  })

  test('removing with the files deletes them and their folders, and the same torrent can come again', async () => {
    await using folder = await temporaryDirectory()
    const { torrentFile } = makeFolderTorrent('repo', snapshot, { pieceLength })
    await using session = open()
    for (let round = 0; round < 3; round++) {
      await writeFiles(join(folder.path, 'repo'), snapshot)
      const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
      await nextAlert(torrent, 'torrent_finished')
      await torrent.remove({ deleteFiles: true })
      await expect(stat(join(folder.path, 'repo'))).rejects.toMatchObject({ code: 'ENOENT' })
    }
  })

  test('more files than may be open at once are downloaded and seeded all the same', async () => {
    await using folder = await temporaryDirectory()
    const files: Files = Object.fromEntries(
      Array.from({ length: 60 }, (_, i) => [`${i % 7}/${i}.bin`, someBytes(20_000 + i, String(i))]),
    )
    const { torrentFile } = makeFolderTorrent('repo', files, { format: 'v1', pieceLength })
    const [source, target] = [join(folder.path, 'from'), join(folder.path, 'to')]
    await writeFiles(join(source, 'repo'), files)
    await using seeding = openSession({ file_pool_size: 2 }, { diskBackend })
    await seedOf(seeding, source, torrentFile)
    await using session = openSession({ file_pool_size: 2 }, { diskBackend })
    const torrent = await session.addTorrent({
      torrentFile,
      savePath: target,
      peers: [await addressOf(seeding)],
    })
    let most = 0
    const watch = setInterval(async () => {
      most = Math.max(most, await openBelow(folder.path))
    }, 2)
    await nextAlert(torrent, 'torrent_finished')
    clearInterval(watch)
    expect(most).toBeLessThanOrEqual(4)
    expect(await filesBelow(join(target, 'repo'))).toEqual(digestsOf(files))
  })
})

/** Files below a folder that this process has open. */
async function openBelow(folder: string): Promise<number> {
  const links = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  return links.filter((link) => link.endsWith('.bin') && link.startsWith(folder)).length
}

async function missingPieces(torrent: Torrent): Promise<number[]> {
  const { pieces, isSeeding } = await torrent.status()
  // Of a seed there is no availability, which is what has one entry per piece.
  const { length } = isSeeding ? [] : await torrent.pieceAvailability()
  return Array.from({ length }, (_, piece) => piece).filter((piece) => !hasPiece(pieces, piece))
}
