/** `llmpt download` */
import { access, mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Client, type DownloadedFile } from '../../client.ts'
import { type Config, getConfig } from '../../config.ts'
import { ConfigError, HubError, SwarmError } from '../../errors.ts'
import { matchesPatterns } from '../../transfer/snapshot.ts'
import { type BytesBySource, type Commit, digestOf, type PeerAddress, type RepoType } from '../../values.ts'
import { filesBelow } from '../cached-files.ts'
import { type CommandContext, CommandError } from '../command.ts'
import { formatBytes, formatTime } from '../format.ts'
import { Interrupted } from '../interrupt.ts'
import type { Output } from '../output.ts'
import { resolvePeers } from '../peers.ts'
import { bytesDone, percent } from '../progress-text.ts'
import { type ProgressView, progressView } from '../progress-view.ts'
import { checkPathArgument, checkRepoArgument, useGlob } from '../repo-argument.ts'
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
  readonly token?: string
  /** `false` after `--no-p2p`. */
  readonly p2p: boolean
  readonly http: boolean
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
}

export async function download(args: DownloadArguments, { out, signal }: CommandContext): Promise<void> {
  const config = await configFor(args)
  checkArguments(args, config, out)
  await using client = new Client(config)
  const startedMs = performance.now()
  const result = await fetchAll(client, args, out, signal)
  if (config.offline) await checkCached(result, args)
  else if (result.files.length === 0) throw new CommandError(nothingMatches(args))
  const elapsedMs = Math.round(performance.now() - startedMs)
  out.event('done', doneEvent(result, elapsedMs))
  out.say(summary(result, elapsedMs, config))
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

function checkArguments(args: DownloadArguments, config: Config, out: Output): void {
  checkRepoArgument(args.repo)
  args.paths.forEach(checkPathArgument)
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

async function fetchAll(
  client: Client,
  args: DownloadArguments,
  out: Output,
  signal: AbortSignal,
): Promise<Result> {
  using view = await progressView(out)
  try {
    return await fetchWith(client, args, view, signal)
  } catch (error) {
    view[Symbol.dispose]()
    const kept = keptText(view)
    if (error === signal.reason && error instanceof Interrupted) throw new Interrupted(error.signalName, kept)
    if (view.latest !== undefined && bytesDone(view.latest) > 0) out.complain(kept)
    throw await explained(error, client.config, args, signal)
  }
}

async function fetchWith(
  client: Client,
  args: DownloadArguments,
  view: ProgressView,
  signal: AbortSignal,
): Promise<Result> {
  const { repo, repoType, revision, paths, include, exclude } = args
  const localDir = args.localDir === undefined ? undefined : resolve(args.localDir)
  const options = { signal, localDir, onProgress: view.onProgress }
  const [path] = paths
  if (path !== undefined && paths.length === 1 && include === undefined && exclude === undefined) {
    const file = await client.downloadFile({ repo, repoType, revision, path }, options)
    return { ...file, files: [{ ...file, name: path }] }
  }
  return await client.downloadSnapshot({ repo, repoType }, revision, {
    ...options,
    paths: paths.length > 0 ? paths : undefined,
    allowPatterns: include,
    ignorePatterns: exclude,
  })
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

/** Offline nobody knows the repository's files: what was asked for is looked for among those that are there. */
async function checkCached({ path, files }: Result, args: DownloadArguments): Promise<void> {
  const { repo, paths, include, exclude } = args
  const isSelective = paths.length > 0 || include !== undefined || exclude !== undefined
  if (files.length > 0 || !isSelective) return
  const names = await filesBelow(path)
  const missing = paths.find((each) => !names.includes(each))
  if (missing !== undefined) {
    throw new CommandError(`${repo}/${missing} is not in the cache, and HF_HUB_OFFLINE is set`)
  }
  const isAsked = (name: string): boolean =>
    paths.includes(name) ||
    ((paths.length === 0 || include !== undefined) && matchesPatterns(name, include, undefined))
  if (names.some((name) => isAsked(name) && matchesPatterns(name, undefined, exclude))) return
  throw new CommandError(`${nothingMatches(args)} in the cache, and HF_HUB_OFFLINE is set`)
}

function nothingMatches({ repo, paths, include = [], exclude = [] }: DownloadArguments): string {
  const asked = [
    ...paths,
    ...include.map((glob) => `--include "${glob}"`),
    ...exclude.map((glob) => `--exclude "${glob}"`),
  ]
  return asked.length === 0 ? `${repo} has no files` : `no file of ${repo} matches ${asked.join(' ')}`
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
  const seeded = new Set((await client.seedStatus()).map(({ etag }) => etag))
  const left = result.files.flatMap(({ etag, sizeBytes, name, commit }) =>
    etag === undefined || sizeBytes === 0 || seeded.has(etag)
      ? []
      : [{ repo, repoType, path: name, commit, etag, sizeBytes }],
  )
  // A large file speaks for the repository: see `llmpt seed`.
  const large = left.find(({ etag }) => digestOf(etag) === 'sha256')
  for (const file of large === undefined ? left : [large]) {
    const isPublic = await client.isPublicNow(file)
    if (isPublic !== true) tellSkipped(out, repo, large === undefined ? file.path : null, isPublic)
  }
}

function keptText({ latest }: ProgressView): string {
  if (latest === undefined || bytesDone(latest) === 0) return 'nothing was downloaded yet'
  const kept = `kept ${formatBytes(bytesDone(latest))} of ${formatBytes(latest.sizeBytes)}`
  return `${kept}; run the same command again to go on`
}

/** What a `done` event holds besides its name. `path` of a file is its name in the repository. */
function doneEvent({ path, commit, bytes, files }: Result, elapsedMs: number): object {
  return {
    path,
    commit,
    bytes,
    elapsedMs,
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

function summary({ bytes, files }: Result, elapsedMs: number, { offline }: Config): string {
  if (offline && files.length === 0)
    return 'Offline: this is what is cached; whether it is complete cannot be known.'
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
  if (out.json || out.quiet || args.seedFor !== undefined || !config.p2p || config.trackers.length === 0)
    return
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
