/** The `piece layers` of a v2 torrent: for each file longer than a piece, the hashes of its pieces. BEP 52. */
import { createHash } from 'node:crypto'
import { TorrentError } from '../errors.ts'
import { type BencodeLimits, type Span, scanBencode, stringAt } from './bencode.ts'

const hashLength = 32
const blockLength = 16 * 1024

/** What a layer belongs to. */
interface LayeredFile {
  readonly path: string
  readonly sizeBytes: number
  readonly piecesRoot: string | undefined
}

/**
 * The piece layers by root (hex), each proven to hash to its root.
 *
 * @throws {TorrentError} If a layer belongs to no file, has the wrong length or another root.
 */
export function readPieceLayers(
  torrent: Uint8Array,
  span: Span | undefined,
  files: readonly LayeredFile[],
  pieceLength: number,
  limits: BencodeLimits,
): Map<string, Uint8Array> {
  const layers = new Map<string, Uint8Array>()
  if (span === undefined) return layers
  const bytes = torrent.subarray(span.start, span.end)
  const sizes = new Map(
    files.flatMap((file) =>
      file.piecesRoot === undefined ? [] : [[file.piecesRoot, file.sizeBytes] as const],
    ),
  )
  for (const [key, place] of scanBencode(bytes, limits, false)) {
    const root = Buffer.from(key, 'latin1').toString('hex')
    const sizeBytes = sizes.get(root)
    if (sizeBytes === undefined)
      throw new TorrentError('the torrent has a piece layer that belongs to no file')
    const layer = stringAt(bytes, place)
    const numPieces = Math.ceil(sizeBytes / pieceLength)
    if (numPieces < 2 || layer.length !== numPieces * hashLength) {
      throw new TorrentError(`the torrent has a piece layer of ${layer.length} bytes for ${numPieces} pieces`)
    }
    if (rootOfLayer(layer, pieceLength) !== root)
      throw new TorrentError('the torrent has a piece layer with another root')
    layers.set(root, layer)
  }
  return layers
}

/** Root (hex) of the tree above a layer of piece hashes. Places without a piece hold the root of a piece of zero leaves. */
function rootOfLayer(layer: Uint8Array, pieceLength: number): string {
  let padding: Uint8Array = new Uint8Array(hashLength)
  for (let span = blockLength; span < pieceLength; span *= 2) padding = hashPair(padding, padding)
  let row: Uint8Array[] = []
  for (let start = 0; start < layer.length; start += hashLength)
    row.push(layer.subarray(start, start + hashLength))
  while (row.length > 1) {
    const above: Uint8Array[] = []
    for (let index = 0; index < row.length; index += 2) {
      above.push(hashPair(row[index] ?? padding, row[index + 1] ?? padding))
    }
    padding = hashPair(padding, padding)
    row = above
  }
  return Buffer.from(row[0] ?? padding).toString('hex')
}

function hashPair(left: Uint8Array, right: Uint8Array): Uint8Array {
  return createHash('sha256').update(left).update(right).digest()
}
