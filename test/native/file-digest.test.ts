import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readlinkSync } from 'node:fs'
import { appendFile, mkdir, open, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { NativeFileDigest } from '../../src/native/binding.ts'
import { createTorrent } from '../../src/native/create-torrent.ts'
import { FileDigest, type FileDigestOptions, type FollowedDigests } from '../../src/native/file-digest.ts'
import { requireAddon } from '../../src/native/load.ts'
import { runFixture } from '../support/native-child.ts'
import { plainTorrent, someBytes, until } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
const cancelled = { name: 'NativeError', operation: 'fileDigest', category: 'generic', value: 125 }
const wrongSize = { name: 'NativeError', operation: 'fileDigest', message: expect.stringContaining('size') }

function follow(path: string, options: Partial<FileDigestOptions> & { sizeBytes: number }): FileDigest {
  return new FileDigest(requireAddon(), path, { sha256: true, gitSha1: true, ...options })
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Different for every seed, the same at every run. */
function* randomSteps(seed: number, longest: number): Generator<number, never> {
  for (let state = seed + 1; ; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield 1 + (state % longest)
  }
}

/** Writes `bytes` in random portions, and tells `digest` of each. */
async function download(path: string, bytes: Uint8Array, digest: FileDigest, longest: number): Promise<void> {
  await using file = await open(path, 'a')
  let written = 0
  for (const step of randomSteps(bytes.length, longest)) {
    if (written === bytes.length) return
    const part = bytes.subarray(written, written + step)
    await file.write(part)
    written += part.length
    digest.advance(written)
  }
}

/** Takes long enough to be in the middle of it. */
async function sparseFile(folder: string, sizeBytes: number = 256 * mebibyte): Promise<string> {
  const path = join(folder, 'sparse')
  await writeFile(path, '')
  await truncate(path, sizeBytes)
  return path
}

function isOpen(path: string): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(path)
    } catch {
      return false
    }
  })
}

const around = (size: number): number[] => [size - 1, size, size + 1]

describe.each([
  { pieceLength: 16 * kibibyte, longest: 20_000 },
  { pieceLength: 64 * kibibyte, longest: 70_000 },
  { pieceLength: 2 * mebibyte, longest: 1_500_000 },
])('with pieces of $pieceLength bytes', ({ pieceLength, longest }) => {
  const sizes = [1, ...around(16 * kibibyte), ...around(pieceLength), ...around(3 * pieceLength)]

  test.each(sizes)(
    'a growing file of %i bytes gets the digests of node:crypto and the torrent of createTorrent',
    async (sizeBytes) => {
      await using folder = await temporaryDirectory()
      const path = join(folder.path, 'file')
      const bytes = someBytes(sizeBytes)
      const torrent = { name: 'a name', pieceLength, createdBy: 'someone', trackers: ['http://one.example/'] }
      await writeFile(path, '')
      const digest = follow(path, { sizeBytes, torrent })
      await download(path, bytes, digest, longest)

      const { torrentFile, ...found } = await digest.finished
      const created = await createTorrent(requireAddon(), { ...plainTorrent, ...torrent, path })
      expect(found).toEqual({
        sizeBytes,
        sha256: sha256(bytes),
        gitSha1: createHash('sha1').update(`blob ${sizeBytes}\0`).update(bytes).digest('hex'),
        infoHashV2: created.infoHashV2,
      })
      expect(torrentFile && sha256(torrentFile)).toBe(sha256(created.torrentFile))
    },
  )
})

test.each([
  { sha256: true, gitSha1: false, withTorrent: true },
  { sha256: false, gitSha1: true, withTorrent: true },
  { sha256: false, gitSha1: false, withTorrent: true },
  { sha256: true, gitSha1: true, withTorrent: false },
])('each output is the same without the others: %o', async ({ withTorrent, ...digests }) => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  const torrent = { name: 'x', pieceLength: 64 * kibibyte, createdBy: '', trackers: [] }
  for (const sizeBytes of [1, 16 * kibibyte + 1, 3 * mebibyte - 1]) {
    const bytes = someBytes(sizeBytes)
    await writeFile(path, '')
    const digest = follow(path, { sizeBytes, ...digests, ...(withTorrent && { torrent }) })
    await download(path, bytes, digest, 150_000)
    const found = await digest.finished
    const created = await createTorrent(requireAddon(), { ...plainTorrent, ...torrent, path })
    expect(found.sha256).toBe(digests.sha256 ? sha256(bytes) : undefined)
    expect(found.gitSha1).toBe(
      digests.gitSha1
        ? createHash('sha1').update(`blob ${sizeBytes}\0`).update(bytes).digest('hex')
        : undefined,
    )
    expect(found.torrentFile && sha256(found.torrentFile)).toBe(
      withTorrent ? sha256(created.torrentFile) : undefined,
    )
    expect(digest.readBytes).toBe(sizeBytes)
  }
})

test('an empty file has digests at once, without being looked at, and no torrent', async () => {
  const torrent = { name: 'x', pieceLength: 16 * kibibyte, createdBy: '', trackers: [] }
  expect(await follow('/nonexistent', { sizeBytes: 0, torrent }).finished).toEqual({
    sizeBytes: 0,
    sha256: sha256(Buffer.alloc(0)),
    gitSha1: 'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391',
  })
})

test('the git digest is that of a git blob', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  for (const sizeBytes of [1, 100_000]) {
    await writeFile(path, someBytes(sizeBytes))
    const digest = follow(path, { sizeBytes })
    digest.advance(sizeBytes)
    const header = `blob ${sizeBytes}\0`
    const expected = createHash('sha1').update(header).update(someBytes(sizeBytes)).digest('hex')
    expect((await digest.finished).gitSha1).toBe(expected)
  }
  // From git's own documentation of its objects.
  await writeFile(path, 'what is up, doc?')
  const known = follow(path, { sizeBytes: 16 })
  known.advance(16)
  expect((await known.finished).gitSha1).toBe('bd9dbf5aae1a3862dd1526723246b20206e5fc37')
})

test('only what was asked for is there', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, 'x')
  const asked: [Partial<FileDigestOptions>, (keyof FollowedDigests)[]][] = [
    [{ sha256: false }, ['sizeBytes', 'gitSha1']],
    [{ gitSha1: false }, ['sizeBytes', 'sha256']],
    [{ sha256: false, gitSha1: false }, ['sizeBytes']],
  ]
  for (const [options, keys] of asked) {
    const digest = follow(path, { sizeBytes: 1, ...options })
    digest.advance(1)
    expect(Object.keys(await digest.finished)).toEqual(keys)
  }
})

test('it reads as far as the file is final and no further, and each byte once', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  const sizeBytes = 3 * mebibyte + 5
  await writeFile(path, someBytes(sizeBytes))
  const torrent = { name: 'x', pieceLength: 16 * kibibyte, createdBy: '', trackers: [] }
  const digest = follow(path, { sizeBytes, torrent })
  for (const end of [0, 1, 20_000, mebibyte, 3 * mebibyte]) {
    digest.advance(end)
    await until(async () => digest.hashedBytes === end)
    expect(digest.readBytes).toBe(end)
  }
  digest.advance(sizeBytes)
  await digest.finished
  expect([digest.hashedBytes, digest.readBytes]).toEqual([sizeBytes, sizeBytes])
})

test('what is written behind the prefix later is what is hashed', async () => {
  await using folder = await temporaryDirectory()
  const sizeBytes = 4 * mebibyte
  const path = await sparseFile(folder.path, sizeBytes)
  const bytes = someBytes(sizeBytes)
  await using file = await open(path, 'r+')
  const digest = follow(path, { sizeBytes })
  await file.write(bytes, 0, mebibyte, 0)
  digest.advance(mebibyte)
  await until(async () => digest.hashedBytes === mebibyte)
  await file.write(bytes, mebibyte, 3 * mebibyte, mebibyte)
  digest.advance(sizeBytes)
  expect((await digest.finished).sha256).toBe(sha256(bytes))
})

test.each([mebibyte / 2, 3 * mebibyte])(
  'a file of %i bytes may be renamed, replaced and deleted after the first advance',
  async (sizeBytes) => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    const bytes = someBytes(sizeBytes)
    await writeFile(path, bytes)
    const digest = follow(path, { sizeBytes })
    digest.advance(0)
    await rename(path, join(folder.path, 'final'))
    await writeFile(path, someBytes(sizeBytes, 'another'))
    digest.advance(sizeBytes / 2)
    await rm(join(folder.path, 'final'))
    digest.advance(sizeBytes)
    expect((await digest.finished).sha256).toBe(sha256(bytes))
  },
)

test('a file that ends before the final prefix is a NativeError', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path, 4 * mebibyte)
  const digest = follow(path, { sizeBytes: 4 * mebibyte })
  digest.advance(mebibyte)
  await until(async () => digest.hashedBytes === mebibyte)
  await truncate(path, 2 * mebibyte)
  digest.advance(3 * mebibyte)
  await expect(digest.finished).rejects.toMatchObject(wrongSize)
  digest.advance(4 * mebibyte)
})

test('a file that has lost or gained bytes by the end is a NativeError, though all of them were hashed', async () => {
  await using folder = await temporaryDirectory()
  const changes = [(path: string) => truncate(path, 5), (path: string) => appendFile(path, 'more')]
  for (const change of changes) {
    const path = await sparseFile(folder.path, 4 * mebibyte)
    const digest = follow(path, { sizeBytes: 4 * mebibyte })
    digest.advance(4 * mebibyte - 1)
    await until(async () => digest.hashedBytes === 4 * mebibyte - 1)
    await change(path)
    digest.advance(4 * mebibyte)
    await expect(digest.finished).rejects.toMatchObject(wrongSize)
  }
})

test('a path that leads to no plain file is a NativeError that names it, and advance does not throw', async () => {
  await using folder = await temporaryDirectory()
  const at = (name: string): string => join(folder.path, name)
  await mkdir(at('directory'))
  await promisify(execFile)('mkfifo', [at('fifo')])
  await writeFile(at('file'), 'x')
  await symlink(at('file'), at('link'))
  const numbers = { missing: 2, directory: 21, fifo: 22, link: 40 }
  for (const [name, value] of Object.entries(numbers)) {
    const digest = follow(at(name), { sizeBytes: 1 })
    digest.advance(1)
    digest.advance(1)
    await expect(digest.finished).rejects.toMatchObject({
      name: 'NativeError',
      code: 'ERR_LLMPT_NATIVE',
      operation: 'fileDigest',
      category: 'system',
      value,
      message: expect.stringContaining(at(name)),
      stack: expect.stringContaining('file-digest.test.ts'),
    })
  }
})

test('the event loop turns while it hashes', async () => {
  await using folder = await temporaryDirectory()
  const digest = follow(await sparseFile(folder.path), { sizeBytes: 256 * mebibyte })
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  digest.advance(256 * mebibyte)
  await digest.finished
  clearInterval(timer)
  expect(turns).toBeGreaterThan(10)
})

test('no thread starts before there is something to hash, nor for a small file before it is complete', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path, mebibyte)
  const threads = (): number => readdirSync('/proc/self/task').length
  const before = threads()
  const waiting = [0, 1, mebibyte - 1].map((end) => {
    const digest = follow(path, { sizeBytes: mebibyte })
    digest.advance(end)
    return digest
  })
  expect(threads()).toBe(before)
  for (const digest of waiting) digest.close()
})

describe('closing', () => {
  test('while it hashes ends it within the read that is under way', async () => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path)
    const digest = follow(path, { sizeBytes: 256 * mebibyte })
    digest.advance(256 * mebibyte)
    await until(async () => digest.hashedBytes > 0)
    digest.close()
    const atClose = digest.hashedBytes
    await expect(digest.finished).rejects.toMatchObject(cancelled)
    expect(digest.readBytes).toBeLessThan(256 * mebibyte)
    expect(digest.hashedBytes - atClose).toBeLessThanOrEqual(2 * mebibyte)
    expect(isOpen(path)).toBe(false)
  })

  test.each([undefined, 0, mebibyte])('while it waits at %s wakes it', async (end) => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path, 4 * mebibyte)
    const digest = follow(path, { sizeBytes: 4 * mebibyte })
    if (end !== undefined) {
      digest.advance(end)
      await until(async () => digest.hashedBytes === end)
      expect(isOpen(path)).toBe(true)
    }
    digest.close()
    await expect(digest.finished).rejects.toMatchObject(cancelled)
    expect(isOpen(path)).toBe(false)
  })

  test('again, or after the end, changes nothing, and neither does an advance after it', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, 'x')
    const digest = follow(path, { sizeBytes: 1 })
    digest.advance(1)
    await digest.finished
    expect(isOpen(path)).toBe(false)
    digest.close()
    digest.close()
    expect((await digest.finished).sha256).toBe(sha256(Buffer.from('x')))

    const closed = follow(path, { sizeBytes: 1 })
    closed.close()
    closed.close()
    closed.advance(1)
    await expect(closed.finished).rejects.toMatchObject(cancelled)
    expect(isOpen(path)).toBe(false)
  })
})

test('an end that goes back, lies outside of the file, or is no number is refused and does no harm', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path, 2 * mebibyte)
  const digest = follow(path, { sizeBytes: 2 * mebibyte })
  digest.advance(mebibyte)
  for (const end of [mebibyte - 1, -1, 2 * mebibyte + 1, mebibyte + 0.5, Number.NaN]) {
    expect(() => digest.advance(end)).toThrow(RangeError)
  }
  expect(() => digest.advance('1' as unknown as number)).toThrow(TypeError)
  digest.advance(2 * mebibyte)
  expect((await digest.finished).sha256).toBe(sha256(Buffer.alloc(2 * mebibyte)))
})

const torrent = { name: 'x', pieceLength: 16 * kibibyte, createdBy: '', trackers: [] }
const misuse: [Record<string, unknown>, typeof TypeError | typeof RangeError][] = [
  [{ sizeBytes: -1 }, RangeError],
  [{ sizeBytes: 1.5 }, RangeError],
  [{ sizeBytes: '1' }, TypeError],
  [{ sha256: undefined }, TypeError],
  [{ gitSha1: 1 }, TypeError],
  [{ torrent: 'x' }, TypeError],
  [{ torrent: { ...torrent, name: 'a/b' } }, TypeError],
  [{ torrent: { ...torrent, trackers: undefined } }, TypeError],
  [{ torrent: { ...torrent, pieceLength: 48 * kibibyte } }, RangeError],
]

test.each(misuse)('options with %o are refused', (wrong, kind) => {
  expect(() => follow('/nonexistent', { sizeBytes: 1, ...wrong })).toThrow(kind)
})

test('a torrent of more pieces than there can be is refused', () => {
  const refused = expect.objectContaining({ name: 'NativeError', operation: 'fileDigest' })
  expect(() => follow('/nonexistent', { sizeBytes: 2 ** 50, torrent })).toThrow(refused)
})

test('native methods and getters refuse objects of another class', () => {
  const { FileDigest: Native, Session } = requireAddon()
  const { advance, close } = Native.prototype as NativeFileDigest
  const getter = Object.getOwnPropertyDescriptor(Native.prototype, 'hashedBytes')?.get
  expect(getter).toBeDefined()
  for (const self of [{}, undefined, 7, Native, Session.prototype]) {
    expect(() => advance.call(self as never, 1)).toThrow(TypeError)
    expect(() => close.call(self as never)).toThrow(TypeError)
    expect(() => getter?.call(self)).toThrow(TypeError)
  }
})

test('failures that nobody listens to are no unhandled rejections', async () => {
  const heard: unknown[] = []
  const listener = (reason: unknown): unknown => heard.push(reason)
  process.on('unhandledRejection', listener)
  const failed = follow('/nonexistent', { sizeBytes: 1 })
  failed.advance(1)
  follow('/nonexistent', { sizeBytes: 1 }).close()
  // Node tells of them when the microtasks of a turn are done.
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
  process.off('unhandledRejection', listener)
  expect(heard).toEqual([])
})

test.each([
  { way: 'exit', code: 3, signal: null },
  { way: 'throw', code: 1, signal: null },
  { way: 'SIGTERM', code: null, signal: 'SIGTERM' },
  { way: 'return', code: 0, signal: null },
])('a process whose digests hash and wait ends as any other by: $way', async ({ way, code, signal }) => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path, 8192 * mebibyte)
  const begin = performance.now()
  const ended = await runFixture('digest-end.mjs', { args: [path, way] })
  expect({ code: ended.code, signal: ended.signal }).toEqual({ code, signal })
  expect(ended.stdout).toBe('busy\n')
  if (code === 1) expect(ended.stderr).toContain('Error: uncaught')
  else expect(ended.stderr).toBe('')
  // Hashing it would take more than fifteen.
  expect(performance.now() - begin).toBeLessThan(10_000)
})

test('worker threads can be terminated while digests hash and wait', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path)
  const { code, signal, stdout, stderr } = await runFixture('digest-workers.mjs', { args: [path] })
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
  expect(stdout).toBe(`${'terminated\n'.repeat(6)}${256 * mebibyte}\n`)
})

test('240 digests that finish, fail, are closed or forgotten leave no thread, no descriptor and little memory', async () => {
  await using folder = await temporaryDirectory()
  const path = await sparseFile(folder.path, 2 * mebibyte)
  const { code, stdout } = await runFixture('digest-repeat.mjs', {
    args: [path],
    nodeArgs: ['--expose-gc'],
  })
  expect(code).toBe(0)
  const left = JSON.parse(stdout) as { rssBytes: number; threads: number; descriptors: number }
  expect(left).toMatchObject({ threads: 0, descriptors: 0 })
  // Each has read 2 MiB into a buffer of 1 MiB.
  expect(left.rssBytes).toBeLessThan(16 * mebibyte)
})

test('a file that refuses to be read is a NativeError', async () => {
  // Its first page cannot be mapped, and so reading there is EIO.
  const digest = follow('/proc/self/mem', { sizeBytes: mebibyte })
  digest.advance(mebibyte)
  await expect(digest.finished).rejects.toMatchObject({ name: 'NativeError', category: 'system', value: 5 })
})
