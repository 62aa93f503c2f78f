/**
 * What one configuration can do: download a file or a snapshot, give it back, and answer the hook. The steps of a
 * download stand in docs/architecture.md; here they are put in a row.
 */
import {
  type CacheReport,
  type VerifiedFile,
  type VerifyCacheDeps,
  verifyCache,
} from './cache-check/verify-cache.ts'
import type { Config } from './config.ts'
import { ConfigError, HubError, LlmptError } from './errors.ts'
import { isFileOfSize } from './hub/cache-layout.ts'
import { FileSource } from './hub/file-source.ts'
import { fileMetadata } from './hub/metadata.ts'
import type { Place } from './hub/place.ts'
import { listRepoFiles, resolveRevision } from './hub/repo.ts'
import { keepingProcessAlive } from './keep-alive.ts'
import { log, messageOf } from './log.ts'
import { type Access, Parts } from './parts.ts'
import type { SeedStatus } from './seeding/seeder.ts'
import { type FetchedFile, fetchFile } from './transfer/download.ts'
import type { TorrentFinder } from './transfer/find-torrent.ts'
import type { RacePolicy } from './transfer/plan.ts'
import { addBytes, noBytes, type ProgressListener, ProgressTally } from './transfer/progress.ts'
import { fetchOrder, forEachBounded, selectFiles } from './transfer/snapshot.ts'
import { type BringEvents, type OfferedFile, SharedFiles } from './transfer/stream-file.ts'
import {
  asCommit,
  type BytesBySource,
  type Commit,
  digestOf,
  type Etag,
  type FileRef,
  type HubFile,
  type InfoHash,
  type PeerAddress,
  type RepoRef,
} from './values.ts'

export interface DownloadCallOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
  /** Puts the file below this folder instead of into the cache. */
  readonly localDir?: string | undefined
  /** Whether to seed afterwards, and for how long; overrides the configuration. */
  readonly seedForMs?: number | undefined
}

export interface SnapshotCallOptions extends DownloadCallOptions {
  /** Shell patterns of paths to fetch. @defaultValue all */
  readonly allowPatterns?: readonly string[] | undefined
  readonly ignorePatterns?: readonly string[] | undefined
  /** Exact paths to fetch; one that the repository does not have is an error. */
  readonly paths?: readonly string[] | undefined
  /** Files under way at once. @defaultValue 4 */
  readonly maxWorkers?: number | undefined
}

export interface VerifyCallOptions {
  /** @defaultValue all repositories of the cache */
  readonly repo?: RepoRef | undefined
  /** Whether to get back what is wrong or missing. @defaultValue false */
  readonly repair?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
  readonly onFile?: ((file: VerifiedFile) => void) | undefined
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
}

export interface DownloadedSnapshot {
  /** The snapshot folder; with `localDir`, that folder. */
  readonly path: string
  readonly commit: Commit
  readonly bytes: BytesBySource
  /** In the repository's order; `name` is the path within the repository. */
  readonly files: readonly (DownloadedFile & { readonly name: string })[]
}

/** Who asks through the hook, which Hub, for which bytes, and how long the look-up may take. */
export interface OfferContext {
  readonly range: { readonly start: number; readonly end: number }
  readonly endpoint: string
  readonly token: string | undefined
  readonly deadlineMs: number
}

export interface ClientOverrides {
  readonly policy?: Partial<RacePolicy> | undefined
}

/** What all files of one call share. */
interface Call {
  readonly hub: Access
  readonly finder: TorrentFinder | undefined
  readonly tally: ProgressTally
  readonly signal: AbortSignal
  readonly place: Place
  /** What was asked for; `undefined` when only the commit is known. */
  readonly revision: string | undefined
  readonly seedForMs: number
}

const defaultMaxWorkers = 4
const silenceMs = 30_000

export class Client implements AsyncDisposable {
  readonly config: Config
  readonly #parts: Parts
  readonly #life = new AbortController()
  readonly #shared = new SharedFiles()
  /** Until then the hook does not ask the trackers, which have just been too slow. */
  #silentUntilMs = 0

  constructor(config: Config, overrides: ClientOverrides = {}) {
    this.config = config
    this.#parts = new Parts(config, overrides.policy)
  }

  // Downloads

  /** Fetches one file into the cache. @throws See `fetchFile`; HubError when the Hub refuses. */
  downloadFile(ref: FileRef, options: DownloadCallOptions = {}): Promise<DownloadedFile> {
    return keepingProcessAlive(() =>
      this.#whileOpen(options.signal, (signal) => this.#downloadFile(ref, options, signal)),
    )
  }

  /** Fetches a repository, or the part of it that the patterns or paths name. */
  downloadSnapshot(
    repo: RepoRef,
    revision: string,
    options: SnapshotCallOptions = {},
  ): Promise<DownloadedSnapshot> {
    return keepingProcessAlive(() =>
      this.#whileOpen(options.signal, (signal, stop) =>
        this.#downloadSnapshot(repo, revision, options, signal, stop),
      ),
    )
  }

  async #downloadFile(
    ref: FileRef,
    options: DownloadCallOptions,
    signal: AbortSignal,
  ): Promise<DownloadedFile> {
    const place = this.#parts.place(options.localDir)
    const known = await this.#known(ref, place)
    // A commit never changes; a branch may have moved, and only the Hub knows.
    if (known !== undefined && (this.config.offline || asCommit(ref.revision) !== undefined)) return known
    if (this.config.offline) throw offlineError(`${ref.repo}/${ref.path}@${ref.revision}`)
    const hub = await this.#parts.ownAccess()
    try {
      const file = await fileMetadata(hub, ref, { signal })
      const call = this.#newCall(hub, place, ref.revision, [file], signal, options)
      return await this.#fetch(file, call, { location: file.location })
    } catch (error) {
      const commit = asCommit(ref.revision)
      if (commit !== undefined && (error as { hubCode?: unknown }).hubCode === 'EntryNotFound') {
        await place.noteMissing(ref, commit, ref.path)
      }
      if (known === undefined || !isUnreachable(error)) throw error
      log.warn(
        `the Hub does not answer; using ${ref.path} of the cache, which may be older (${messageOf(error)})`,
      )
      return known
    }
  }

  async #known(ref: FileRef, place: Place): Promise<DownloadedFile | undefined> {
    const found = await place.find(ref)
    if (found === undefined) return undefined
    const { path, commit, sizeBytes, blob } = found
    return {
      path,
      commit,
      etag: blob?.etag,
      sizeBytes,
      infoHash: undefined,
      bytes: { ...noBytes(), cache: sizeBytes },
    }
  }

  async #downloadSnapshot(
    repo: RepoRef,
    revision: string,
    options: SnapshotCallOptions,
    signal: AbortSignal,
    stop: (reason: unknown) => void,
  ): Promise<DownloadedSnapshot> {
    const place = this.#parts.place(options.localDir)
    if (this.config.offline) return await this.#cachedSnapshot(repo, revision, place)
    const hub = await this.#parts.ownAccess()
    const commit = await resolveRevision(hub, repo, revision, { signal })
    const wanted = selectFiles(await listRepoFiles(hub, repo, commit, { signal }), repo.repo, options)
    const call = this.#newCall(hub, place, revision, wanted, signal, options)
    await this.#askAhead(wanted, call)
    const done = new Map<string, DownloadedFile>()
    await forEachBounded(fetchOrder(wanted), options.maxWorkers ?? defaultMaxWorkers, async (file) => {
      try {
        done.set(file.path, await this.#fetch(file, call))
      } catch (error) {
        // One file that cannot be had ends the call; the others keep what they have for the next try.
        stop(error)
        throw error
      }
    })
    const files = wanted.flatMap((file) => {
      const result = done.get(file.path)
      return result === undefined ? [] : [{ ...result, name: file.path }]
    })
    const bytes = files.reduce((sum, file) => addBytes(sum, file.bytes), noBytes())
    return { path: place.folderOf(repo, commit), commit, bytes, files }
  }

  /** One look-up for all files of a call; none for a repository that not everybody may read. */
  async #askAhead(files: readonly HubFile[], call: Call): Promise<void> {
    const [largest] = fetchOrder(files)
    if (call.finder === undefined || largest === undefined) return
    // A gated repository may show its small files to everybody: then each is asked about by itself.
    const speaksForAll = call.hub.token === undefined || digestOf(largest.etag) === 'sha256'
    if (!speaksForAll) return
    const isPublic = await call.hub.visibility.isPublic(largest, { signal: call.signal })
    if (isPublic) call.finder.ask(files, call.signal)
  }

  #newCall(
    hub: Access,
    place: Place,
    revision: string | undefined,
    files: readonly HubFile[],
    signal: AbortSignal,
    options: DownloadCallOptions,
  ): Call {
    return {
      hub,
      place,
      revision,
      finder: this.#parts.finder(),
      tally: new ProgressTally(files, options.onProgress),
      signal,
      seedForMs: options.seedForMs ?? (this.config.seed ? this.config.seedForMs : 0),
    }
  }

  async #fetch(
    file: HubFile,
    call: Call,
    how: { location?: string | undefined; events?: BringEvents } = {},
  ): Promise<DownloadedFile> {
    const { place } = call
    const { location, events } = how
    const willSeed = call.seedForMs > 0 && this.#parts.swarm() !== undefined
    const fetched = await fetchFile(
      {
        file,
        place,
        source: new FileSource(call.hub, file, { location }),
        mayShare: (signal) => call.hub.visibility.isPublic(file, { signal }),
        torrentFor: willSeed ? { announceUrls: this.#parts.announceUrls } : undefined,
        signal: call.signal,
        onLive: events && ((live) => events.onLive(live)),
        onProgress: (phase, progress) => {
          if (phase === 'waiting') events?.onElsewhere()
          call.tally.update(file.path, phase, progress)
        },
      },
      this.#parts.downloadDeps(call.finder),
    )
    const path = await this.#name(file, fetched, call)
    await this.#giveBack(file, path, fetched, call)
    const { commit, etag, sizeBytes } = file
    return { path, commit, etag, sizeBytes, infoHash: fetched.infoHash, bytes: fetched.bytes }
  }

  /** The content's name in the repository, and what its revision is. Nobody owns its torrent yet. */
  async #name(file: HubFile, fetched: FetchedFile, call: Call): Promise<string> {
    try {
      call.tally.finish(file.path, fetched.bytes)
      const path = await call.place.settle(file, fetched.isNew)
      if (call.revision !== undefined) await call.place.noteRevision(file, call.revision, file.commit)
      return path
    } catch (error) {
      await fetched.joined?.leg.leave().catch(() => {})
      throw error
    }
  }

  /** From here on nothing can hurt the caller. */
  async #giveBack(file: HubFile, entry: string, fetched: FetchedFile, call: Call): Promise<void> {
    const { joined } = fetched
    try {
      const seeder =
        call.seedForMs > 0 && (await call.hub.visibility.isPublic(file)) ? this.#parts.seeder() : undefined
      if (seeder === undefined) return await joined?.leg.retire()
      const torrent = joined && { torrent: joined.leg.release(), offer: joined.offer }
      // Where links do not work, the cache keeps the file under its name in the snapshot instead.
      const path = (await isFileOfSize(fetched.path, file.sizeBytes)) ? fetched.path : entry
      seeder.seed({
        blob: file,
        path,
        label: labelOf(file),
        forMs: call.seedForMs,
        joined: torrent,
        made: fetched.made,
        // What was there before this call was verified by whoever brought it, if at all.
        check: !fetched.isNew,
      })
    } catch (error) {
      log.warn(`${labelOf(file)} is not seeded: ${messageOf(error)}`)
    }
  }

  async #cachedSnapshot(repo: RepoRef, revision: string, place: Place): Promise<DownloadedSnapshot> {
    const found = await place.findSnapshot(repo, revision)
    if (found === undefined) throw offlineError(`${repo.repo}@${revision}`)
    return { path: found.path, commit: found.commit, bytes: noBytes(), files: [] }
  }

  // The cache

  /**
   * Compares the files of the cache with their digests, and moves away what is wrong.
   *
   * @throws {ConfigError} When it is to be repaired, and the network may not be used.
   */
  verifyCache(options: VerifyCallOptions = {}): Promise<CacheReport> {
    const { repo, repair = false, onProgress, onFile } = options
    if (repair && this.config.offline) {
      throw new ConfigError('repairing needs the network, and HF_HUB_OFFLINE is set')
    }
    return keepingProcessAlive(() =>
      this.#whileOpen(options.signal, (signal) =>
        verifyCache({ repo, signal, onProgress, onFile }, this.#checkDeps(repair)),
      ),
    )
  }

  #checkDeps(repair: boolean): VerifyCacheDeps {
    const { cacheDir, stateDir, offline } = this.config
    const listFiles: VerifyCacheDeps['listFiles'] = async (repo, commit, signal) =>
      await listRepoFiles(await this.#parts.ownAccess(), repo, commit, { signal })
    return {
      cacheDir,
      stateDir,
      addon: this.#parts.addon(),
      locks: this.#parts.locks(),
      listFiles: offline ? undefined : listFiles,
      repairs: repair
        ? {
            identify: async (ref, signal) =>
              await fileMetadata(await this.#parts.ownAccess(), ref, { signal }),
            findTorrent: (file, signal) => this.#knownTorrent(file, signal),
            // Whoever repairs a cache has not asked to give anything away.
            download: (ref, call) => this.downloadFile(ref, { ...call, seedForMs: 0 }),
          }
        : undefined,
    }
  }

  async #knownTorrent(file: HubFile, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const kept = await this.#parts.keptTorrent(file)
    if (kept !== undefined) return kept.torrentFile
    const finder = this.#parts.finder()
    const { visibility } = await this.#parts.ownAccess()
    if (finder === undefined || !(await visibility.isPublic(file, { signal }))) return undefined
    return (await finder.find(file, signal))?.torrentFile
  }

  // Seeding

  /** What is being seeded by this client. */
  async seedStatus(): Promise<readonly SeedStatus[]> {
    return (await this.#parts.existingSeeder?.status()) ?? []
  }

  /** Stops seeding one blob, or everything; the files stay. */
  async stopSeeding(etag?: Etag): Promise<void> {
    await this.#parts.existingSeeder?.stop(etag)
  }

  /** Resolves when everything that is to be seeded is in its swarm or has failed. */
  async seedingSettled(): Promise<void> {
    await this.#parts.existingSeeder?.settled()
  }

  /**
   * Seeds a file of the cache that somebody downloaded earlier. Its content is checked first: what other clients
   * wrote was never verified, and a torrent of wrong bytes would mislead everybody.
   */
  seedCached(file: HubFile, path: string, forMs: number): void {
    this.#parts.seeder()?.seed({
      blob: file,
      path,
      label: labelOf(file),
      forMs,
      check: true,
    })
  }

  /** Whether the Hub shows this file to everybody now. `undefined`: it does not answer. */
  async isPublicNow(file: HubFile): Promise<boolean | undefined> {
    const { repoType, repo, path, commit } = file
    try {
      const ref = { repoType, repo, path, revision: commit }
      const seen = await fileMetadata(this.#parts.access(this.config.endpoint, undefined), ref)
      return seen.etag === file.etag
    } catch (error) {
      return error instanceof HubError && error.status !== undefined ? false : undefined
    }
  }

  // The hook

  /**
   * Answers a file from the cache or from the swarm; `undefined` when neither has it, within `deadlineMs`.
   * Nothing is transferred before the first range is opened. Ranges flow while the file grows; see `LiveFile` for what
   * is let out when.
   */
  offer(file: HubFile, context: OfferContext): Promise<OfferedFile | undefined> {
    return keepingProcessAlive(() => this.#offer(file, context))
  }

  async #offer(file: HubFile, context: OfferContext): Promise<OfferedFile | undefined> {
    if (file.sizeBytes < this.config.smallFileBytes) return undefined
    const place = this.#parts.place(undefined)
    const isCached = (await place.has(file)) !== undefined
    const key = JSON.stringify([context.endpoint, context.token ?? null, file])
    const offered = this.#shared.offer(key, {
      sizeBytes: file.sizeBytes,
      isCached,
      bring: (signal, events) =>
        keepingProcessAlive(() => this.#fetchForHook(file, context, place, signal, events)),
    })
    if (isCached) return offered
    if (this.#parts.swarm() === undefined) return undefined
    if (this.#isPeek(context.range)) return this.#shared.hasNow(key, context.range) ? offered : undefined
    if (Date.now() < this.#silentUntilMs) return undefined
    const deadline = AbortSignal.timeout(context.deadlineMs)
    try {
      const { visibility } = this.#parts.access(context.endpoint, context.token)
      if (!(await visibility.isPublic(file, { signal: deadline }))) return undefined
      return (await this.#parts.finder()?.knows(file, deadline)) ? offered : undefined
    } catch (error) {
      if (!deadline.aborted) throw error
      // Somebody's fetch has waited for nothing; the next ones do not.
      this.#silentUntilMs = Date.now() + silenceMs
      return undefined
    }
  }

  /**
   * Whether somebody only wants to look into a file, such as at the header of a safetensors file. The Hub answers that
   * with one small request, sooner than any swarm, and a look is no reason to download the file: it is answered from
   * here only when a download that others began has those bytes already. The first byte alone is a probe, after which
   * more is asked for.
   */
  #isPeek({ start, end }: OfferContext['range']): boolean {
    const isProbe = start === 0 && end === 1
    return !isProbe && end - start < this.config.smallFileBytes
  }

  async #fetchForHook(
    file: HubFile,
    context: OfferContext,
    place: Place,
    signal: AbortSignal,
    events: BringEvents,
  ): Promise<string> {
    return await this.#whileOpen(signal, async (both) => {
      const hub = this.#parts.access(context.endpoint, context.token)
      const call = this.#newCall(hub, place, undefined, [file], both, {})
      return (await this.#fetch(file, call, { events })).path
    })
  }

  /** Runs `work` with a signal that aborts with the caller's, when this client is closed, and by `stop`. */
  async #whileOpen<T>(
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal, stop: (reason: unknown) => void) => Promise<T>,
  ): Promise<T> {
    // Not AbortSignal.any: on Node 20 it leaks what it listens to while the long-lived signal lives.
    const both = new AbortController()
    const sources = [this.#life.signal, ...(signal ? [signal] : [])]
    const abort = (event: Event): void => both.abort((event.target as AbortSignal).reason)
    for (const source of sources) {
      if (source.aborted) both.abort(source.reason)
      else source.addEventListener('abort', abort)
    }
    try {
      both.signal.throwIfAborted()
      return await work(both.signal, (reason) => both.abort(reason))
    } finally {
      for (const source of sources) source.removeEventListener('abort', abort)
    }
  }

  // Life cycle

  /** TCP ports libtorrent listens on; opens the session. `[]` without the addon. */
  async listening(): Promise<readonly PeerAddress[]> {
    return (await this.#parts.swarm()?.session.listening()) ?? []
  }

  /** Idempotent. Aborts what is under way, stops seeding, tells the trackers, closes connections. */
  close(): Promise<void> {
    this.#life.abort(new DOMException('the client is closed', 'AbortError'))
    return this.#parts.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function labelOf(file: HubFile): string {
  return `${file.repo}/${file.path}`
}

function offlineError(what: string): LlmptError {
  return new LlmptError('ERR_LLMPT_CACHE', `${what} is not in the cache, and HF_HUB_OFFLINE is set`)
}

/** Nobody answered, as opposed to a refusal. */
function isUnreachable(error: unknown): boolean {
  return error instanceof HubError && (error.status === undefined || error.status >= 500)
}
