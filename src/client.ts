/**
 * What one configuration can do: download a file or a snapshot, give it back, and answer the hook. The steps of a
 * download stand in docs/architecture.md; here they are put in a row.
 */
import { createHash } from 'node:crypto'
import {
  type CacheReport,
  type VerifiedFile,
  type VerifyCacheDeps,
  verifyCache,
} from './cache-check/verify-cache.ts'
import type { Config } from './config.ts'
import { ConfigError } from './errors.ts'
import { isFileOfSize } from './hub/cache-layout.ts'
import { FileSource } from './hub/file-source.ts'
import { fileMetadata } from './hub/metadata.ts'
import type { Place } from './hub/place.ts'
import { listRepoFiles, resolveRevision } from './hub/repo.ts'
import { isRefusal, type SharingVerdict } from './hub/sharing.ts'
import { keepingProcessAlive } from './keep-alive.ts'
import { log, messageOf } from './log.ts'
import { type Access, type ClientOverrides, Parts } from './parts.ts'
import type { SeedRequest, SeedStatus } from './seeding/seeder.ts'
import type {
  BroughtFile,
  CallDeps,
  DownloadCallOptions,
  DownloadedFile,
  DownloadedSnapshot,
  Downloader,
  HubQuestions,
  SnapshotCallOptions,
} from './snapshot/call.ts'
import { downloadSnapshot } from './snapshot/download.ts'
import { type DryRunFile, planFile, planSnapshot } from './snapshot/dry-run.ts'
import { downloadFile } from './snapshot/file.ts'
import { fetchOrder } from './snapshot/selection.ts'
import { type FetchedFile, fetchFile } from './transfer/download.ts'
import type { TorrentFinder } from './transfer/find-torrent.ts'
import { Looks } from './transfer/looks.ts'
import { noBytes, type ProgressListener, ProgressTally } from './transfer/progress.ts'
import { type BringEvents, type OfferedFile, SharedFiles } from './transfer/stream-file.ts'
import { digestOf, type Etag, type FileRef, type HubFile, type PeerAddress, type RepoRef } from './values.ts'

export type { ClientOverrides } from './parts.ts'

export type {
  DownloadCallOptions,
  DownloadedFile,
  DownloadedSnapshot,
  SnapshotCallOptions,
} from './snapshot/call.ts'

export interface VerifyCallOptions {
  /** @defaultValue all repositories of the cache */
  readonly repo?: RepoRef | undefined
  /** Whether to get back what is wrong or missing. @defaultValue false */
  readonly repair?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
  readonly onFile?: ((file: VerifiedFile) => void) | undefined
}

/** Who asks through the hook, which Hub, for which bytes, and how long the look-up may take. */
export interface OfferContext {
  readonly range: { readonly start: number; readonly end: number }
  readonly endpoint: string
  readonly token: string | undefined
  readonly deadlineMs: number
}

/** What all files of one call share. */
interface Call {
  readonly hub: Access
  readonly finder: TorrentFinder | undefined
  readonly tally: ProgressTally
  readonly signal: AbortSignal
  readonly place: Place
  /** Whether the Hub and its storage are asked for content. */
  readonly http: boolean
  readonly seedForMs: number
  /** What was there already, to be given to others when the call is over. */
  readonly found: FoundFile[]
}

interface FoundFile {
  readonly file: HubFile
  /** Its name in the repository. */
  readonly entry: string
  readonly contentPath: string
}

const silenceMs = 30_000
/** How long the end of a download waits to hear whether it is given to others. */
const verdictDeadlineMs = 1_000

export class Client implements AsyncDisposable {
  readonly config: Config
  readonly #parts: Parts
  readonly #life = new AbortController()
  readonly #shared = new SharedFiles()
  readonly #looks: Looks
  /** Questions whether files that were there may be given to others. */
  readonly #handingOver = new Set<Promise<void>>()
  /** Until then the hook does not ask the trackers, which have just been too slow. */
  #silentUntilMs = 0

  constructor(config: Config, overrides: ClientOverrides = {}) {
    this.config = config
    this.#parts = new Parts(config, overrides)
    this.#looks = new Looks(config.smallFileBytes)
  }

  // Downloads

  /** Fetches one file into the cache. @throws See `downloadFile` of `snapshot/file.ts`. */
  downloadFile(ref: FileRef, options: DownloadCallOptions = {}): Promise<DownloadedFile> {
    return this.#call(options, (deps) => downloadFile(ref, options, deps))
  }

  /** Fetches a repository, or the part of it that the patterns or paths name. @throws See `snapshot/download.ts`. */
  downloadSnapshot(
    repo: RepoRef,
    revision: string,
    options: SnapshotCallOptions = {},
  ): Promise<DownloadedSnapshot> {
    return this.#call(options, (deps) => downloadSnapshot(repo, revision, options, deps))
  }

  /** What `downloadFile` would do. */
  planFile(ref: FileRef, options: DownloadCallOptions = {}): Promise<DryRunFile> {
    return this.#call(options, (deps) => planFile(ref, options, deps))
  }

  /** What `downloadSnapshot` would do, in the order of the paths. */
  planSnapshot(
    repo: RepoRef,
    revision: string,
    options: SnapshotCallOptions = {},
  ): Promise<readonly DryRunFile[]> {
    return this.#call(options, (deps) => planSnapshot(repo, revision, options, deps))
  }

  #call<T>(options: DownloadCallOptions, work: (deps: CallDeps) => Promise<T>): Promise<T> {
    return keepingProcessAlive(() =>
      this.#whileOpen(options.signal, async (signal, stop) => {
        const place = this.#parts.place(options.localDir)
        const isLocal = this.config.offline || options.localFilesOnly === true
        const whyLocal = this.config.offline ? 'HF_HUB_OFFLINE is set' : 'only local files are asked for'
        // Offline, not even the token matters.
        const hub = isLocal ? undefined : await this.#parts.ownAccess()
        const calls: Call[] = []
        try {
          return await work({
            place,
            signal,
            stop,
            whyLocal,
            usesHttp: this.config.http,
            hub: hub && questionsTo(hub, signal),
            downloader: (files, { http }) => {
              if (hub === undefined) throw new TypeError('nothing is fetched when nobody may be asked')
              const call = this.#newCall({ hub, place, http, signal }, files, options)
              calls.push(call)
              return this.#downloader(call)
            },
          })
        } finally {
          for (const call of calls) this.#giveBackFound(call)
        }
      }),
    )
  }

  #downloader(call: Call): Downloader {
    return {
      askAhead: (files) => this.#askAhead(files, call),
      fetch: (file, how) => this.#fetch(file, call, how),
      present: async (file, { path, contentPath }) => {
        const { commit, etag, sizeBytes } = file
        const bytes = { ...noBytes(), cache: sizeBytes }
        call.tally.finish(file.path, bytes)
        call.found.push({ file, entry: path, contentPath })
        return { path, commit, etag, sizeBytes, infoHash: undefined, bytes }
      },
    }
  }

  /** One look-up for all files of a call; none for a repository that not everybody may read. */
  async #askAhead(files: readonly HubFile[], call: Call): Promise<void> {
    const [largest] = fetchOrder(files)
    if (call.finder === undefined || largest === undefined) return
    // A gated repository lists its files, and may show the small ones, to everybody: then each is asked about by itself.
    if (digestOf(largest.etag) !== 'sha256') return
    const { visibility } = call.hub
    const options = { for: 'fetch', signal: call.signal } as const
    const verdict = await visibility.verdict(largest, options)
    // That everybody may have this content from another repository says nothing about the other files of this one.
    const isForAll = verdict === 'public' && (await visibility.isShown(largest, call.signal))
    if (verdict === 'on-request' || isForAll) call.finder.ask(files, call.signal)
  }

  #newCall(
    where: Pick<Call, 'hub' | 'place' | 'http' | 'signal'>,
    files: readonly HubFile[],
    options: DownloadCallOptions,
  ): Call {
    return {
      ...where,
      found: [],
      finder: this.#parts.finder(),
      tally: new ProgressTally(files, options.onProgress),
      // While the Hub is silent nobody knows whether others may still have it.
      seedForMs: where.http ? (options.seedForMs ?? (this.config.seed ? this.config.seedForMs : 0)) : 0,
    }
  }

  async #fetch(
    file: HubFile,
    call: Call,
    how: { location?: string | undefined; anew?: boolean; events?: BringEvents } = {},
  ): Promise<BroughtFile> {
    const { place } = call
    const { visibility } = call.hub
    const isHub = call.hub.endpoint === visibility.endpoint
    const { location = isHub ? visibility.takeLocation(file) : undefined, anew, events } = how
    const willSeed = call.seedForMs > 0 && this.#parts.swarm() !== undefined
    const fetched = await fetchFile(
      {
        file,
        place,
        anew,
        source: new FileSource(call.hub, file, {
          location,
          // A mirror hears the file's name: that it may be shared, because it was asked for or because another repository
          // shows the same content, is not enough.
          isPublic: (signal) => visibility.isShown(file, signal),
        }),
        mayShare: (signal) => visibility.mayShare(file, { for: 'fetch', signal }),
        torrentFor: willSeed ? { announceUrls: this.#parts.announceUrls } : undefined,
        signal: call.signal,
        onLive: events && ((live) => events.onLive(live)),
        onProgress: (phase, progress) => {
          if (phase === 'waiting') events?.onElsewhere()
          call.tally.update(file.path, phase, progress)
        },
      },
      this.#parts.downloadDeps(call.finder, { http: call.http }),
    ).catch((error: unknown) => {
      call.tally.fail(file.path)
      throw error
    })
    if (fetched.bytes.http > 0) noteShown(call.hub, file)
    const path = await this.#name(file, fetched, call)
    await this.#giveBack(file, path, fetched, call)
    const { commit, etag, sizeBytes } = file
    return { path, commit, etag, sizeBytes, infoHash: fetched.infoHash, bytes: fetched.bytes }
  }

  /** The content's name in the repository. Nobody owns its torrent yet. */
  async #name(file: HubFile, fetched: FetchedFile, call: Call): Promise<string> {
    try {
      const path = await call.place.settle(file, fetched.isNew)
      call.tally.finish(file.path, fetched.bytes)
      return path
    } catch (error) {
      await fetched.joined?.leg.leave().catch(() => {})
      call.tally.fail(file.path)
      throw error
    }
  }

  /** From here on nothing can hurt the caller. */
  async #giveBack(file: HubFile, entry: string, fetched: FetchedFile, call: Call): Promise<void> {
    const { joined, made, path } = fetched
    if (!fetched.isNew) {
      call.found.push({ file, entry, contentPath: path })
      return
    }
    try {
      const willSeed = call.seedForMs > 0 && (await this.#maySeedSoon(file, call.hub))
      const seeder = willSeed ? this.#parts.seeder() : undefined
      if (seeder === undefined) return await joined?.leg.retire()
      const torrent = joined && { torrent: joined.leg.release(), offer: joined.offer }
      const request = await seedRequestOf({ file, entry, contentPath: path }, call)
      seeder.seed({ ...request, joined: torrent, made })
    } catch (error) {
      log.warn(`${labelOf(file)} is not seeded: ${messageOf(error)}`)
    }
  }

  /** Gives back what was there. A warm call asks nothing for that, and waits for nothing. */
  #giveBackFound(call: Call): void {
    if (call.found.length === 0 || call.seedForMs === 0 || this.#life.signal.aborted) return
    if (this.#parts.swarm() === undefined) return
    const work = this.#seedFound(call).finally(() => this.#handingOver.delete(work))
    this.#handingOver.add(work)
  }

  async #seedFound(call: Call): Promise<void> {
    const { signal } = this.#life
    const byName = new Map(call.found.map((found) => [found.file, found]))
    // A large file speaks for its repository: then the small ones need not be asked about.
    for (const file of fetchOrder([...byName.keys()])) {
      try {
        const found = byName.get(file)
        if (found === undefined || !(await this.#maySeed(file, call.hub, signal))) continue
        // What was there was verified by whoever brought it, if at all.
        const request = { ...(await seedRequestOf(found, call)), check: true }
        signal.throwIfAborted()
        this.#parts.seeder()?.seed(request)
      } catch (error) {
        if (signal.aborted) return
        log.warn(`${labelOf(file)} is not seeded: ${messageOf(error)}`)
      }
    }
  }

  /** Whether to hand it to the seeder, which asks by itself: not when the answer is no. */
  async #maySeed(file: HubFile, hub: Access, signal: AbortSignal): Promise<boolean> {
    return !isRefusal(await hub.visibility.verdict(file, { for: 'seed', signal }))
  }

  /** The same for a download that is about to end, and waits for a moment only. */
  async #maySeedSoon(file: HubFile, hub: Access): Promise<boolean> {
    const deadline = AbortSignal.timeout(verdictDeadlineMs)
    try {
      return await this.#maySeed(file, hub, deadline)
    } catch (error) {
      if (deadline.aborted) return true
      throw error
    }
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
    if (finder === undefined || !(await visibility.mayShare(file, { for: 'fetch', signal }))) return undefined
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

  /** Resolves when everything that may be seeded is in the status: what was there is asked about after its call. */
  async handedOver(): Promise<void> {
    while (this.#handingOver.size > 0) await Promise.all(this.#handingOver)
  }

  /** Resolves when everything that is to be seeded is in its swarm or has failed. */
  async seedingSettled(): Promise<void> {
    await this.handedOver()
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
      verdict: (signal) => this.#parts.visibility.verdict(file, { for: 'seed', signal }),
    })
  }

  /** Whether this file may be given to others now, and if not, why. */
  seedVerdict(file: HubFile): Promise<SharingVerdict> {
    return this.#parts.visibility.verdict(file, { for: 'seed' })
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
    const key = keyOf(file, context)
    const offered = this.#shared.offer(key, {
      sizeBytes: file.sizeBytes,
      isCached,
      bring: (signal, events) =>
        keepingProcessAlive(() => this.#fetchForHook(file, context, place, signal, events)),
    })
    if (isCached) return offered
    if (this.#parts.swarm() === undefined) return undefined
    // A download that others began may have the bytes already.
    const isLook = this.#looks.isLook(key, file.sizeBytes, context.range)
    if (isLook) return this.#shared.hasNow(key, context.range) ? offered : undefined
    if (Date.now() < this.#silentUntilMs) return undefined
    const deadline = AbortSignal.timeout(context.deadlineMs)
    try {
      // That we saw no token does not mean that the Hub saw none: a `fetch` below us, or its dispatcher, may add one. So
      // what the program was shown counts for nothing, and the Hub is asked without one.
      const { visibility } = this.#parts.access(context.endpoint, context.token)
      if (!(await visibility.mayShare(file, { for: 'fetch', signal: deadline }))) return undefined
      return (await this.#parts.finder()?.knows(file, deadline)) ? offered : undefined
    } catch (error) {
      if (!deadline.aborted) throw error
      // Somebody's fetch has waited for nothing; the next ones do not.
      this.#silentUntilMs = Date.now() + silenceMs
      return undefined
    }
  }

  async #fetchForHook(
    file: HubFile,
    context: OfferContext,
    place: Place,
    signal: AbortSignal,
    events: BringEvents,
  ): Promise<string> {
    return await this.#whileOpen(signal, async (both) => {
      const access = this.#parts.access(context.endpoint, context.token)
      // Without a token mirrors are asked freely; but the program may have had one that nobody saw.
      const mayAskMirrors = access.endpoints !== undefined && (await access.visibility.isShown(file, both))
      const hub = mayAskMirrors ? access : { ...access, endpoints: undefined }
      const call = this.#newCall({ hub, place, http: true, signal: both }, [file], {})
      try {
        return (await this.#fetch(file, call, { events })).path
      } finally {
        this.#giveBackFound(call)
      }
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
  async close(): Promise<void> {
    this.#life.abort(new DOMException('the client is closed', 'AbortError'))
    await this.handedOver()
    await this.#parts.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function labelOf(file: HubFile): string {
  return `${file.repo}/${file.path}`
}

/** What the hook knows a file by. It is kept for long, and is not to hold the token. */
function keyOf(file: HubFile, { endpoint, token }: OfferContext): string {
  return createHash('sha256')
    .update(JSON.stringify([endpoint, token ?? null, file]))
    .digest('hex')
}

async function seedRequestOf({ file, entry, contentPath }: FoundFile, call: Call): Promise<SeedRequest> {
  return {
    blob: file,
    // Where links do not work, the cache keeps the file under its name in the snapshot instead.
    path: (await isFileOfSize(contentPath, file.sizeBytes)) ? contentPath : entry,
    label: labelOf(file),
    forMs: call.seedForMs,
    verdict: (signal) => call.hub.visibility.verdict(file, { for: 'seed', signal }),
  }
}

function questionsTo(hub: Access, signal: AbortSignal): HubQuestions {
  return {
    resolveRevision: (repo, revision) => resolveRevision(hub, repo, revision, { signal }),
    listFiles: (repo, commit) => listRepoFiles(hub, repo, commit, { signal }),
    identify: async (ref) => {
      const file = await fileMetadata(hub, ref, { signal })
      noteShown(hub, file)
      return file
    },
  }
}

/** We were just shown `file`. When that was by the Hub and without a token, everybody may see it; a mirror's word does not count. */
function noteShown({ endpoint, token, endpoints, visibility }: Access, file: HubFile): void {
  const isHub = endpoint === visibility.endpoint && endpoints === undefined
  if (isHub && token === undefined) void visibility.shown(file)
}
