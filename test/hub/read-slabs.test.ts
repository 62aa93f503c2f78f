import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { Agent, buildConnector } from 'undici'
import { expect, test } from 'vitest'
import { exchange } from '../../src/hub/exchange.ts'
import { ReadSlabs } from '../../src/hub/read-slabs.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { lyingHub } from './fixtures.ts'

const mib = 1024 * 1024

test('bytes that nobody gave back stay as they came', async () => {
  await using origin = await lyingHub((_req, res) => res.end(content(8 * mib)))
  await using rig = rigFor(origin)
  const kept = await rig.read({ givesBack: false })
  for (let i = 0; i < 4; i += 1) await rig.read({ givesBack: true })
  expect(digestOf(kept)).toBe(digestOf([content(8 * mib)]))
})

test('memory that was given back is read into again', async () => {
  await using origin = await lyingHub((_req, res) => res.end(content(8 * mib)))
  await using rig = rigFor(origin)
  const memory = new Set<ArrayBufferLike>()
  for (let i = 0; i < 8; i += 1) {
    await rig.read({ givesBack: true, onBytes: (bytes) => memory.add(bytes.buffer) })
  }
  // 64 MiB went through.
  expect(memory.size * 512 * 1024).toBeLessThanOrEqual(8 * mib)
})

test('an answer in parts of its own length comes whole while its memory is used again', async () => {
  const parts = Array.from({ length: 400 }, (_, i) => content(1 + ((i * 7919) % 60_000), i))
  await using origin = await lyingHub((_req, res) => {
    for (const part of parts) res.write(part)
    res.end()
  })
  await using rig = rigFor(origin)
  for (let i = 0; i < 5; i += 1) {
    const hash = createHash('sha256')
    await rig.read({ givesBack: true, onBytes: (bytes) => hash.update(bytes) })
    expect(hash.digest('hex')).toBe(digestOf(parts))
  }
})

test('a reader that gives back late gets every byte', async () => {
  await using origin = await lyingHub((_req, res) => res.end(content(16 * mib)))
  await using rig = rigFor(origin)
  const read = async (): Promise<string> => {
    const hash = createHash('sha256')
    const waiting: Uint8Array[] = []
    await rig.read({
      givesBack: false,
      onBytes: (bytes) => {
        waiting.push(bytes)
        if (waiting.length < 5) return
        const late = waiting.shift() as Uint8Array
        hash.update(late)
        rig.slabs.giveBack(late)
      },
    })
    for (const bytes of waiting) hash.update(bytes)
    return hash.digest('hex')
  }
  const all = await Promise.all([read(), read(), read(), read()])
  expect(new Set(all)).toEqual(new Set([digestOf([content(16 * mib)])]))
})

test('bytes from elsewhere are left alone', async () => {
  const slabs = new ReadSlabs()
  const bytes = content(100)
  slabs.giveBack(bytes)
  expect(digestOf([bytes])).toBe(digestOf([content(100)]))
})

test('an answer over TLS comes whole, and the next connection goes on with the session of the last', async () => {
  const reused: boolean[] = []
  await using origin = await secureOrigin((req, res) => {
    reused.push((req.socket as TLSSocket).isSessionReused())
    res.writeHead(200, { connection: 'close' }).end(content(4 * mib))
  })
  await using rig = rigFor(origin)
  for (let i = 0; i < 2; i += 1) {
    const hash = createHash('sha256')
    await rig.read({ givesBack: true, onBytes: (bytes) => hash.update(bytes) })
    expect(hash.digest('hex')).toBe(digestOf([content(4 * mib)]))
  }
  expect(reused).toEqual([false, true])
})

interface Rig extends AsyncDisposable {
  readonly slabs: ReadSlabs
  /** Reads one answer; returns its bytes unless they are given back. */
  read(options: { givesBack: boolean; onBytes?: (bytes: Uint8Array) => void }): Promise<Uint8Array[]>
}

function rigFor(origin: { url: string }): Rig {
  const slabs = new ReadSlabs()
  const agent = new Agent({ connect: slabs.connector(buildConnector, { rejectUnauthorized: false }) })
  return {
    slabs,
    async read({ givesBack, onBytes }) {
      const answer = await exchange(
        agent,
        { origin: origin.url, path: '/', method: 'GET' },
        {
          signal: undefined,
          errorOf: (error) => error,
          onEnd: () => {},
          giveBack: (bytes) => slabs.giveBack(bytes),
        },
      )
      const kept: Uint8Array[] = []
      for await (const batch of answer.batches) {
        for (const bytes of batch) {
          onBytes?.(bytes)
          if (givesBack) answer.giveBack(bytes)
          else if (onBytes === undefined) kept.push(bytes)
        }
      }
      return kept
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  }
}

async function secureOrigin(listener: RequestListener): Promise<{ url: string } & AsyncDisposable> {
  await using folder = await temporaryDirectory()
  const [key, cert] = [join(folder.path, 'key.pem'), join(folder.path, 'cert.pem')]
  const subject = ['-subj', '/CN=localhost', '-days', '1', '-keyout', key, '-out', cert]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await promisify(execFile)('openssl', ['req', '-x509', ...curve, ...subject])
  const server = createServer({ key: await readFile(key), cert: await readFile(cert) }, listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Never the same bytes at two places nearby. */
function content(bytes: number, seed = 0): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4)).map((_, i) => Math.imul(i + 1 + seed, 2654435761))
  return Buffer.from(words.buffer, 0, bytes)
}

function digestOf(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}
