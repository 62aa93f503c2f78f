/** `llmpt seed`: gives what is in the cache to others, after making sure that everybody may have it. */
import { Client } from '../../client.ts'
import { type Config, getConfig } from '../../config.ts'
import { ConfigError } from '../../errors.ts'
import { allowsSharing } from '../../hub/sharing.ts'
import { requireAddon } from '../../native/load.ts'
import { digestOf, type RepoRef, type RepoType } from '../../values.ts'
import { cachedCommits, cachedRepos, type SharableFile, sharableFiles } from '../cached-files.ts'
import { type CommandContext, CommandError } from '../command.ts'
import { countOf } from '../format.ts'
import type { Output } from '../output.ts'
import { checkRepoArgument } from '../repo-argument.ts'
import { keepSeeding, tellSkipped } from '../seeding.ts'

export interface SeedArguments {
  /** `undefined` for `--all`. */
  readonly target: { readonly repo: string; readonly revision: string | undefined } | undefined
  readonly repoType: RepoType
  readonly cacheDir?: string
  readonly tracker?: readonly string[]
  readonly endpoint?: string
  readonly listen?: readonly string[]
  readonly for?: number
  readonly maxUpload?: number
}

export async function seed(args: SeedArguments, { out, signal }: CommandContext): Promise<void> {
  const config = getConfig({
    cacheDir: args.cacheDir,
    trackers: args.tracker,
    endpoint: args.endpoint,
    listen: args.listen,
    maxUploadBytesPerSecond: args.maxUpload,
  })
  checkConfig(config)
  requireAddon()
  const repos =
    args.target === undefined ? await cachedRepos(config.cacheDir) : [repoOf(args.target.repo, args.repoType)]
  await using client = new Client(config)
  let queued = 0
  for (const repo of repos) {
    const commits = await cachedCommits(config.cacheDir, repo, args.target?.revision)
    for (const { file, blobPath } of await publicFiles(
      client,
      await sharableFiles(config.cacheDir, repo, commits),
      out,
    )) {
      signal.throwIfAborted()
      client.seedCached(file, blobPath, args.for ?? Number.POSITIVE_INFINITY)
      queued += 1
    }
  }
  if (queued === 0) throw new CommandError(nothingToSeed(args, config))
  out.say(`Preparing ${countOf(queued, 'file')} ...`)
  const seeded = await keepSeeding(client, out, signal)
  if (seeded === 0 && !signal.aborted) throw new CommandError('none of the files could be seeded')
}

function checkConfig(config: Config): void {
  if (config.trackers.length === 0)
    throw new ConfigError('seeding needs a tracker: use --tracker, or set HF_P2P_TRACKER')
  if (!config.p2p) throw new ConfigError('seeding needs P2P, and HF_USE_P2P switches it off')
  if (config.offline) throw new ConfigError('seeding needs the network, and HF_HUB_OFFLINE is set')
}

function repoOf(repo: string, repoType: RepoType): RepoRef {
  checkRepoArgument(repo)
  return { repo, repoType }
}

function nothingToSeed({ target }: SeedArguments, { cacheDir }: Config): string {
  const what =
    target === undefined
      ? 'anything'
      : `${target.repo}${target.revision === undefined ? '' : `@${target.revision}`}`
  return `there is nothing to seed: ${cacheDir} does not hold ${what} that everybody may have; "llmpt download" it first`
}

/**
 * Those of a repository's files that may be given to others, now. A large file speaks for the
 * repository: its content is what a gate guards. Small files can be open where the rest is not, and speak for themselves.
 */
async function publicFiles(
  client: Client,
  files: readonly SharableFile[],
  out: Output,
): Promise<readonly SharableFile[]> {
  const large = files.find(({ file }) => digestOf(file.etag) === 'sha256')
  const asked = large === undefined ? files : [large]
  const allowed: SharableFile[] = []
  for (const each of asked) {
    const { repo, path } = each.file
    const verdict = await client.seedVerdict(each.file)
    if (allowsSharing(verdict)) allowed.push(each)
    else tellSkipped(out, repo, large === undefined ? path : null, verdict)
  }
  return large !== undefined && allowed.length > 0 ? files : allowed
}
