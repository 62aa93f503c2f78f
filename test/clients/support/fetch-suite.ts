/** What is expected of whatever is called like `fetch`. */
import type { FileTree, RepoSpec } from '../../../src/demo/hub.ts'

const git: FileTree = { 'config.json': '{"hidden_size": 8}' }
const lfs = (seed: string): FileTree => ({ 'weights.bin': { seed, sizeBytes: 1_250_003 } })
const xet = (seed: string): FileTree => ({
  'model.safetensors': { content: { seed, sizeBytes: 1_250_003 }, storage: 'xet' },
})

const filesOf: Record<string, (seed: string) => FileTree> = {
  git: () => git,
  lfs,
  xet,
  range: lfs,
  lastRange: lfs,
  openRange: lfs,
  smallRange: lfs,
  impossibleRange: lfs,
  twoRanges: lfs,
  head: lfs,
  manual: lfs,
  noRedirect: lfs,
  url: lfs,
  request: lfs,
  requestWithOptions: lfs,
  clone: lfs,
  bodyless: lfs,
  aborted: lfs,
  abortedBefore: lfs,
  missing: () => git,
  anonymous: lfs,
  notOurs: () => git,
}

/** Names of the calls in `lib/fetch-calls.mjs`. */
export const fetchCalls: readonly string[] = Object.keys(filesOf)

/** Those that want a large part of a large file, or all of it. */
export const largeFetchCalls: readonly string[] = [
  ...['lfs', 'xet', 'range', 'lastRange', 'openRange', 'url', 'request', 'requestWithOptions', 'clone'],
  ...['bodyless', 'aborted'],
]

/** A repository for each call of a program. */
export function fetchRepos(program: string): { targets: Record<string, string>; repos: RepoSpec[] } {
  const targets = Object.fromEntries(fetchCalls.map((call) => [call, `acme/${program}-${call}`]))
  const repos = fetchCalls.map((call) => {
    const repo = targets[call] ?? ''
    return { repo, files: filesOf[call]?.(repo) ?? {}, isGated: call === 'anonymous' }
  })
  return { targets, repos }
}

/** Headers of an answer that do not depend on where its bytes come from. */
const commonHeaders = ['content-length', 'content-range', 'accept-ranges']

/**
 * The part of an answer that is the same from a peer as from the Hub's storage. Where it came from is not: its URL, and
 * the headers that only the storage sends.
 */
export function commonOfAnswer(result: unknown, call: string): unknown {
  if (!largeFetchCalls.includes(call) || typeof result !== 'object' || result === null) return result
  if ('one' in result) return { ...result, one: commonOfAnswer(result.one, call) }
  const { status, statusText, ok, headers, sha256 } = result as Record<string, unknown>
  const common = Object.entries(headers as object).filter(([name]) => commonHeaders.includes(name))
  return { status, statusText, ok, sha256, headers: Object.fromEntries(common) }
}
