/**
 * Metainfo (.torrent) from strangers: v1, v2 and hybrid. What `parseMetainfo` returns is consistent in itself and
 * safe to act on; whether its content is what the Hub has, nobody knows before the bytes were hashed.
 */
import { createHash } from 'node:crypto'
import { TorrentError } from '../errors.ts'
import { type BlobRef, digestOf, type InfoHash } from '../values.ts'
import {
  type BencodeDictionary,
  type BencodeLimits,
  type BencodeValue,
  decodeBencode,
  type Span,
  scanBencode,
  utf8,
} from './bencode.ts'
import {
  checkedPart,
  type FileList,
  type MetainfoFile,
  readV1Files,
  readV2Files,
  textOf,
} from './file-lists.ts'
import { readPieceLayers } from './piece-layers.ts'
import { pieceLengthFor } from './piece-length.ts'

export type { MetainfoFile } from './file-lists.ts'

export type TorrentFormat = 'v1' | 'v2' | 'hybrid'

/** A torrent file, read and found consistent. */
export interface Metainfo {
  readonly format: TorrentFormat
  /** The v2 hash if there is one, else the v1 hash. */
  readonly infoHash: InfoHash
  readonly infoHashV1: InfoHash | undefined
  readonly infoHashV2: InfoHash | undefined
  /** One plain file name. */
  readonly name: string
  readonly pieceLength: number
  readonly numPieces: number
  /** Payload files in the torrent's order; padding is left out. */
  readonly files: readonly MetainfoFile[]
  /** Whether the torrent is one file called `name`, not a folder of that name. */
  readonly isSingleFile: boolean
  /** Sum of the payload files, without padding. */
  readonly totalBytes: number
  /** Announce URLs from `announce` and `announce-list`, each once. Whoever made the torrent chose them. */
  readonly trackers: readonly string[]
  readonly isPrivate: boolean
  readonly hasWebSeeds: boolean
  /** Keys of `info`, then of its files, that the format does not need: `private`, `source`, `attr`, ... */
  readonly extraKeys: readonly string[]
  /** Root (hex) -> hashes of the pieces, 32 bytes each. Proven against the roots; a file of one piece has none. */
  readonly pieceLayers: ReadonlyMap<string, Uint8Array>
}

/** Limits for hostile input. */
export interface MetainfoLimits extends BencodeLimits {
  readonly maxPieces: number
}

/** libtorrent's own (`load_torrent_limits`): what it would refuse is not a torrent to us either. */
export const defaultMetainfoLimits: MetainfoLimits = {
  maxBytes: 10_000_000,
  maxDepth: 100,
  maxTokens: 3_000_000,
  maxPieces: 0x20_0000,
}

const maxPieceLength = 2 ** 29 - 1
const maxTrackers = 100
const maxTrackerLength = 1024
const v1Keys = ['length', 'files', 'name', 'piece length', 'pieces']
const v2Keys = ['file tree', 'meta version', 'name', 'piece length']

/**
 * Reads a torrent file.
 *
 * Stricter than most clients: not canonical means refused (keys out of order or twice, leading zeros, bytes after the
 * end), as does anything that two programs could read in two ways, names that are not plain UTF-8 file names, links,
 * and piece layers that do not hash to their roots.
 *
 * @throws {TorrentError} If the bytes are not a torrent we accept; the message says why.
 * @see BEP 3, BEP 47, BEP 52
 */
export function parseMetainfo(bytes: Uint8Array, limits: MetainfoLimits = defaultMetainfoLimits): Metainfo {
  const outer = scanBencode(bytes, limits, false)
  const infoSpan = outer.get('info')
  if (infoSpan === undefined) throw new TorrentError('the torrent has no "info"')
  const infoBytes = bytes.subarray(infoSpan.start, infoSpan.end)
  scanBencode(infoBytes, limits, true)
  const info = decodeBencode(infoBytes)
  if (!(info instanceof Map)) throw new TorrentError('the torrent has an "info" that is not a dictionary')
  const format = formatOf(info)
  const name = nameOf(info)
  const pieceLength = pieceLengthOf(info, format)
  const v1 = format === 'v2' ? undefined : readV1Files(info, name)
  const v2 = format === 'v1' ? undefined : readV2Files(info, name, pieceLength)
  const list = sameFiles(v1, v2)
  const numPieces = Math.ceil(list.paddedBytes / pieceLength)
  checkPieces(info, v1, numPieces, pieceLength, limits)
  const hashes = infoHashes(infoBytes, format)
  return {
    format,
    ...hashes,
    name,
    pieceLength,
    numPieces,
    files: list.files,
    isSingleFile: list.isSingleFile,
    totalBytes: list.files.reduce((sum, file) => sum + file.sizeBytes, 0),
    trackers: trackersOf(bytes, outer, limits),
    isPrivate: info.get('private') !== undefined && info.get('private') !== 0,
    hasWebSeeds: ['url-list', 'httpseeds'].some((key) => !isEmpty(outer.get(key))),
    extraKeys: extraKeysOf(info, format, [...(v1?.extraKeys ?? []), ...(v2?.extraKeys ?? [])]),
    pieceLayers: readPieceLayers(
      bytes,
      format === 'v1' ? undefined : outer.get('piece layers'),
      list.files,
      pieceLength,
      limits,
    ),
  }
}

/** Options of `checkBlobTorrent`. */
export interface BlobTorrentRules {
  /** Whether a v1 torrent will do. @defaultValue false: v1 cannot name the peer that lied. */
  readonly allowV1?: boolean | undefined
}

/**
 * Why a torrent is not a blob torrent of this content; empty if it is one.
 *
 * A blob torrent is what every holder of the same content makes without talking to anybody: one file called by its
 * etag, piece length from the table, nothing in `info` that is a matter of taste.
 */
export function checkBlobTorrent(metainfo: Metainfo, blob: BlobRef, rules: BlobTorrentRules = {}): string[] {
  const reasons: string[] = []
  const file = metainfo.files[0]
  if (metainfo.format === 'v1' && !rules.allowV1) reasons.push('it is a v1 torrent')
  if (metainfo.name !== blob.etag) reasons.push(`its name is not the etag ${blob.etag}`)
  if (!metainfo.isSingleFile || file === undefined) reasons.push('it is not a torrent of one file')
  if (metainfo.totalBytes !== blob.sizeBytes) {
    reasons.push(`it has ${metainfo.totalBytes} bytes, not ${blob.sizeBytes}`)
  }
  if (blob.sizeBytes <= 0) reasons.push('an empty file has no torrent')
  else if (metainfo.pieceLength !== pieceLengthFor(blob.sizeBytes)) {
    reasons.push(`its piece length is ${metainfo.pieceLength}, not ${pieceLengthFor(blob.sizeBytes)}`)
  }
  if (metainfo.extraKeys.length > 0) reasons.push(`its info has ${metainfo.extraKeys.join(', ')}`)
  if (file?.piecesRoot !== undefined) reasons.push(...checkRoot(metainfo, file, blob))
  return reasons
}

const blockLength = 16 * 1024

function checkRoot(metainfo: Metainfo, file: MetainfoFile, blob: BlobRef): string[] {
  if (file.sizeBytes > metainfo.pieceLength && !metainfo.pieceLayers.has(file.piecesRoot ?? '')) {
    return ['its piece layer is missing']
  }
  // The tree of a file of one block is that block's SHA-256: here the etag proves the root.
  const isProvable = file.sizeBytes <= blockLength && digestOf(blob.etag) === 'sha256'
  return isProvable && file.piecesRoot !== blob.etag ? ['its root is not the SHA-256 that the etag is'] : []
}

function formatOf(info: BencodeDictionary): TorrentFormat {
  const version = info.get('meta version')
  if (version === undefined && !info.has('file tree')) return 'v1'
  if (version !== 2) throw new TorrentError('the torrent has a meta version other than 2')
  return info.has('pieces') ? 'hybrid' : 'v2'
}

function nameOf(info: BencodeDictionary): string {
  const name = checkedPart(textOf(info.get('name'), 'name'))
  // libtorrent prefers this key to "name": two names are two readings of one torrent.
  const other = info.get('name.utf-8')
  if (other !== undefined && textOf(other, '"name.utf-8"') !== name)
    throw new TorrentError('the torrent has two names')
  return name
}

function pieceLengthOf(info: BencodeDictionary, format: TorrentFormat): number {
  const length = info.get('piece length')
  if (typeof length !== 'number' || length <= 0 || length > maxPieceLength) {
    throw new TorrentError('the torrent has no usable piece length')
  }
  if (format !== 'v1' && (length < blockLength || !Number.isInteger(Math.log2(length)))) {
    throw new TorrentError(`the torrent has a piece length of ${length}; v2 needs a power of two from 16 KiB`)
  }
  return length
}

/** A hybrid torrent lists its files twice; peers of both kinds must get the same. */
function sameFiles(v1: FileList | undefined, v2: FileList | undefined): FileList {
  const list = v2 ?? v1
  if (list === undefined || list.files.length === 0) throw new TorrentError('the torrent has no files')
  if (v1 === undefined || v2 === undefined) return list
  const describe = ({ files, isSingleFile }: FileList): string =>
    JSON.stringify([isSingleFile, files.map((file) => [file.path, file.sizeBytes])])
  if (describe(v1) !== describe(v2)) throw new TorrentError('the torrent has different files for v1 and v2')
  return v2
}

function checkPieces(
  info: BencodeDictionary,
  v1: FileList | undefined,
  numPieces: number,
  pieceLength: number,
  limits: MetainfoLimits,
): void {
  if (numPieces > limits.maxPieces) throw new TorrentError(`the torrent has ${numPieces} pieces, too many`)
  if (v1 === undefined) return
  const pieces = info.get('pieces')
  const expected = Math.ceil(v1.paddedBytes / pieceLength) * 20
  if (!(pieces instanceof Uint8Array) || pieces.length !== expected) {
    throw new TorrentError(`the torrent has "pieces" that are not ${expected} bytes`)
  }
}

function infoHashes(
  infoBytes: Uint8Array,
  format: TorrentFormat,
): Pick<Metainfo, 'infoHash' | 'infoHashV1' | 'infoHashV2'> {
  const digest = (algorithm: string): InfoHash =>
    createHash(algorithm).update(infoBytes).digest('hex') as InfoHash
  if (format === 'v1') {
    const infoHash = digest('sha1')
    return { infoHash, infoHashV1: infoHash, infoHashV2: undefined }
  }
  const infoHash = digest('sha256')
  return { infoHash, infoHashV1: format === 'hybrid' ? digest('sha1') : undefined, infoHashV2: infoHash }
}

function extraKeysOf(info: BencodeDictionary, format: TorrentFormat, ofFiles: readonly string[]): string[] {
  const known = new Set([...(format === 'v2' ? [] : v1Keys), ...(format === 'v1' ? [] : v2Keys)])
  return [...new Set([...[...info.keys()].filter((key) => !known.has(key)), ...ofFiles])]
}

/** What is broken here is skipped: it is not part of the torrent's identity. */
function trackersOf(bytes: Uint8Array, outer: ReadonlyMap<string, Span>, limits: BencodeLimits): string[] {
  const trackers = new Set<string>()
  const collect = (value: BencodeValue | undefined): void => {
    if (Array.isArray(value)) value.forEach(collect)
    const url = value instanceof Uint8Array && value.length <= maxTrackerLength ? utf8(value) : undefined
    if (url !== undefined && trackers.size < maxTrackers && URL.canParse(url)) trackers.add(url)
  }
  for (const key of ['announce', 'announce-list']) {
    const span = outer.get(key)
    if (span !== undefined) collect(decodeOuter(bytes, span, limits))
  }
  return [...trackers]
}

function isEmpty(span: Span | undefined): boolean {
  if (span === undefined) return true
  // "0:" and "le": what encoders write when there is nothing to say.
  return span.end - span.start <= 2
}

/** Values outside `info` were scanned with keys of any bytes; a list of strings has no keys to go wrong. */
function decodeOuter(bytes: Uint8Array, span: Span, limits: BencodeLimits): BencodeValue | undefined {
  const wrapped = Buffer.concat([Buffer.from('d1:v'), bytes.subarray(span.start, span.end), Buffer.from('e')])
  scanBencode(wrapped, { ...limits, maxBytes: limits.maxBytes + 5 }, true)
  const value = decodeBencode(wrapped)
  return value instanceof Map ? value.get('v') : undefined
}
