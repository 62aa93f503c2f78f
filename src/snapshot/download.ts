/** A whole revision, or the part of it that was chosen: complete, or an error that says what is missing. */
import { type HubError, IntegrityError } from '../errors.ts'
import type { SettledFile } from '../hub/cache-layout.ts'
import { addBytes, noBytes, tellThere } from '../transfer/progress.ts'
import type { HubFile, RepoRef } from '../values.ts'
import { bringFiles, findSettledFiles } from './bring.ts'
import {
  type BroughtFile,
  type CallDeps,
  checkOptions,
  type DownloadedSnapshot,
  type SnapshotCallOptions,
} from './call.ts'
import { incompleteBecause, isUnreachable, notThere, withoutPeers } from './incomplete.ts'
import { type Listing, listCommit, notSeen, tellUnchecked } from './listing.ts'
import { selectFiles } from './selection.ts'

const defaultMaxWorkers = 8

/**
 * Makes sure that the chosen files of `revision` are in their places.
 *
 * @throws {HubError | IntegrityError | SwarmError | CacheError} What stopped it, with the names of what is missing.
 * @throws {LlmptError} `ERR_LLMPT_CACHE`, when nobody may be asked and something is missing.
 * @throws {ConfigError} For options that cannot be met.
 */
export async function downloadSnapshot(
  repo: RepoRef,
  revision: string,
  options: SnapshotCallOptions,
  deps: CallDeps,
): Promise<DownloadedSnapshot> {
  checkOptions(options, deps)
  const listing = await listCommit(repo, revision, deps, { keep: true })
  return await new SnapshotDownload(repo, revision, options, deps, listing).run()
}

class SnapshotDownload {
  readonly #repo: RepoRef
  readonly #revision: string
  readonly #options: SnapshotCallOptions
  readonly #deps: CallDeps
  readonly #listing: Listing

  constructor(
    repo: RepoRef,
    revision: string,
    options: SnapshotCallOptions,
    deps: CallDeps,
    listing: Listing,
  ) {
    this.#repo = repo
    this.#revision = revision
    this.#options = options
    this.#deps = deps
    this.#listing = listing
  }

  async run(): Promise<DownloadedSnapshot> {
    const { files, outage } = this.#listing
    const anew = this.#options.forceDownload === true
    if (anew && outage !== undefined) throw outage
    if (files === undefined) return await this.#unlisted()
    const wanted = selectFiles(files, this.#repo.repo, this.#options)
    const settled = anew ? new Map() : await findSettledFiles(wanted, this.#deps)
    if (this.#deps.hub === undefined) return this.#result(wanted, this.#takeLocal(wanted, settled), true)
    const isComplete = settled.size === wanted.length
    const silence = isComplete ? outage : await this.#findOutage()
    return this.#result(wanted, await this.#bring(wanted, settled, silence), silence !== undefined)
  }

  /** Nobody noted which files there are: what is there counts, as for Python's client. */
  async #unlisted(): Promise<DownloadedSnapshot> {
    const { commit, outage } = this.#listing
    if (await this.#deps.place.hasSnapshot(this.#repo, commit)) return this.#result([], new Map(), true)
    throw outage ?? notSeen(this.#what, this.#deps.whyLocal)
  }

  #takeLocal(
    wanted: readonly HubFile[],
    settled: ReadonlyMap<HubFile, SettledFile>,
  ): ReadonlyMap<HubFile, BroughtFile> {
    if (settled.size < wanted.length) {
      throw notThere(missingOf(this.#what, wanted, settled), this.#deps.whyLocal)
    }
    const found = new Map<HubFile, BroughtFile>()
    for (const [file, { path }] of settled) {
      const { commit, etag, sizeBytes } = file
      const bytes = { ...noBytes(), cache: sizeBytes }
      found.set(file, { path, commit, etag, sizeBytes, infoHash: undefined, bytes })
    }
    tellThere(wanted, this.#options.onProgress)
    return found
  }

  /**
   * Why the Hub cannot be asked for what is missing. A commit whose files are known costs no question, until something
   * is to be fetched: then one tells, for all files, whether the Hub is there and still shows the repository to us.
   */
  async #findOutage(): Promise<HubError | undefined> {
    const { commit, hasAnswered, outage } = this.#listing
    if (hasAnswered || outage !== undefined) return outage
    try {
      await this.#deps.hub?.resolveRevision(this.#repo, commit)
      return undefined
    } catch (error) {
      if (!isUnreachable(error)) throw error
      tellUnchecked(this.#repo, this.#revision, commit, error)
      return error
    }
  }

  async #bring(
    wanted: readonly HubFile[],
    settled: ReadonlyMap<HubFile, SettledFile>,
    outage: HubError | undefined,
  ): Promise<ReadonlyMap<HubFile, BroughtFile>> {
    const { forceDownload: anew = false, maxWorkers = defaultMaxWorkers } = this.#options
    if (anew && outage !== undefined) throw outage
    const { done, failure } = await bringFiles(
      {
        files: wanted,
        settled,
        revision: this.#revision,
        commit: this.#listing.commit,
        anew,
        isHubThere: outage === undefined,
        maxWorkers,
      },
      this.#deps,
    )
    if (failure === undefined) return done
    if (outage === undefined && this.#isTreeRefuted(failure.error)) {
      await this.#deps.place.dropTree(this.#repo, this.#listing.commit)
    }
    const cause = outage === undefined ? failure.error : withoutPeers(outage, failure.error)
    throw incompleteBecause(missingOf(this.#what, wanted, done), cause)
  }

  /**
   * Whether the Hub has something else under a name than was noted: who wrote the list of files down may have been wrong.
   * Peers that lie say nothing about it, and what the Hub has just said needs no second question.
   */
  #isTreeRefuted(error: unknown): boolean {
    if (!this.#listing.isKept || !this.#deps.usesHttp) return false
    return error instanceof IntegrityError || (error as Partial<HubError>).hubCode === 'EntryNotFound'
  }

  #result(
    wanted: readonly HubFile[],
    done: ReadonlyMap<HubFile, BroughtFile>,
    isUnchecked: boolean,
  ): DownloadedSnapshot {
    const { commit } = this.#listing
    const files = wanted.flatMap((file) => {
      const brought = done.get(file)
      return brought === undefined ? [] : [{ ...brought, isUnchecked, name: file.path }]
    })
    const bytes = files.reduce((sum, file) => addBytes(sum, file.bytes), noBytes())
    return { path: this.#deps.place.folderOf(this.#repo, commit), commit, bytes, files, isUnchecked }
  }

  get #what(): string {
    return `${this.#repo.repo}@${this.#revision}`
  }
}

function missingOf(
  what: string,
  wanted: readonly HubFile[],
  there: ReadonlyMap<HubFile, unknown>,
): { what: string; names: readonly string[]; total: number } {
  const names = wanted.filter((file) => !there.has(file)).map(({ path }) => path)
  return { what, names, total: wanted.length }
}
