/**
 * Makes what is right of a damaged file the beginning of an ordinary download, by comparing its pieces with those of a
 * torrent. The torrent is a hint, as ever: a piece it vouches for is only one that need not be fetched at once, and when
 * the digest of the whole does not match in the end, the download begins anew.
 */
import { constants } from 'node:fs'
import { access, lstat, rename, truncate, utimes } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { damagedBlobPath, partialBlobPath } from '../hub/cache-layout.ts'
import { whileOwning } from '../hub/damaged-blob.ts'
import type { FileLocks } from '../hub/partial-file.ts'
import type { NativeAddon } from '../native/binding.ts'
import { createTorrentOf } from '../torrent/create.ts'
import { checkBlobTorrent, type Metainfo, parseMetainfo } from '../torrent/metainfo.ts'
import { pieceLengthFor } from '../torrent/piece-length.ts'
import { Journal } from '../transfer/journal.ts'
import { PieceMap } from '../transfer/piece-map.ts'
import type { HubFile } from '../values.ts'

export interface SalvageDeps {
  readonly cacheDir: string
  readonly stateDir: string
  readonly addon: NativeAddon
  readonly locks: FileLocks
  readonly signal?: AbortSignal | undefined
}

/** What a comparison with a torrent found. */
export interface Damage {
  readonly pieceLength: number
  /** Of the file as it should be, in order. */
  readonly wrongPieces: readonly number[]
}

const hashLength = 32

/**
 * Compares the damaged file of a content with `torrentFile`, and leaves its right pieces where a download of that
 * content goes on from. Whatever is in the way (a download that is under way, or that was interrupted with more, a file
 * of a single piece, a torrent of something else) is a reason to leave all as it is. So is a folder without locks: a
 * download has a file of its own there, and nobody would ever go on with this one.
 *
 * @param file As the Hub describes it.
 * @returns What was found, or `undefined` when nothing was compared.
 * @throws The signal's reason; NativeError and the file system's errors.
 */
export async function salvage(
  file: HubFile,
  torrentFile: Uint8Array,
  deps: SalvageDeps,
): Promise<Damage | undefined> {
  const { cacheDir, locks } = deps
  const metainfo = parseMetainfo(torrentFile)
  if (checkBlobTorrent(metainfo, file).length > 0) return undefined
  const damaged = damagedBlobPath(cacheDir, file, file.etag)
  const done = await whileOwning({ cacheDir, repo: file, etag: file.etag }, locks, async (hasLock) => {
    if (!hasLock || !(await isOurs(damaged))) return undefined
    if ((await lstat(damaged)).size > file.sizeBytes) await truncate(damaged, file.sizeBytes)
    const wrongPieces = await compare(damaged, file, metainfo, deps)
    const right = mapWithout(wrongPieces, file)
    if (bytesIn(right) > (await bytesBegun(file, deps))) await resumeFrom(damaged, file, right, deps)
    return { pieceLength: metainfo.pieceLength, wrongPieces }
  })
  return done === 'busy' ? undefined : done
}

/** Whether it is a file that we may write to: with a second name it would be somebody else's, too. */
async function isOurs(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  if (!found?.isFile() || found.nlink !== 1) return false
  return await access(path, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  )
}

/** How much an interrupted download has brought already. */
async function bytesBegun(file: HubFile, { cacheDir, stateDir }: SalvageDeps): Promise<number> {
  const partial = partialBlobPath(cacheDir, file, file.etag)
  const found = await lstat(partial).catch(() => undefined)
  const journal = new Journal(stateDir, partial, file.etag)
  const left = await journal.load(file.sizeBytes, pieceLengthFor(file.sizeBytes))
  return found === undefined || left === undefined || left.endBytes > found.size ? 0 : bytesIn(left.map)
}

function bytesIn(map: PieceMap): number {
  const { http, p2p } = map.bytes()
  return http + p2p
}

/** The pieces of the file at `path` that are not as the torrent has them, or not there. */
async function compare(
  path: string,
  file: HubFile,
  metainfo: Metainfo,
  { addon, signal }: SalvageDeps,
): Promise<number[]> {
  const all = Array.from({ length: metainfo.numPieces }, (_, piece) => piece)
  const made = await createTorrentOf(addon, path, {
    name: file.etag,
    // Of the file as it should be: what is left of it may be so short that its own would be another.
    pieceLength: metainfo.pieceLength,
    threads: availableParallelism(),
    signal,
  })
  if (made === undefined) return all
  const [wanted, found] = [layerOf(metainfo), layerOf(parseMetainfo(made.torrentFile))]
  // Where there is no layer, the file is one piece, and that is wrong.
  if (wanted === undefined || found === undefined) return all
  const hashAt = (layer: Uint8Array, piece: number): Uint8Array =>
    layer.subarray(piece * hashLength, (piece + 1) * hashLength)
  return all.filter((piece) => Buffer.compare(hashAt(wanted, piece), hashAt(found, piece)) !== 0)
}

function layerOf({ files, pieceLayers }: Metainfo): Uint8Array | undefined {
  return pieceLayers.get(files[0]?.piecesRoot ?? '')
}

/** All pieces but these; as what peers bring, since it is the torrent's word that they are right. */
function mapWithout(wrongPieces: readonly number[], file: HubFile): PieceMap {
  const map = new PieceMap(file.sizeBytes, pieceLengthFor(file.sizeBytes))
  const wrong = new Set(wrongPieces)
  for (let piece = 0; piece < map.count; piece++) if (!wrong.has(piece)) map.mark(piece, 'p2p')
  return map
}

async function resumeFrom(
  damaged: string,
  file: HubFile,
  map: PieceMap,
  { cacheDir, stateDir }: SalvageDeps,
): Promise<void> {
  const partial = partialBlobPath(cacheDir, file, file.etag)
  const journal = new Journal(stateDir, partial, file.etag)
  // A journal of an earlier file must not speak for this one.
  await journal.remove()
  await rename(damaged, partial)
  const now = new Date()
  await utimes(partial, now, now).catch(() => undefined)
  journal.begin(map)
  journal.close()
}
