/**
 * The hook in a process of its own, below `@huggingface/hub`, when something is amiss or nobody vouches for a torrent.
 * What clients see when all is well is in test/clients.
 */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'

const mebibyte = 1024 * 1024
const register = new URL('../../dist/register.js', import.meta.url).href
const client = fileURLToPath(new URL('fixtures/hub-client.mjs', import.meta.url))
const files = {
  'model.safetensors': { seed: 'hook', sizeBytes: 5 * mebibyte + 77 },
  'xet.bin': { content: { seed: 'xet', sizeBytes: 3 * mebibyte }, storage: 'xet' },
  'config.json': '{"hidden_size": 8}',
} as const

interface Answer {
  result?: string | null
  error?: string
  statusCode?: number
  message?: string
}

/** Runs the client; a fresh home each time unless one is given. `maxFileKibibytes`: no file may become larger. */
async function run(
  args: string[],
  env: Record<string, string>,
  hooked: boolean,
  maxFileKibibytes: number | 'unlimited' = 'unlimited',
): Promise<Answer> {
  const preload = hooked ? ['--import', register] : []
  const command = [process.execPath, ...preload, client, ...args]
  const limited = ['-c', `ulimit -f ${maxFileKibibytes} && exec "$@"`, 'bash', ...command]
  const child = spawn('bash', limited, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  if (err.trim() !== '') throw new Error(err)
  // The JS client narrates on stdout; the fixture's own answer is the last line.
  return JSON.parse(out.trim().split('\n').at(-1) ?? '') as Answer
}

async function world() {
  const folder = await temporaryDirectory()
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: `${folder.path}/tracker` })
  const hub = await startHub(files)
  let homes = 0
  return {
    hub,
    tracker,
    user: { endpoint: hub.url, trackers: [tracker.url] },
    env: () => {
      homes += 1
      return {
        HF_HOME: `${folder.path}/home${homes}`,
        HF_ENDPOINT: hub.url,
        HF_P2P_TRACKER: tracker.url,
        // A busy machine must not make us lose patience with a tracker or a peer that is there.
        HF_P2P_LOOKUP_TIMEOUT: '20',
        HF_P2P_HEAD_START: '20',
      }
    },
    [Symbol.asyncDispose]: async () => {
      await hub.close()
      await tracker.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

describe('when a peer has the file, and nobody else vouches for its torrent, an unmodified @huggingface/hub', () => {
  test('gets it with no more than samples from storage', async () => {
    await using w = await world()
    await using seeder = await newUser(w.user)
    for (const path of ['model.safetensors', 'xet.bin']) await seeder.client.downloadFile(w.hub.ref(path))
    await seeder.client.seedingSettled()
    w.hub.resetStats()
    const env = w.env()
    for (const path of ['model.safetensors', 'xet.bin']) {
      expect(await run(['downloadFileToCacheDir', w.hub.url, 'acme/tiny', path], env, true)).toEqual({
        result: w.hub.file(path).sha256,
      })
    }
    // One publisher does not tie a torrent: eight blocks of 16 KiB of each file are compared.
    expect(w.hub.stats('cdn').bytesSent).toBeLessThanOrEqual(2 * 8 * 16_384)
    expect(w.hub.stats('cas').requests).toBe(0)
    const left = (await checkCacheContract(`${env.HF_HOME}/hub`)).filter((fault) => !isJsClients(fault))
    expect(left).toEqual([])
  })

  test('does not fetch all of it for a look at a few bytes', async () => {
    await using w = await world()
    await using seeder = await newUser(w.user)
    await seeder.client.downloadFile(w.hub.ref('model.safetensors'))
    await seeder.client.seedingSettled()
    w.hub.resetStats()
    const bytes = (await w.hub.file('model.safetensors').bytes()).subarray(1_000_000, 1_000_016)
    const got = await run(['slice', w.hub.url, 'acme/tiny', 'model.safetensors'], w.env(), true)
    expect(got).toEqual({ result: bytes.toString('hex') })
    expect(w.hub.stats('cdn').bytesSent).toBe(16)
    expect((await seeder.client.seedStatus())[0]?.uploadedBytes).toBe(0)
  })
})

test('a disk that has no room for the file does not keep it from a program that only reads it', async () => {
  await using w = await world()
  await using seeder = await newUser(w.user)
  await seeder.client.downloadFile(w.hub.ref('model.safetensors'))
  await seeder.client.seedingSettled()
  const args = ['downloadFile', w.hub.url, 'acme/tiny', 'model.safetensors']
  w.hub.resetStats()
  const got = await run(args, { ...w.env(), HF_P2P_HEAD_START: '0' }, true, 3 * 1024)
  expect(got).toEqual({ result: w.hub.file('model.safetensors').sha256 })
  expect(w.hub.stats('cdn').bytesSent).toBeGreaterThan(0)
})

/** What the JS client itself leaves undone in a cache it writes to. */
function isJsClients(fault: string): boolean {
  return /refs|CACHEDIR/.test(fault)
}

test('a tracker that is dead keeps nobody from the file', async () => {
  await using w = await world()
  await w.tracker.close()
  const got = await run(['downloadFile', w.hub.url, 'acme/tiny', 'model.safetensors'], w.env(), true)
  expect(got).toEqual({ result: w.hub.file('model.safetensors').sha256 })
})

test('HF_USE_P2P=0 leaves fetch alone', async () => {
  const script =
    'console.log(fetch === globalThis.fetch && /native code|lazy|undici|fetch\\(input/.test(String(fetch)), fetch.name)'
  const outputs = await Promise.all(
    ['0', '1'].map((value) => {
      const child = spawn(
        process.execPath,
        ['--import', register, '-e', `${script}; console.log(String(fetch).length)`],
        {
          env: { ...process.env, HF_USE_P2P: value },
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      )
      return text(child.stdout)
    }),
  )
  const plain = spawn(process.execPath, ['-e', `${script}; console.log(String(fetch).length)`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  expect(outputs[0]).toBe(await text(plain.stdout))
  expect(outputs[1]).not.toBe(outputs[0])
})

test('importing the package or the preload loads neither an HTTP client, nor the Hub client, nor the addon', async () => {
  const script = `
    import { createRequire } from 'node:module'
    await import('${new URL('../../dist/index.js', import.meta.url).href}')
    const loaded = Object.keys(createRequire('/').cache)
    console.log(JSON.stringify({
      undici: loaded.some((path) => path.includes('/node_modules/undici/')),
      addon: loaded.some((path) => path.endsWith('.node')) || process.report.getReport().sharedObjects.some((so) => so.includes('llmpt')),
    }))`
  const child = spawn(process.execPath, ['--import', register, '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  expect(JSON.parse(await text(child.stdout))).toEqual({ undici: false, addon: false })
})

test('require() works, too', async () => {
  const path = fileURLToPath(new URL('../../dist/index.js', import.meta.url))
  const child = spawn(
    process.execPath,
    ['-e', `console.log(typeof require(${JSON.stringify(path)}).p2pDownload)`],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  expect((await text(child.stdout)).trim()).toBe('function')
})
