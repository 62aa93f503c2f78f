/**
 * Compares the files of the Hub cache with the digests they are named by, moves away what is wrong, and gets it back.
 *
 * A file is right, wrong, missing (a snapshot names it and it is not there) or unchecked; with repairs, a wrong or missing
 * one becomes repaired. A wrong file leaves its place as soon as it is found, under the lock of its content, so that
 * nobody gets wrong bytes from then on. Nothing here decides what is right but the digest, and a repair is an
 * ordinary download that finds some of its bytes there.
 */
import { lstat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { HubError, isAbort } from '../errors.ts'
import { damagedBlobPath, isReachedWithoutLinks } from '../hub/cache-layout.ts'
import { isSameFile, removeDamaged, type SeenFile, setAside } from '../hub/damaged-blob.ts'
import type { FileLocks } from '../hub/partial-file.ts'
import { log, messageOf } from '../log.ts'
import type { NativeAddon } from '../native/binding.ts'
import { forEachBounded } from '../transfer/bounded.ts'
import {
  activeFile,
  type FinishedFile,
  noBytes,
  Pace,
  type ProgressListener,
  secondsFor,
} from '../transfer/progress.ts'
import {
  type BytesBySource,
  type Commit,
  digestOf,
  type Etag,
  type FileRef,
  type HubFile,
  type RepoRef,
} from '../values.ts'
import { type CacheEntry, cacheEntries, type SnapshotName, whyNot } from './cache-entries.ts'
import { identifyContent } from './content-identity.ts'
import { type Damage, salvage } from './salvage.ts'

export type Verdict = 'right' | 'wrong' | 'missing' | 'repaired' | 'unchecked'

/** One file of the cache, and what it was found to be. */
export interface VerifiedFile {
  /** `right`: what its etag promises. `unchecked`: nothing is known against it, and `reason` says why. */
  readonly verdict: Verdict
  /** The blob; in a cache without links, the snapshot's entry. Absolute. */
  readonly path: string
  readonly repo: RepoRef | undefined
  readonly etag: Etag | undefined
  /** `undefined` for what is missing or no file. */
  readonly sizeBytes: number | undefined
  /** What the snapshots call it: paths within the repository, each once. */
  readonly names: readonly string[]
  /** Why it is not right, not checked or not repaired; for people. */
  readonly reason?: string | undefined
  /** Where the wrong file is now; `undefined` when it could not be moved, and when it was repaired. */
  readonly movedTo?: string | undefined
  /** Which pieces were wrong, when a torrent was at hand to compare with. */
  readonly damage?: Damage | undefined
  /** What a repair took, by where it came from; `cache` is what was right already. */
  readonly bytes?: Readonly<BytesBySource> | undefined
}

export interface CacheReport {
  /** In the order of the cache. */
  readonly files: readonly VerifiedFile[]
  /** Nothing is wrong or missing any more. */
  readonly isSound: boolean
}

/** Gets a file back; the client does it. */
export interface Repairs {
  /** What the Hub says a file is. @throws {HubError} */
  identify(ref: FileRef, signal: AbortSignal): Promise<HubFile>
  /** A torrent of this content, the more trustworthy the better; `undefined` when none is known, or nobody may be asked. */
  findTorrent(file: HubFile, signal: AbortSignal): Promise<Uint8Array | undefined>
  /** Brings the file into the cache. @throws See `fetchFile`. */
  download(
    ref: FileRef,
    options: { signal: AbortSignal; onProgress?: ProgressListener | undefined },
  ): Promise<{ readonly path: string; readonly etag: Etag | undefined; readonly bytes: BytesBySource }>
}

export interface VerifyCacheDeps {
  readonly cacheDir: string
  readonly stateDir: string
  /** Without it, hashing is slower, and a repair fetches whole files. */
  readonly addon: NativeAddon | undefined
  readonly locks: FileLocks | undefined
  /** The files of a commit: who has copies instead of links asks the Hub for their etags. `undefined`: offline. */
  readonly listFiles:
    | ((repo: RepoRef, commit: Commit, signal: AbortSignal) => Promise<readonly HubFile[]>)
    | undefined
  /** `undefined`: wrong files are moved away and not fetched again. */
  readonly repairs: Repairs | undefined
}

export interface VerifyCacheOptions {
  /** @defaultValue all repositories */
  readonly repo?: RepoRef | undefined
  readonly signal: AbortSignal
  readonly onProgress?: ProgressListener | undefined
  /** Hears of each file when there is nothing more to come about it. */
  readonly onFile?: ((file: VerifiedFile) => void) | undefined
}

/** @throws The signal's reason. What is wrong with the cache is in the report, and never thrown. */
export async function verifyCache(options: VerifyCacheOptions, deps: VerifyCacheDeps): Promise<CacheReport> {
  const entries = await cacheEntries(deps.cacheDir, options.repo)
  return await new CacheCheck(entries, options, deps).run()
}

type CheckedEntry = Exclude<CacheEntry, { kind: 'odd' }>

/** How a repair reaches what is wrong. */
interface Broken {
  readonly entry: CheckedEntry
  readonly etag: Etag
  readonly file: VerifiedFile
}

/** How often a file that changes under our eyes is read again. */
const maxReads = 2
/** By how many of its names the Hub is asked for a content before it is given up. */
const maxNames = 4

class CacheCheck {
  readonly #entries: readonly CacheEntry[]
  readonly #options: VerifyCacheOptions
  readonly #deps: VerifyCacheDeps
  readonly #found = new Map<CacheEntry, VerifiedFile>()
  readonly #broken = new Map<CacheEntry, Broken>()
  readonly #progress: CheckProgress
  readonly #listings = new Map<string, Promise<ReadonlyMap<string, HubFile> | string>>()
  /** The last to have its turn at a content, by where a wrong one of it goes. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(entries: readonly CacheEntry[], options: VerifyCacheOptions, deps: VerifyCacheDeps) {
    this.#entries = entries
    this.#options = options
    this.#deps = deps
    this.#progress = new CheckProgress(entries, options.onProgress)
  }

  async run(): Promise<CacheReport> {
    try {
      await forEachBounded(largestFirst(this.#entries), availableParallelism(), async (entry) => {
        this.#options.signal.throwIfAborted()
        await this.#check(entry)
      })
      await this.#tidy()
      // One after the other: each uses all the connections that it may have.
      for (const each of [...this.#broken.values()]) await this.#repair(each)
    } finally {
      // What was moved away is said, whatever came between.
      for (const { entry, file } of [...this.#broken.values()]) this.#tell(entry, await asItIs(file))
    }
    const files = this.#entries.flatMap((entry) => this.#found.get(entry) ?? [])
    return { files, isSound: files.every(({ verdict }) => verdict !== 'wrong' && verdict !== 'missing') }
  }

  #tell(entry: CacheEntry, file: VerifiedFile): void {
    this.#broken.delete(entry)
    this.#found.set(entry, file)
    this.#options.onFile?.(file)
  }

  async #check(entry: CacheEntry): Promise<void> {
    if (entry.kind === 'odd') {
      const { repo, path, reason } = entry
      this.#tell(entry, { ...unknown, verdict: 'unchecked', path, repo, reason })
    } else if (entry.kind === 'missing') {
      this.#breaks(entry, entry.etag, {
        ...describe(entry, entry.etag),
        verdict: 'missing',
        reason: 'a snapshot names it, and it is not there',
      })
    } else {
      await this.#checkContent(entry)
      this.#progress.finish(entry)
    }
  }

  async #checkContent(entry: Exclude<CheckedEntry, { kind: 'missing' }>): Promise<void> {
    const promised = entry.kind === 'blob' ? { etag: entry.etag } : await this.#askFor(entry)
    if (typeof promised === 'string') {
      this.#tell(entry, { ...describe(entry, undefined), verdict: 'unchecked', reason: promised })
      return
    }
    const file = describe(entry, promised.etag)
    const read = await this.#read(entry, promised.etag)
    if ('reason' in read) this.#tell(entry, { ...file, verdict: 'unchecked', reason: read.reason })
    else if (read.etag === promised.etag) this.#tell(entry, { ...file, verdict: 'right' })
    else {
      const moved = await this.#inTurn(entry, promised.etag, () =>
        this.#moveAway(entry, promised.etag, read.seen),
      )
      const wrong = { ...file, ...moved, verdict: 'wrong' } as const
      if (moved.movedTo === undefined) this.#tell(entry, wrong)
      else this.#breaks(entry, promised.etag, wrong)
    }
  }

  /** What the Hub says a copy is, or why that is not known. */
  async #askFor(entry: Extract<CacheEntry, { kind: 'copy' }>): Promise<HubFile | string> {
    const { repo, name } = entry
    const key = `${repo.repoType} ${repo.repo} ${name.commit}`
    const listing = this.#listings.get(key) ?? this.#list(repo, name.commit)
    this.#listings.set(key, listing)
    const files = await listing
    if (typeof files === 'string') return files
    return files.get(name.path) ?? 'the Hub knows no file of this name at this commit'
  }

  async #list(repo: RepoRef, commit: Commit): Promise<ReadonlyMap<string, HubFile> | string> {
    const { listFiles } = this.#deps
    const what = 'it is a copy, and only the Hub knows its digest'
    if (listFiles === undefined) return `${what}: offline it is not asked`
    try {
      const files = await listFiles(repo, commit, this.#options.signal)
      return new Map(files.map((file) => [file.path, file]))
    } catch (error) {
      if (isAbort(error, this.#options.signal)) throw error
      return `${what}: ${messageOf(error)}`
    }
  }

  /** The etag of what is there now, or why it could not be told. */
  async #read(
    entry: CheckedEntry,
    etag: Etag,
  ): Promise<{ readonly etag: Etag; readonly seen: SeenFile } | { readonly reason: string }> {
    const { signal } = this.#options
    const { path } = entry
    let reason = ''
    for (let read = 0; read < maxReads; read++) {
      try {
        if (!(await isReachedWithoutLinks(this.#deps.cacheDir, path))) {
          return { reason: 'it is reached through a link by now, and links are not followed' }
        }
        const seen = await lstat(path)
        if (!seen.isFile()) return { reason: 'it is no regular file' }
        const content = await identifyContent(path, digestOf(etag), {
          addon: this.#deps.addon,
          signal,
          onProgress: (bytes) => this.#progress.update(entry, bytes),
        })
        const isStill = isSameFile(seen, await lstat(path).catch(() => undefined))
        if (content !== undefined && isStill) return { etag: content.etag, seen }
        reason = 'it changes while it is read'
      } catch (error) {
        signal.throwIfAborted()
        const isGone = (await lstat(path).catch(() => undefined)) === undefined
        reason = isGone ? 'it is gone by now' : whyNot(error)
      }
    }
    return { reason }
  }

  /**
   * One after the other for each content: a repository can have several copies of one, and the lock does not tell
   * us from another process.
   */
  async #inTurn<T>(entry: CheckedEntry, etag: Etag, work: () => Promise<T>): Promise<T> {
    const key = this.#damagedPath(entry, etag)
    const turn = (this.#turns.get(key) ?? Promise.resolve()).then(work)
    this.#turns.set(
      key,
      turn.catch(() => undefined),
    )
    return await turn
  }

  /** Removes what was set aside of contents that are right now, unless this check has another use for it. */
  async #tidy(only?: CheckedEntry): Promise<void> {
    const files = [...this.#found.values(), ...[...this.#broken.values()].map(({ file }) => file)]
    const kept = new Set(files.map(({ movedTo }) => movedTo))
    for (const [entry, { verdict, etag }] of this.#found) {
      if (entry.kind === 'odd' || etag === undefined || (only ?? entry) !== entry) continue
      const isRight = verdict === 'right' || verdict === 'repaired'
      if (!isRight || kept.has(this.#damagedPath(entry, etag))) continue
      await removeDamaged(this.#placeOf(entry, etag), this.#deps.locks)
    }
  }

  #damagedPath(entry: CheckedEntry, etag: Etag): string {
    return damagedBlobPath(this.#deps.cacheDir, entry.repo, etag)
  }

  async #moveAway(
    entry: CheckedEntry,
    etag: Etag,
    seen: SeenFile,
  ): Promise<Pick<VerifiedFile, 'movedTo' | 'reason'>> {
    const reason = 'its content is not what its name promises'
    try {
      const moved = await setAside(this.#placeOf(entry, etag), entry.path, seen, this.#deps.locks)
      if (moved === 'busy')
        return { reason: `${reason}, and another process is at work on it: look again later` }
      if (moved === 'changed') return { reason: `${reason}, and by now another file is there: look again` }
      return { reason, movedTo: moved.movedTo }
    } catch (error) {
      return { reason: `${reason}, and it cannot be moved away: ${messageOf(error)}` }
    }
  }

  #breaks(entry: CheckedEntry, etag: Etag, file: VerifiedFile): void {
    if (this.#deps.repairs === undefined) this.#tell(entry, file)
    else this.#broken.set(entry, { entry, etag, file })
  }

  async #repair({ entry, etag, file }: Broken): Promise<void> {
    const { repairs } = this.#deps
    const { signal } = this.#options
    const names = namesOf(entry)
    if (repairs === undefined) return
    let reason = 'no snapshot names it, so that the Hub cannot be asked for it'
    for (const name of names.slice(0, maxNames)) {
      signal.throwIfAborted()
      try {
        const done = await this.#repairBy(
          { ...entry.repo, revision: name.commit, path: name.path },
          etag,
          repairs,
        )
        if (done.isRight) {
          const { damage, bytes } = done
          this.#tell(entry, {
            ...file,
            verdict: 'repaired',
            movedTo: undefined,
            reason: undefined,
            damage,
            bytes,
          })
          await this.#tidy(entry)
          return
        }
        reason = done.reason
      } catch (error) {
        signal.throwIfAborted()
        reason = messageOf(error)
        // Only a commit or a file that is gone is no reason to give up on the other names.
        if (!(error instanceof HubError && error.status === 404)) break
      }
    }
    const left = await asItIs(file)
    this.#tell(entry, { ...left, reason: `${file.reason}; it could not be repaired: ${reason}` })
  }

  async #repairBy(
    ref: FileRef,
    etag: Etag,
    repairs: Repairs,
  ): Promise<
    { isRight: true; damage: Damage | undefined; bytes: BytesBySource } | { isRight: false; reason: string }
  > {
    const { signal, onProgress } = this.#options
    const file = await repairs.identify(ref, signal)
    if (file.etag !== etag) return { isRight: false, reason: `at the Hub, ${ref.path} is another file` }
    const damage = await this.#salvage(file, repairs)
    const got = await repairs.download(ref, { signal, onProgress })
    // Nothing was fetched when another process had just brought it: then nobody here has looked at it.
    const isFetched = got.bytes.p2p + got.bytes.http > 0 || file.sizeBytes === 0
    const isRight =
      isFetched ||
      (await identifyContent(got.path, digestOf(etag), { addon: this.#deps.addon, signal })).etag === etag
    if (isRight) return { isRight, damage, bytes: got.bytes }
    return { isRight, reason: 'what another process has brought is wrong, too: look again' }
  }

  /** Keeps what is right, as far as that can be known. Failing to costs a larger download. */
  async #salvage(file: HubFile, repairs: Repairs): Promise<Damage | undefined> {
    const { cacheDir, stateDir, addon, locks } = this.#deps
    const { signal } = this.#options
    const damaged = damagedBlobPath(cacheDir, file, file.etag)
    const isThere = (await lstat(damaged).catch(() => undefined)) !== undefined
    if (addon === undefined || locks === undefined || !isThere || file.sizeBytes === 0) return undefined
    try {
      const torrentFile = await repairs.findTorrent(file, signal)
      if (torrentFile === undefined) return undefined
      return await salvage(file, torrentFile, { cacheDir, stateDir, addon, locks, signal })
    } catch (error) {
      signal.throwIfAborted()
      log.info(`${file.path} is fetched again as a whole: ${messageOf(error)}`)
      return undefined
    }
  }

  #placeOf(entry: CheckedEntry, etag: Etag): { cacheDir: string; repo: RepoRef; etag: Etag } {
    return { cacheDir: this.#deps.cacheDir, repo: entry.repo, etag }
  }
}

const unknown = { etag: undefined, sizeBytes: undefined, names: [] } as const

/** What was moved away may have become the beginning of a download since. */
async function asItIs(file: VerifiedFile): Promise<VerifiedFile> {
  const { movedTo } = file
  const isThere = movedTo !== undefined && (await lstat(movedTo).catch(() => undefined)) !== undefined
  return { ...file, movedTo: isThere ? movedTo : undefined }
}

function describe(entry: CheckedEntry, etag: Etag | undefined): Omit<VerifiedFile, 'verdict'> {
  const { path, repo } = entry
  const names = [...new Set(namesOf(entry).map((name) => name.path))]
  return { path, repo, etag, sizeBytes: entry.kind === 'missing' ? undefined : entry.sizeBytes, names }
}

function namesOf(entry: CheckedEntry): readonly SnapshotName[] {
  return entry.kind === 'copy' ? [entry.name] : entry.names
}

/** So that the last minutes are not those of one core at the largest file. */
function largestFirst(entries: readonly CacheEntry[]): CacheEntry[] {
  return [...entries].sort((a, b) => sizeOf(b) - sizeOf(a))
}

function sizeOf(entry: CacheEntry): number {
  return entry.kind === 'blob' || entry.kind === 'copy' ? entry.sizeBytes : 0
}

/** A check in the terms of a download whose bytes are all there. */
class CheckProgress {
  readonly #listener: ProgressListener | undefined
  readonly #total: number
  readonly #sizeBytes: number
  readonly #active = new Map<CheckedEntry, number>()
  readonly #pace = new Pace()
  #finished: FinishedFile[] = []
  #done = 0
  #doneBytes = 0

  constructor(entries: readonly CacheEntry[], listener: ProgressListener | undefined) {
    this.#listener = listener
    const files = entries.filter(({ kind }) => kind === 'blob' || kind === 'copy')
    this.#total = files.length
    this.#sizeBytes = files.reduce((sum, entry) => sum + sizeOf(entry), 0)
  }

  update(entry: CheckedEntry, hashedBytes: number): void {
    this.#active.set(entry, Math.min(hashedBytes, sizeOf(entry)))
    this.#show()
  }

  finish(entry: CheckedEntry): void {
    this.#active.delete(entry)
    this.#done += 1
    this.#doneBytes += sizeOf(entry)
    this.#finished.push({ path: pathOf(entry), sizeBytes: sizeOf(entry), bytes: hashedOf(sizeOf(entry)) })
    this.#show()
  }

  #show(): void {
    if (this.#listener === undefined) return
    const active = [...this.#active].map(([entry, hashed]) =>
      activeFile(pathOf(entry), 'verifying', { ...still, sizeBytes: sizeOf(entry), bytes: hashedOf(hashed) }),
    )
    const hashed = active.reduce((sum, { progress }) => sum + progress.bytes.cache, this.#doneBytes)
    this.#pace.add(performance.now(), hashed)
    const finished = this.#finished
    this.#finished = []
    this.#listener({
      ...still,
      files: { done: this.#done, total: this.#total },
      sizeBytes: this.#sizeBytes,
      bytes: hashedOf(hashed),
      rate: this.#pace.bytesPerSecond,
      secondsLeft: secondsFor(this.#sizeBytes - hashed, this.#pace.bytesPerSecond),
      active,
      finished,
    })
  }
}

function pathOf(entry: CheckedEntry): string {
  return namesOf(entry)[0]?.path ?? entry.path
}

function hashedOf(bytes: number): FinishedFile['bytes'] {
  return { ...noBytes(), cache: bytes }
}

const still = { httpRate: 0, p2pRate: 0, peers: 0 } as const
