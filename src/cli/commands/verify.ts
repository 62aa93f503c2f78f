/** `llmpt verify`: is the cache what it claims to be, and can what is wrong be mended? */
import { lstat } from 'node:fs/promises'
import type { CacheReport, Verdict, VerifiedFile } from '../../cache-check/verify-cache.ts'
import { Client } from '../../client.ts'
import { getConfig } from '../../config.ts'
import { ConfigError } from '../../errors.ts'
import { repoFolder } from '../../hub/cache-layout.ts'
import type { RepoRef, RepoType } from '../../values.ts'
import { type CommandContext, CommandError, exitCodes } from '../command.ts'
import { countOf, formatBytes, formatTime, printable } from '../format.ts'
import { Interrupted } from '../interrupt.ts'
import type { Output } from '../output.ts'
import { progressView } from '../progress-view.ts'
import { checkRepoArgument } from '../repo-argument.ts'

export interface VerifyArguments {
  /** `undefined`: everything. */
  readonly repo: string | undefined
  readonly repoType: RepoType
  readonly repair?: boolean
  readonly cacheDir?: string
  readonly tracker?: readonly string[]
  readonly endpoint?: string
  readonly mirror?: readonly string[]
  readonly token?: string
  /** `false` after `--no-p2p`. */
  readonly p2p: boolean
}

export async function verify(args: VerifyArguments, { out, signal }: CommandContext): Promise<number> {
  const config = getConfig({
    cacheDir: args.cacheDir,
    trackers: args.tracker,
    endpoint: args.endpoint,
    mirrors: args.mirror,
    token: args.token,
    p2p: args.p2p ? undefined : false,
    seed: false,
  })
  const repair = args.repair ?? false
  if (repair && config.offline) throw new ConfigError('--repair needs the network, and HF_HUB_OFFLINE is set')
  const repo = await repoOf(args, config.cacheDir)
  await using client = new Client(config)
  const startedMs = performance.now()
  const report = await check(client, { repo, repair }, out, signal)
  const elapsedMs = Math.round(performance.now() - startedMs)
  const sizeBytes = report.files.reduce((sum, file) => sum + (file.sizeBytes ?? 0), 0)
  out.event('done', { ...countsOf(report.files), sizeBytes, elapsedMs, isSound: report.isSound })
  out.say(summary(report.files, sizeBytes, elapsedMs))
  if (!report.isSound) out.say(advice(repair))
  return report.isSound ? exitCodes.ok : exitCodes.failed
}

async function repoOf({ repo, repoType }: VerifyArguments, cacheDir: string): Promise<RepoRef | undefined> {
  if (repo === undefined) return undefined
  checkRepoArgument(repo)
  const folder = repoFolder(cacheDir, { repo, repoType })
  if ((await lstat(folder).catch(() => undefined)) !== undefined) return { repo, repoType }
  throw new CommandError(`${repo} is not in the cache: there is no ${folder}`)
}

async function check(
  client: Client,
  what: { readonly repo: RepoRef | undefined; readonly repair: boolean },
  out: Output,
  signal: AbortSignal,
): Promise<CacheReport> {
  const seen: VerifiedFile[] = []
  using view = await progressView(out)
  const onFile = (file: VerifiedFile): void => {
    seen.push(file)
    out.event('file', fileEvent(file))
    if (file.verdict === 'right') return
    out.say(fileLine(file))
    if (isBad(file)) out.result(printable(file.path))
  }
  try {
    return await client.verifyCache({ ...what, signal, onFile, onProgress: view.onProgress })
  } catch (error) {
    view[Symbol.dispose]()
    if (error !== signal.reason || !(error instanceof Interrupted)) throw error
    throw new Interrupted(error.signalName, `${countOf(seen.length, 'file')} checked until then`)
  }
}

function isBad({ verdict }: VerifiedFile): boolean {
  return verdict === 'wrong' || verdict === 'missing'
}

/** What a `file` event holds besides its name. */
function fileEvent(file: VerifiedFile): object {
  const { verdict, path, repo, etag, sizeBytes, names, reason, movedTo, damage, bytes } = file
  return {
    verdict,
    path,
    repo: repo?.repo ?? null,
    repoType: repo?.repoType ?? null,
    etag: etag ?? null,
    size: sizeBytes ?? null,
    names,
    ...(reason !== undefined && { reason }),
    ...(movedTo !== undefined && { movedTo }),
    ...(damage !== undefined && { damage }),
    ...(bytes !== undefined && { bytes }),
  }
}

const words: Record<Verdict, string> = {
  right: 'right',
  wrong: 'WRONG',
  missing: 'MISSING',
  repaired: 'repaired',
  unchecked: 'cannot be checked',
}

function fileLine(file: VerifiedFile): string {
  const { verdict, repo, names, path, reason, movedTo, damage, bytes } = file
  const [first] = names
  const more = names.length > 1 ? ` (and ${names.length - 1} more)` : ''
  const name = repo === undefined || first === undefined ? path : `${repo.repo}/${first}${more}`
  const details = [
    ...(reason === undefined ? [] : [reason]),
    ...(movedTo === undefined ? [] : [`moved to ${movedTo}`]),
    ...(damage === undefined ? [] : [`${countOf(damage.wrongPieces.length, 'piece')} wrong`]),
    ...(bytes === undefined ? [] : [`fetched ${formatBytes(bytes.http + bytes.p2p)}`]),
  ]
  return printable(`${words[verdict]}: ${name}: ${details.join('; ')}`)
}

function countsOf(files: readonly VerifiedFile[]): Record<Verdict, number> {
  const counts = { right: 0, wrong: 0, missing: 0, repaired: 0, unchecked: 0 }
  for (const { verdict } of files) counts[verdict] += 1
  return counts
}

function summary(files: readonly VerifiedFile[], sizeBytes: number, elapsedMs: number): string {
  if (files.length === 0) return 'There is nothing in the cache.'
  const counts = countsOf(files)
  const parts = (['wrong', 'missing', 'repaired', 'unchecked'] as const)
    .filter((verdict) => counts[verdict] > 0)
    .map((verdict) => `${counts[verdict]} ${verdict === 'unchecked' ? 'cannot be checked' : verdict}`)
  const checked = `Checked ${countOf(files.length, 'file')}, ${formatBytes(sizeBytes)}, in ${formatTime(elapsedMs)}`
  return `${checked}: ${[`${counts.right} right`, ...parts].join(', ')}.`
}

function advice(wasRepairing: boolean): string {
  const next = wasRepairing ? 'Try again later, or download' : 'Run it again with --repair, or download'
  return `No client gets what was moved away. ${next} the repository again.`
}
