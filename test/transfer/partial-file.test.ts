import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { PartialFile } from '../../src/transfer/partial-file.ts'
import { sha256, sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const cacheError = { code: 'ERR_LLMPT_CACHE' }

afterEach(() => {
  vi.restoreAllMocks()
})

/** What all open files have in common. */
async function fileHandles(): Promise<FileHandle> {
  const handle = await open('/dev/null', 'r')
  await handle.close()
  return Object.getPrototypeOf(handle) as FileHandle
}

/** `bytes` in portions of a length that fits nothing. */
function portions(bytes: Uint8Array, length: number): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += length) parts.push(bytes.subarray(at, at + length))
  return parts
}

describe('opening', () => {
  test('makes the file, empties it, or goes on with it', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    for (const [keep, before, after] of [
      [true, 0, 4],
      [true, 4, 4],
      [false, 0, 4],
    ] as const) {
      await using file = await PartialFile.open(path, keep)
      expect(await file.sizeBytes()).toBe(before)
      await file.write(0, Buffer.from('abcd'))
      expect(await file.sizeBytes()).toBe(after)
    }
  })

  test.each([true, false])('never follows a link (keep: %s)', async (keep) => {
    await using folder = await temporaryDirectory()
    const [target, path] = [join(folder.path, 'target'), join(folder.path, 'partial')]
    await writeFile(target, 'precious')
    await symlink(target, path)
    await expect(PartialFile.open(path, keep)).rejects.toMatchObject(cacheError)
    expect(await readFile(target, 'utf8')).toBe('precious')
  })

  test('is a CacheError where it cannot be', async () => {
    await using folder = await temporaryDirectory()
    await expect(PartialFile.open(join(folder.path, 'no', 'partial'), false)).rejects.toMatchObject(
      cacheError,
    )
    await mkdir(join(folder.path, 'folder'))
    await expect(PartialFile.open(join(folder.path, 'folder'), true)).rejects.toMatchObject(cacheError)
  })
})

describe('writing', () => {
  test('puts chunks one behind the other, more of them than one system call takes', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    const bytes = randomBytes(300_000)
    await using file = await PartialFile.open(path, false)
    await file.write(0, ...portions(bytes, 100))
    expect(await sha256Of(path)).toBe(sha256(bytes))
  })

  test('at an offset leaves the rest of the file alone', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    await writeFile(path, '0123456789')
    await using file = await PartialFile.open(path, true)
    await file.write(3, Buffer.from('ab'), Buffer.alloc(0), Buffer.from('c'))
    expect(await readFile(path, 'utf8')).toBe('012abc6789')
  })

  test('goes on where the system stopped in the middle of a chunk', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    const prototype = await fileHandles()
    const writev = prototype.writev
    const calls = vi.spyOn(prototype, 'writev').mockImplementation(function (this: FileHandle, chunks, at) {
      const [first] = chunks as readonly Uint8Array[]
      return writev.call(this, [(first as Uint8Array).subarray(0, 700)], at) as never
    })
    const bytes = randomBytes(10_000)
    await using file = await PartialFile.open(path, false)
    await file.write(1_000, ...portions(bytes, 999))
    expect(calls.mock.calls.length).toBeGreaterThan(10)
    expect(sha256((await readFile(path)).subarray(1_000))).toBe(sha256(bytes))
  })

  test('of nothing does nothing', async () => {
    await using folder = await temporaryDirectory()
    await using file = await PartialFile.open(join(folder.path, 'partial'), false)
    await file.write(5)
    await file.write(5, Buffer.alloc(0))
    expect(await file.sizeBytes()).toBe(0)
  })

  test('that the system refuses is a CacheError', async () => {
    await using folder = await temporaryDirectory()
    const prototype = await fileHandles()
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    await using file = await PartialFile.open(join(folder.path, 'partial'), false)
    vi.spyOn(prototype, 'writev').mockRejectedValue(full)
    await expect(file.write(0, Buffer.from('a'))).rejects.toMatchObject({
      ...cacheError,
      message: expect.stringContaining('no space left'),
    })
  })
})

describe('reading', () => {
  test('gives exactly the bytes asked for', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    await writeFile(path, '0123456789')
    await using file = await PartialFile.open(path, true)
    expect(Buffer.from(await file.read(2, 5)).toString()).toBe('23456')
    expect(await file.read(10, 0)).toHaveLength(0)
  })

  test('goes on where the system gave less', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    await writeFile(path, '0123456789')
    const prototype = await fileHandles()
    const read = prototype.read as (...parameters: unknown[]) => Promise<never>
    vi.spyOn(prototype, 'read').mockImplementation(function (this: FileHandle, ...parameters: unknown[]) {
      const [buffer, offset, length, at] = parameters as [Uint8Array, number, number, number]
      return read.call(this, buffer, offset, Math.min(3, length), at)
    } as typeof prototype.read)
    await using file = await PartialFile.open(path, true)
    expect(Buffer.from(await file.read(1, 8)).toString()).toBe('12345678')
  })

  test('behind the end is a CacheError that says where the file ends', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'partial')
    await writeFile(path, '0123456789')
    await using file = await PartialFile.open(path, true)
    await expect(file.read(8, 3)).rejects.toMatchObject({
      ...cacheError,
      message: expect.stringContaining('ends at 10, before byte 11'),
    })
  })
})
