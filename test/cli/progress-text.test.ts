import { expect, test } from 'vitest'
import { countOf, formatBytes, formatTime, printable } from '../../src/cli/format.ts'
import { drawBar, fileLine, percent, progressEvent, progressLine } from '../../src/cli/progress-text.ts'
import type { DownloadProgress } from '../../src/transfer/progress.ts'

const mebibyte = 1024 * 1024
const transfer = {
  sizeBytes: 60 * mebibyte,
  bytes: { p2p: 20 * mebibyte, http: 10 * mebibyte, cache: 0 },
  httpRate: 0,
  p2pRate: 0,
  peers: 0,
}
const halfway: DownloadProgress = {
  files: { done: 1, total: 3 },
  sizeBytes: 100 * mebibyte,
  bytes: { p2p: 30 * mebibyte, http: 10 * mebibyte, cache: 10 * mebibyte },
  httpRate: mebibyte,
  p2pRate: 4 * mebibyte,
  peers: 2,
  active: [{ path: 'a.bin', phase: 'downloading', progress: transfer }],
}

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '0.98 KiB'],
  [1536, '1.50 KiB'],
  [150 * mebibyte, '150 MiB'],
  [-5, '0 B'],
])('%d bytes read as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text)
})

test.each([
  [0, '0.0 s'],
  [9_940, '9.9 s'],
  [9_960, '10 s'],
  [59_600, '1 min 0 s'],
  [185_000, '3 min 5 s'],
  [7_800_000, '2 h 10 min'],
  [5 * 86_400_000, '5 days'],
  [Number.POSITIVE_INFINITY, 'forever'],
])('%d ms read as %s', (ms, text) => {
  expect(formatTime(ms)).toBe(text)
})

test.each([
  [0, 10, '0 %'],
  [1, 1000, '<1 %'],
  [999, 1000, '99 %'],
  [10, 10, '100 %'],
  [0, 0, '0 %'],
])('%d of %d is %s: neither all nor nothing is said before it is so', (part, whole, text) => {
  expect(percent(part, whole)).toBe(text)
})

test('one thing is not "1 things"', () => {
  expect([countOf(1, 'file'), countOf(2, 'file'), countOf(0, 'file')]).toEqual([
    '1 file',
    '2 files',
    '0 files',
  ])
})

test('a line of progress tells how much, from where, how fast and how long still', () => {
  expect(progressLine(halfway)).toBe(
    '50 % of 100 MiB, 10 s left, 1 of 3 files, swarm 75 % 4.00 MiB/s from 2 peers, HTTP 25 % 1.00 MiB/s',
  )
})

test('a line of progress says that nothing is left but verifying', () => {
  const verifying = {
    ...halfway,
    active: [{ path: 'a.bin', phase: 'verifying' as const, progress: transfer }],
  }
  expect(progressLine(verifying)).toMatch(/^50 % of 100 MiB, verifying,/)
})

test('the name of a file cannot steer the terminal', () => {
  const line = fileLine({ path: 'a\x1b[2Jb\u202e.bin', phase: 'downloading', progress: transfer })
  expect(line).toBe('a�[2Jb�.bin: 50 % of 60.0 MiB')
  expect(printable('plain name.bin')).toBe('plain name.bin')
})

test('a bar tells peers from HTTP from what was there, and is always as wide as asked', () => {
  expect(drawBar({ cache: 25, p2p: 50, http: 12 }, 100, 8, false)).toBe('[~~====  ]')
  expect(drawBar({ cache: 0, p2p: 0, http: 100 }, 100, 8, false)).toBe('[--------]')
  expect(drawBar({ cache: 0, p2p: 0, http: 0 }, 0, 8, false)).toHaveLength(10)
  expect(drawBar({ cache: 0, p2p: 100, http: 0 }, 100, 4, true)).toContain('\x1b[32m====')
})

test('a progress event holds the whole and the files under way', () => {
  expect(progressEvent(halfway)).toEqual({
    files: { done: 1, total: 3 },
    sizeBytes: halfway.sizeBytes,
    bytes: halfway.bytes,
    httpRate: mebibyte,
    p2pRate: 4 * mebibyte,
    peers: 2,
    active: [{ path: 'a.bin', phase: 'downloading', sizeBytes: transfer.sizeBytes, bytes: transfer.bytes }],
  })
})
