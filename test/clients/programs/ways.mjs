/**
 * A program that imports its clients first and switches the hook on and off later: `ways.mjs ENTRY OTHER_ENTRY`, the
 * entry points of two copies of our package.
 */
import * as hub from '@huggingface/hub'
import { answer, digest } from './lib/answer.mjs'
import { hubCalls } from './lib/hub-calls.mjs'

const [entry, otherEntry] = process.argv.slice(2)
const p2p = await import(entry)
const other = await import(otherEntry)
const original = Object.getOwnPropertyDescriptor(globalThis, 'fetch')
const isRestored = () => {
  const now = Object.getOwnPropertyDescriptor(globalThis, 'fetch')
  return Reflect.ownKeys(original).every((key) => now[key] === original[key])
}
const get = async ({ repo, hubUrl }, how = fetch) =>
  digest(await (await how(`${hubUrl}/${repo}/resolve/main/weights.bin`)).arrayBuffer())

/** A wrapper of somebody else around whatever is global now, and how often it was called. */
function wrapGlobal() {
  const inner = globalThis.fetch
  const wrapper = (...args) => {
    wrapper.calls++
    return inner(...args)
  }
  wrapper.calls = 0
  globalThis.fetch = wrapper
  return wrapper
}

answer({
  before: async (target) => [p2p.isEnabled(), isRestored(), await get(target)],
  enabled: async (target) => {
    p2p.enableP2P()
    return [p2p.isEnabled(), await get(target)]
  },
  client: async (target) => (await hubCalls(hub).lfs(target)).sha256,
  twice: async (target) => {
    p2p.enableP2P()
    return await get(target)
  },
  disabled: async (target) => {
    const captured = fetch
    p2p.disableP2P()
    p2p.disableP2P()
    return [p2p.isEnabled(), isRestored(), await get(target, captured)]
  },
  wrappedAfter: async (target) => {
    p2p.enableP2P()
    const wrapper = wrapGlobal()
    return [await get(target), wrapper.calls]
  },
  disabledBelow: async (target) => {
    const wrapper = globalThis.fetch
    p2p.disableP2P()
    const result = [fetch === wrapper, await get(target)]
    Object.defineProperty(globalThis, 'fetch', original)
    return result
  },
  wrappedBefore: async (target) => {
    const wrapper = wrapGlobal()
    p2p.enableP2P()
    const sha256 = await get(target)
    p2p.disableP2P()
    const result = [sha256, wrapper.calls, fetch === wrapper]
    Object.defineProperty(globalThis, 'fetch', original)
    return result
  },
  twoCopies: async (target) => {
    p2p.enableP2P()
    other.enableP2P()
    return await get(target)
  },
  oneCopyLeft: async (target) => {
    other.disableP2P()
    const sha256 = await get(target)
    p2p.disableP2P()
    return [sha256, isRestored()]
  },
  ownFetch: async (target) => [await get(target, p2p.createFetch()), isRestored()],
  proxied: async (target) => {
    // A dispatcher of the caller's own has to see every request of the chain.
    const { Agent } = await import(`undici${process.versions.undici.split('.')[0]}`)
    const agent = new Agent()
    const origins = []
    const dispatcher = agent.compose((dispatch) => (options, handler) => {
      origins.push(options.origin.toString())
      return dispatch(options, handler)
    })
    p2p.enableP2P()
    const sha256 = await get(target, (url) => fetch(url, { dispatcher }))
    p2p.disableP2P()
    await agent.close()
    return [sha256, origins.length]
  },
})
