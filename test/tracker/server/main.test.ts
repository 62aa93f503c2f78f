import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { Agent, get } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ConfigError } from '../../../src/errors.ts'
import { type RunningTracker, startTracker } from '../../../src/tracker/server/main.ts'
import { temporaryDirectory } from '../../support/temp-dir.ts'
import { announce, lookup, publish, type TestBlob, testBlob, testTracker } from '../fixtures/test-tracker.ts'

/** Before any tracker was started here. */
const pristine = { Request: globalThis.Request, Response: globalThis.Response }

interface TrackerProcess extends AsyncDisposable {
  readonly child: ChildProcess
  /** The first line it printed: its URL, or why it did not start. */
  readonly line: string
}

async function trackerProcess(dataDir: string): Promise<TrackerProcess> {
  const script = fileURLToPath(new URL('../fixtures/run-tracker.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, dataDir], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const [line = 'the tracker printed nothing'] = (await Promise.race([
    once(lines, 'line'),
    once(lines, 'close'),
  ])) as string[]
  const end = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }
  return { child, line, [Symbol.asyncDispose]: end }
}

describe('the data directory', () => {
  test('is made if missing, and holds one file while no tracker runs', async () => {
    await using directory = await temporaryDirectory()
    const dataDir = join(directory.path, 'a', 'b')
    const tracker = await startTracker({ dataDir })
    await publish(tracker, testBlob())
    await tracker.close()
    expect(await readdir(dataDir)).toEqual(['tracker.sqlite'])
  })

  test('belongs to one tracker of a process, and is free when that is closed', async () => {
    await using directory = await temporaryDirectory()
    for (let run = 0; run < 3; run++) {
      await using _first = await startTracker({ dataDir: directory.path })
      const second = startTracker({ dataDir: directory.path })
      await expect(second).rejects.toThrow(ConfigError)
      await expect(second).rejects.toThrow(/another tracker is using/)
    }
  })

  test('belongs to one process, and is free when that was killed', async () => {
    await using directory = await temporaryDirectory()
    await using running = await trackerProcess(directory.path)
    expect(running.line).toMatch(/^http:/)
    await expect(startTracker({ dataDir: directory.path })).rejects.toThrow(/another tracker is using/)
    running.child.kill('SIGKILL')
    await once(running.child, 'exit')
    await using _tracker = await startTracker({ dataDir: directory.path })
    await using refused = await trackerProcess(directory.path)
    expect(refused.line).toMatch(/^ERR_LLMPT_CONFIG: another tracker is using/)
  })

  test('that cannot be used is named', async () => {
    await using directory = await temporaryDirectory()
    const file = join(directory.path, 'tracker.sqlite')
    await writeFile(file, 'this is no database, however long it is'.repeat(100))
    await expect(startTracker({ dataDir: directory.path })).rejects.toThrow(ConfigError)
    await expect(startTracker({ dataDir: directory.path })).rejects.toThrow(file)
    await expect(startTracker({ dataDir: join(file, 'below') })).rejects.toThrow(ConfigError)
  })

  test('of a newer version is left alone', async () => {
    await using directory = await temporaryDirectory()
    const { default: Database } = await import('libsql')
    const db = new Database(join(directory.path, 'tracker.sqlite'))
    db.exec('pragma user_version = 999')
    db.close()
    await expect(startTracker({ dataDir: directory.path })).rejects.toThrow(/newer version/)
  })
})

test('kill -9 during 1000 publishes loses none that was acknowledged', async () => {
  await using directory = await temporaryDirectory()
  const blobs = Array.from({ length: 1000 }, (_, n) => testBlob(Buffer.from(`content of blob ${n}`)))
  const acknowledged = new Set<TestBlob>()
  const inodes = new Set<number>()
  for (const killAfter of [150, 300, 1, 250]) {
    const before = acknowledged.size
    await using running = await trackerProcess(directory.path)
    const tracker = { url: running.line } as RunningTracker
    const queue = blobs.filter((blob) => !acknowledged.has(blob))
    const worker = async (): Promise<void> => {
      for (let blob = queue.pop(); blob !== undefined; blob = queue.pop()) {
        // A connection that breaks is a publish that was not acknowledged.
        const answer = await publish(tracker, blob).catch(() => undefined)
        if (answer?.status !== 200) return
        acknowledged.add(blob)
        if (acknowledged.size === before + killAfter) running.child.kill('SIGKILL')
      }
    }
    await Promise.all(Array.from({ length: 16 }, worker))
    expect(acknowledged.size).toBeGreaterThanOrEqual(before + killAfter)
    expect(acknowledged.size).toBeLessThan(1000)
    // A directory that was cleaned away under the tracker looks like a loss, and is another matter.
    inodes.add((await stat(join(directory.path, 'tracker.sqlite'))).ino)
  }
  expect(inodes.size, 'the database file stayed the same').toBe(1)
  await using tracker = await startTracker({ dataDir: directory.path })
  const etags = [...acknowledged].map((blob) => blob.etag)
  const found = new Set<string>()
  for (let start = 0; start < etags.length; start += 200) {
    for (const row of await lookup(tracker, ...etags.slice(start, start + 200))) found.add(row.etag)
  }
  const lost = etags.flatMap((etag, order) => (found.has(etag) ? [] : [order]))
  expect(lost, 'acknowledged, and lost, in this order').toEqual([])
}, 120_000)

describe('close', () => {
  test('ends idle keep-alive connections at once, and may be called again', async () => {
    await using tracker = await testTracker()
    const agent = new Agent({ keepAlive: true })
    const request = get(`${tracker.url}/health`, { agent })
    const [response] = await once(request, 'response')
    response.resume()
    await once(response, 'end')
    const closed = once(request.socket as NonNullable<typeof request.socket>, 'close')
    await Promise.all([tracker.close(), tracker.close(), closed])
    agent.destroy()
  })

  test('does not wait for a request that never ends', async () => {
    await using tracker = await testTracker()
    const body = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from('{')) })
    const posting = fetch(`${tracker.url}/api/v1/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      duplex: 'half',
    } as RequestInit)
    const refused = expect(posting).rejects.toThrow()
    await fetch(`${tracker.url}/health`)
    await tracker.close()
    await refused
  })
})

describe('listening', () => {
  test('on a port that is taken fails by name, and leaves the data directory free', async () => {
    await using directory = await temporaryDirectory()
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    await expect(startTracker({ dataDir: directory.path, port })).rejects.toThrow(`port ${port}`)
    server.close()
    await using _tracker = await startTracker({ dataDir: directory.path })
  })

  test.each([
    ['127.0.0.1', /^http:\/\/127\.0\.0\.1:\d+$/],
    ['0.0.0.0', /^http:\/\/127\.0\.0\.1:\d+$/],
    ['::', /^http:\/\/\[::1\]:\d+$/],
    ['localhost', /^http:\/\/(?:127\.0\.0\.1|\[::1\]):\d+$/],
  ])('on %s gives a URL that can be asked', async (host, expected) => {
    await using tracker = await testTracker({ host })
    expect(tracker.url).toMatch(expected)
    expect(tracker.announceUrl).toBe(`${tracker.url}/announce`)
    expect((await fetch(`${tracker.url}/health`)).status).toBe(200)
    expect(await announce(tracker, { key: '00'.repeat(20) })).toHaveProperty('interval')
  })

  test('leaves the globals of the process alone', async () => {
    await using tracker = await testTracker()
    await lookup(tracker, '0'.repeat(64))
    expect(globalThis.Request).toBe(pristine.Request)
    expect(globalThis.Response).toBe(pristine.Response)
  })
})
