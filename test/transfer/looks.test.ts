import { describe, expect, test } from 'vitest'
import { Looks } from '../../src/transfer/looks.ts'

const mebibyte = 1024 * 1024
const sizeBytes = 12 * mebibyte + 77
const range = (start: number, end: number): { start: number; end: number } => ({ start, end })
const lastChunk = range(12 * mebibyte, sizeBytes)

describe('a request', () => {
  test.each([
    ['for a few bytes', range(1000, 1016), true],
    ['for almost a mebibyte', range(5, 5 + mebibyte - 1), true],
    ['for a mebibyte', range(5, 5 + mebibyte), false],
    ['for all of it', range(0, sizeBytes), false],
    ['for the first byte alone, which is a probe', range(0, 1), false],
    ['for another byte alone', range(1, 2), true],
    ['for what a last chunk would be', lastChunk, true],
  ])('%s: a look is %j %j', (_what, asked, isLook) => {
    expect(new Looks(mebibyte).isLook('file', sizeBytes, asked)).toBe(isLook)
  })
})

describe('the last chunk of a file is no look', () => {
  test('to somebody who asked for another chunk', () => {
    const looks = new Looks(mebibyte)
    looks.isLook('file', sizeBytes, range(5 * mebibyte, 10 * mebibyte))
    expect(looks.isLook('file', sizeBytes, lastChunk)).toBe(false)
  })

  test.each([
    ['it is of another file', 'other', lastChunk],
    ['it ends before the end', 'file', range(12 * mebibyte, sizeBytes - 1)],
    ['it begins where no chunk does', 'file', range(sizeBytes - 8, sizeBytes)],
  ])('unless %s', (_why, key, asked) => {
    const looks = new Looks(mebibyte)
    looks.isLook('file', sizeBytes, range(0, sizeBytes))
    expect(looks.isLook(key, sizeBytes, asked)).toBe(true)
  })

  test('to somebody who asked a while ago, unless hundreds of others have asked since', () => {
    const looks = new Looks(mebibyte)
    looks.isLook('file', sizeBytes, range(0, sizeBytes))
    for (let n = 0; n < 400; n++) looks.isLook(`other ${n}`, sizeBytes, range(0, sizeBytes))
    expect(looks.isLook('file', sizeBytes, lastChunk)).toBe(false)
    for (let n = 400; n < 1000; n++) looks.isLook(`other ${n}`, sizeBytes, range(0, sizeBytes))
    expect(looks.isLook('file', sizeBytes, lastChunk)).toBe(true)
  })

  test('but it is one to somebody who has only looked and probed', () => {
    const looks = new Looks(mebibyte)
    looks.isLook('file', sizeBytes, range(0, 1))
    looks.isLook('file', sizeBytes, range(0, 100))
    expect(looks.isLook('file', sizeBytes, lastChunk)).toBe(true)
  })
})
