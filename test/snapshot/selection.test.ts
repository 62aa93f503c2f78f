import { describe, expect, test } from 'vitest'
import { matchesPatterns, selectFiles } from '../../src/snapshot/selection.ts'
import { asCommit, asEtag, type HubFile } from '../../src/values.ts'

const commit = asCommit('a'.repeat(40)) as NonNullable<ReturnType<typeof asCommit>>
const etag = asEtag('b'.repeat(64)) as NonNullable<ReturnType<typeof asEtag>>
const file = (path: string): HubFile => ({
  repoType: 'model',
  repo: 'acme/tiny',
  commit,
  etag,
  sizeBytes: 1,
  path,
})

describe('matchesPatterns follows Python', () => {
  test.each<[string, string[] | undefined, string[] | undefined, boolean]>([
    ['a/b/c.json', ['*.json'], undefined, true],
    ['a/b/c.json', ['a/'], undefined, true],
    ['ab/c.json', ['a/'], undefined, false],
    ['c.json', ['?.json'], undefined, true],
    ['cc.json', ['?.json'], undefined, false],
    ['model-1.bin', ['model-[0-9].bin'], undefined, true],
    ['model-x.bin', ['model-[!0-9].bin'], undefined, true],
    ['model-1.bin', ['model-[!0-9].bin'], undefined, false],
    ['a.b', ['a.b'], undefined, true],
    ['axb', ['a.b'], undefined, false],
    ['a+b(1)', ['a+b(1)'], undefined, true],
    ['a[b', ['a[b'], undefined, true],
    ['a.json', undefined, ['*.json'], false],
    ['a.json', ['*.json'], ['a*'], false],
    ['a.json', [], undefined, false],
    ['A.json', ['a.json'], undefined, false],
    ['a\nb', ['*'], undefined, true],
    ['sub/a.json', ['sub\\*.json'], undefined, true],
    ['sub\\a.json', ['sub/'], undefined, true],
  ])('%j with allow %j and ignore %j: %s', (path, allow, ignore, expected) => {
    expect(matchesPatterns(path, allow, ignore)).toBe(expected)
  })
})

describe('selectFiles', () => {
  test('an exact path that is not there is named', () => {
    expect(() => selectFiles([file('a')], 'acme/tiny', { paths: ['a', 'gone.bin'] })).toThrow(
      /no file "gone.bin"/,
    )
  })

  test('exact paths and patterns hold together', () => {
    const files = [file('a.json'), file('b.json'), file('c.bin')]
    const chosen = selectFiles(files, 'acme/tiny', { paths: ['a.json', 'c.bin'], ignorePatterns: ['*.bin'] })
    expect(chosen.map(({ path }) => path)).toEqual(['a.json'])
  })
})
