import { execFile } from 'node:child_process'
import { chmod, mkdir, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { NativeCreateTorrentOptions } from '../../src/native/binding.ts'
import { createTorrent } from '../../src/native/create-torrent.ts'
import { requireAddon } from '../../src/native/load.ts'
import { type Format, formats, makeTorrent, plainTorrent, someBytes } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 32 * 1024
const sizes = [
  1,
  16_384,
  16_385,
  pieceLength,
  pieceLength + 1,
  3 * pieceLength - 1,
  4 * pieceLength,
  1_000_003,
]

/** libtorrent's own creation, in its Python binding. */
const python = `
import sys, json, libtorrent as lt
folder, piece_length, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
flags = {'v1': lt.create_torrent.v1_only, 'v2': lt.create_torrent.v2_only, 'hybrid': 0}[kind]
answers = []
for size in map(int, sys.argv[4:]):
    files = lt.file_storage()
    files.add_file(str(size), size)
    torrent = lt.create_torrent(files, piece_length, flags)
    lt.set_piece_hashes(torrent, folder)
    hashes = lt.torrent_info(torrent.generate()).info_hashes()
    answers.append([str(hashes.v1) if hashes.has_v1() else None, str(hashes.v2) if hashes.has_v2() else None])
print(json.dumps(answers))
`

describe.each(formats)('a %s torrent', (format: Format) => {
  test("has the info hash that libtorrent's own creation gives", async () => {
    await using folder = await temporaryDirectory()
    const ours: unknown[] = []
    for (const size of sizes) {
      const path = join(folder.path, String(size))
      const made = await makeTorrent(folder.path, someBytes(size, String(size)), {
        format,
        path,
        name: String(size),
      })
      ours.push([made.infoHashV1 ?? null, made.infoHashV2 ?? null])
    }
    const args = ['-c', python, folder.path, String(pieceLength), format, ...sizes.map(String)]
    const { stdout } = await promisify(execFile)('/usr/bin/python3', args)
    expect(ours).toEqual(JSON.parse(stdout))
  })

  test('does not depend on the name, the dates or the mode of the file, nor on the number of threads', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(500_001)
    const one = await makeTorrent(folder.path, bytes, { format, path: join(folder.path, 'one'), threads: 1 })
    const path = join(folder.path, 'other.sh')
    await writeFile(path, bytes)
    await chmod(path, 0o755)
    await utimes(path, 1, 1)
    const other = await createTorrent(requireAddon(), { ...plainTorrent, path, format, threads: 7 })
    expect(Buffer.from(other.torrentFile).equals(Buffer.from(one.torrentFile))).toBe(true)
  })

  test('tells of trackers, comment and creator outside the info dictionary only', async () => {
    await using folder = await temporaryDirectory()
    const bytes = someBytes(100_000)
    const bare = await makeTorrent(folder.path, bytes, { format })
    const full = await makeTorrent(folder.path, bytes, {
      format,
      trackers: ['http://one.example/announce', 'http://two.example/announce'],
      comment: 'words',
      createdBy: 'someone',
    })
    expect(full.infoHashV1).toBe(bare.infoHashV1)
    expect(full.infoHashV2).toBe(bare.infoHashV2)
    const text = Buffer.from(full.torrentFile).toString('latin1')
    expect(text).toContain('13:announce-list')
    expect(text).toContain('7:comment5:words10:created by7:someone')
    expect(text).not.toMatch(/creation date|private|source|attr|mtime|url-list/)
  })
})

test('a v2 info dictionary holds the file tree, the version, the name and the piece length, and nothing else', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile } = await makeTorrent(folder.path, Buffer.alloc(100_000, 7), { name: 'blob' })
  const text = Buffer.from(torrentFile).toString('latin1')
  const info =
    /^d4:infod9:file treed4:blobd0:d6:lengthi100000e11:pieces root32:[\s\S]{32}eee12:meta versioni2e4:name4:blob12:piece lengthi32768ee12:piece layersd/
  expect(text).toMatch(info)
})

test('a v1 torrent is one file, not a folder', async () => {
  await using folder = await temporaryDirectory()
  const { torrentFile } = await makeTorrent(folder.path, Buffer.alloc(100_000, 7), { format: 'v1' })
  const text = Buffer.from(torrentFile).toString('latin1')
  expect(text).toMatch(/^d4:infod6:lengthi100000e4:name4:blob12:piece lengthi32768e6:pieces80:[\s\S]{80}ee$/)
})

test('progress counts the pieces up to the last one', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, someBytes(1_000_000))
  const heard: [number, number][] = []
  await createTorrent(
    requireAddon(),
    { ...plainTorrent, path },
    { onProgress: (...numbers) => heard.push(numbers) },
  )
  expect(heard.at(-1)).toEqual([31, 31])
  expect(heard).toEqual(heard.toSorted(([one], [other]) => one - other))
})

/** Takes long enough to be in the middle of it. */
async function sparseFile(folder: string): Promise<string> {
  const path = join(folder, 'sparse')
  await writeFile(path, '')
  await truncate(path, 2 ** 31)
  return path
}

test('aborting ends the creation with the reason of the signal', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  const controller = new AbortController()
  const reason = new Error('enough')
  const creation = createTorrent(
    requireAddon(),
    { ...plainTorrent, path, pieceLength: 1 << 20 },
    { signal: controller.signal, onProgress: () => controller.abort(reason) },
  )
  await expect(creation).rejects.toBe(reason)
})

test('an aborted signal keeps the creation from starting', async () => {
  const signal = AbortSignal.abort()
  const creation = createTorrent(requireAddon(), { ...plainTorrent, path: '/nonexistent' }, { signal })
  await expect(creation).rejects.toBe(signal.reason)
})

test('what onProgress throws ends the creation', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  const bug = new Error('bug')
  const creation = createTorrent(
    requireAddon(),
    { ...plainTorrent, path, pieceLength: 1 << 20 },
    {
      onProgress: () => {
        throw bug
      },
    },
  )
  await expect(creation).rejects.toBe(bug)
})

test('a file that cannot be read is a NativeError that names it', async () => {
  await using folder = await temporaryDirectory()
  const directory = join(folder.path, 'directory')
  const empty = join(folder.path, 'empty')
  const fifo = join(folder.path, 'fifo')
  await mkdir(directory)
  await writeFile(empty, '')
  await promisify(execFile)('mkfifo', [fifo])
  for (const path of [join(folder.path, 'missing'), directory, empty, fifo]) {
    await expect(createTorrent(requireAddon(), { ...plainTorrent, path })).rejects.toMatchObject({
      name: 'NativeError',
      code: 'ERR_LLMPT_NATIVE',
      operation: 'createTorrent',
      message: expect.stringContaining(path),
    })
  }
})

test('a file that shrinks meanwhile is a NativeError', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  let done: Promise<void> | undefined
  const creation = createTorrent(
    requireAddon(),
    { ...plainTorrent, path, pieceLength: 1 << 20, threads: 1 },
    {
      onProgress: () => {
        done ??= truncate(path, 1 << 20)
      },
    },
  )
  await expect(creation).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE', category: 'libtorrent' })
  await done
})

const misuse: [
  Partial<Record<keyof NativeCreateTorrentOptions, unknown>>,
  typeof TypeError | typeof RangeError,
][] = [
  [{ name: '' }, TypeError],
  [{ name: '..' }, TypeError],
  [{ name: 'a/b' }, TypeError],
  [{ name: 'a\0b' }, TypeError],
  [{ name: undefined }, TypeError],
  [{ format: 'v3' }, TypeError],
  [{ path: 7 }, TypeError],
  [{ trackers: 'http://x' }, TypeError],
  [{ trackers: [7] }, TypeError],
  [{ pieceLength: '16384' }, TypeError],
  [{ pieceLength: 8192 }, RangeError],
  [{ pieceLength: 48 * 1024 }, RangeError],
  [{ pieceLength: 2 ** 28 }, RangeError],
  [{ pieceLength: 16_385, format: 'v1' }, RangeError],
  [{ threads: 0 }, RangeError],
]

test.each(misuse)('options with %o are refused', async (wrong, kind) => {
  const options = { ...plainTorrent, path: '/nonexistent', ...wrong } as NativeCreateTorrentOptions
  await expect(createTorrent(requireAddon(), options)).rejects.toThrow(kind)
})

test('v1 pieces need not be a power of two', async () => {
  await using folder = await temporaryDirectory()
  const made = await makeTorrent(folder.path, someBytes(200_000), { format: 'v1', pieceLength: 48 * 1024 })
  expect(made).toMatchObject({ pieceLength: 48 * 1024, sizeBytes: 200_000 })
})
