import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { temporaryDirectory } from '../support/temp-dir.ts'

const given = process.env['LLMPT_NATIVE_ADDON']

/** The module as a new process would see it, and what it says. */
async function freshLoad(
  path: string | undefined,
): Promise<{ load: typeof import('../../src/native/load.ts'); said: string[] }> {
  vi.resetModules()
  if (path === undefined) delete process.env['LLMPT_NATIVE_ADDON']
  else process.env['LLMPT_NATIVE_ADDON'] = path
  const said: string[] = []
  const { divertLog } = await import('../../src/log.ts')
  divertLog((_, message) => said.push(message))
  return { load: await import('../../src/native/load.ts'), said }
}

function sharedObjects(): string[] {
  const report = process.report.getReport() as unknown as { sharedObjects: string[] }
  return report.sharedObjects.filter((name) => name.includes('llmpt_native'))
}

beforeEach(() => vi.resetModules())
afterEach(() => {
  if (given === undefined) delete process.env['LLMPT_NATIVE_ADDON']
  else process.env['LLMPT_NATIVE_ADDON'] = given
})

// First in this file: later tests load it into this process for good.
test('importing the room loads no addon; the first call does', async () => {
  const { load } = await freshLoad(given)
  await import('../../src/native/session.ts')
  await import('../../src/native/create-torrent.ts')
  await import('../../src/native/hash-file.ts')
  expect(sharedObjects()).toEqual([])
  load.requireAddon()
  expect(sharedObjects()).toHaveLength(1)
})

test('the addon is loaded once, fits its libtorrent and says which that is', async () => {
  const { load, said } = await freshLoad(given)
  const loaded = load.loadAddon()
  expect(loaded).toHaveProperty('addon')
  expect(load.loadAddon()).toBe(loaded)
  const addon = load.requireAddon()
  expect(addon.versions.libtorrent).toMatch(/^\d+\.\d+\.\d+$/)
  expect(addon.versions.libtorrentHeaders).toBe(addon.versions.libtorrent)
  expect(addon.selfCheck()).toEqual({ ok: true })
  expect(said).toEqual([])
})

test('the self-check names both versions when they differ', async () => {
  const { load } = await freshLoad(given)
  const { ok, reason } = load.requireAddon().selfCheck({ expectVersion: '2.0.11' })
  expect({ ok, reason }).toEqual({ ok: false, reason: expect.stringMatching(/2\.0\.11.*2\.\d+\.\d+/) })
})

test.each([
  ['is missing', async (folder: string) => join(folder, 'none.node'), /Cannot find module/],
  [
    'is garbage',
    async (folder: string) => {
      await writeFile(join(folder, 'garbage.node'), 'not a library')
      return join(folder, 'garbage.node')
    },
    /invalid ELF header|file too short/,
  ],
  [
    'is something else',
    async (folder: string) => {
      await writeFile(join(folder, 'other.cjs'), 'module.exports = {}')
      return join(folder, 'other.cjs')
    },
    /not this addon/,
  ],
  [
    'finds another libtorrent',
    async () => fileURLToPath(new URL('fixtures/wrong-version.cjs', import.meta.url)),
    /compiled for libtorrent 9\.9\.9, but/,
  ],
] as const)(
  'an addon that %s is a reason and one warning with the cure, not an exception',
  async (_, make, reason) => {
    await using folder = await temporaryDirectory()
    if (given !== undefined) process.env['LLMPT_TEST_ADDON'] = given
    const { load, said } = await freshLoad(await make(folder.path))
    expect(load.loadAddon()).toEqual({ reason: expect.stringMatching(reason) })
    load.loadAddon()
    expect(said).toEqual([expect.stringMatching(/HTTP only.*npm run build:native/s)])
    expect(() => load.requireAddon()).toThrow(
      expect.objectContaining({ code: 'ERR_LLMPT_NATIVE_UNAVAILABLE' }),
    )
    expect(said).toHaveLength(1)
  },
)
