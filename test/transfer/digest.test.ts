import { createHash } from 'node:crypto'
import { mkdir, open, rename, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { requireAddon } from '../../src/native/load.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'
import { type FileDigestOptions, followDigest, type PrefixDigest } from '../../src/transfer/digest.ts'
import { asEtag, type Etag } from '../../src/values.ts'
import { someBytes, until } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const mebibyte = 1024 * 1024
const cancelled = { name: 'NativeError', operation: 'fileDigest', category: 'generic', value: 125 }
const wrongSize = { name: 'NativeError', operation: 'fileDigest', category: 'libtorrent', value: 134 }

const kinds = [
  { kind: 'the addon', addon: () => requireAddon() },
  { kind: 'node:crypto', addon: () => undefined },
]

describe.each(kinds)('a digest by $kind', ({ addon }) => {
  function follow(path: string, sizeBytes: number, options: Partial<FileDigestOptions> = {}): PrefixDigest {
    return followDigest(addon(), path, { sizeBytes, sha256: true, gitSha1: true, ...options })
  }

  test.each([0, 1, mebibyte - 1, mebibyte, mebibyte + 1, 3 * mebibyte + 17])(
    'of %i bytes that arrive in portions is that of the whole',
    async (sizeBytes) => {
      await using folder = await temporaryDirectory()
      const path = join(folder.path, 'file')
      const bytes = someBytes(sizeBytes)
      await using file = await open(path, 'w')
      const digest = follow(path, sizeBytes)
      for (let end = 0; end < sizeBytes; ) {
        const { bytesWritten } = await file.write(bytes, end, Math.min(300_007, sizeBytes - end), end)
        end += bytesWritten
        digest.advance(end)
      }
      expect(await digest.finished).toEqual({
        sha256: createHash('sha256').update(bytes).digest('hex'),
        gitSha1: createHash('sha1').update(`blob ${sizeBytes}\0`).update(bytes).digest('hex'),
      })
      expect(digest.hashedBytes).toBe(sizeBytes)
    },
  )

  test('has only what was asked for', async () => {
    expect(Object.keys(await follow('/nonexistent', 0, { sha256: false }).finished)).toEqual(['gitSha1'])
    expect(Object.keys(await follow('/nonexistent', 0, { gitSha1: false }).finished)).toEqual(['sha256'])
  })

  test('follows the prefix and waits at its end', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, someBytes(3 * mebibyte))
    const digest = follow(path, 3 * mebibyte)
    for (const end of [1, 100_000, 2 * mebibyte]) {
      digest.advance(end)
      await until(async () => digest.hashedBytes === end)
    }
    digest.close()
  })

  test('goes on when the file is renamed after the first advance', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    const bytes = someBytes(2 * mebibyte)
    await writeFile(path, bytes)
    const digest = follow(path, bytes.length)
    digest.advance(1)
    await rename(path, join(folder.path, 'final'))
    digest.advance(bytes.length)
    expect((await digest.finished).sha256).toBe(createHash('sha256').update(bytes).digest('hex'))
  })

  test('fails when the file is shorter or longer than promised', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    for (const sizeBytes of [mebibyte, 3 * mebibyte]) {
      await writeFile(path, '')
      await truncate(path, 2 * mebibyte)
      const digest = follow(path, sizeBytes)
      digest.advance(sizeBytes)
      await expect(digest.finished).rejects.toMatchObject(wrongSize)
    }
  })

  test('fails for a path that leads to no plain file', async () => {
    await using folder = await temporaryDirectory()
    const at = (name: string): string => join(folder.path, name)
    await mkdir(at('directory'))
    await writeFile(at('file'), 'x')
    await symlink(at('file'), at('link'))
    for (const [name, value] of Object.entries({ missing: 2, directory: 21, link: 40 })) {
      const digest = follow(at(name), 1)
      digest.advance(1)
      await expect(digest.finished).rejects.toMatchObject({
        name: 'NativeError',
        operation: 'fileDigest',
        category: 'system',
        value,
        message: expect.stringContaining(at(name)),
      })
    }
  })

  test.each([undefined, 0, mebibyte, 64 * mebibyte])('can be closed when it is at %s', async (end) => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, '')
    await truncate(path, 64 * mebibyte)
    const digest = follow(path, 64 * mebibyte)
    if (end !== undefined) digest.advance(end)
    digest.close()
    digest.close()
    await expect(digest.finished).rejects.toMatchObject(cancelled)
    expect(digest.hashedBytes).toBeLessThan(64 * mebibyte)
    digest.advance(64 * mebibyte)
  })

  test('refuses an end that goes back or lies outside of the file', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, 'abc')
    const digest = follow(path, 3)
    digest.advance(2)
    for (const end of [1, 4, 2.5, Number.NaN]) expect(() => digest.advance(end)).toThrow(RangeError)
    digest.close()
    expect(() => follow(path, -1)).toThrow(RangeError)
  })

  test('lets the event loop turn', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, '')
    await truncate(path, 64 * mebibyte)
    const digest = follow(path, 64 * mebibyte)
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    digest.advance(64 * mebibyte)
    await digest.finished
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5)
  })
})

test('the addon makes the torrent that every holder of the blob makes, and node:crypto none', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(600_000)
  const etag = asEtag(createHash('sha256').update(bytes).digest('hex')) as Etag
  const path = join(folder.path, etag)
  await writeFile(path, bytes)
  const blob = { etag, sizeBytes: bytes.length }
  const made = await createBlobTorrent(requireAddon(), path, blob)
  const pieceLength = pieceLengthFor(bytes.length)
  const torrent = { name: etag, pieceLength, createdBy: 'llmpt-native', trackers: [] }
  const options = { sizeBytes: bytes.length, sha256: true, gitSha1: false, torrent }

  const native = followDigest(requireAddon(), path, options)
  native.advance(bytes.length)
  const { torrentFile, infoHash, sha256 } = await native.finished
  expect({ infoHash, sha256 }).toEqual({ infoHash: made?.infoHash, sha256: etag })
  expect(Buffer.from(torrentFile ?? []).equals(Buffer.from(made?.torrentFile ?? [1]))).toBe(true)

  const node = followDigest(undefined, path, options)
  node.advance(bytes.length)
  expect(await node.finished).toEqual({ sha256: etag })
})
