/** Putting the hook in the place of the global `fetch`, and taking it away. */
import { readFile } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import { patchGlobalFetch, wrapFetch } from '../../src/hook/patch-fetch.ts'
import { hookWith, offerAllOf, offerNothing, realFetch, sha256 } from './support.ts'

const weights = noiseBytes('weights', 200_000)
let hub: HubServer
let url: string

beforeAll(async () => {
  hub = await startHub({ 'weights.bin': weights })
  url = `${hub.url}/acme/tiny/resolve/main/weights.bin`
})
beforeEach(() => hub.resetStats())
afterEach(() => {
  globalThis.fetch = realFetch
})
afterAll(() => hub.close())

async function digestOf(response: Promise<Response>): Promise<string> {
  return sha256(await (await response).arrayBuffer())
}

test('the global fetch answers from an offer until it is restored', async () => {
  const hook = hookWith([hub.url], offerAllOf(hub))
  const patched = patchGlobalFetch(hook.deps)
  try {
    expect(await digestOf(fetch(url))).toBe(sha256(weights))
    expect(hub.stats('cdn').requests).toBe(0)
  } finally {
    patched.restore()
  }
  expect(fetch).toBe(realFetch)
  patched.restore()
  expect(fetch).toBe(realFetch)
})

test('who captured the hooked fetch has the original behaviour once it is restored', async () => {
  const hook = hookWith([hub.url], offerAllOf(hub))
  const patched = patchGlobalFetch(hook.deps)
  const captured = fetch
  patched.restore()
  expect(await digestOf(captured(url))).toBe(sha256(weights))
  expect(hook.asked).toEqual([])
  expect(hub.stats('cdn').requests).toBe(1)
})

test('somebody else who wrapped the hooked fetch stays where he is', async () => {
  const hook = hookWith([hub.url], offerAllOf(hub))
  const patched = patchGlobalFetch(hook.deps)
  const inner = fetch
  let calls = 0
  const theirs = ((input: string | URL | Request, init?: RequestInit) => {
    calls++
    return inner(input, init)
  }) as typeof fetch
  globalThis.fetch = theirs
  expect(await digestOf(fetch(url))).toBe(sha256(weights))
  expect(hook.asked).toHaveLength(1)
  patched.restore()
  expect(fetch).toBe(theirs)
  await digestOf(fetch(url))
  expect(hook.asked).toHaveLength(1)
  expect(calls).toBe(2)
})

test('a second hook replaces the first, asks once, and gives the place back', async () => {
  const first = hookWith([hub.url], offerNothing)
  const second = hookWith([hub.url], offerNothing)
  const one = patchGlobalFetch(first.deps)
  const hookedOnce = fetch
  const two = patchGlobalFetch(second.deps)
  await digestOf(fetch(url))
  expect([first.asked.length, second.asked.length]).toEqual([0, 1])
  two.restore()
  expect(fetch).toBe(hookedOnce)
  await digestOf(fetch(url))
  expect([first.asked.length, second.asked.length]).toEqual([1, 1])
  one.restore()
  expect(fetch).toBe(realFetch)
})

test('two hooks restored in the order they came leave the original', () => {
  const one = patchGlobalFetch(hookWith([hub.url], offerNothing).deps)
  const two = patchGlobalFetch(hookWith([hub.url], offerNothing).deps)
  one.restore()
  expect(fetch).not.toBe(realFetch)
  two.restore()
  expect(fetch).toBe(realFetch)
})

test('wrapping a hooked fetch asks once, the newer hook', async () => {
  const inner = hookWith([hub.url], offerNothing)
  const outer = hookWith([hub.url], offerNothing, inner.fetch)
  await digestOf(outer.fetch(url))
  expect([inner.asked.length, outer.asked.length]).toEqual([0, 1])
})

test('a hook that is off has the original behaviour, also where it wraps one that is on', async () => {
  const inner = hookWith([hub.url], offerAllOf(hub))
  const outer = hookWith([hub.url], offerAllOf(hub), inner.fetch)
  outer.isActive = false
  await digestOf(outer.fetch(url))
  expect([inner.asked.length, outer.asked.length]).toEqual([0, 0])
})

test('a hook on top of one in a wrapper that cannot be seen through asks once as well', async () => {
  const inner = hookWith([hub.url], offerNothing)
  const outer = hookWith([hub.url], offerNothing, ((...args) => inner.fetch(...args)) as typeof fetch)
  await digestOf(outer.fetch(url))
  expect([inner.asked.length, outer.asked.length]).toEqual([0, 1])
})

test('no endpoint, an impossible one, or one that throws leaves every call alone', async () => {
  const fails = (): never => {
    throw new Error('a bug')
  }
  for (const endpoints of [() => [], () => ['nonsense'], fails]) {
    const hook = hookWith([], offerAllOf(hub))
    const hooked = wrapFetch(realFetch, { ...hook.deps, endpoints })
    expect(await digestOf(hooked(url))).toBe(sha256(weights))
    expect(hook.asked).toEqual([])
  }
})

test('an endpoint below a path watches that path only', async () => {
  await using mirror = await startHub({ 'weights.bin': weights }, { pathPrefix: '/mirror' })
  const hook = hookWith([mirror.url], offerAllOf(mirror))
  expect(await digestOf(hook.fetch(`${mirror.url}/acme/tiny/resolve/main/weights.bin`))).toBe(sha256(weights))
  await (await hook.fetch(`${new URL(mirror.url).origin}/acme/tiny/resolve/main/weights.bin`)).text()
  expect(hook.asked).toHaveLength(1)
})

test('the module loads nothing but itself and what is in Node', async () => {
  const pending = [new URL('../../src/hook/patch-fetch.ts', import.meta.url).href]
  const seen = new Set<string>()
  const foreign = new Set<string>()
  for (let module = pending.pop(); module !== undefined; module = pending.pop()) {
    if (seen.has(module)) continue
    seen.add(module)
    const source = await readFile(new URL(module), 'utf8')
    for (const [, name = ''] of source.matchAll(/^(?:import|export) (?!type )[^;'()]*?'([^']+)'$/gm)) {
      if (name.startsWith('.')) pending.push(new URL(name, module).href)
      else foreign.add(name)
    }
  }
  expect([...seen].some((module) => module.endsWith('/hub/file-ref.ts'))).toBe(true)
  expect([...foreign].filter((name) => !name.startsWith('node:'))).toEqual([])
})
