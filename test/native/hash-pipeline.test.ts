/** What `createTorrent` and `hashFile` share: one pass over a file for all that is wanted of it, and a budget of threads. */
import { execFile } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { appendFileSync, closeSync, openSync, truncateSync, writeSync } from 'node:fs'
import { truncate, utimes, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { createTorrent } from '../../src/native/create-torrent.ts'
import { hashFile } from '../../src/native/hash-file.ts'
import { requireAddon } from '../../src/native/load.ts'
import type { JobOptions } from '../../src/native/native-job.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { asEtag, type BlobRef } from '../../src/values.ts'
import { runFixture } from '../support/native-child.ts'
import { type Format, formats, plainTorrent } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
/** What native/portion.h reads at a time. */
const portionBytes = 512 * kibibyte
/** How many threads hash at a time: native/thread_budget.cpp. */
const threadLimit = Math.min(32, Math.max(4, availableParallelism()))

const around = (size: number): number[] => [size - 1, size, size + 1]

/** The same for every run, and no two blocks alike. */
function noise(length: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16)).update(Buffer.alloc(length))
}

const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const gitSha1Of = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

const digestChoices = [
  { sha256: false, gitSha1: false },
  { sha256: true, gitSha1: false },
  { sha256: false, gitSha1: true },
  { sha256: true, gitSha1: true },
]

/** libtorrent's own creation, in its Python binding. */
const python = `
import sys, json, libtorrent as lt
folder, sizes = sys.argv[1], json.loads(sys.argv[2])
flags = {'v1': lt.create_torrent.v1_only, 'v2': lt.create_torrent.v2_only, 'hybrid': 0}
answers = {}
for piece_length, size in sizes:
    for kind in flags:
        files = lt.file_storage()
        files.add_file(str(size), size)
        torrent = lt.create_torrent(files, piece_length, flags[kind])
        lt.set_piece_hashes(torrent, folder)
        hashes = lt.torrent_info(torrent.generate()).info_hashes()
        answers['%d %d %s' % (piece_length, size, kind)] = [
            str(hashes.v1) if hashes.has_v1() else '', str(hashes.v2) if hashes.has_v2() else '']
print(json.dumps(answers))
`

test.each([
  { pieceLength: 16 * kibibyte, pieces: 3 },
  { pieceLength: 64 * kibibyte, pieces: 9 },
  { pieceLength: portionBytes, pieces: 3 },
  { pieceLength: mebibyte, pieces: 5 },
  { pieceLength: 16 * mebibyte, pieces: 2 },
])(
  'pieces of $pieceLength bytes: all outputs together and each alone, on one thread and on several, are those of libtorrent and node:crypto, and each byte is read once',
  async ({ pieceLength, pieces }) => {
    await using folder = await temporaryDirectory()
    const sizes = new Set([
      1,
      ...around(16 * kibibyte),
      ...around(pieceLength),
      ...around(pieces * pieceLength),
    ])
    const bytes = noise(pieces * pieceLength + 1)
    for (const size of sizes) await writeFile(join(folder.path, String(size)), bytes.subarray(0, size))
    const asked = JSON.stringify([...sizes].map((size) => [pieceLength, size]))
    const { stdout } = await promisify(execFile)('/usr/bin/python3', ['-c', python, folder.path, asked])
    const expected = JSON.parse(stdout) as Record<string, [string, string]>
    for (const size of sizes) {
      const content = bytes.subarray(0, size)
      const [sha256, gitSha1] = [sha256Of(content), gitSha1Of(content)]
      const path = join(folder.path, String(size))
      for (const format of formats) {
        const torrents = new Set<string>()
        for (const digests of digestChoices) {
          for (const threads of [1, 4]) {
            const options = {
              ...plainTorrent,
              path,
              name: String(size),
              pieceLength,
              format,
              threads,
              ...digests,
            }
            const made = await createTorrent(requireAddon(), options)
            torrents.add(sha256Of(made.torrentFile))
            const { infoHashV1 = '', infoHashV2 = '' } = made
            expect([infoHashV1, infoHashV2]).toEqual(expected[`${pieceLength} ${size} ${format}`])
            expect([made.sha256, made.gitSha1, made.readBytes]).toEqual([
              digests.sha256 ? sha256 : undefined,
              digests.gitSha1 ? gitSha1 : undefined,
              size,
            ])
          }
        }
        expect(torrents.size).toBe(1)
      }
    }
  },
  60_000,
)

test('digests on several threads are those of one, whatever the length of the last portion', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  // Fewer portions than there are buffers, as many, and more.
  const sizes = [0, 1, ...around(portionBytes), ...around(4 * portionBytes), ...around(11 * portionBytes)]
  const bytes = noise(Math.max(...sizes))
  for (const size of sizes) {
    const content = bytes.subarray(0, size)
    await writeFile(path, content)
    for (const digests of digestChoices) {
      for (const threads of [1, 2, 1024]) {
        const hashed = await hashFile(requireAddon(), path, { ...digests, threads })
        expect(hashed).toEqual({
          sizeBytes: size,
          ...(digests.sha256 && { sha256: sha256Of(content) }),
          ...(digests.gitSha1 && { gitSha1: gitSha1Of(content) }),
          readBytes: digests.sha256 || digests.gitSha1 ? size : 0,
        })
      }
    }
  }
})

/** A promise, and who fulfils it. */
function signal(): { readonly given: Promise<void>; readonly give: () => void } {
  let give = (): void => {}
  const given = new Promise<void>((resolve) => {
    give = resolve
  })
  return { given, give }
}

test.each([1, 4])("OpenSSL's code, on %i threads, gives what the processor's own gives", async (threads) => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, noise(5 * mebibyte + 1))
  for (const digests of digestChoices) {
    const job = { ...plainTorrent, path, format: 'hybrid' as const, threads, ...digests }
    const args = [JSON.stringify({ count: 1, job })]
    const { stdout } = await runFixture('hash-many.mjs', { args, env: { HF_P2P_SHA256: 'openssl' } })
    const { infoHashV2, sha256, gitSha1 } = await createTorrent(requireAddon(), job)
    expect(JSON.parse(stdout).results).toEqual([[infoHashV2, sha256, gitSha1].join(' ')])
  }
})

/** Takes long enough to be in the middle of it. */
async function sparseFile(folder: string, sizeBytes = 512 * mebibyte): Promise<string> {
  const path = join(folder, 'sparse')
  await writeFile(path, '')
  await truncate(path, sizeBytes)
  // So that any write changes it, however coarse the file system's clock is.
  await utimes(path, 1, 1)
  return path
}

/** Each way through the addon, as far as it divides the work differently. */
const ways: { way: string; run: (path: string, job?: JobOptions) => Promise<unknown> }[] = [
  { way: 'v2', run: torrentWith({ format: 'v2', pieceLength: 16 * mebibyte }) },
  { way: 'hybrid', run: torrentWith({ format: 'hybrid', pieceLength: mebibyte }) },
  { way: 'v2 and SHA-256 on one thread', run: torrentWith({ format: 'v2', sha256: true, threads: 1 }) },
  { way: 'everything', run: torrentWith({ format: 'hybrid', sha256: true, gitSha1: true }) },
  {
    way: 'two digests',
    run: (path, job) => hashFile(requireAddon(), path, { sha256: true, gitSha1: true, threads: 2 }, job),
  },
]

function torrentWith(options: {
  format: Format
  pieceLength?: number
  sha256?: boolean
  gitSha1?: boolean
  threads?: number
}) {
  return (path: string, job?: JobOptions): Promise<unknown> =>
    createTorrent(
      requireAddon(),
      { ...plainTorrent, path, pieceLength: mebibyte, threads: 4, ...options },
      job,
    )
}

describe.each(ways)('$way', ({ run }) => {
  test.each([
    { change: 'shrinks', apply: (path: string) => truncateSync(path, mebibyte), message: /size/ },
    { change: 'grows', apply: (path: string) => appendFileSync(path, 'more'), message: /size/ },
    { change: 'is written in place', apply: writeOneByte, message: /timestamp/ },
  ])('a file that $change meanwhile is a NativeError', async ({ apply, message }) => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path)
    let has = false
    const onProgress = (): void => {
      if (!has) apply(path)
      has = true
    }
    const error = await run(path, { onProgress }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'ERR_LLMPT_NATIVE', category: 'libtorrent' })
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).toContain(path)
  })

  test('is cancelled long before the end of the file', async () => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path, 2 ** 36)
    const controller = new AbortController()
    const reason = new Error('enough')
    const hashing = run(path, { signal: controller.signal, onProgress: () => controller.abort(reason) })
    // Hashing all of it would take longer than the test may.
    await expect(hashing).rejects.toBe(reason)
  })
})

function writeOneByte(path: string): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, 'x', 0)
  closeSync(fd)
}

describe('files that are hashed at the same time', () => {
  /** Files whose hashing does not end before `stop`, one for every thread there may be. */
  async function occupyAllThreads(folder: string) {
    const path = await sparseFile(folder, 2 ** 40)
    const jobs = await Promise.all(
      Array.from({ length: threadLimit }, async () => {
        const controller = new AbortController()
        const started = signal()
        const ended = hashFile(
          requireAddon(),
          path,
          { sha256: true, gitSha1: false },
          { signal: controller.signal, onProgress: () => started.give() },
        ).catch(() => {})
        await started.given
        return {
          stop: () => {
            controller.abort()
            return ended
          },
        }
      }),
    )
    return {
      stopOne: () => jobs.pop()?.stop(),
      [Symbol.asyncDispose]: async () => {
        await Promise.all(jobs.map((job) => job.stop()))
      },
    }
  }

  test('wait for their turn, in order', async () => {
    await using folder = await temporaryDirectory()
    await using busy = await occupyAllThreads(folder.path)
    const order: number[] = []
    const waiting = Array.from({ length: 20 }, async (_, i) => {
      const path = join(folder.path, String(i))
      appendFileSync(path, `content ${i}`)
      const { sha256 } = await hashFile(requireAddon(), path, { sha256: true, gitSha1: false })
      expect(sha256).toBe(sha256Of(Buffer.from(`content ${i}`)))
      order.push(i)
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect(order).toEqual([])
    await busy.stopOne()
    await Promise.all(waiting)
    expect(order).toEqual(order.toSorted((one, other) => one - other))
  })

  test('need no turn to be cancelled', async () => {
    await using folder = await temporaryDirectory()
    await using _busy = await occupyAllThreads(folder.path)
    const controller = new AbortController()
    const hashing = createTorrent(
      requireAddon(),
      { ...plainTorrent, path: join(folder.path, 'sparse') },
      { signal: controller.signal },
    )
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(hashing).rejects.toBe(reason)
  })

  test('do not wait for the threads that help with a large one', async () => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path, 2 ** 40)
    const small = join(folder.path, 'small')
    await writeFile(small, 'content')
    const controller = new AbortController()
    const started = signal()
    const large = createTorrent(
      requireAddon(),
      { ...plainTorrent, path, pieceLength: 16 * mebibyte, threads: 1024 },
      { signal: controller.signal, onProgress: () => started.give() },
    ).catch((error: unknown) => error)
    await started.given
    const { sha256 } = await hashFile(requireAddon(), small, { sha256: true, gitSha1: false })
    expect(sha256).toBe(sha256Of(Buffer.from('content')))
    controller.abort(new Error('enough'))
    expect(await large).toBe(controller.signal.reason)
  })

  test.each([
    { way: 'exit', code: 3, signal: null },
    { way: 'throw', code: 1, signal: null },
    { way: 'SIGTERM', code: null, signal: 'SIGTERM' },
    { way: 'return', code: 0, signal: null },
    { way: 'terminate', code: 0, signal: null },
  ])('do not hinder a process or a worker thread that ends by: $way', async ({ way, code, signal }) => {
    await using folder = await temporaryDirectory()
    // Hashing one of them would take minutes.
    const path = await sparseFile(folder.path, 2 ** 40)
    const ended = await runFixture('hash-end.mjs', { args: [path, way] })
    expect(ended).toMatchObject({ code, signal, stdout: 'busy\n' })
    if (code !== 1) expect(ended.stderr).toBe('')
  })

  test('a worker thread may end in the report of a job that has ended', async () => {
    await using folder = await temporaryDirectory()
    const path = await sparseFile(folder.path, mebibyte)
    const ended = await runFixture('exit-in-progress.mjs', { args: [path] })
    expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'done\n' })
  })

  test.each([
    { count: 500, sizeBytes: 64 * kibibyte, sha256: true, gitSha1: false, format: 'v2' },
    { count: 30, sizeBytes: 8 * mebibyte, sha256: true, gitSha1: true, format: 'hybrid' },
    { count: 1, sizeBytes: 1024 * mebibyte, sha256: false, gitSha1: false, format: 'v2' },
    { count: 1, sizeBytes: 256 * mebibyte, sha256: true, gitSha1: true, format: 'hybrid' },
  ])(
    '$count of $sizeBytes bytes ($format, sha256: $sha256) need little memory and few threads, though each asks for 1024',
    async ({ count, sizeBytes, ...options }) => {
      await using folder = await temporaryDirectory()
      const path = await sparseFile(folder.path, sizeBytes)
      const job = { ...plainTorrent, path, pieceLength: 16 * mebibyte, threads: 1024, ...options }
      const ended = await runFixture('hash-many.mjs', {
        args: [JSON.stringify({ count, job })],
        capMs: 60_000,
      })
      expect(ended).toMatchObject({ code: 0, stderr: '' })
      const taken = JSON.parse(ended.stdout) as {
        anonymousBytes: number
        threads: number
        results: string[]
      }
      expect(taken.results).toHaveLength(1)
      expect(taken.anonymousBytes).toBeLessThan(48 * mebibyte)
      // Those who help with a digest stay to the end of their file, so there may be more than the limit.
      expect(taken.threads).toBeLessThan(2 * threadLimit)
    },
    60_000,
  )
})

describe('the torrent of a blob that is compared with its etag', () => {
  const content = noise(100_000)
  const blobOf = (etag: string, sizeBytes = content.length): BlobRef => {
    const checked = asEtag(etag)
    if (checked === undefined) throw new Error(`${etag} is no etag`)
    return { etag: checked, sizeBytes }
  }

  test.each([sha256Of(content), gitSha1Of(content)])('%s is made when it fits', async (etag) => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, content)
    const made = await createBlobTorrent(requireAddon(), path, blobOf(etag), { check: true })
    const trusted = await createBlobTorrent(requireAddon(), path, blobOf(etag))
    expect(made?.infoHash).toBe(trusted?.infoHash)
    expect(made?.readBytes).toBe(content.length)
  })

  test.each([
    blobOf(sha256Of(Buffer.from('other'))),
    blobOf(gitSha1Of(Buffer.from('other'))),
    blobOf(sha256Of(content), content.length + 1),
  ])('%o is not made when it does not fit', async (blob) => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, content)
    await expect(createBlobTorrent(requireAddon(), path, blob, { check: true })).rejects.toMatchObject({
      code: 'ERR_LLMPT_INTEGRITY',
    })
  })
})
