import { createHash, randomBytes } from 'node:crypto'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { requireAddon } from '../../src/native/load.ts'
import { followDigest, type PrefixDigest } from '../../src/transfer/digest.ts'
import { RunningDigest } from '../../src/transfer/running-digest.ts'
import { sha256 } from '../support/digest.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'

const sizeBytes = 3_000_017

interface Rig extends AsyncDisposable {
  readonly path: string
  readonly digest: RunningDigest
  /** One for each beginning. */
  readonly starts: PrefixDigest[]
  write(offset: number, bytes: Uint8Array): Promise<void>
}

async function rig(withAddon: boolean): Promise<Rig> {
  const folder: TemporaryDirectory = await temporaryDirectory()
  const path = join(folder.path, 'partial')
  await writeFile(path, '')
  const starts: PrefixDigest[] = []
  const digest = new RunningDigest(() => {
    const addon = withAddon ? requireAddon() : undefined
    const started = followDigest(addon, path, { sizeBytes, sha256: true, gitSha1: true })
    starts.push(started)
    return started
  })
  return {
    path,
    digest,
    starts,
    write: async (offset, bytes) => {
      await using file = await open(path, 'r+')
      await file.write(bytes, 0, bytes.length, offset)
    },
    [Symbol.asyncDispose]: async () => {
      digest.close()
      await Promise.allSettled(starts.map(({ finished }) => finished))
      await folder[Symbol.asyncDispose]()
    },
  }
}

describe.each([
  ['the addon', true],
  ["Node's own crypto", false],
])('with %s, the digest of a growing file', (_name, withAddon) => {
  test('is that of its bytes, hashed once as they come', async () => {
    await using it = await rig(withAddon)
    const bytes = randomBytes(sizeBytes)
    for (let at = 0; at < sizeBytes; at += 700_001) {
      await it.write(at, bytes.subarray(at, at + 700_001))
      it.digest.advance(Math.min(at + 700_001, sizeBytes))
    }
    const found = await it.digest.finish(sizeBytes)
    expect(found.sha256).toBe(sha256(bytes))
    const git = createHash('sha1').update(`blob ${sizeBytes}\0`).update(bytes).digest('hex')
    expect(found.gitSha1).toBe(git)
    expect(it.starts).toHaveLength(1)
  })

  test('does not mind to be told less than before', async () => {
    await using it = await rig(withAddon)
    const bytes = randomBytes(sizeBytes)
    await it.write(0, bytes)
    it.digest.advance(2_000_000)
    it.digest.advance(1_000_000)
    expect((await it.digest.finish(sizeBytes)).sha256).toBe(sha256(bytes))
    expect(it.starts).toHaveLength(1)
  })

  test('goes on when what is taken back was not in it', async () => {
    await using it = await rig(withAddon)
    const bytes = randomBytes(sizeBytes)
    await it.write(0, bytes)
    it.digest.advance(1_000_000)
    it.digest.takenBack(1_000_000)
    expect((await it.digest.finish(sizeBytes)).sha256).toBe(sha256(bytes))
    expect(it.starts).toHaveLength(1)
  })

  test('begins anew when some of it is taken back, and is that of the bytes written then', async () => {
    await using it = await rig(withAddon)
    const bytes = randomBytes(sizeBytes)
    const wrong = Buffer.from(bytes)
    wrong[999_999] = ~(wrong[999_999] as number) & 0xff
    await it.write(0, wrong)
    it.digest.advance(1_000_000)
    it.digest.takenBack(999_999)
    await it.write(0, bytes.subarray(0, 500_000))
    it.digest.advance(500_000)
    await vi.waitFor(() => expect(it.starts[1]?.hashedBytes).toBe(500_000))
    await it.write(0, bytes)
    expect((await it.digest.finish(sizeBytes)).sha256).toBe(sha256(bytes))
    expect(it.starts).toHaveLength(2)
    await expect((it.starts[0] as PrefixDigest).finished).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE' })
  })

  test('begins anew even when it had finished', async () => {
    await using it = await rig(withAddon)
    const [first, second] = [randomBytes(sizeBytes), randomBytes(sizeBytes)]
    await it.write(0, first)
    expect((await it.digest.finish(sizeBytes)).sha256).toBe(sha256(first))
    it.digest.takenBack(0)
    await it.write(0, second)
    expect((await it.digest.finish(sizeBytes)).sha256).toBe(sha256(second))
  })

  test('opens nothing before there is anything to hash', async () => {
    await using it = await rig(withAddon)
    it.digest.takenBack(0)
    it.digest.close()
    expect(it.starts).toEqual([])
  })

  test('given up rejects, and may be given up twice', async () => {
    await using it = await rig(withAddon)
    await it.write(0, randomBytes(sizeBytes))
    it.digest.advance(1)
    const finished = it.digest.finish(sizeBytes - 1)
    it.digest.close()
    it.digest.close()
    await expect(finished).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE' })
  })

  test('of a file that is gone rejects', async () => {
    await using it = await rig(withAddon)
    const digest = new RunningDigest(() => {
      const addon = withAddon ? requireAddon() : undefined
      return followDigest(addon, `${it.path}.gone`, { sizeBytes, sha256: true, gitSha1: false })
    })
    await expect(digest.finish(sizeBytes)).rejects.toMatchObject({ code: 'ERR_LLMPT_NATIVE' })
  })
})
