/** File systems that do not tell upper case from lower case, and refuse names that others take. */
import { mkdir, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { DownloadedFile } from '../../src/client.ts'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { cachePlace, localPlace } from '../../src/hub/place.ts'
import { isSpelledSo } from '../../src/hub/spelling.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { caselessFolders, fatFolders } from '../support/odd-folders.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'
import { newUser, type User } from '../support/users.ts'
import { errorOf, hubFile, tiny } from './fixtures.ts'

// Of one size, so that nothing but the name and the content tells them apart.
const files = { 'README.md': 'upper', 'readme.md': 'lower', 'Docs/a.txt': 'one', 'docs/a.txt': 'two' }

async function newGuest(folder: string, hub: HubServer, options: object = {}): Promise<User> {
  const cacheDir = join(folder, 'hub')
  return await newUser({ endpoint: hub.url, seed: false, trackers: [], cacheDir, ...options })
}

describe.each(caselessFolders)('in %s', (_, openFolder, symlinks) => {
  const contract = { symlinks, modes: symlinks }

  test.each([
    ['README.md', 'readme.md', 'upper'],
    ['readme.md', 'README.md', 'lower'],
    ['Docs/a.txt', 'docs/a.txt', 'one'],
  ])(
    '%s stays what it is when %s of the same commit is asked for, which fails',
    async (first, second, text) => {
      await using hub = await startHub(files)
      await using folder = await openFolder()
      await using user = await newGuest(folder.path, hub)
      const { path, commit } = await user.client.downloadFile(hub.ref(first))
      for (const revision of ['main', commit]) {
        const error = await errorOf(user.client.downloadFile({ ...hub.ref(second), revision }))
        expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
        expect(error.message).toContain(`"${second}"`)
        expect(error.message).toContain('upper case')
      }
      expect(await readFile(path, 'utf8')).toBe(text)
      expect(hub.fileStats(second).bytesSent).toBe(0)
      expect(await checkCacheContract(user.cacheDir, contract)).toEqual([])
    },
  )

  test('of two such files asked for at once one is there and the other an error, and nothing is mixed', async () => {
    await using hub = await startHub(files)
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    const both = ['README.md', 'readme.md'] as const
    const results = await Promise.allSettled(both.map((path) => user.client.downloadFile(hub.ref(path))))
    const done = results.filter((result) => result.status === 'fulfilled')
    expect(done).toHaveLength(1)
    const { path } = (done[0] as PromiseFulfilledResult<DownloadedFile>).value
    expect(await readFile(path, 'utf8')).toBe(path.endsWith('README.md') ? 'upper' : 'lower')
    expect(await readdir(join(path, '..'))).toHaveLength(1)
  })

  test('a snapshot with such files fails, and succeeds without those that the errors name', async () => {
    await using hub = await startHub({ ...files, 'w.bin': { seed: 1, sizeBytes: 300_000 } })
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    const ignorePatterns: string[] = []
    for (let pair = 0; pair < 2; pair++) {
      const { message } = await errorOf(user.client.downloadSnapshot(tiny, 'main', { ignorePatterns }))
      const [, refused = '', kept = ''] =
        /"([^"]*)" would replace "([^"]*)" in .*upper case/.exec(message) ?? []
      expect([refused.toLowerCase(), refused]).toEqual([kept.toLowerCase(), expect.not.stringMatching(kept)])
      ignorePatterns.push(refused)
    }
    const { files: got } = await user.client.downloadSnapshot(tiny, 'main', { ignorePatterns })
    expect(got).toHaveLength(3)
    for (const { name, path } of got) {
      expect((await readFile(path)).equals(await hub.file(name).bytes())).toBe(true)
    }
    expect(await checkCacheContract(user.cacheDir, contract)).toEqual([])
  })

  test('two names for one content are no trouble, whoever asks for which', async () => {
    await using hub = await startHub({ 'README.md': 'same', 'readme.md': 'same' })
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    for (const name of ['README.md', 'readme.md', 'README.md']) {
      const { path } = await user.client.downloadFile(hub.ref(name))
      expect(await readFile(path, 'utf8')).toBe('same')
    }
    const contents = hub
      .requests('hub')
      .filter(({ method, url }) => method === 'GET' && url.includes('resolve-'))
    expect(contents).toHaveLength(1)
  })

  test('two names for one content stay one file when links come to be used after none were', async () => {
    await using hub = await startHub({ 'README.md': 'same', 'readme.md': 'same' })
    await using folder = await openFolder()
    await using before = await newGuest(folder.path, hub, { symlinks: false })
    const { path, commit } = await before.client.downloadFile(hub.ref('README.md'))
    await using user = await newGuest(folder.path, hub)
    for (const revision of ['main', commit]) {
      const again = await user.client.downloadFile({ ...hub.ref('readme.md'), revision })
      expect(await readFile(again.path, 'utf8')).toBe('same')
      expect(again.bytes).toMatchObject({ http: 0, cache: 4 })
    }
    expect(await readFile(path, 'utf8')).toBe('same')
    expect(await checkCacheContract(user.cacheDir, { ...contract, symlinks: false })).toEqual([])
  })

  test('a content that is gone is fetched again, by whichever of its names it is asked for', async () => {
    await using hub = await startHub({ 'README.md': 'same', 'readme.md': 'same' })
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    const { path } = await user.client.downloadFile(hub.ref('README.md'))
    await rm(await realpath(path))
    const again = await user.client.downloadFile(hub.ref('readme.md'))
    expect(again.bytes.http).toBe(4)
    expect(await readFile(again.path, 'utf8')).toBe('same')
    expect(await checkCacheContract(user.cacheDir, contract)).toEqual([])
  })

  test('offline, a name that only looks alike is not in the cache', async () => {
    await using hub = await startHub(files)
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    await user.client.downloadFile(hub.ref('README.md'))
    const place = cachePlace(user.cacheDir, {})
    expect(await place.find(hub.ref('README.md'))).toBeDefined()
    expect(await place.find(hub.ref('readme.md'))).toBeUndefined()
    expect(await place.has(hub.file('readme.md'))).toBeUndefined()
  })

  test('a folder of the user takes one of two such files, and a new version of it under its new name', async () => {
    await using hub = await startHub(files)
    await using folder = await openFolder()
    await using user = await newGuest(folder.path, hub)
    const options = { localDir: join(folder.path, 'mine') }
    const { path, commit } = await user.client.downloadFile(hub.ref('README.md'), options)
    const error = await errorOf(user.client.downloadFile(hub.ref('readme.md'), options))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE', message: expect.stringMatching(/upper case/) })
    expect(await readFile(path, 'utf8')).toBe('upper')
    const place = localPlace(options.localDir, {})
    expect(await place.find({ ...hub.ref('readme.md'), revision: commit })).toBeUndefined()
    await hub.commit({ 'readme.md': 'renamed' })
    const renamed = await user.client.downloadFile(hub.ref('readme.md'), options)
    expect(await readFile(renamed.path, 'utf8')).toBe('renamed')
    expect(await readdir(options.localDir)).toHaveLength(2)
  })
})

test.each([
  ['straße.txt', 'Straße.txt'],
  ['ﬁle/ı.txt', 'ﬁle/ı.TXT'],
  ['ß', 'ẞ'],
  ['é', 'É'],
])('whether something is called %s or %s is seen where case does not matter', async (name, other) => {
  const [[, openFolder] = []] = caselessFolders
  await using folder = await (openFolder as () => Promise<TemporaryDirectory>)()
  for (const [kept, asked] of [
    [name, other],
    [other, name],
  ] as const) {
    const root = join(folder.path, kept === name ? 'a' : 'b')
    await mkdir(dirname(join(root, kept)), { recursive: true })
    await writeFile(join(root, kept), 'x')
    expect([await isSpelledSo(root, join(root, kept)), await isSpelledSo(root, join(root, asked))]).toEqual([
      true,
      false,
    ])
  }
})

test('a letter that has two in its other case tells nothing about case', async () => {
  await using folder = await temporaryDirectory()
  for (const name of ['ß', 'SS']) await writeFile(join(folder.path, name), 'x')
  for (const name of ['ß', 'SS']) {
    expect(await isSpelledSo(folder.path, join(folder.path, name))).toBe(true)
  }
})

// What comes through FUSE does not say what it is.
const fat = fatFolders.filter(([name]) => name !== 'exFAT')

describe.each(fat)('a name in %s', (_, openFolder) => {
  test.each(['what?.txt', 'sub/ab:c.txt', 'star*.bin', '"quoted".txt', 'a|b'])(
    '%s is refused before any of it is fetched, by an error that names it and the folder',
    async (name) => {
      await using hub = await startHub({ [name]: 'text' })
      await using folder = await openFolder()
      await using user = await newGuest(folder.path, hub)
      for (const localDir of [undefined, join(folder.path, 'mine')]) {
        const error = await errorOf(user.client.downloadFile(hub.ref(name), { localDir }))
        expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE' })
        expect(error.message).toContain(JSON.stringify(name))
        expect(error.message).toContain(localDir ?? user.cacheDir)
      }
      expect(hub.fileStats(name).bytesSent).toBe(0)
    },
  )
})

test.each(fat)('in %s a file of 4 GiB or more is refused before it is begun', async (_, openFolder) => {
  await using folder = await openFolder()
  const places = [cachePlace(join(folder.path, 'hub'), {}), localPlace(join(folder.path, 'mine'), {})]
  for (const place of places) {
    const large = { ...hubFile('model.gguf', 'x'), sizeBytes: 2 ** 32 }
    const error = await errorOf(place.open(large, {}, {}))
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CACHE', message: expect.stringMatching(/4 GiB/) })
    const slot = await place.open({ ...large, sizeBytes: 2 ** 32 - 1 }, {}, {})
    expect(slot.state).toBe('write')
    if (slot.state === 'write') await slot.discard()
  }
})
