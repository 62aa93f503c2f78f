/**
 * The whole public API. Importing it loads neither the addon nor an HTTP client; the first call does.
 *
 * @packageDocumentation
 */
import type { CacheReport, VerifiedFile } from './cache-check/verify-cache.ts'
import type { DownloadCallOptions, DownloadedFile } from './client.ts'
import { type ConfigOptions, getConfig } from './config.ts'
import { disableP2P } from './global-hook.ts'
import { wrapFetch } from './hook/patch-fetch.ts'
import { allClients, clientFor, closeClients, fetchDeps, type HookOptions } from './runtime.ts'
import type { SeedStatus } from './seeding/seeder.ts'
import type { DryRunFile } from './snapshot/dry-run.ts'
import type { CreatedTorrent, CreateTorrentOptions } from './torrent/create.ts'
import type { ProgressListener } from './transfer/progress.ts'
import type { RepoRef, RepoType } from './values.ts'

export type { Damage } from './cache-check/salvage.ts'
export type { CacheReport, Verdict, VerifiedFile } from './cache-check/verify-cache.ts'
export type { DownloadedFile } from './client.ts'
export { type Config, type ConfigOptions, type Environment, getConfig } from './config.ts'
export * from './errors.ts'

export { disableP2P, enableP2P, isEnabled } from './global-hook.ts'

export type { SharingVerdict } from './hub/sharing.ts'

export type * from './native/alerts.ts'
export type {
  NativeAddon,
  NativeAddTorrentParams,
  NativeLoadLimits,
  SessionSettings,
  TorrentFlag,
  TorrentFlags,
} from './native/binding.ts'
export type { AlertListener } from './native/listeners.ts'
export { requireAddon } from './native/load.ts'
export { type AddTorrentParams, Session } from './native/session.ts'
export type { Torrent } from './native/torrent.ts'
export type { HookOptions } from './runtime.ts'
export type { SeederClock } from './seeding/clock.ts'
export type { VerdictQuestion } from './seeding/permission.ts'
export type { PublishDeps } from './seeding/publish.ts'
export {
  Seeder,
  type SeederDeps,
  type SeedRequest,
  type SeedState,
  type SeedStatus,
} from './seeding/seeder.ts'
export { type StoredTorrent, TorrentStore } from './seeding/torrent-store.ts'
export type { DryRunFile } from './snapshot/dry-run.ts'
export { type JoinOptions, Swarm, type SwarmOptions, type TorrentOffer } from './swarm/swarm.ts'
export type { CreatedTorrent, CreateTorrentOptions } from './torrent/create.ts'
export { type Magnet, type MagnetParts, makeMagnet, parseMagnet } from './torrent/magnet.ts'
export {
  type Metainfo,
  type MetainfoFile,
  type MetainfoLimits,
  parseMetainfo,
  type TorrentFormat,
} from './torrent/metainfo.ts'
export { pieceLengthFor } from './torrent/piece-length.ts'
export {
  type BlobCandidate,
  type CandidatesByEtag,
  type PublishRequest,
  type PublishResult,
  type RequestOptions,
  TrackerClient,
  type TrackerClientOptions,
} from './tracker/client.ts'
export type {
  ActiveFile,
  DownloadProgress,
  FinishedFile,
  Phase,
  ProgressListener,
  TransferProgress,
} from './transfer/progress.ts'
export type {
  BlobRef,
  BytesBySource,
  Commit,
  Etag,
  FileMetadata,
  FileRef,
  HubFile,
  InfoHash,
  PeerAddress,
  RepoRef,
  RepoType,
} from './values.ts'

/** What `p2pDownload` and `snapshotDownload` have in common. */
export interface CallOptions extends ConfigOptions {
  /** `name` or `org/name`. */
  readonly repo: string
  /** @defaultValue `model` */
  readonly repoType?: RepoType | undefined
  /** Branch, tag, `refs/pr/N` or commit. @defaultValue `main` */
  readonly revision?: string | undefined
  /** Puts files below this folder instead of into the cache, as Python's client does. */
  readonly localDir?: string | undefined
  /** Takes what is there and asks nobody, as `HF_HUB_OFFLINE=1` does for every call. @defaultValue false */
  readonly localFilesOnly?: boolean | undefined
  /**
   * Fetches the content anew, also when it is there. The old file stays in its place until the new one is verified.
   *
   * @defaultValue false
   */
  readonly forceDownload?: boolean | undefined
  /** Cancels the call; what is verified so far stays for the next one. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
}

export interface P2pDownloadOptions extends CallOptions {
  /** Path within the repository. */
  readonly path: string
}

export interface SnapshotDownloadOptions extends CallOptions {
  /** Shell patterns of paths to fetch, as in Python: `*` also matches `/`. @defaultValue all */
  readonly allowPatterns?: string | readonly string[] | undefined
  readonly ignorePatterns?: string | readonly string[] | undefined
  /** Files under way at once. @defaultValue 8 */
  readonly maxWorkers?: number | undefined
}

/** Asks what a call would do: nothing is fetched, and nothing is written. */
export interface DryRun {
  readonly dryRun: true
}

/** A call that fetches. */
export interface NoDryRun {
  readonly dryRun?: false | undefined
}

/**
 * Fetches one file of a Hub repository into the standard cache: from peers, from the Hub, or from both at once.
 * The file has its name only after its content matched the Hub's own digest.
 *
 * @example
 * ```ts
 * const { path, bytes } = await p2pDownload({ repo: 'org/model', path: 'model.safetensors' })
 * ```
 * @throws {HubError} When the Hub refuses, or no source is left.
 * @throws {IntegrityError} When no source has the content that the Hub promises.
 * @throws {CacheError} When the disk refuses.
 * @throws The signal's reason.
 */
export async function p2pDownload(options: P2pDownloadOptions & NoDryRun): Promise<DownloadedFile>
export async function p2pDownload(options: P2pDownloadOptions & DryRun): Promise<DryRunFile>
export async function p2pDownload(
  options: P2pDownloadOptions & { readonly dryRun?: boolean | undefined },
): Promise<DownloadedFile | DryRunFile>
export async function p2pDownload(
  options: P2pDownloadOptions & { readonly dryRun?: boolean | undefined },
): Promise<DownloadedFile | DryRunFile> {
  const { path, dryRun = false, ...rest } = options
  const { repo, revision, config, call } = partsOf(rest)
  const client = await clientFor(getConfig(config))
  const ref = { ...repo, revision, path }
  return dryRun ? await client.planFile(ref, call) : await client.downloadFile(ref, call)
}

/**
 * Fetches a repository, or the part of it that the patterns name, into the standard cache.
 *
 * @returns Path of the snapshot folder; `localDir` when that was given.
 * @throws See `p2pDownload`.
 */
export async function snapshotDownload(options: SnapshotDownloadOptions & NoDryRun): Promise<string>
export async function snapshotDownload(
  options: SnapshotDownloadOptions & DryRun,
): Promise<readonly DryRunFile[]>
export async function snapshotDownload(
  options: SnapshotDownloadOptions & { readonly dryRun?: boolean | undefined },
): Promise<string | readonly DryRunFile[]>
export async function snapshotDownload(
  options: SnapshotDownloadOptions & { readonly dryRun?: boolean | undefined },
): Promise<string | readonly DryRunFile[]> {
  const { allowPatterns, ignorePatterns, maxWorkers, dryRun = false, ...rest } = options
  const { repo, revision, config, call } = partsOf(rest)
  const client = await clientFor(getConfig(config))
  const asked = {
    ...call,
    maxWorkers,
    allowPatterns: allowPatterns === undefined ? undefined : [allowPatterns].flat(),
    ignorePatterns: ignorePatterns === undefined ? undefined : [ignorePatterns].flat(),
  }
  if (dryRun) return await client.planSnapshot(repo, revision, asked)
  return (await client.downloadSnapshot(repo, revision, asked)).path
}

/** What a call is about, what holds for the whole client, and what for this call alone. */
function partsOf(options: CallOptions): {
  repo: RepoRef
  revision: string
  config: ConfigOptions
  call: DownloadCallOptions
} {
  const { repo, repoType = 'model', revision = 'main', ...rest } = options
  const { localDir, localFilesOnly, forceDownload, signal, onProgress, ...config } = rest
  const call = { localDir, localFilesOnly, forceDownload, signal, onProgress }
  return { repo: { repo, repoType }, revision, config, call }
}

export interface VerifyCacheOptions extends ConfigOptions {
  /** `name` or `org/name`. @defaultValue every repository of the cache */
  readonly repo?: string | undefined
  /** @defaultValue `model` */
  readonly repoType?: RepoType | undefined
  /** Whether to get back what is wrong or missing, fetching only the pieces that are wrong where that is possible. */
  readonly repair?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  /** Hears of the bytes hashed (as `cache`), and then of the downloads that repair. */
  readonly onProgress?: ProgressListener | undefined
  /** Hears of each file when there is nothing more to come about it. */
  readonly onFile?: ((file: VerifiedFile) => void) | undefined
}

/**
 * Compares every file of the standard Hub cache with the digest it is named by. A wrong one is moved away at once
 * (`<etag>.llmpt.damaged` beside the blob), so that no client gets it any more: to them it is not there, and they
 * download it again.
 *
 * Only where the cache has copies instead of links is the Hub asked for their digests.
 *
 * @example
 * ```ts
 * const { files, isSound } = await verifyCache({ repo: 'org/model', repair: true })
 * ```
 * @throws {ConfigError} When it is to be repaired, and `HF_HUB_OFFLINE` is set.
 * @throws The signal's reason. What is wrong with the cache is never thrown.
 */
export async function verifyCache(options: VerifyCacheOptions = {}): Promise<CacheReport> {
  const { repo, repoType = 'model', repair, signal, onProgress, onFile, ...config } = options
  const client = await clientFor(getConfig(config))
  return await client.verifyCache({
    repo: repo === undefined ? undefined : { repo, repoType },
    repair,
    signal,
    onProgress,
    onFile,
  })
}

/**
 * A `fetch` with the hook's behaviour, for a client's `fetch` option; the global one stays as it is.
 *
 * @param options.fetch What it wraps. @defaultValue the global `fetch`
 */
export function createFetch(options: HookOptions & { fetch?: typeof fetch } = {}): typeof fetch {
  const { fetch: original = globalThis.fetch, ...rest } = options
  return wrapFetch(original, fetchDeps(rest))
}

/**
 * A torrent of one file, hashed in the addon. The same content under the same name has the same info hash everywhere.
 *
 * @returns `undefined` for an empty file.
 * @throws {NativeUnavailableError} Without the addon.
 */
export async function createTorrent(
  path: string,
  options: CreateTorrentOptions = {},
): Promise<CreatedTorrent | undefined> {
  const [{ requireAddon }, { createTorrentOf }] = await Promise.all([
    import('./native/load.ts'),
    import('./torrent/create.ts'),
  ])
  return await createTorrentOf(requireAddon(), path, options)
}

/** What this process seeds. */
export async function seedingStatus(): Promise<readonly SeedStatus[]> {
  const clients = await allClients()
  return (await Promise.all(clients.map((client) => client.seedStatus()))).flat()
}

/** Stops seeding everything; the files stay where they are. */
export async function stopSeeding(): Promise<void> {
  await Promise.all((await allClients()).map((client) => client.stopSeeding()))
}

/** Stops seeding and closes everything this package opened. The next call starts afresh. */
export async function shutdown(): Promise<void> {
  disableP2P()
  await closeClients()
}
