/** Making torrents: hashing happens in the addon, what goes into the torrent is decided here. */

import { stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename } from 'node:path'
import { IntegrityError } from '../errors.ts'
import type { NativeAddon } from '../native/binding.ts'
import { createTorrent as createNative } from '../native/create-torrent.ts'
import { asInfoHash, type BlobRef, digestOf, type InfoHash } from '../values.ts'
import type { TorrentFormat } from './metainfo.ts'
import { pieceLengthFor } from './piece-length.ts'

/** What torrents made here say of their maker. */
export const torrentCreator = 'llmpt-native'

export interface CreatedTorrent {
  /** The complete `.torrent`. */
  readonly torrentFile: Uint8Array
  /** v2 where there is one, else v1. */
  readonly infoHash: InfoHash
  readonly infoHashV1: InfoHash | undefined
  readonly infoHashV2: InfoHash | undefined
  readonly name: string
  readonly pieceLength: number
  readonly sizeBytes: number
  /** SHA-256 of the file, if asked for; 64 hex digits. */
  readonly sha256?: string
  /** git's blob SHA-1 of the file, if asked for; 40 hex digits. */
  readonly gitSha1?: string
  /** All that was read from the file: each byte once, whatever was asked for. */
  readonly readBytes: number
}

export interface CreateTorrentOptions {
  /** The torrent's name. @defaultValue the file's name */
  readonly name?: string | undefined
  /** v2 hashes once and can name a lying peer; hybrid also serves clients that know only v1. @defaultValue `v2` */
  readonly format?: TorrentFormat | undefined
  /** Bytes; a power of two of at least 16 KiB. @defaultValue by file size, see `pieceLengthFor` */
  readonly pieceLength?: number | undefined
  /** Announce URLs. They stand outside the info dictionary and do not change the info hash. */
  readonly announceUrls?: readonly string[] | undefined
  /** Also gives the SHA-256 of the file, from the same pass. @defaultValue false */
  readonly sha256?: boolean | undefined
  /** Also gives git's blob SHA-1 of the file, from the same pass. @defaultValue false */
  readonly gitSha1?: boolean | undefined
  /** Hashing threads, at most; all files that are hashed at a time share the machine. @defaultValue the machine's cores */
  readonly threads?: number | undefined
  /** Whether the process may end before it is done. @defaultValue false */
  readonly background?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((hashedPieces: number, totalPieces: number) => void) | undefined
}

/**
 * A torrent of one file. The same content under the same name gives the same info hash on every machine:
 * no date, no attribute, no mode bit enters it.
 *
 * @returns `undefined` for an empty file, which has no torrent.
 * @throws {NativeError} When the file cannot be read, or changes meanwhile.
 * @throws The signal's reason.
 */
export async function createTorrentOf(
  addon: NativeAddon,
  path: string,
  options: CreateTorrentOptions = {},
): Promise<CreatedTorrent | undefined> {
  const { size } = await stat(path)
  if (size === 0) return undefined
  const name = options.name ?? basename(path)
  const made = await createNative(
    addon,
    {
      path,
      name,
      pieceLength: options.pieceLength ?? pieceLengthFor(size),
      format: options.format ?? 'v2',
      trackers: [...(options.announceUrls ?? [])],
      createdBy: torrentCreator,
      comment: '',
      sha256: options.sha256 ?? false,
      gitSha1: options.gitSha1 ?? false,
      threads: options.threads ?? availableParallelism(),
      background: options.background ?? false,
    },
    { signal: options.signal, onProgress: options.onProgress },
  )
  const infoHashV1 = asInfoHash(made.infoHashV1 ?? '')
  const infoHashV2 = asInfoHash(made.infoHashV2 ?? '')
  const infoHash = infoHashV2 ?? infoHashV1
  if (infoHash === undefined) throw new TypeError('the addon made a torrent without an info hash')
  return {
    torrentFile: made.torrentFile,
    infoHash,
    infoHashV1,
    infoHashV2,
    name,
    pieceLength: made.pieceLength,
    sizeBytes: made.sizeBytes,
    ...(made.sha256 !== undefined && { sha256: made.sha256 }),
    ...(made.gitSha1 !== undefined && { gitSha1: made.gitSha1 }),
    readBytes: made.readBytes,
  }
}

export interface BlobTorrentOptions
  extends Omit<CreateTorrentOptions, 'name' | 'pieceLength' | 'sha256' | 'gitSha1'> {
  /** Whether the content must be compared with the etag: it costs no second pass. @defaultValue false */
  readonly check?: boolean | undefined
}

/**
 * The torrent that every holder of a blob makes alike: named by the etag, one file, piece length by the table.
 *
 * @throws {IntegrityError} When the content is not the blob's, and `check` is set.
 */
export async function createBlobTorrent(
  addon: NativeAddon,
  path: string,
  blob: BlobRef,
  { check = false, ...options }: BlobTorrentOptions = {},
): Promise<CreatedTorrent | undefined> {
  const digest = digestOf(blob.etag)
  const created = await createTorrentOf(addon, path, {
    ...options,
    name: blob.etag,
    sha256: check && digest === 'sha256',
    gitSha1: check && digest === 'git-sha1',
  })
  if (!check || (created === undefined && blob.sizeBytes === 0)) return created
  const found = digest === 'sha256' ? created?.sha256 : created?.gitSha1
  if (created?.sizeBytes !== blob.sizeBytes || found !== blob.etag) {
    throw new IntegrityError(`${path} is not what its name promises; delete it and download it again`)
  }
  return created
}
