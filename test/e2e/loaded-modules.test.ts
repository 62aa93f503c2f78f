/** What a program pays for that imports the package and does not use it yet: the modules that V8 was given. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const index = new URL('../../dist/index.js', import.meta.url).href
const register = new URL('../../dist/register.js', import.meta.url).href
const dist = new URL('../../dist/', import.meta.url).href

interface Loaded {
  /** Files below dist/, without `.js`. */
  readonly ours: readonly string[]
  /** Packages of node_modules. */
  readonly packages: readonly string[]
  /** Whether libtorrent is in the process. */
  readonly hasAddon: boolean
}

/**
 * Runs `script` and lists what was loaded by its end. The list is V8's own coverage, which has every script of the process,
 * ESM and CommonJS alike; the addon is told by the libraries that the system mapped.
 */
async function loadedBy(
  args: readonly string[],
  script: string,
  env: NodeJS.ProcessEnv = {},
): Promise<Loaded> {
  await using folder = await temporaryDirectory()
  const ending = `;process.stdout.write('\\n' + process.report.getReport().sharedObjects.join('\\n'))`
  const child = spawn(process.execPath, [...args, '--input-type=module', '-e', script + ending], {
    env: { ...process.env, NODE_V8_COVERAGE: folder.path, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [libraries, [exitCode]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  expect(exitCode).toBe(0)
  const urls: string[] = []
  for (const name of await readdir(folder.path)) {
    const { result } = JSON.parse(await readFile(join(folder.path, name), 'utf8')) as {
      result: { url: string }[]
    }
    urls.push(...result.map(({ url }) => url))
  }
  const ours = urls.filter((url) => url.startsWith(dist)).map((url) => url.slice(dist.length, -'.js'.length))
  const packages = urls.flatMap((url) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? [])
  return {
    ours: ours.toSorted(),
    packages: [...new Set(packages)].toSorted(),
    hasAddon: /llmpt_native|\.node$/m.test(libraries),
  }
}

describe('the list is complete:', () => {
  test('it has an HTTP client, the Hub client and the addon when they were used', async () => {
    await using home = await temporaryDirectory()
    await using hub = await startHub({ 'a.bin': 'content' })
    const script = `
      const { snapshotDownload, requireAddon } = await import('${index}')
      requireAddon()
      await snapshotDownload({ repo: 'acme/tiny' })`
    const { packages, hasAddon, ours } = await loadedBy([], script, {
      HF_ENDPOINT: hub.url,
      HF_HOME: home.path,
    })
    expect(packages).toEqual(expect.arrayContaining(['undici', '@huggingface/hub', 'node-gyp-build']))
    expect(ours).toEqual(expect.arrayContaining(['client', 'hub/http', 'transfer/race']))
    expect(hasAddon).toBe(true)
  })
})

test('--import llmpt-native/register loads the hook, and not one package', async () => {
  const { ours, packages, hasAddon } = await loadedBy(['--import', register], '0')
  expect(packages).toEqual([])
  expect(hasAddon).toBe(false)
  const rooms = ours.filter((name) => name.includes('/')).map((name) => name.split('/')[0])
  expect([...new Set(rooms)]).toEqual(['hook', 'hub'])
  // What asks the Hub, and what downloads, comes when there is something to ask.
  const later = ['client', 'parts', 'index', 'hook/hub-fetch', 'hub/http', 'hub/ask']
  for (const name of later) expect(ours).not.toContain(name)
})

test('a request that is not ours loads nothing more', async () => {
  await using hub = await startHub({ 'a.bin': 'content' })
  const asking = `await (await fetch('${hub.url}/api/models/acme/tiny')).text()`
  const before = await loadedBy(['--import', register], '0')
  expect(await loadedBy(['--import', register], asking)).toEqual(before)
})

test("import 'llmpt-native' loads no HTTP client, no Hub client, no server, no command line, no addon", async () => {
  const { ours, packages, hasAddon } = await loadedBy([], `await import('${index}')`)
  expect(hasAddon).toBe(false)
  for (const name of [
    'undici',
    '@huggingface/hub',
    'hono',
    '@hono/node-server',
    'libsql',
    'commander',
    'cli-progress',
  ])
    expect(packages).not.toContain(name)
  for (const name of ['client', 'parts', 'hub/http', 'hub/ask', 'transfer/race', 'cli/program'])
    expect(ours).not.toContain(name)
})
