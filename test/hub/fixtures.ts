/** What the tests of this room share: connections without patience, a fake lock, a Hub that lies. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { fstatSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { HubAccess } from '../../src/hub/ask.ts'
import {
  type CacheDeps,
  type FileLocks,
  type OpenOptions,
  openBlob,
  type PartialFile,
} from '../../src/hub/cache-writer.ts'
import { Endpoints } from '../../src/hub/endpoints.ts'
import { HubHttp, type HubHttpOptions } from '../../src/hub/http.ts'
import type { Commit, Etag, HubFile, RepoRef } from '../../src/values.ts'

export const tiny: RepoRef = { repoType: 'model', repo: 'acme/tiny' }
export const commitA = 'a'.repeat(40) as Commit
export const commitB = 'b'.repeat(40) as Commit

/** Access to a Hub; its pauses are recorded instead of waited for, and its clock moves with them and by `advance`. */
export interface TestAccess extends HubAccess, AsyncDisposable {
  readonly pauses: number[]
  advance(ms: number): void
}

export function access(
  endpoint: string,
  options: HubHttpOptions & { token?: string; mirrors?: readonly string[] } = {},
): TestAccess {
  const { token, mirrors = [], ...httpOptions } = options
  const pauses: number[] = []
  let nowMs = Date.now()
  const http = new HubHttp({
    now: () => nowMs,
    sleep: async (ms) => {
      pauses.push(ms)
      nowMs += ms
    },
    ...httpOptions,
  })
  const advance = (ms: number): void => {
    nowMs += ms
  }
  const endpoints = mirrors.length === 0 ? undefined : new Endpoints(endpoint, mirrors, () => nowMs)
  return { http, endpoint, token, endpoints, pauses, advance, [Symbol.asyncDispose]: () => http.close() }
}

export interface LyingHub extends AsyncDisposable {
  readonly url: string
  readonly seen: IncomingMessage[]
}

/** A server that answers whatever a test wants. */
export async function lyingHub(
  answer: (req: IncomingMessage, res: ServerResponse, url: string) => void,
): Promise<LyingHub> {
  const seen: IncomingMessage[] = []
  let url = ''
  const server = createServer((req, res) => {
    seen.push(req)
    answer(req, res, url)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** `flock` as one process sees it: one holder per file, gone when its descriptor is closed. */
export function fakeLocks(): FileLocks & { readonly calls: string[] } {
  const holders = new Map<string, number>()
  const calls: string[] = []
  const inodeOf = (fd: number): string | undefined => {
    try {
      const { dev, ino } = fstatSync(fd)
      return `${dev} ${ino}`
    } catch {
      return undefined
    }
  }
  return {
    calls,
    tryLock(fd) {
      calls.push('tryLock')
      const inode = inodeOf(fd)
      if (inode === undefined) throw new Error('not an open file')
      const holder = holders.get(inode)
      if (holder !== undefined && holder !== fd && inodeOf(holder) === inode) return false
      holders.set(inode, fd)
      return true
    },
    unlock(fd) {
      calls.push('unlock')
      for (const [inode, holder] of holders) if (holder === fd) holders.delete(inode)
    },
  }
}

export function sha256(bytes: string | Uint8Array): Etag {
  return createHash('sha256').update(bytes).digest('hex') as Etag
}

export function gitSha1(bytes: string | Uint8Array): Etag {
  const length = Buffer.byteLength(bytes)
  return createHash('sha1').update(`blob ${length}\0`).update(bytes).digest('hex') as Etag
}

export function hubFile(path: string, content: string | Uint8Array, more: Partial<HubFile> = {}): HubFile {
  return {
    ...tiny,
    path,
    commit: commitA,
    etag: sha256(content),
    sizeBytes: Buffer.byteLength(content),
    ...more,
  }
}

/** The slot of a blob that nobody has yet. */
export async function openForWriting(
  cacheDir: string,
  file: HubFile,
  deps: CacheDeps = {},
  options: OpenOptions = {},
): Promise<PartialFile> {
  const slot = await openBlob(cacheDir, file, file, deps, options)
  if (slot.state !== 'write') throw new Error(`expected a slot to write to, ${slot.path} is there`)
  return slot
}

/** Puts a blob into the cache as a download does. */
export async function storeBlob(
  cacheDir: string,
  file: HubFile,
  content: string | Uint8Array,
  deps: CacheDeps = {},
): Promise<string> {
  const slot = await openForWriting(cacheDir, file, deps)
  await writeFile(slot.partialPath, content)
  return await slot.commit()
}

export async function readAll(batches: AsyncIterable<Uint8Array[]>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const batch of batches) parts.push(...batch)
  return Buffer.concat(parts)
}

/** The error a promise rejects with. */
export async function errorOf(promise: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  try {
    await promise
  } catch (error) {
    return error as Error & Record<string, unknown>
  }
  throw new Error('expected a rejection')
}
