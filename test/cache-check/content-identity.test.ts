import { spawnSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { identifyContent } from '../../src/cache-check/content-identity.ts'
import { requireAddon } from '../../src/native/load.ts'
import { gitSha1, sha256 } from '../hub/fixtures.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const sizeBytes = 3 * 1024 * 1024 + 5
const content = Buffer.alloc(sizeBytes, 'content')

describe.each([
  ['the addon', requireAddon()],
  ['Node alone', undefined],
])('with %s', (_, addon) => {
  test('a file is told by SHA-256 and by git, and both hear of every byte', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, content)
    const seen: number[] = []
    const onProgress = (bytes: number): unknown => seen.push(bytes)
    const [lfs, git] = [sha256(content), gitSha1(content)]
    expect(await identifyContent(path, 'sha256', { addon, onProgress })).toEqual({ etag: lfs, sizeBytes })
    expect(seen.at(-1)).toBe(sizeBytes)
    expect(await identifyContent(path, 'git-sha1', { addon })).toEqual({ etag: git, sizeBytes })
  })

  test('a FIFO is refused instead of waited for', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'fifo')
    expect(spawnSync('mkfifo', [path]).status).toBe(0)
    await expect(identifyContent(path, 'sha256', { addon })).rejects.toThrow('no regular file')
  })

  test('a signal ends it in the middle, with its reason', async () => {
    await using folder = await temporaryDirectory()
    const path = join(folder.path, 'file')
    await writeFile(path, '')
    await truncate(path, 2 ** 40)
    const controller = new AbortController()
    const reason = new Error('enough')
    const { signal } = controller
    const onProgress = (): void => controller.abort(reason)
    await expect(identifyContent(path, 'sha256', { addon, signal, onProgress })).rejects.toBe(reason)
  })
})

test('a file that grows while it is read has no digest', async () => {
  await using folder = await temporaryDirectory()
  const path = join(folder.path, 'file')
  await writeFile(path, content)
  let isGrown = false
  const onProgress = (): void => {
    if (!isGrown) appendFileSync(path, 'more')
    isGrown = true
  }
  const growing = identifyContent(path, 'sha256', { onProgress })
  await expect(growing).rejects.toThrow('changes while it is read')
})
