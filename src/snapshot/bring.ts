/** Brings files to their places: those that are not there, each content once, however many names it has. */
import { isAbort } from '../errors.ts'
import type { SettledFile } from '../hub/cache-layout.ts'
import { forEachBounded, forEachFromBothEnds } from '../transfer/bounded.ts'
import type { Commit, Etag, HubFile } from '../values.ts'
import type { BroughtFile, CallDeps, Downloader } from './call.ts'
import { fetchOrder } from './selection.ts'

/** Looks at this many names at a time: enough to keep a disk, or a network file system, busy. */
const looksAtOnce = 32

/** Those of `files` that need nothing. @param files Of one repository. */
export async function findSettledFiles(
  files: readonly HubFile[],
  { place, signal, hub }: Pick<CallDeps, 'place' | 'signal' | 'hub'>,
): Promise<ReadonlyMap<HubFile, SettledFile>> {
  const settled = new Map<HubFile, SettledFile>()
  const [first] = files
  // What is left of a download that somebody else has finished goes with the next one that may fetch.
  const partials = first && hub && (await place.partials(first))
  if (first && hub) place.tidy(first)
  await forEachBounded(files, looksAtOnce, async (file) => {
    signal.throwIfAborted()
    if (partials?.has(file.etag)) return
    const found = await place.findSettled(file)
    if (found !== undefined) settled.set(file, found)
  })
  return settled
}

export interface BringJob {
  readonly files: readonly HubFile[]
  /** Those of them that need nothing. */
  readonly settled: ReadonlyMap<HubFile, SettledFile>
  /** What was asked for, and the commit that it is: noted with the first file. */
  readonly revision: string
  readonly commit: Commit
  /** Whether what is there does not count. */
  readonly anew: boolean
  /** Where the Hub said that the only file's content is. */
  readonly location?: string | undefined
  /** Whether the Hub answers: else peers are asked for every file, and one that they do not have stops no other. */
  readonly isHubThere: boolean
  readonly maxWorkers: number
}

export interface Brought {
  readonly done: ReadonlyMap<HubFile, BroughtFile>
  /** Why not all are done. */
  readonly failure: { readonly error: unknown } | undefined
}

/**
 * Does `job`. The first failure ends what else is under way, which keeps what it has for the next try.
 *
 * @throws The signal's reason, when it is the caller's.
 */
export async function bringFiles(job: BringJob, deps: CallDeps): Promise<Brought> {
  return await new Bringing(job, deps).run()
}

class Bringing {
  readonly #job: BringJob
  readonly #deps: CallDeps
  readonly #downloader: Downloader
  readonly #done = new Map<HubFile, BroughtFile>()
  /** Where contents are that came, or were there, under some name. */
  readonly #contents = new Map<Etag, string>()
  #noted: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined
  #hasStopped = false

  constructor(job: BringJob, deps: CallDeps) {
    this.#job = job
    this.#deps = deps
    this.#downloader = deps.downloader(job.files, { http: job.isHubThere })
  }

  async run(): Promise<Brought> {
    const { files, settled, maxWorkers } = this.#job
    for (const [file, at] of settled) await this.#finish(file, this.#downloader.present(file, at))
    const missing = files.filter((file) => !settled.has(file))
    if (missing.length > 0) await this.#downloader.askAhead(missing)
    try {
      await forEachFromBothEnds(byContent(missing), maxWorkers, (group) => this.#bringGroup(group))
    } catch (error) {
      // What a stop ends fails, too, and may be heard of first.
      if (!this.#hasStopped) throw error
    }
    return { done: this.#done, failure: this.#failure }
  }

  /** Files of one content: the first is fetched, the others are made from it. */
  async #bringGroup(group: readonly HubFile[]): Promise<void> {
    const { signal, stop } = this.#deps
    try {
      for (const file of group) {
        signal.throwIfAborted()
        await this.#finish(file, this.#bring(file))
      }
    } catch (error) {
      if (isAbort(error, signal)) throw error
      this.#failure ??= { error }
      // Without the Hub, other peers may have the other files.
      if (!this.#job.isHubThere) return
      this.#hasStopped = true
      stop(error)
      throw error
    }
  }

  async #finish(file: HubFile, work: Promise<BroughtFile>): Promise<void> {
    const brought = await work
    this.#done.set(file, brought)
    if (!this.#contents.has(file.etag)) this.#contents.set(file.etag, brought.path)
    const { place } = this.#deps
    // Not before a file is there: a ref to a snapshot that is not would be a broken cache.
    this.#noted ??= place.noteRevision(file, this.#job.revision, this.#job.commit)
    await this.#noted
  }

  async #bring(file: HubFile): Promise<BroughtFile> {
    const { place, signal } = this.#deps
    const { anew, location } = this.#job
    const known = this.#contents.get(file.etag)
    if (known !== undefined) return await this.#copy(file, known)
    if (!anew) {
      if (await place.adopt(file, signal)) return await this.#present(file, place.pathOf(file))
      const elsewhere = await place.findElsewhere(file)
      if (elsewhere !== undefined) return await this.#copy(file, elsewhere)
    }
    return await this.#downloader.fetch(file, { anew, location })
  }

  async #copy(file: HubFile, contentPath: string): Promise<BroughtFile> {
    const { place, signal } = this.#deps
    const { anew } = this.#job
    return await this.#present(file, await place.settleFrom(file, contentPath, { signal, anew }))
  }

  async #present(file: HubFile, path: string): Promise<BroughtFile> {
    return await this.#downloader.present(file, { path, contentPath: path })
  }
}

function byContent(files: readonly HubFile[]): readonly (readonly HubFile[])[] {
  const groups = new Map<Etag, HubFile[]>()
  for (const file of fetchOrder(files)) {
    const group = groups.get(file.etag)
    if (group === undefined) groups.set(file.etag, [file])
    else group.push(file)
  }
  return [...groups.values()]
}
