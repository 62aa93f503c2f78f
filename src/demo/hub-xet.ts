/**
 * The demo Hub's Xet service: enough of the CAS API for clients to rebuild a file from chunks. Content is cut into
 * chunks of one size and stored uncompressed, which the real service does too when compression does not help.
 *
 * @see https://huggingface.co/docs/xet/en/download-protocol
 */
import { createHash } from 'node:crypto'
import type { DemoBlob } from './hub-content.ts'
import { type Exchange, type Origin, parseRange, reply, replyFault } from './hub-origin.ts'

/** What the service wants to see; the Hub gives it out. */
export const casToken = 'demo-cas-token'

const chunkBytes = 64 * 1024
const headerBytes = 8
const chunksPerXorb = 256

/** Xet's own name for a content: 64 hex digits that are not its SHA-256. */
export function xetHash(sha256: string): string {
  return createHash('sha256').update(`xet ${sha256}`).digest('hex')
}

/** Answers `/v1/reconstructions/HASH`, `/v2/reconstructions/HASH` and `/xorbs/HASH/INDEX`. */
export async function answerCas(
  origin: Origin,
  exchange: Exchange,
  find: (hash: string) => { blob: DemoBlob; path: string } | undefined,
): Promise<void> {
  const [, area, ...rest] = exchange.url.pathname.split('/')
  const hash = rest[area === 'xorbs' ? 0 : 1] ?? ''
  const file = find(hash)
  if (!file) return reply(exchange, 404, {}, '')
  exchange.record.file = file.path
  if (area === 'xorbs') {
    const xorb = xorbOf(file.blob, Number(rest[1]))
    const fault = origin.faultsFor(exchange, [file.path], true)
    if (await replyFault(exchange, fault)) return
    return await origin.sendBlob(exchange, xorb, {}, fault)
  }
  if (exchange.req.headers.authorization !== `Bearer ${casToken}`) return reply(exchange, 401, {}, '')
  const range = parseRange(exchange.req.headers.range, file.blob.sizeBytes) ?? [0, file.blob.sizeBytes]
  if (range === 'unsatisfiable') return reply(exchange, 416, {}, '')
  const plan = reconstruction(origin.url, hash, file.blob, range)
  reply(exchange, 200, { 'content-type': 'application/json' }, JSON.stringify(plan))
}

/** Which chunks of which xorbs make bytes `[start, end)` of the file. */
function reconstruction(
  casUrl: string,
  hash: string,
  blob: DemoBlob,
  [start, end]: [number, number],
): object {
  const terms: object[] = []
  const xorbs: Record<string, object[]> = {}
  const firstChunk = Math.floor(start / chunkBytes)
  const endChunk = Math.ceil(end / chunkBytes)
  for (let chunk = firstChunk; chunk < endChunk; ) {
    const index = Math.floor(chunk / chunksPerXorb)
    const from = chunk - index * chunksPerXorb
    const to = Math.min(chunksPerXorb, endChunk - index * chunksPerXorb)
    const name = xetHash(`${hash} ${index}`)
    const bytes = { start: physical(blob, index, from), end: physical(blob, index, to) - 1 }
    const unpacked = Math.min(blob.sizeBytes, (index * chunksPerXorb + to) * chunkBytes) - chunk * chunkBytes
    terms.push({ hash: name, unpacked_length: unpacked, range: { start: from, end: to } })
    const url = `${casUrl}/xorbs/${hash}/${index}?X-Xet-Signed-Range=${bytes.start}-${bytes.end}`
    xorbs[name] = [{ url, ranges: [{ chunks: { start: from, end: to }, bytes }] }]
    chunk = index * chunksPerXorb + to
  }
  return { terms, xorbs, offset_into_first_range: start - firstChunk * chunkBytes }
}

/** Where a chunk begins in its xorb. */
function physical(blob: DemoBlob, index: number, chunk: number): number {
  const from = index * chunksPerXorb * chunkBytes
  const dataBytes = Math.min(chunk * chunkBytes, Math.max(0, blob.sizeBytes - from))
  return dataBytes + chunk * headerBytes
}

/** A xorb as a blob of its own: every chunk behind its header. */
function xorbOf(blob: DemoBlob, index: number): DemoBlob {
  const from = index * chunksPerXorb * chunkBytes
  const dataBytes = Math.min(chunksPerXorb * chunkBytes, blob.sizeBytes - from)
  const chunks = Math.ceil(dataBytes / chunkBytes)
  const sizeBytes = dataBytes + chunks * headerBytes
  return {
    ...blob,
    sizeBytes,
    read: (start = 0, end = sizeBytes) => readXorb(blob, from, dataBytes, start, end),
  }
}

async function* readXorb(
  blob: DemoBlob,
  from: number,
  dataBytes: number,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  const stride = chunkBytes + headerBytes
  for (let chunk = Math.floor(start / stride); chunk * stride < end; chunk++) {
    const at = chunk * chunkBytes
    const length = Math.min(chunkBytes, dataBytes - at)
    const parts: Uint8Array[] = [chunkHeader(length)]
    for await (const part of blob.read(from + at, from + at + length)) parts.push(part)
    const begins = chunk * stride
    yield Buffer.concat(parts).subarray(Math.max(0, start - begins), end - begins)
  }
}

/** Version 0, both lengths as 24-bit little-endian numbers, and scheme 0: stored as it is. */
function chunkHeader(length: number): Buffer {
  const header = Buffer.alloc(headerBytes)
  header.writeUIntLE(length, 1, 3)
  header.writeUIntLE(length, 5, 3)
  return header
}
