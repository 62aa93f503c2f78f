/** What programs do with a function like `fetch`, without any client. */
import { digest } from './answer.mjs'

/** What a program can see of a response. */
async function seenOf(response) {
  const { status, statusText, ok, url, redirected, type } = response
  const headers = Object.fromEntries(
    [...response.headers].filter(([name]) => !['date', 'connection', 'keep-alive'].includes(name)),
  )
  return {
    status,
    statusText,
    ok,
    url,
    redirected,
    type,
    headers,
    sha256: digest(await response.arrayBuffer()),
  }
}

/** @param {() => typeof fetch} current The function to call: asked for each time, as programs use globals. */
export function fetchCalls(current) {
  const get = async (target, path, init) => seenOf(await current()(urlOf(target, path), init))
  return {
    git: (target) => get(target, 'config.json'),
    lfs: (target) => get(target, 'weights.bin'),
    xet: (target) => get(target, 'model.safetensors'),
    range: (target) => get(target, 'weights.bin', { headers: { Range: 'bytes=1000-1200999' } }),
    lastRange: (target) => get(target, 'weights.bin', { headers: { Range: 'bytes=-1200000' } }),
    openRange: (target) => get(target, 'weights.bin', { headers: [['range', 'bytes=9-']] }),
    smallRange: (target) => get(target, 'weights.bin', { headers: { Range: 'bytes=1000-1015' } }),
    impossibleRange: (target) => get(target, 'weights.bin', { headers: { Range: 'bytes=99999999-' } }),
    twoRanges: (target) => get(target, 'weights.bin', { headers: { Range: 'bytes=0-1,5-6' } }),
    head: (target) => get(target, 'weights.bin', { method: 'HEAD' }),
    manual: (target) => get(target, 'weights.bin', { redirect: 'manual' }),
    noRedirect: (target) => get(target, 'weights.bin', { redirect: 'error' }),
    url: async (target) => seenOf(await current()(new URL(urlOf(target, 'weights.bin')))),
    request: async (target, Class = Request) =>
      seenOf(await current()(new Class(urlOf(target, 'weights.bin')))),
    requestWithOptions: async (target) => {
      const request = new Request(urlOf(target, 'weights.bin'), { headers: { range: 'bytes=0-9' } })
      return seenOf(await current()(request, { headers: { range: 'bytes=1000-1200999' } }))
    },
    clone: async (target) => {
      const response = await current()(urlOf(target, 'weights.bin'))
      const copy = response.clone()
      const [one, two] = await Promise.all([seenOf(response), seenOf(copy)])
      return { one, isSame: JSON.stringify(one) === JSON.stringify(two) }
    },
    bodyless: async (target) => {
      const response = await current()(urlOf(target, 'weights.bin'))
      await response.body.cancel()
      return response.status
    },
    aborted: async (target) => {
      const controller = new AbortController()
      const response = await current()(urlOf(target, 'weights.bin'), { signal: controller.signal })
      const reader = response.body.getReader()
      await reader.read()
      controller.abort()
      for (;;) await reader.read()
    },
    abortedBefore: (target) =>
      get(target, 'weights.bin', { signal: AbortSignal.abort(new RangeError('no more')) }),
    missing: (target) => get(target, 'nothing.bin'),
    anonymous: (target) => get(target, 'weights.bin'),
    notOurs: async ({ hubUrl }) =>
      seenOf(await current()(`${hubUrl}/api/models/none/of/ours`, { method: 'POST' })),
  }
}

function urlOf({ repo, hubUrl }, path) {
  return `${hubUrl}/${repo}/resolve/main/${path}`
}
