import { expect, test } from 'vitest'
import { isSafePath, parseResolveUrl, repoUrl, resolveUrl } from '../../src/hub/file-ref.ts'
import type { FileRef } from '../../src/values.ts'

const hub = 'https://huggingface.co'
const ref = (more: Partial<FileRef> = {}): FileRef => ({
  repoType: 'model',
  repo: 'acme/tiny',
  revision: 'main',
  path: 'config.json',
  ...more,
})

test.each<[string, FileRef]>([
  ['/acme/tiny/resolve/main/config.json', ref()],
  ['/gpt2/resolve/main/config.json', ref({ repo: 'gpt2' })],
  ['/datasets/acme/tiny/resolve/main/config.json', ref({ repoType: 'dataset' })],
  ['/datasets/squad/resolve/main/config.json', ref({ repoType: 'dataset', repo: 'squad' })],
  ['/spaces/acme/tiny/resolve/v1.0/app.py', ref({ repoType: 'space', revision: 'v1.0', path: 'app.py' })],
  ['/acme/tiny/resolve/refs%2Fpr%2F1/a', ref({ revision: 'refs/pr/1', path: 'a' })],
  ['/acme/tiny/resolve/feature%2Fx/resolve/y', ref({ revision: 'feature/x', path: 'resolve/y' })],
  ['/acme/tiny/resolve/main/a%231%3F%20%25.txt', ref({ path: 'a#1? %.txt' })],
  ['/acme/tiny/resolve/main/%C3%BC/%E6%A8%A1.bin', ref({ path: 'ü/模.bin' })],
])('%s is understood, and written the same way', (path, expected) => {
  expect(parseResolveUrl(hub + path, [hub])).toEqual(expected)
  expect(resolveUrl(hub, expected)).toBe(hub + path)
})

test('a query such as ?download=true changes nothing', () => {
  expect(parseResolveUrl(`${hub}/acme/tiny/resolve/main/config.json?download=true`, [hub])).toEqual(ref())
})

test('a raw name of the JS client is read as the server reads it: a # ends it', () => {
  expect(parseResolveUrl(`${hub}/acme/tiny/resolve/main/a#1.txt`, [hub])?.path).toBe('a')
})

test.each([
  ['another origin', 'https://example.com/acme/tiny/resolve/main/f'],
  ['another port', 'https://huggingface.co:8443/acme/tiny/resolve/main/f'],
  ['a raw URL', `${hub}/acme/tiny/raw/main/f`],
  ['the API', `${hub}/api/models/resolve/main/f`],
  ['a bucket', `${hub}/buckets/acme/resolve/main/f`],
  ['three segments', `${hub}/a/b/c/resolve/main/f`],
  ['no file', `${hub}/acme/tiny/resolve/main/`],
  ['a traversal that survives the URL parser', `${hub}/acme/tiny/resolve/main/a%2F..%2F..%2Fb`],
  ['a backslash traversal', `${hub}/acme/tiny/resolve/main/a%5C..%5Cb`],
  ['a bad escape', `${hub}/acme/tiny/resolve/main/100%.txt`],
  ['a repository that cannot be', `${hub}/acme/a--b/resolve/main/f`],
  ['no URL', 'not a url'],
])('%s is not ours', (_, url) => {
  expect(parseResolveUrl(url, [hub])).toBeUndefined()
})

test('an endpoint may have a path prefix, and there may be several', () => {
  const mirror = 'http://127.0.0.1:8080/mirror'
  const url = resolveUrl(mirror, ref())
  expect(url).toBe(`${mirror}/acme/tiny/resolve/main/config.json`)
  expect(parseResolveUrl(url, [hub, mirror])).toEqual(ref())
  expect(
    parseResolveUrl('http://127.0.0.1:8080/acme/tiny/resolve/main/config.json', [mirror]),
  ).toBeUndefined()
})

test.each([
  '../x',
  'a/../b',
  '/etc/passwd',
  'C:\\x',
  'a/D:x',
  '\\\\host\\share',
  'a\\..\\b',
  '',
  'a//b',
  './a',
  'a\0b',
  '\ud800',
])('%j is no name of a file in a repository', (path) => {
  expect(isSafePath(path)).toBe(false)
  expect(() => resolveUrl(hub, ref({ path }))).toThrow(TypeError)
})

test.each(['a', 'a/b/c.txt', '..a', 'a..b', 'a b', 'a\\b', '.gitattributes', 'é'])('%j is one', (path) => {
  expect(isSafePath(path)).toBe(true)
})

test('the page of a repository is where its conditions are accepted', () => {
  expect(repoUrl(hub, ref({ repoType: 'dataset' }))).toBe(`${hub}/datasets/acme/tiny`)
  expect(() => repoUrl(hub, ref({ repo: '../etc' }))).toThrow(TypeError)
})
