import { expect, test } from 'vitest'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

test.each([
  [1, 256 * KiB],
  [16 * KiB - 1, 256 * KiB],
  [16 * KiB, 256 * KiB],
  [16 * KiB + 1, 256 * KiB],
  [256 * KiB - 1, 256 * KiB],
  [256 * KiB, 256 * KiB],
  [256 * KiB + 1, 256 * KiB],
  [100 * MiB - 1, 256 * KiB],
  [100 * MiB, MiB],
  [100 * MiB + 1, MiB],
  [GiB - 1, MiB],
  [GiB, 4 * MiB],
  [GiB + 1, 4 * MiB],
  [10 * GiB - 1, 4 * MiB],
  [10 * GiB, 16 * MiB],
  [10 * GiB + 1, 16 * MiB],
  [100 * GiB, 16 * MiB],
  [Number.MAX_SAFE_INTEGER, 16 * MiB],
])('a file of %i bytes has pieces of %i bytes', (sizeBytes, expected) => {
  expect(pieceLengthFor(sizeBytes)).toBe(expected)
})

test.each([0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER + 1])(
  'a size of %d is refused, and the message names it',
  (sizeBytes) => {
    expect(() => pieceLengthFor(sizeBytes)).toThrow(RangeError)
    expect(() => pieceLengthFor(sizeBytes)).toThrow(String(sizeBytes))
  },
)
