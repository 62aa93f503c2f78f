/** What a download is asked for and answers, and what this room is given to do it with. */
import { ConfigError } from '../errors.ts'
import type { SettledFile } from '../hub/cache-layout.ts'
import type { RemoteFile } from '../hub/metadata.ts'
import type { Place } from '../hub/place.ts'
import type { TreeFile } from '../hub/tree-cache.ts'
import type { ProgressListener } from '../transfer/progress.ts'
import type { BytesBySource, Commit, Etag, FileRef, HubFile, InfoHash, RepoRef } from '../values.ts'
import type { Selection } from './selection.ts'

export interface DownloadCallOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
  /** Puts the file below this folder instead of into the cache. */
  readonly localDir?: string | undefined
  /** Takes what is there and asks nobody, as `Config.offline` does for every call. @defaultValue false */
  readonly localFilesOnly?: boolean | undefined
  /** Fetches the content also when it is there; the old file stays until the new one is verified. @defaultValue false */
  readonly forceDownload?: boolean | undefined
  /** Whether to seed afterwards, and for how long; overrides the configuration. */
  readonly seedForMs?: number | undefined
}

export interface SnapshotCallOptions extends DownloadCallOptions, Selection {
  /** Files under way at once. @defaultValue 8 */
  readonly maxWorkers?: number | undefined
}

/** One file, in its place. */
export interface DownloadedFile {
  /** The snapshot entry, as `hf_hub_download` returns it; with `localDir`, the file there. */
  readonly path: string
  readonly commit: Commit
  /** `undefined` for a file of a cache without links, or of another client's, when the Hub was not asked. */
  readonly etag: Etag | undefined
  readonly sizeBytes: number
  /** The torrent it came through. */
  readonly infoHash: InfoHash | undefined
  readonly bytes: BytesBySource
  /**
   * Whether this is what was last seen here because the Hub could not be reached, or was not to be: the branch may have
   * moved, and the repository may not be public any more.
   */
  readonly isUnchecked: boolean
}

export interface DownloadedSnapshot {
  /** The snapshot folder; with `localDir`, that folder. */
  readonly path: string
  readonly commit: Commit
  readonly bytes: BytesBySource
  /**
   * In the order of their paths; `name` is the path within the repository. Empty when the Hub was not asked and nobody
   * noted which files the commit has.
   */
  readonly files: readonly (DownloadedFile & { readonly name: string })[]
  /** As of a `DownloadedFile`. */
  readonly isUnchecked: boolean
}

/** A file that is where it should be. */
export type BroughtFile = Omit<DownloadedFile, 'isUnchecked'>

/** What the Hub is asked. Each throws a HubError when it refuses or cannot be reached. */
export interface HubQuestions {
  resolveRevision(repo: RepoRef, revision: string): Promise<Commit>
  listFiles(repo: RepoRef, commit: Commit): Promise<readonly TreeFile[]>
  identify(ref: FileRef): Promise<RemoteFile>
}

/** How a file is fetched. */
export interface FetchOptions {
  /** What is there does not count. */
  readonly anew: boolean
  /** Where the Hub said that the content is. */
  readonly location?: string | undefined
}

/** Fetches the files of one call, and tells whoever listens how far it is. */
export interface Downloader {
  /** One look-up of torrents for all of these files. */
  askAhead(files: readonly HubFile[]): Promise<void>
  /** Brings a file to its place. @throws See `fetchFile`. */
  fetch(file: HubFile, options: FetchOptions): Promise<BroughtFile>
  /** Counts a file that is in its place already. */
  present(file: HubFile, at: SettledFile): Promise<BroughtFile>
}

/** What one call is given. */
export interface CallDeps {
  readonly place: Place
  readonly signal: AbortSignal
  /** Ends all that is under way in this call, with this reason for its signal. */
  readonly stop: (reason: unknown) => void
  /** `undefined`: nobody is asked, and nothing is fetched. */
  readonly hub: HubQuestions | undefined
  /** Why that is so, for messages: what is set that forbids it. */
  readonly whyLocal: string
  /** Whether content may come over HTTP, when the Hub answers. */
  readonly usesHttp: boolean
  /** For these files, the call's own. @param options.http Whether the Hub and its storage are asked for content. */
  downloader(files: readonly HubFile[], options: { readonly http: boolean }): Downloader
}

/** @throws {ConfigError} For options that cannot be met. */
export function checkOptions(options: SnapshotCallOptions, deps: Pick<CallDeps, 'hub' | 'whyLocal'>): void {
  const { maxWorkers = 1, forceDownload = false } = options
  if (!Number.isSafeInteger(maxWorkers) || maxWorkers < 1) {
    throw new ConfigError(`maxWorkers is ${maxWorkers}: it must be a whole number, 1 or more`)
  }
  if (forceDownload && deps.hub === undefined) {
    throw new ConfigError(`nothing can be downloaded again (forceDownload): ${deps.whyLocal}`)
  }
}
