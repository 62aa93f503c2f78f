import { expect, test } from 'vitest'
import { isSingleRange, rangeOf } from '../../src/hook/range.ts'

test.each([
  [undefined, 10, [0, 10]],
  ['bytes=0-0', 10, [0, 1]],
  ['bytes=3-5', 10, [3, 6]],
  ['bytes=3-', 10, [3, 10]],
  ['bytes=3-99', 10, [3, 10]],
  ['bytes=-4', 10, [6, 10]],
  ['bytes=-99', 10, [0, 10]],
  ['bytes=9-9', 10, [9, 10]],
  ['bytes=10-', 10, undefined],
  ['bytes=10-12', 10, undefined],
  ['bytes=-0', 10, undefined],
  ['bytes=5-3', 10, undefined],
  ['bytes=0-0', 0, undefined],
  [undefined, 0, undefined],
  ['bytes=0-999999999999999', 10, [0, 10]],
] as const)('%s of %d bytes are the bytes %j', (header, sizeBytes, expected) => {
  const range = rangeOf(header, sizeBytes)
  expect(range && [range.start, range.end]).toEqual(expected)
})

test.each([
  ['bytes=0-0', true],
  ['bytes=0-', true],
  ['bytes=-1', true],
  ['bytes=0-1,3-4', false],
  ['bytes=-', false],
  ['bytes=a-b', false],
  ['bytes=--1', false],
  ['bytes= 0-1', false],
  ['lines=0-1', false],
  ['bytes=0-9999999999999999', false],
  ['', false],
])('whether %j is one range: %j', (header, expected) => {
  expect(isSingleRange(header)).toBe(expected)
})
