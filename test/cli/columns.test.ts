import { describe, expect, test } from 'vitest'
import { columnsOf, cutEnd, cutStart, joinFitting } from '../../src/cli/columns.ts'

test.each([
  ['', 0],
  ['model.bin', 9],
  ['größe', 5],
  ['e\u0301te\u0301', 3],
  ['模型', 4],
  ['ｆｕｌｌ', 8],
  ['한국어', 6],
  ['👍', 2],
  ['👩‍👩‍👧‍👦', 2],
  ['❤️', 2],
  ['\u{20bb7}', 2],
])('%s takes %d columns', (text, columns) => {
  expect(columnsOf(text)).toBe(columns)
})

describe.each([
  ['cutEnd', cutEnd],
  ['cutStart', cutStart],
] as const)('%s', (_name, cut) => {
  test('leaves alone what fits', () => {
    expect(cut('model.bin', 9)).toBe('model.bin')
    expect(cut('模型', 4)).toBe('模型')
  })

  test('never takes more columns than there are, and never half a character', () => {
    for (const text of ['model.bin', '模型權重', '👩‍👩‍👧‍👦'.repeat(5), 'e\u0301'.repeat(9)]) {
      for (let columns = 0; columns < 12; columns++) {
        const short = cut(text, columns)
        expect(columnsOf(short)).toBeLessThanOrEqual(columns)
        expect(short).not.toMatch(/\p{Surrogate}/u)
      }
    }
  })
})

test('a name is cut at its end or at its beginning', () => {
  expect(cutEnd('model.safetensors', 8)).toBe('model.s…')
  expect(cutStart('model.safetensors', 8)).toBe('…tensors')
  expect(cutStart('深い/模型.bin', 8)).toBe('…型.bin')
  expect([cutEnd('abc', 1), cutStart('abc', 1), cutEnd('abc', 0), cutStart('abc', 0)]).toEqual([
    '…',
    '…',
    '',
    '',
  ])
})

test('parts are joined as far as they fit, the first ones first', () => {
  expect(joinFitting(['50 %', '10 s left', '3 files'], 100)).toBe('50 %, 10 s left, 3 files')
  expect(joinFitting(['50 %', '10 s left', '3 files'], 23)).toBe('50 %, 10 s left')
  expect(joinFitting(['50 %', '10 s left'], 3)).toBe('')
})
