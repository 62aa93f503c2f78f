/** Several processes and one cache: what a lock is for, and what must hold without one. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { blobsFolder, findCached, hasBlob, lockPath } from '../../src/hub/cache-layout.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { holdLock, Talker } from '../support/talker.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'
import { hubFile, tiny } from './fixtures.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const addonPath = join(root, 'build/Release/llmpt_native.node')
const file = hubFile('sub/a.txt', 'hello from one of us')

/**
 * Downloads "from memory": announces `writing` or `present`, waits for a line when it writes, commits or dies.
 * argv: cache folder, file as JSON, path of the addon, `lying` for locks that everybody gets, or empty for none.
 */
const program = `
import { createRequire } from 'node:module'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { linkSnapshot, openBlob, writeRef } from './hub/cache-writer.js'
const [cacheDir, json, addonPath] = process.argv.slice(2)
const file = JSON.parse(json)
const lying = { tryLock: () => true, unlock: () => {} }
const locks = addonPath === 'lying' ? lying : addonPath ? createRequire(import.meta.url)(addonPath) : undefined
let waited = false
const onWaiting = () => { if (!waited) console.log('waiting'); waited = true }
const slot = await openBlob(cacheDir, file, file, { locks }, { onWaiting })
if (slot.state === 'present') console.log('present')
else {
  await writeFile(slot.partialPath, 'hello from one of us')
  console.log('writing')
  await once(process.stdin, 'data')
  await slot.commit()
}
await linkSnapshot(cacheDir, file, {}, { isNewBlob: slot.state === 'write' })
await writeRef(cacheDir, file, 'main', file.commit)
process.stdin.destroy()
`

let build: TemporaryDirectory
beforeAll(async () => {
  build = await temporaryDirectory()
  const sources = ['abort.ts', 'errors.ts', 'log.ts', 'redact.ts', 'values.ts']
  for (const name of await readdir(join(root, 'src/hub'))) sources.push(`hub/${name}`)
  for (const source of sources) {
    const text = await readFile(join(root, 'src', source), 'utf8')
    const compilerOptions = {
      module: ts.ModuleKind.ESNext,
      target: ts.ScriptTarget.ES2022,
      rewriteRelativeImportExtensions: true,
    }
    const path = join(build.path, source.replace(/\.ts$/, '.js'))
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, ts.transpileModule(text, { compilerOptions }).outputText)
  }
  await writeFile(join(build.path, 'package.json'), '{"type":"module"}')
  await writeFile(join(build.path, 'program.js'), program)
  // The only package that can be resolved from this folder.
  await mkdir(join(build.path, 'node_modules'))
  await symlink(join(root, 'node_modules/valibot'), join(build.path, 'node_modules/valibot'))
})
afterAll(() => build[Symbol.asyncDispose]())

class Downloader extends Talker {
  constructor(cacheDir: string, locks: boolean | 'lying') {
    const locksArgument = locks === true ? addonPath : locks || ''
    super(process.execPath, [join(build.path, 'program.js'), cacheDir, JSON.stringify(file), locksArgument])
  }
}

function together(all: readonly AsyncDisposable[]): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((one) => one[Symbol.asyncDispose]()))
    },
  }
}

test('the room loads neither undici, nor @huggingface/hub, nor the addon before they are needed', async () => {
  // Nothing but valibot can be resolved from this folder: the import of any other package would fail.
  const modules = (await readdir(join(build.path, 'hub'))).map((name) => `import './hub/${name}'`)
  await writeFile(join(build.path, 'all.js'), `${modules.join('\n')}\nconsole.log('loaded')`)
  const { stdout } = await promisify(execFile)(process.execPath, [join(build.path, 'all.js')])
  expect(stdout).toBe('loaded\n')
})

test.each([
  ['ended by itself', 'process.exit(3)', /ended \(3\) .*why it ended/s],
  ['was killed', `process.kill(process.pid, 'SIGKILL')`, /ended \(SIGKILL\) .*why it ended/s],
])('nobody waits for the words of a process that %s', async (_, ending, message) => {
  await using talker = new Talker(process.execPath, ['-e', `console.error('why it ended'); ${ending}`])
  await expect(talker.says('anything')).rejects.toThrow(message)
})

test('two processes without locks both write, and the cache is as it should be', async () => {
  await using cache = await temporaryDirectory()
  await using first = new Downloader(cache.path, false)
  await using second = new Downloader(cache.path, false)
  const both = [first, second]
  for (const one of both) await one.says('writing')
  expect(await readdir(blobsFolder(cache.path, tiny))).toHaveLength(2)
  for (const one of both) one.goOn()
  for (const one of both) expect(await one.end()).toBe(0)
  expect(await checkCacheContract(cache.path)).toEqual([])
  expect(await findCached(cache.path, { ...tiny, revision: 'main', path: file.path })).toBeDefined()
})

describe('with a lock that everybody gets, as on some network file systems', () => {
  test('the second process waits all the same, because the partial file is claimed', async () => {
    await using cache = await temporaryDirectory()
    await using first = new Downloader(cache.path, 'lying')
    await first.says('writing')
    await using second = new Downloader(cache.path, 'lying')
    await second.says('waiting')
    first.goOn()
    expect([await first.end(), await second.end()]).toEqual([0, 0])
    expect(second.output).toBe('waiting present')
    expect(await checkCacheContract(cache.path)).toEqual([])
    expect(await readdir(dirname(lockPath(cache.path, tiny, file.etag)))).toEqual([`${file.etag}.lock`])
  })

  test.each([2, 8])(
    '%i that start at once never write to the same file, and the cache is as it should be',
    async (count) => {
      await using cache = await temporaryDirectory()
      const processes = Array.from({ length: count }, () => new Downloader(cache.path, 'lying'))
      await using _all = together(processes)
      await Promise.race(processes.map((one) => one.says('writing')))
      await Promise.all(processes.map((one) => one.says('ing')))
      const partials = await readdir(blobsFolder(cache.path, tiny))
      expect(partials).toEqual([`${file.etag}.llmpt.incomplete`])
      for (const one of processes) one.goOn()
      for (const one of processes) expect(await one.end()).toBe(0)
      expect(processes.filter((one) => one.output.includes('writing'))).toHaveLength(1)
      expect(await checkCacheContract(cache.path)).toEqual([])
    },
  )

  test('the claim of a killed process is worth nothing', async () => {
    await using cache = await temporaryDirectory()
    await using first = new Downloader(cache.path, 'lying')
    await first.says('writing')
    first.kill()
    await first.end()
    await using second = new Downloader(cache.path, 'lying')
    await second.says('writing')
    expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([`${file.etag}.llmpt.incomplete`])
    second.goOn()
    expect(await second.end()).toBe(0)
  })
})

describe.skipIf(!existsSync(addonPath))('with flock of the addon', () => {
  test('the second process waits for the first, and writes nothing', async () => {
    await using cache = await temporaryDirectory()
    await using first = new Downloader(cache.path, true)
    await first.says('writing')
    await using second = new Downloader(cache.path, true)
    await second.says('waiting')
    first.goOn()
    expect([await first.end(), await second.end()]).toEqual([0, 0])
    expect(second.output).toBe('waiting present')
    expect(await checkCacheContract(cache.path)).toEqual([])
  })

  test('the second process takes over what a killed one left', async () => {
    await using cache = await temporaryDirectory()
    await using first = new Downloader(cache.path, true)
    await first.says('writing')
    await using second = new Downloader(cache.path, true)
    await second.says('waiting')
    first.kill()
    const killedAt = performance.now()
    await second.says('writing')
    expect(performance.now() - killedAt).toBeLessThan(1000)
    expect(await readdir(blobsFolder(cache.path, tiny))).toEqual([`${file.etag}.llmpt.incomplete`])
    second.goOn()
    expect(await second.end()).toBe(0)
    await first.end()
    expect(await checkCacheContract(cache.path)).toEqual([])
  })

  test('of ten processes at once one writes, and the others get what it wrote', async () => {
    await using cache = await temporaryDirectory()
    const processes = Array.from({ length: 10 }, () => new Downloader(cache.path, true))
    await using _all = together(processes)
    await Promise.race(processes.map((one) => one.says('writing')))
    await Promise.all(processes.map((one) => one.says('ing')))
    for (const one of processes) one.goOn()
    for (const one of processes) expect(await one.end()).toBe(0)
    const outputs = processes.map((one) => one.output).toSorted()
    expect(outputs).toEqual([...Array.from({ length: 9 }, () => 'waiting present'), 'writing'])
    expect(await checkCacheContract(cache.path)).toEqual([])
  })

  test('we wait for a Python process that holds the lock, and go on when it lets go', async () => {
    await using cache = await temporaryDirectory()
    await using python = await holdLock(lockPath(cache.path, tiny, file.etag))
    await python.says('held')
    await using ours = new Downloader(cache.path, true)
    await ours.says('waiting')
    python.goOn()
    await ours.says('writing')
    ours.goOn()
    expect([await ours.end(), await python.end()]).toEqual([0, 0])
    expect(ours.output).toBe('waiting writing')
  })

  test('we take what Python wrote while it held the lock', async () => {
    await using cache = await temporaryDirectory()
    await using python = await holdLock(lockPath(cache.path, tiny, file.etag))
    await python.says('held')
    await using ours = new Downloader(cache.path, true)
    await ours.says('waiting')
    await writeFile(join(blobsFolder(cache.path, tiny), file.etag), 'hello from one of us')
    python.goOn()
    expect([await ours.end(), await python.end()]).toEqual([0, 0])
    expect(ours.output).toBe('waiting present')
  })

  test('a Python process that dies with the lock does not hold us up', async () => {
    await using cache = await temporaryDirectory()
    await using python = await holdLock(lockPath(cache.path, tiny, file.etag))
    await python.says('held')
    await using ours = new Downloader(cache.path, true)
    await ours.says('waiting')
    python.kill()
    const killedAt = performance.now()
    await ours.says('writing')
    expect(performance.now() - killedAt).toBeLessThan(1000)
    ours.goOn()
    expect(await ours.end()).toBe(0)
  })

  test('Python waits for us, and has the lock when we are done', async () => {
    await using cache = await temporaryDirectory()
    await using ours = new Downloader(cache.path, true)
    await ours.says('writing')
    await using python = await holdLock(lockPath(cache.path, tiny, file.etag))
    await python.says('waiting')
    expect(python.output).not.toContain('held')
    ours.goOn()
    await python.says('held')
    // Whoever has the lock next makes the entry of what is there, as we are about to.
    expect(await hasBlob(cache.path, tiny, file)).toBe(true)
    python.goOn()
    expect([await ours.end(), await python.end()]).toEqual([0, 0])
  })
})
