import { expect, test } from 'vitest'
import { columnsOf } from '../../src/cli/columns.ts'
import { countOf, formatBytes, formatTime, printable } from '../../src/cli/format.ts'
import { drawBar, fileLine, percent, progressEvent, progressLine } from '../../src/cli/progress-text.ts'
import { activeFile, type DownloadProgress } from '../../src/transfer/progress.ts'

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
  rate: 5 * mebibyte,
  secondsLeft: 10,
  peers: 2,
  active: [activeFile('a.bin', 'downloading', transfer)],
  finished: [],
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

test('in few columns a line of progress tells what matters most, and never half a word', () => {
  expect(progressLine(halfway, 60)).toBe('50 % of 100 MiB, 10 s left, 5.00 MiB/s, 1 of 3 files')
  expect(progressLine(halfway, 80)).toBe('50 % of 100 MiB, 10 s left, 5.00 MiB/s, 1 of 3 files, swarm 75 %')
  expect(progressLine(halfway, 30)).toBe('50 % of 100 MiB, 10 s left')
  expect(progressLine(halfway, 5)).toBe('')
})

test('a line of progress says nothing of the time left while it is not known', () => {
  expect(progressLine({ ...halfway, secondsLeft: undefined }, 40)).toBe('50 % of 100 MiB, 5.00 MiB/s')
})

test.each([
  ['verifying', 'verifying'],
  ['waiting', 'waiting for another process'],
] as const)('a line of progress says when all files under way are %s', (phase, text) => {
  const progress = { ...halfway, active: [activeFile('a.bin', phase, transfer)] }
  expect(progressLine(progress)).toMatch(new RegExp(`^50 % of 100 MiB, ${text},`))
})

test('the line of a file tells how much, how fast, how long still and what peers brought of it', () => {
  const rates = { httpRate: mebibyte, p2pRate: 2 * mebibyte }
  expect(fileLine(activeFile('sub/a.bin', 'downloading', { ...transfer, ...rates }))).toBe(
    'sub/a.bin: 50 % of 60.0 MiB, 3.00 MiB/s, 10 s left, swarm 67 %',
  )
})

test('a long name loses its beginning, so that the rest of the line is seen', () => {
  const path = `deep/${'folder/'.repeat(40)}model-00001-of-00030.safetensors`
  const line = fileLine(activeFile(path, 'downloading', transfer), 60)
  expect(line).toMatch(/^….*el-00001-of-00030\.safetensors: 50 % of 60\.0 MiB/)
  expect(line.length).toBe(60)
})

test.each([10, 20, 40, 59, 119])(
  'the line of a file with a wide name takes at most %d columns',
  (columns) => {
    for (const path of ['模型/権重-00001.safetensors', '👩‍👩‍👧‍👦'.repeat(30), 'e\u0301'.repeat(200)]) {
      expect(columnsOf(fileLine(activeFile(path, 'downloading', transfer), columns))).toBeLessThanOrEqual(
        columns,
      )
    }
  },
)

test('the name of a file cannot steer the terminal', () => {
  const line = fileLine(activeFile('a\x1b[2Jb\u202e.bin', 'waiting', transfer))
  expect(line).toBe('a�[2Jb�.bin: another process has 50 % of 60.0 MiB')
  expect(printable('plain name.bin')).toBe('plain name.bin')
})

test('a bar tells peers from HTTP from what was there, and is always as wide as asked', () => {
  expect(drawBar({ cache: 25, p2p: 50, http: 12 }, 100, 8, false)).toBe('[~~====  ]')
  expect(drawBar({ cache: 0, p2p: 0, http: 100 }, 100, 8, false)).toBe('[--------]')
  expect(drawBar({ cache: 0, p2p: 0, http: 0 }, 0, 8, false)).toHaveLength(10)
  expect(drawBar({ cache: 0, p2p: 100, http: 0 }, 100, 4, true)).toContain('\x1b[32m====')
})

test('a progress event holds the whole and the files under way, with null for a time nobody knows', () => {
  expect(progressEvent(halfway)).toEqual({
    files: { done: 1, total: 3 },
    sizeBytes: halfway.sizeBytes,
    bytes: halfway.bytes,
    httpRate: mebibyte,
    p2pRate: 4 * mebibyte,
    rate: 5 * mebibyte,
    secondsLeft: 10,
    peers: 2,
    active: [
      {
        path: 'a.bin',
        phase: 'downloading',
        sizeBytes: transfer.sizeBytes,
        bytes: transfer.bytes,
        httpRate: 0,
        p2pRate: 0,
        secondsLeft: null,
      },
    ],
  })
})
