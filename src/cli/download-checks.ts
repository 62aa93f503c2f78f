/** What is wrong with what was asked of `llmpt download`, in words of its command line. */
import type { Config } from '../config.ts'
import { ConfigError } from '../errors.ts'
import { matchesPatterns } from '../snapshot/selection.ts'
import { filesBelow } from './cached-files.ts'
import { CommandError } from './command.ts'
import type { DownloadArguments } from './commands/download.ts'
import type { Output } from './output.ts'
import { checkPathArgument, checkRepoArgument } from './repo-argument.ts'

/** @throws {ConfigError} When this cannot be done; complains about what would have no effect. */
export function checkArguments(args: DownloadArguments, config: Config, out: Output): void {
  checkRepoArgument(args.repo)
  args.paths.forEach(checkPathArgument)
  checkOptions(args, config)
  if (args.localFilesOnly || args.dryRun) return
  const canUseSwarm = config.p2p && config.trackers.length > 0
  if (!config.http && !canUseSwarm) {
    throw new ConfigError(
      '--no-http leaves no source: peers need --tracker (or HF_P2P_TRACKER), and P2P switched on',
    )
  }
  if (canUseSwarm) return
  const why = config.p2p ? 'without --tracker (or HF_P2P_TRACKER)' : 'with P2P switched off'
  if (args.seedFor !== undefined) out.complain(`--seed-for does nothing ${why}: nobody could find it here`)
  if (args.peer !== undefined)
    out.complain(`--peer does nothing ${why}: it is the tracker that knows the torrents`)
}

function checkOptions(args: DownloadArguments, config: Config): void {
  const { forceDownload, localFilesOnly, dryRun, seedFor, maxWorkers, paths } = args
  const contradictions: readonly (readonly [boolean | undefined, string])[] = [
    [
      forceDownload && localFilesOnly,
      '--force-download and --local-files-only contradict each other: one fetches everything, the other nothing',
    ],
    [
      dryRun && localFilesOnly,
      '--dry-run and --local-files-only contradict each other: what is missing is known to the Hub alone',
    ],
    [
      dryRun && seedFor !== undefined,
      '--dry-run and --seed-for contradict each other: it brings nothing to give',
    ],
    [
      localFilesOnly && seedFor !== undefined,
      '--local-files-only and --seed-for contradict each other: to give what is there, use "llmpt seed"',
    ],
    [forceDownload && config.offline, '--force-download needs the network, and HF_HUB_OFFLINE is set'],
    [dryRun && config.offline, '--dry-run needs the network, and HF_HUB_OFFLINE is set'],
    [
      maxWorkers !== undefined && isOneFile(args),
      `--max-workers is about many files, and "${paths[0]}" is one`,
    ],
  ]
  const found = contradictions.find(([isSo]) => isSo)
  if (found !== undefined) throw new ConfigError(found[1])
}

/** Whether one file is asked for by its path. */
export function isOneFile({ paths, include, exclude }: DownloadArguments): boolean {
  return paths.length === 1 && include === undefined && exclude === undefined
}

/** Why nobody is asked, in a sentence that goes on from what is not there. */
export function whyOffline(config: Config): string {
  return config.offline ? 'HF_HUB_OFFLINE is set' : '--local-files-only forbids to fetch it'
}

/**
 * Without the Hub nobody knows a repository's files: what was asked for is looked for among those that are there.
 *
 * @param folder Of the snapshot.
 * @param why Nobody is asked, or answers.
 * @throws {CommandError} When it is not there.
 */
export async function checkCached(folder: string, args: DownloadArguments, why: string): Promise<void> {
  const { repo, paths, include, exclude } = args
  if (paths.length === 0 && include === undefined && exclude === undefined) return
  const names = await filesBelow(folder)
  const missing = paths.find((each) => !names.includes(each))
  if (missing !== undefined) throw new CommandError(`${repo}/${missing} is not in the cache, and ${why}`)
  const isAsked = (name: string): boolean =>
    paths.includes(name) ||
    ((paths.length === 0 || include !== undefined) && matchesPatterns(name, include, undefined))
  if (names.some((name) => isAsked(name) && matchesPatterns(name, undefined, exclude))) return
  throw new CommandError(`${nothingMatches(args)} in the cache, and ${why}`)
}

/** That the repository has nothing of what was asked for. */
export function nothingMatches({ repo, paths, include = [], exclude = [] }: DownloadArguments): string {
  const asked = [
    ...paths,
    ...include.map((glob) => `--include "${glob}"`),
    ...exclude.map((glob) => `--exclude "${glob}"`),
  ]
  return asked.length === 0 ? `${repo} has no files` : `no file of ${repo} matches ${asked.join(' ')}`
}
