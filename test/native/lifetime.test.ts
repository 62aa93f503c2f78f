import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { NativeSession } from '../../src/native/binding.ts'
import { requireAddon } from '../../src/native/load.ts'
import { runFixture } from '../support/native-child.ts'
import { makeTorrent, nextAlert, openSession, someBytes } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

/** Takes a second or so to hash. */
async function writeLargeFile(folder: string): Promise<number> {
  const bytes = 256 << 20
  await writeFile(join(folder, 'large'), Buffer.alloc(bytes, 'llmpt'))
  return bytes
}

const ways = [
  { way: 'exit', code: 3, signal: null },
  { way: 'throw', code: 1, signal: null },
  { way: 'throw in alerts', code: 1, signal: null },
  { way: 'reject', code: 1, signal: null },
  { way: 'SIGTERM', code: null, signal: 'SIGTERM' },
  { way: 'return', code: 0, signal: null },
] as const

test.each(ways)(
  'a process busy with transfers and hashing ends as any other by: $way',
  async ({ way, code, signal }) => {
    await using folder = await temporaryDirectory()
    await writeLargeFile(folder.path)
    const ended = await runFixture('end-while-busy.mjs', { args: [folder.path, way] })
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code, signal })
    expect(ended.stdout).toBe('busy\n')
    if (code === 1) expect(ended.stderr).toContain('Error: uncaught')
  },
)

test('worker threads can be terminated in the middle of transfers and hashing', async () => {
  await using folder = await temporaryDirectory()
  await writeLargeFile(folder.path)
  const { code, signal, stdout, stderr } = await runFixture('workers.mjs', { args: [folder.path] })
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' })
  expect(stdout).toBe(`${'terminated\n'.repeat(6)}closed\n`)
})

test('sessions that nobody holds are collected, and their threads end', async () => {
  const { code, stdout } = await runFixture('collect.mjs', { nodeArgs: ['--expose-gc'] })
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toEqual({ collected: 8, threadsLeft: 0 })
})

test('forty sessions leave no thread, no descriptor and little memory behind', async () => {
  await using folder = await temporaryDirectory()
  await writeFile(join(folder.path, 'file'), someBytes(100_000))
  const { code, stdout } = await runFixture('repeat.mjs', { args: [folder.path], nodeArgs: ['--expose-gc'] })
  expect(code).toBe(0)
  const left = JSON.parse(stdout) as { rssBytes: number; threads: number; descriptors: number }
  expect(left).toMatchObject({ threads: 0, descriptors: 0 })
  expect(left.rssBytes).toBeLessThan(40 * 200_000)
})

test.each([
  { way: 'open session', prints: '' },
  { way: 'close', prints: 'closed\n' },
  { way: 'hashFile', prints: `${256 << 20}\n` },
  { way: 'createTorrent', prints: `${256 << 20}\n` },
  { way: 'createTorrent in the background', prints: '' },
])('the process lives as long as needed and no longer with: $way', async ({ way, prints }) => {
  await using folder = await temporaryDirectory()
  await writeLargeFile(folder.path)
  const { code, stdout } = await runFixture('keep-alive.mjs', { args: [way, folder.path] })
  expect({ code, stdout }).toEqual({ code: 0, stdout: prints })
})

test('closing twice is one closing', async () => {
  const session = openSession()
  const first = session.close()
  expect(session.close()).toBe(first)
  expect(session.isClosed).toBe(true)
  await first
  await session.close()
})

/** Answers every announce but the one that says goodbye. */
async function startTracker(): Promise<AsyncDisposable & { url: string }> {
  const server = createServer((request, response) => {
    if (!request.url?.includes('event=stopped')) response.end('d8:intervali1800e5:peers0:e')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/announce`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test('a tracker that does not answer delays closing up to its time limit, and the event loop not at all', async () => {
  await using tracker = await startTracker()
  await using folder = await temporaryDirectory()
  const session = openSession({ stop_tracker_timeout: 1 })
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path, trackers: [tracker.url] })
  expect(await nextAlert(torrent, 'tracker_reply')).toMatchObject({ url: tracker.url, peers: 0 })
  let turns = 0
  const timer = setInterval(() => turns++, 10)
  await session.close()
  clearInterval(timer)
  expect(turns).toBeGreaterThan(0)
})

test('the native close can be called twice too', async () => {
  const native = new (requireAddon().Session)({ listen_interfaces: '' }, () => {})
  await Promise.all([native.close(), native.close()])
  await native.close()
})

test('a closed session refuses every call with a NativeError', async () => {
  const session = openSession()
  await session.close()
  const refusal = expect.objectContaining({
    name: 'NativeError',
    code: 'ERR_LLMPT_NATIVE',
    category: 'libtorrent',
    value: 18,
  })
  const magnet = `magnet:?xt=urn:btih:${'a'.repeat(40)}`
  expect(() => session.applySettings({})).toThrow(refusal)
  expect(() => session.exemptLocalPeers(true)).toThrow(refusal)
  expect(() => session.banPeer('127.0.0.1')).toThrow(refusal)
  expect(() => session.postTorrentUpdates()).toThrow(refusal)
  await expect(session.addTorrent({ magnet, savePath: '/tmp' })).rejects.toEqual(refusal)
  await expect(session.statistics()).rejects.toEqual(refusal)
  await expect(session.listening()).rejects.toEqual(refusal)
})

test('whatever waits is answered when the session closes', async () => {
  await using folder = await temporaryDirectory()
  const session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  const adding = session.addTorrent({
    magnet: `magnet:?xt=urn:btih:${'a'.repeat(40)}`,
    savePath: folder.path,
  })
  const waiting = [
    adding,
    session.statistics(),
    torrent.status(),
    torrent.pieceAvailability(),
    torrent.peers(),
    torrent.saveResumeData(),
    torrent.renameFile(0, join(folder.path, 'other')),
    torrent.remove(),
  ]
  const closing = session.close()
  for (const one of await Promise.allSettled(waiting)) {
    expect(one).toMatchObject({ status: 'rejected', reason: { code: 'ERR_LLMPT_NATIVE', value: 18 } })
  }
  await closing
  expect(torrent.isRemoved).toBe(true)
})

test('a removed torrent refuses every call with a NativeError', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  const waiting = [torrent.status(), torrent.saveResumeData()]
  const removal = torrent.remove()
  expect(torrent.remove()).toBe(removal)
  expect(torrent.isRemoved).toBe(true)
  await removal
  await Promise.allSettled(waiting)

  const refusal = expect.objectContaining({ code: 'ERR_LLMPT_NATIVE', category: 'libtorrent', value: 20 })
  expect(() => torrent.setPiecePriority(0, 1)).toThrow(refusal)
  expect(() => torrent.setPiecePriorities(new Uint8Array(4))).toThrow(refusal)
  expect(() => torrent.addPiece(0, new Uint8Array(1))).toThrow(refusal)
  expect(() => torrent.setPieceDeadline(0, 1)).toThrow(refusal)
  expect(() => torrent.clearPieceDeadlines()).toThrow(refusal)
  expect(() => torrent.setFlags({ paused: true })).toThrow(refusal)
  expect(() => torrent.setRateLimits({})).toThrow(refusal)
  expect(() => torrent.connectPeer({ host: '127.0.0.1', port: 1 })).toThrow(refusal)
  expect(() => torrent.forceReannounce()).toThrow(refusal)
  expect(() => torrent.forceRecheck()).toThrow(refusal)
  await expect(torrent.status()).rejects.toEqual(refusal)
  await expect(torrent.pieceAvailability()).rejects.toEqual(refusal)
  await expect(torrent.peers()).rejects.toEqual(refusal)
  await expect(torrent.saveResumeData()).rejects.toEqual(refusal)
  await expect(torrent.renameFile(0, '/tmp/x')).rejects.toEqual(refusal)
  await torrent.remove()
})

test('a torrent can be removed and added again, and is then another one', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const first = await session.addTorrent({ torrentFile, savePath: folder.path })
  await expect(session.addTorrent({ torrentFile, savePath: folder.path })).rejects.toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'addTorrent',
    value: 19,
  })
  await first.remove()
  const second = await session.addTorrent({ torrentFile, savePath: folder.path })
  expect(second.id).not.toBe(first.id)
  expect((await second.status()).torrent).toBe(second.id)
  await expect(first.status()).rejects.toMatchObject({ value: 20 })
})

test('native methods refuse objects of another class', async () => {
  await using folder = await temporaryDirectory()
  const addon = requireAddon()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  let added: (id: number) => void
  const id = new Promise<number>((resolve) => {
    added = resolve
  })
  const native: NativeSession = new addon.Session({ listen_interfaces: '', alert_mask: 1 << 6 }, (alerts) => {
    for (const alert of alerts) if (alert.type === 'add_torrent') added(alert.torrent)
  })
  const limits = { maxBufferBytes: 1e6, maxPieces: 1000, maxDepth: 50, maxTokens: 1000 }
  native.addTorrent({ torrentFile, savePath: folder.path }, limits, 1)
  const torrent = native.torrent(await id)
  expect(torrent).toBeDefined()
  if (torrent === undefined) return
  for (const self of [native, {}, undefined, 7, addon]) {
    expect(() => torrent.postStatus.call(self)).toThrow(TypeError)
  }
  expect(() => native.postSessionStats.call(torrent as unknown as NativeSession)).toThrow(TypeError)
  const Torrent = torrent.constructor as new (...args: unknown[]) => unknown
  expect(() => new Torrent()).toThrow(TypeError)
  expect(() => new Torrent({}, native)).toThrow(TypeError)
  expect(() => Reflect.apply(addon.Session, undefined, [{}, () => {}])).toThrow(TypeError)
  await native.close()
})

test('a listener that throws is an uncaught error and costs no one else an alert', async () => {
  await using session = openSession()
  const uncaught: unknown[] = []
  const before = process.rawListeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => uncaught.push(error))
  try {
    session.onAlert(() => {
      throw new Error('listener')
    })
    const heard = nextAlert(session, 'session_stats')
    await session.statistics()
    await heard
    await new Promise((resolve) => setImmediate(resolve))
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const listener of before) process.on('uncaughtException', listener as (error: Error) => void)
  }
  expect(uncaught).not.toHaveLength(0)
  expect(uncaught[0]).toMatchObject({ message: 'listener' })
})

test('an error carries the stack of the call that asked', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession()
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  await session.addTorrent({ torrentFile, savePath: folder.path })
  async function whoAsked(): Promise<unknown> {
    return await session.addTorrent({ torrentFile, savePath: folder.path }).catch((error: unknown) => error)
  }
  expect(await whoAsked()).toMatchObject({
    stack: expect.stringMatching(/^NativeError: addTorrent: .*\n\s+at whoAsked/),
  })
})
