/** One program in every mode, and what it saw and asked for in each. */
import type { RequestRecord } from '../../../src/demo/hub.ts'
import { type Ending, Program, type Seen } from './program.ts'
import { type Mode, modes, type World } from './world.ts'

/** A call of a program, and all requests that came of it. */
export interface Observed {
  readonly seen: Seen
  readonly requests: readonly RequestRecord[]
}

/** What a program did in one mode. */
export interface Run {
  readonly calls: Readonly<Record<string, Observed>>
  readonly ending: Ending
}

/** The calls of a program: its function, and the repository it is for. */
export type Calls = Readonly<Record<string, string>>

/**
 * Runs a program with the same calls once in each mode, in a process and a home of its own. A call has a repository of
 * its own, too: what an earlier one left in the cache is of no use to it.
 */
export async function observe(
  world: World,
  program: string,
  calls: Calls,
  { argsOf = () => [] }: { argsOf?: (mode: Mode) => readonly string[] } = {},
): Promise<Readonly<Record<Mode, Run>>> {
  const runs: Partial<Record<Mode, Run>> = {}
  for (const mode of modes) {
    await using running = await Program.start(program, {
      env: world.environment(mode),
      nodeArguments: world.preload(mode),
      args: argsOf(mode),
    })
    const observed: Record<string, Observed> = {}
    for (const [name, repo] of Object.entries(calls)) {
      world.hub.resetStats()
      const seen = await running.call(name, { repo, hubUrl: world.hub.url })
      observed[name] = { seen, requests: [...world.hub.requests()] }
    }
    runs[mode] = { calls: observed, ending: await running.end() }
  }
  return runs as Record<Mode, Run>
}

/** The requests in a form that two runs have in common: whatever was asked for at once came in any order. */
export function comparable(requests: readonly RequestRecord[]): string[] {
  return requests
    .map(({ origin, method, url, range, authorization, status }) =>
      [origin, method, url, range ?? '-', authorization ? 'with a token' : '-', status].join(' '),
    )
    .sort()
}

/**
 * Whether it is the question that the hook asks about a repository of its own: what a program was shown for a token, which
 * somebody may have added unseen, has to be shown without one before anybody else is asked for it.
 */
export function isLook({ origin, method, url, authorization }: RequestRecord): boolean {
  const isAnonymousHead = origin === 'hub' && method === 'HEAD' && !authorization
  return isAnonymousHead && /\/resolve\/[0-9a-f]{40}\//.test(url)
}

/** What storage, the CDN and Xet's service were asked for. */
export function fromStorage(requests: readonly RequestRecord[]): string[] {
  return comparable(requests.filter(({ origin }) => origin !== 'hub'))
}
