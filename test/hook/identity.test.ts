import { expect, test } from 'vitest'
import { metadataOf } from '../../src/hook/identity.ts'

const commit = 'c'.repeat(40)
const sha256 = 'e'.repeat(64)
const sha1 = 'a'.repeat(40)
const linked = { 'x-repo-commit': commit, 'x-linked-etag': `"${sha256}"`, 'x-linked-size': '7' }
const own = { 'x-repo-commit': commit, etag: `"${sha1}"` }
const location = 'https://storage.example/x'

test.each<[string, number, Record<string, string>, [string, number] | undefined]>([
  ['a redirect to storage', 302, { ...linked, location }, [sha256, 7]],
  ['a note about where the content is', 200, { ...linked, 'content-length': '99' }, [sha256, 7]],
  ['a part of the content', 206, { ...own, 'content-range': 'bytes 0-0/7' }, [sha1, 7]],
  ['the content', 200, { ...own, 'content-length': '7' }, [sha1, 7]],
  ['a weak etag', 200, { ...own, etag: `W/"${sha1}"`, 'content-length': '7' }, [sha1, 7]],
  ['an etag in capitals', 302, { ...linked, 'x-linked-etag': sha256.toUpperCase(), location }, [sha256, 7]],
  ['the largest file', 302, { ...linked, 'x-linked-size': '50000000000', location }, [sha256, 5e10]],
  ['a larger one', 302, { ...linked, 'x-linked-size': '50000000001', location }, undefined],
  ['one that is empty', 302, { ...linked, 'x-linked-size': '0', location }, undefined],
  ['an empty content', 200, { ...own, 'content-length': '0' }, undefined],
  ['a redirect that leads nowhere', 302, linked, undefined],
  ['another status of the 300s', 300, { ...linked, location }, undefined],
  ['a refusal that names the commit', 404, { ...linked, location }, undefined],
  ['a compressed content', 200, { ...own, 'content-length': '7', 'content-encoding': 'gzip' }, undefined],
  ['a redirect with an etag of its own', 302, { ...own, 'x-linked-size': '7', location }, undefined],
  [
    'a redirect with a length of its own',
    302,
    { ...linked, 'x-linked-size': '', 'content-length': '7', location },
    undefined,
  ],
  ['a note without the size', 200, { ...linked, 'x-linked-size': '-', 'content-length': '99' }, undefined],
  [
    'a linked etag that is none, beside one',
    200,
    { ...own, 'x-linked-etag': 'x', 'x-linked-size': '7' },
    undefined,
  ],
  ['a part of unknown length', 206, { ...own, 'content-range': 'bytes 0-0/*' }, undefined],
  ['parts', 206, { ...own, 'content-type': 'multipart/byteranges', 'content-length': '7' }, undefined],
  [
    'an etag of storage',
    200,
    { ...own, etag: '"5d41402abc4b2a76b9719d911017c592"', 'content-length': '7' },
    undefined,
  ],
  ['a short commit', 302, { ...linked, 'x-repo-commit': 'cccccc', location }, undefined],
])('what %s says', (_name, status, headers, expected) => {
  const metadata = metadataOf(new Response('x', { status, headers }))
  expect(metadata).toEqual(expected && { commit, etag: expected[0], sizeBytes: expected[1] })
})

test('a note without a linked size does not say how large the file is', () => {
  const { 'x-linked-size': _, ...rest } = linked
  expect(metadataOf(new Response('x', { headers: { ...rest, 'content-length': '99' } }))).toBeUndefined()
})

test('the content without a commit says nothing', () => {
  const headers = { etag: own.etag, 'content-length': '7' }
  expect(metadataOf(new Response('x', { headers }))).toBeUndefined()
})
