import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { Visibility } from '../../src/hub/visibility.ts'
import { access, errorOf } from './fixtures.ts'

const files = { 'config.json': '{}', 'w.bin': 'weights', 'v.bin': 'more weights' }
const tokens = { hf_member: ['acme/gated', 'acme/private'] }
const repos = [
  { repo: 'acme/tiny', files },
  { repo: 'acme/gated', files, isGated: true },
  { repo: 'acme/private', files, isPrivate: true },
]

test('without a token nothing is asked: the Hub has just shown the file to everybody', async () => {
  await using hub = await startHub(repos)
  await using our = access(hub.url)
  expect(await new Visibility(our).isPublic(hub.file('w.bin'))).toBe(true)
  expect(hub.requests()).toHaveLength(0)
})

test('with a token a public repository costs one anonymous question', async () => {
  await using hub = await startHub(repos, { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const visibility = new Visibility(our)
  const asked = ['w.bin', 'v.bin', 'config.json', 'w.bin'].map((path) => hub.file(path))
  for (const file of asked) expect(await visibility.isPublic(file)).toBe(true)
  expect(hub.requests()).toHaveLength(1)
  expect(hub.stats().authorized).toBe(0)
})

test.each(['acme/gated', 'acme/private'])('%s is not public, and asked about once', async (repo) => {
  await using hub = await startHub(repos, { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const visibility = new Visibility(our)
  for (const path of ['w.bin', 'v.bin', 'config.json']) {
    expect(await visibility.isPublic(hub.file(path, { repo }))).toBe(false)
  }
  expect(hub.requests()).toHaveLength(1)
  expect(hub.stats().authorized).toBe(0)
})

test('that everybody sees the README says nothing about the weights', async () => {
  await using hub = await startHub([{ repo: 'acme/gated', files, isGated: true }], { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const visibility = new Visibility(our)
  const { etag, commit } = hub.file('config.json')
  const open = { 'x-repo-commit': commit, etag: `"${etag}"`, 'content-length': '2' }
  hub.inject({ path: 'config.json', status: 200, headers: open })
  expect(await visibility.isPublic(hub.file('config.json'))).toBe(true)
  expect(await visibility.isPublic(hub.file('w.bin'))).toBe(false)
})

test('another content for everybody is not the same file', async () => {
  await using hub = await startHub(repos, { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const file = { ...hub.file('w.bin'), etag: hub.file('v.bin').etag }
  expect(await new Visibility(our).isPublic(file)).toBe(false)
})

test('when the Hub does not answer the file counts as private, and is asked about again', async () => {
  await using hub = await startHub(repos, { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const visibility = new Visibility(our)
  await hub.setAvailability('hub', 'unavailable')
  expect(await visibility.isPublic(hub.file('w.bin'))).toBe(false)
  await hub.setAvailability('hub', 'up')
  expect(await visibility.isPublic(hub.file('w.bin'))).toBe(true)
})

test('one caller that gives up does not take the answer from another', async () => {
  await using hub = await startHub(repos, { tokens })
  await using our = access(hub.url, { token: 'hf_member' })
  const visibility = new Visibility(our)
  const controller = new AbortController()
  const impatient = errorOf(visibility.isPublic(hub.file('w.bin'), { signal: controller.signal }))
  const patient = visibility.isPublic(hub.file('w.bin'))
  controller.abort(new Error('enough'))
  expect((await impatient).message).toBe('enough')
  expect(await patient).toBe(true)
  expect(hub.requests()).toHaveLength(1)
})
