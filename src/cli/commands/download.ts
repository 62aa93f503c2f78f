/** `llmpt download` */
import { access, mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import {
  Client,
  type DownloadCallOptions,
  type DownloadedFile,
  type SnapshotCallOptions,
} from '../../client.ts'
import { type Config, getConfig } from '../../config.ts'
import { HubError, SwarmError } from '../../errors.ts'
import { allowsSharing } from '../../hub/sharing.ts'
import type { DryRunFile } from '../../snapshot/dry-run.ts'
import { type DownloadProgress, sumOf } from '../../transfer/progress.ts'
import { type BytesBySource, type Commit, digestOf, type PeerAddress, type RepoType } from '../../values.ts'
import { type CommandContext, CommandError } from '../command.ts'
import { checkArguments, checkCached, isOneFile, nothingMatches, whyOffline } from '../download-checks.ts'
import { tellPlan } from '../dry-run.ts'
import { formatBytes, formatTime } from '../format.ts'
import { Interrupted } from '../interrupt.ts'
import type { Output } from '../output.ts'
import { resolvePeers } from '../peers.ts'
import { fileEvent, percent } from '../progress-text.ts'
import { type ProgressView, progressView } from '../progress-view.ts'
import { useGlob } from '../repo-argument.ts'
import { keepSeeding, tellSkipped } from '../seeding.ts'
import { silentTrackers } from '../tracker-health.ts'

export interface DownloadArguments {
  readonly repo: string
  readonly paths: readonly string[]
  readonly repoType: RepoType
  readonly revision: string
  readonly include?: readonly string[]
  readonly exclude?: readonly string[]
  readonly cacheDir?: string
  readonly localDir?: string
  readonly tracker?: readonly string[]
  readonly endpoint?: string
  readonly mirror?: readonly string[]
  readonly token?: string
  /** `false` after `--no-p2p`. */
  readonly p2p: boolean
  readonly http: boolean
  readonly forceDownload?: boolean
  readonly localFilesOnly?: boolean
  readonly dryRun?: boolean
  readonly maxWorkers?: number
  readonly seedFor?: number
  readonly listen?: readonly string[]
  readonly peer?: readonly PeerAddress[]
  readonly maxDownload?: number
  readonly maxUpload?: number
}

/** A finished download, of one file or of many. */
interface Result {
  readonly path: string
  readonly commit: Commit
  readonly bytes: BytesBySource
  readonly files: readonly (DownloadedFile & { readonly name: string })[]
  readonly isUnchecked: boolean
}

const hubIsAway = 'the Hub does not answer'

export async function download(args: DownloadArguments, { out, signal }: CommandContext): Promise<void> {
  const config = await configFor(args)
  checkArguments(args, config, out)
  await using client = new Client(config)
  const startedMs = performance.now()
  const elapsed = (): number => Math.round(performance.now() - startedMs)
  if (args.dryRun) {
    tellPlan(await plan(client, args, signal), elapsed(), out)
    return
  }
  const isLocal = config.offline || args.localFilesOnly === true
  const result = await fetchAll(client, args, out, signal)
  if (result.files.length === 0) {
    if (!result.isUnchecked) throw new CommandError(nothingMatches(args))
    await checkCached(result.path, args, isLocal ? whyOffline(config) : hubIsAway)
  }
  const elapsedMs = elapsed()
  out.event('done', doneEvent(result, elapsedMs))
  out.say(summary(result, elapsedMs, isLocal))
  await sayHowToHelp(args, config, out)
  out.result(result.path)
  if (args.seedFor === undefined) return
  await tellNotSeeded(client, args, result, out)
  await keepSeeding(client, out, signal)
}

async function configFor(args: DownloadArguments): Promise<Config> {
  return getConfig({
    cacheDir: args.cacheDir,
    trackers: args.tracker,
    endpoint: args.endpoint,
    mirrors: args.mirror,
    token: args.token,
    p2p: args.p2p ? undefined : false,
    http: args.http ? undefined : false,
    listen: args.listen,
    peers: await resolvePeers(args.peer),
    maxDownloadBytesPerSecond: args.maxDownload,
    maxUploadBytesPerSecond: args.maxUpload,
    // A command ends when it is done: whoever wants to give back as well says for how long.
    seed: args.seedFor !== undefined,
    seedForMs: args.seedFor,
  })
}

async function fetchAll(
  client: Client,
  args: DownloadArguments,
  out: Output,
  signal: AbortSignal,
): Promise<Result> {
  using view = await progressView(out)
  const onProgress = (progress: DownloadProgress): void => {
    for (const file of progress.finished) out.event('file', fileEvent(file))
    view.onProgress(progress)
  }
  try {
    return await fetchWith(client, args, onProgress, signal)
  } catch (error) {
    view[Symbol.dispose]()
    const kept = keptText(view)
    if (error === signal.reason && error instanceof Interrupted) throw new Interrupted(error.signalName, kept)
    if (view.latest !== undefined && sumOf(view.latest.bytes) > 0) out.complain(kept)
    throw await explained(error, client.config, args, signal)
  }
}

async function fetchWith(
  client: Client,
  args: DownloadArguments,
  onProgress: (progress: DownloadProgress) => void,
  signal: AbortSignal,
): Promise<Result> {
  const { repo, repoType, revision, paths } = args
  const options = { ...callOptions(args, signal), onProgress }
  const [path] = paths
  if (path !== undefined && isOneFile(args)) {
    const file = await client.downloadFile({ repo, repoType, revision, path }, options)
    return { ...file, files: [{ ...file, name: path }] }
  }
  return await client.downloadSnapshot({ repo, repoType }, revision, { ...options, ...selectionOf(args) })
}

/** What would be fetched. @throws What a download throws. */
async function plan(
  client: Client,
  args: DownloadArguments,
  signal: AbortSignal,
): Promise<readonly DryRunFile[]> {
  const { repo, repoType, revision, paths } = args
  const options = callOptions(args, signal)
  const [path] = paths
  try {
    if (path !== undefined && isOneFile(args))
      return [await client.planFile({ repo, repoType, revision, path }, options)]
    const selection = selectionOf(args)
    const files = await client.planSnapshot({ repo, repoType }, revision, { ...options, ...selection })
    if (files.length === 0) throw new CommandError(nothingMatches(args))
    return files
  } catch (error) {
    throw await explained(error, client.config, args, signal)
  }
}

function callOptions(args: DownloadArguments, signal: AbortSignal): DownloadCallOptions {
  const { localDir, forceDownload, localFilesOnly } = args
  return {
    signal,
    localDir: localDir === undefined ? undefined : resolve(localDir),
    forceDownload,
    localFilesOnly,
  }
}

function selectionOf({ paths, include, exclude, maxWorkers }: DownloadArguments): SnapshotCallOptions {
  return {
    paths: paths.length > 0 ? paths : undefined,
    allowPatterns: include,
    ignorePatterns: exclude,
    maxWorkers,
  }
}

/** The error, with what is known here and not where it happened. */
async function explained(
  error: unknown,
  config: Config,
  args: DownloadArguments,
  signal: AbortSignal,
): Promise<unknown> {
  if (error instanceof HubError && error.hubCode === 'EntryNotFound') {
    const [folder] = args.paths.filter(
      (path) => error.message.includes(`"${path}"`) && !/\.[^/]*$/.test(path),
    )
    if (folder === undefined) return error
    const { url, status, hubCode } = error
    const message = `${error.message}; if it is a folder, ${useGlob(folder)}`
    return new HubError(message, { url, status, hubCode }, { cause: error })
  }
  if (!config.http && error instanceof SwarmError) {
    const silent = await silentTrackers(config, signal)
    if (silent.length === 0 || silent.length < config.trackers.length) return error
    const which = silent.map(({ url, reason }) => `${url}: ${reason}`).join('; ')
    return new SwarmError(`no tracker could be asked (${which}), and HTTP may not be used`, { cause: error })
  }
  return error
}

/** The client shares what everybody may see, and is silent about the rest; whoever asked for it wants to know. */
async function tellNotSeeded(
  client: Client,
  args: DownloadArguments,
  result: Result,
  out: Output,
): Promise<void> {
  const { p2p, offline, trackers } = client.config
  if (!p2p || offline || trackers.length === 0) return
  const { repo, repoType } = args
  await client.handedOver()
  const seeded = new Set((await client.seedStatus()).map(({ etag }) => etag))
  const left = result.files.flatMap(({ etag, sizeBytes, name, commit }) =>
    etag === undefined || sizeBytes === 0 || seeded.has(etag)
      ? []
      : [{ repo, repoType, path: name, commit, etag, sizeBytes }],
  )
  // A large file speaks for the repository: see `llmpt seed`.
  const large = left.find(({ etag }) => digestOf(etag) === 'sha256')
  for (const file of large === undefined ? left : [large]) {
    const verdict = await client.seedVerdict(file)
    if (!allowsSharing(verdict)) tellSkipped(out, repo, large === undefined ? file.path : null, verdict)
  }
}

function keptText({ latest }: ProgressView): string {
  if (latest === undefined || sumOf(latest.bytes) === 0) return 'nothing was downloaded yet'
  const kept = `kept ${formatBytes(sumOf(latest.bytes))} of ${formatBytes(latest.sizeBytes)}`
  return `${kept}; run the same command again to go on`
}

/** What a `done` event holds besides its name. `path` of a file is its name in the repository. */
function doneEvent({ path, commit, bytes, files, isUnchecked }: Result, elapsedMs: number): object {
  return {
    path,
    commit,
    bytes,
    elapsedMs,
    isUnchecked,
    files: files.map((file) => ({
      path: file.name,
      localPath: file.path,
      size: file.sizeBytes,
      etag: file.etag,
      infoHash: file.infoHash ?? null,
      bytes: file.bytes,
    })),
  }
}

function summary({ bytes, files }: Result, elapsedMs: number, isLocal: boolean): string {
  if (files.length === 0) {
    const why = isLocal ? 'Offline' : 'The Hub does not answer'
    return `${why}: this is what is cached; whether it is complete cannot be known.`
  }
  const fetched = bytes.p2p + bytes.http
  if (fetched === 0) return `Everything was there already (${formatBytes(bytes.cache)}).`
  const sources = [
    bytes.p2p > 0 ? `${percent(bytes.p2p, fetched)} from peers` : '',
    bytes.http > 0 ? `${percent(bytes.http, fetched)} over HTTP` : '',
  ]
  const cached = bytes.cache > 0 ? `; ${formatBytes(bytes.cache)} were there already` : ''
  const from = sources.filter((source) => source !== '').join(', ')
  return `Fetched ${formatBytes(fetched)} in ${formatTime(elapsedMs)}: ${from}${cached}.`
}

/** Once per machine, where there is a swarm to help. */
async function sayHowToHelp(args: DownloadArguments, config: Config, out: Output): Promise<void> {
  const couldHelp = config.p2p && config.trackers.length > 0 && !args.localFilesOnly
  if (out.json || out.quiet || args.seedFor !== undefined || !couldHelp) return
  const marker = join(config.stateDir, 'said-how-to-help')
  const wasSaid = await access(marker).then(
    () => true,
    () => false,
  )
  if (wasSaid) return
  out.say(
    'To help others get models faster, give back what you download: add --seed-for 2h, or run "llmpt seed --all".',
  )
  await mkdir(config.stateDir, { recursive: true })
    .then(() => writeFile(marker, ''))
    .catch(() => {}) // Then it is said again.
}
