/** The piece length of a blob torrent. Every holder of a file must pick the same one, or their info hashes differ. */

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
const gibibyte = 1024 * mebibyte

/** Upper bounds, exclusive. The sizes are binary (2^20, 2^30), as on the existing llmpt network. */
const steps: readonly (readonly [belowBytes: number, pieceLength: number])[] = [
  [100 * mebibyte, 256 * kibibyte],
  [gibibyte, mebibyte],
  [10 * gibibyte, 4 * mebibyte],
]
const largestPieceLength = 16 * mebibyte

/**
 * Piece length for the torrent of one file.
 *
 * An empty file has no torrent, so 0 is refused like any other size that makes no sense.
 *
 * @param sizeBytes Size of the file; a positive integer.
 * @returns Piece length in bytes: a power of two, 256 KiB to 16 MiB.
 * @throws {RangeError} If `sizeBytes` is not a positive safe integer.
 * @see BEP 3, "piece length"; BEP 52 asks for a power of two of at least 16 KiB.
 */
export function pieceLengthFor(sizeBytes: number): number {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    throw new RangeError(`sizeBytes is ${sizeBytes}; a torrent needs a size that is a positive safe integer`)
  }
  return steps.find(([belowBytes]) => sizeBytes < belowBytes)?.[1] ?? largestPieceLength
}
