/** Contents of the demo Hub's files: in memory, on disk, or generated, so that a large file takes no memory. */
import { type Cipher, createCipheriv, createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { finished } from 'node:stream/promises'

/** Text, bytes, a file on disk, or `sizeBytes` of noise that is the same for the same `seed`. */
export type Content =
  | string
  | Uint8Array
  | { readonly filePath: string }
  | { readonly seed: string | number; readonly sizeBytes: number }

/** How the Hub keeps a file: in git, in large-file storage, or in Xet (which looks like LFS to who does not ask). */
export type Storage = 'git' | 'lfs' | 'xet'

/** A content with its identities. */
export interface DemoBlob {
  readonly sizeBytes: number
  readonly storage: Storage
  /** 64 hex digits. */
  readonly sha256: string
  /** Git blob SHA-1 of the content. */
  readonly gitSha1: string
  /** Blob name in the cache: `sha256` in large-file storage, `gitSha1` in git. */
  readonly etag: string
  /** What git stores: the content itself, or the pointer to large-file storage. */
  readonly oid: string
  /** The pointer to large-file storage. */
  readonly pointer: string
  /** Bytes `start` to `end` (exclusive), in chunks. */
  read(start?: number, end?: number): AsyncIterable<Uint8Array>
}

const chunkBytes = 256 * 1024
const largeFile = /\.(?:safetensors|bin|gguf|pt|pth|onnx|parquet|h5|zip|msgpack)$/i

/** Hashes `content` once and describes it. Large or binary-looking files go to large-file storage unless told. */
export async function describeContent(path: string, content: Content, storage?: Storage): Promise<DemoBlob> {
  const { sizeBytes, read } = await reader(content)
  const kept = storage ?? (largeFile.test(path) || sizeBytes > 10 * 1024 * 1024 ? 'lfs' : 'git')
  const sha256 = createHash('sha256')
  const git = createHash('sha1').update(`blob ${sizeBytes}\0`)
  for await (const chunk of read(0, sizeBytes)) {
    sha256.update(chunk)
    git.update(chunk)
  }
  const digest = sha256.digest('hex')
  const gitSha1 = git.digest('hex')
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${digest}\nsize ${sizeBytes}\n`
  const pointerOid = createHash('sha1').update(`blob ${pointer.length}\0${pointer}`).digest('hex')
  return {
    sizeBytes,
    storage: kept,
    sha256: digest,
    gitSha1,
    etag: kept === 'git' ? gitSha1 : digest,
    oid: kept === 'git' ? gitSha1 : pointerOid,
    pointer,
    read: (start = 0, end = sizeBytes) => read(start, Math.min(end, sizeBytes)),
  }
}

type Read = (start: number, end: number) => AsyncIterable<Uint8Array>

async function reader(content: Content): Promise<{ sizeBytes: number; read: Read }> {
  if (typeof content === 'string' || content instanceof Uint8Array) {
    const bytes = Buffer.from(content)
    return { sizeBytes: bytes.length, read: (start, end) => slices(bytes, start, end) }
  }
  if ('filePath' in content) {
    const { filePath } = content
    const { size } = await stat(filePath)
    return {
      sizeBytes: size,
      read: (start, end) =>
        end > start
          ? createReadStream(filePath, { start, end: end - 1, highWaterMark: chunkBytes })
          : slices(Buffer.alloc(0), 0, 0),
    }
  }
  return { sizeBytes: content.sizeBytes, read: (start, end) => noise(content.seed, start, end) }
}

async function* slices(bytes: Buffer, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let at = start; at < end; at += chunkBytes) yield bytes.subarray(at, Math.min(end, at + chunkBytes))
}

/** Deterministic noise: an AES-CTR key stream, which can be entered at any block. */
export async function* noise(seed: string | number, start: number, end: number): AsyncGenerator<Uint8Array> {
  const block = Math.floor(start / 16)
  const cipher = keyStream(seed, block)
  let skip = start - block * 16
  for (let at = start; at < end; ) {
    const length = Math.min(chunkBytes, end - at)
    const bytes = cipher.update(Buffer.alloc(skip + length)).subarray(skip)
    skip = 0
    at += length
    yield bytes
  }
}

/** `sizeBytes` of the same noise, in memory. */
export function noiseBytes(seed: string | number, sizeBytes: number): Buffer {
  return keyStream(seed, 0).update(Buffer.alloc(sizeBytes))
}

function keyStream(seed: string | number, block: number): Cipher {
  const key = createHash('sha256').update(`llmpt demo ${seed}`).digest().subarray(0, 16)
  const counter = Buffer.alloc(16)
  counter.writeBigUInt64BE(BigInt(block), 8)
  return createCipheriv('aes-128-ctr', key, counter)
}

/** The file to make. */
export interface SafetensorsOptions {
  /** Where to write it. */
  readonly path: string
  /** Of the whole file; at least 256. */
  readonly sizeBytes: number
  readonly seed?: string | number
  /** @defaultValue 4 */
  readonly tensors?: number
}

/** Writes a valid safetensors file of exactly `sizeBytes`, with random-looking 8-bit tensors, and returns its path. */
export async function makeSafetensors(options: SafetensorsOptions): Promise<string> {
  const { path, sizeBytes, seed = 0 } = options
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 256)
    throw new RangeError('a safetensors file has 256 bytes or more')
  // The header's length depends on the digits of the offsets in it: reserve a round size and pad with spaces.
  const tensors = Math.max(1, Math.min(options.tensors ?? 4, Math.floor((sizeBytes - 128) / 128)))
  const headerBytes = 8 * Math.ceil((24 + tensors * 96) / 8)
  const dataBytes = Math.max(0, sizeBytes - 8 - headerBytes)
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } }
  for (let i = 0; i < tensors; i++) {
    const begin = Math.floor((dataBytes * i) / tensors)
    const end = Math.floor((dataBytes * (i + 1)) / tensors)
    header[`layer.${i}.weight`] = { dtype: 'I8', shape: [end - begin], data_offsets: [begin, end] }
  }
  const json = JSON.stringify(header)
  const paddedBytes = sizeBytes - 8 - dataBytes
  if (json.length > paddedBytes) throw new RangeError(`${sizeBytes} bytes are too few for ${tensors} tensors`)
  const prefix = Buffer.alloc(8 + paddedBytes, ' ')
  prefix.writeBigUInt64LE(BigInt(paddedBytes), 0)
  prefix.write(json, 8)
  const out = createWriteStream(path)
  out.write(prefix)
  for await (const chunk of noise(seed, 0, dataBytes)) {
    if (!out.write(chunk)) await once(out, 'drain')
  }
  out.end()
  await finished(out)
  return path
}

/** Reads `length` bytes of a file from `offset`. */
export async function readBytes(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path)
  try {
    const bytes = Buffer.alloc(length)
    const { bytesRead } = await file.read(bytes, 0, length, offset)
    return bytes.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
