/** What a program that uses the package sees of it as a process: when it ends, and what it says. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { checkCacheContract } from '../support/cache-contract.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const mebibyte = 1024 * 1024
const root = fileURLToPath(new URL('../../', import.meta.url))
const program = `${root}test/e2e/fixtures/p2p-download.mjs`
const files = { 'model.safetensors': { seed: 'process', sizeBytes: 4 * mebibyte + 3 }, 'config.json': '{}' }

async function world() {
  const folder = await temporaryDirectory()
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: `${folder.path}/tracker` })
  const hub = await startHub(files)
  const home = `${folder.path}/home`
  return {
    folder: folder.path,
    hub,
    tracker,
    home,
    env: { ...process.env, HF_HOME: home, HF_ENDPOINT: hub.url, HF_P2P_TRACKER: tracker.url },
    [Symbol.asyncDispose]: async () => {
      await hub.close()
      await tracker.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

function start(script: string, args: string[], env: NodeJS.ProcessEnv) {
  return spawn(process.execPath, [script, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
}

test('a program that downloaded something ends by itself, although it seeds while it lives', async () => {
  await using w = await world()
  const child = start(program, ['acme/tiny', 'model.safetensors'], w.env)
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  expect([code, err]).toEqual([0, ''])
  expect(await sha256Of(JSON.parse(out).file)).toBe(w.hub.file('model.safetensors').sha256)
})

test('a program that lives on makes what it downloaded available to others', async () => {
  await using w = await world()
  const script = `${w.folder}/stay.mjs`
  const { writeFile } = await import('node:fs/promises')
  await writeFile(
    script,
    `import { p2pDownload, seedingStatus } from '${root}dist/index.js'
     await p2pDownload({ repo: 'acme/tiny', path: 'model.safetensors' })
     while ((await seedingStatus())[0]?.state !== 'seeding') await new Promise((resolve) => setImmediate(resolve))
     console.log('seeding')
     setInterval(() => {}, 1000)`,
  )
  const child = start(script, [], w.env)
  const exited = once(child, 'exit')
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  expect((await lines.next()).value).toBe('seeding')
  const file = w.hub.file('model.safetensors')
  const client = new TrackerClient({ url: w.tracker.url })
  while ((await client.lookup([file])).get(file.etag) === undefined)
    await new Promise((resolve) => setImmediate(resolve))
  child.kill('SIGTERM')
  expect(await exited).toEqual([null, 'SIGTERM'])
})

test('without the addon there is HTTP, one warning that says what to do, and no harm', async () => {
  await using w = await world()
  const installed = `${w.folder}/installed`
  await mkdir(`${installed}/test/e2e/fixtures`, { recursive: true })
  await cp(`${root}dist`, `${installed}/dist`, { recursive: true })
  await cp(`${root}package.json`, `${installed}/package.json`)
  await cp(program, `${installed}/test/e2e/fixtures/p2p-download.mjs`)
  await symlink(`${root}node_modules`, `${installed}/node_modules`)
  const child = start(
    `${installed}/test/e2e/fixtures/p2p-download.mjs`,
    ['acme/tiny', 'model.safetensors', '3'],
    w.env,
  )
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  expect(code).toBe(0)
  expect(err.trim().split('\n')).toHaveLength(1)
  expect(err).toMatch(/HTTP only.*npm run build:native/)
  const [first] = out.trim().split('\n')
  expect(await sha256Of(JSON.parse(first ?? '').file)).toBe(w.hub.file('model.safetensors').sha256)
  expect(await checkCacheContract(`${w.home}/hub`)).toEqual([])
})

test('a program killed in the middle leaves a partial file, from which the next one goes on', async () => {
  await using w = await world()
  w.hub.setThrottle('cdn', 2 * mebibyte)
  const child = start(program, ['acme/tiny', 'model.safetensors'], { ...w.env, HF_USE_P2P: '0' })
  const exited = once(child, 'exit')
  const partials = `${w.home}/llmpt/partial`
  // A journal is there from the beginning; a line of it is a block or a piece.
  const journal = async (): Promise<string> => {
    const [name] = (await readdir(partials).catch(() => [])).filter((entry) => entry.endsWith('.journal'))
    return name === undefined ? '' : await readFile(`${partials}/${name}`, 'utf8')
  }
  while ((await journal()).split('\n').length < 3) await new Promise((resolve) => setImmediate(resolve))
  child.kill('SIGKILL')
  await exited
  w.hub.setThrottle('cdn', 0)
  w.hub.resetStats()
  const next = start(program, ['acme/tiny', 'model.safetensors'], { ...w.env, HF_USE_P2P: '0' })
  const [out] = await Promise.all([text(next.stdout), once(next, 'exit')])
  const { file, bytes } = JSON.parse(out)
  expect(bytes.cache).toBeGreaterThan(0)
  expect(bytes.cache + bytes.http).toBe(w.hub.file('model.safetensors').sizeBytes)
  expect(w.hub.stats('cdn').bytesSent).toBe(bytes.http)
  expect(await sha256Of(file)).toBe(w.hub.file('model.safetensors').sha256)
  await rm(partials, { recursive: true })
})
