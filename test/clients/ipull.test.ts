/** ipull, as node-llama-cpp downloads models with it: parts of a file in parallel, at the URL its first answer had. */
import { afterAll, beforeAll, describe } from 'vitest'
import type { FileTree, RepoSpec } from '../../src/demo/hub.ts'
import { observe, type Run } from './support/observe.ts'
import { isHeldTo } from './support/suite.ts'
import { type Mode, newClientWorld, patienceMs, type World } from './support/world.ts'

const mebibyte = 1024 * 1024
/** The last chunk of each is smaller than what a swarm is asked for by itself. */
const large = (seed: string, sizeBytes: number): FileTree[string] => ({
  content: { seed, sizeBytes },
  storage: 'lfs',
})
const filesOf: Record<string, (seed: string) => FileTree> = {
  model: (seed) => ({ 'model.gguf': large(seed, 7 * mebibyte + 77) }),
  moreStreams: (seed) => ({ 'model.gguf': large(seed, 10 * mebibyte + 77) }),
  parts: (seed) => ({
    'split-00001-of-00002.gguf': large(`${seed} 1`, 2 * mebibyte + 5),
    'split-00002-of-00002.gguf': large(`${seed} 2`, 2 * mebibyte + 5),
  }),
  missing: () => ({ 'model.gguf': 'nothing' }),
}
const calls = Object.keys(filesOf)
/** node-llama-cpp has the older one. */
const versions = ['ipull3', 'ipull4']
const repoOf = (version: string, call: string): string => `acme/${version}-${call}`
const repos: RepoSpec[] = versions.flatMap((version) =>
  calls.map((call) => {
    const repo = repoOf(version, call)
    return { repo, files: filesOf[call]?.(repo) ?? {} }
  }),
)

let world: World
const runs = new Map<string, Readonly<Record<Mode, Run>>>()

beforeAll(async () => {
  world = await newClientWorld(repos)
  for (const version of versions) {
    const targets = Object.fromEntries(calls.map((call) => [call, repoOf(version, call)]))
    runs.set(version, await observe(world, 'ipull.mjs', targets, { argsOf: () => [version] }))
  }
}, patienceMs)
afterAll(() => world[Symbol.asyncDispose]())

describe.each(versions)('%s', (version) => {
  isHeldTo({
    runs: () => {
      const found = runs.get(version)
      if (found === undefined) throw new Error(`${version} did not run`)
      return found
    },
    calls,
    large: ['model', 'moreStreams', 'parts'],
    // Of 1 MiB each, of 5 MiB each when that is the program, and a smaller one at the end of each file.
    mostChunks: { model: 8, moreStreams: 3, parts: 6 },
  })
})
