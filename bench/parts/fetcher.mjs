/** A program that fetches what is not ours, with the hook in its way and without, in turns. */
import { createFetch, enableP2P } from '../../dist/index.js'
import { serve, tell } from '../harness/in-child.mjs'

const plain = globalThis.fetch
enableP2P()
const hooked = globalThis.fetch
if (hooked === plain) throw new Error('the hook is not there')

const answered = Promise.resolve()
const nothing = () => answered
const participants = {
  plain,
  hooked,
  control: plain,
  'no fetch': nothing,
  'no fetch, hooked': createFetch({ fetch: nothing }),
}

serve({ fetchMany, callMany })
tell('ready')

/** Mean of `count` requests, one after the other, in microseconds each. */
async function fetchMany({ who, url, count }) {
  const fetchIt = participants[who]
  const startedAt = performance.now()
  for (let i = 0; i < count; i++) await (await fetchIt(url)).arrayBuffer()
  return { microseconds: ((performance.now() - startedAt) * 1000) / count }
}

/** Mean of `count` calls that go nowhere, in nanoseconds each. */
async function callMany({ who, url, count }) {
  const call = participants[who]
  const startedAt = performance.now()
  for (let i = 0; i < count; i++) call(url)
  return { nanoseconds: ((performance.now() - startedAt) * 1e6) / count }
}
