/**
 * Whether a file may be shared: looked up, fetched from peers, published, announced, seeded. It may when the Hub shows it
 * to somebody without a token, or when its repository was named in `shareGated` or `sharePrivate`.
 *
 * A "no" holds for the whole repository. A "yes" does only when it was about a file in large-file storage: the
 * Hub may show the README of a gated repository to everybody. A content that everybody may have from one repository may be
 * shared though it came from another one.
 *
 * How old an answer may be depends on what for. To look up and fetch, and so to announce as somebody who fetches: a day,
 * whichever process heard it. To publish, or to seed: an hour, in this process. Without such an answer the Hub is asked; when it
 * says nothing, nothing is shared.
 */
import { unlessAborted } from '../abort.ts'
import type { Config } from '../config.ts'
import { HubError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import { digestOf, type HubFile, type RepoRef, repoNameOf } from '../values.ts'
import type { HubAccess } from './ask.ts'
import { fileMetadata } from './metadata.ts'
import { allowsSharing, type SharingVerdict } from './sharing.ts'
import type { Openness, Said, VisibilityMemory } from './visibility-memory.ts'

/** `fetch`: look it up and get it from peers. `seed`: publish it and give it to others. */
export type Purpose = 'fetch' | 'seed'

export interface VerdictOptions {
  readonly for: Purpose
  readonly signal?: AbortSignal | undefined
}

export interface VisibilityDeps {
  /** The Hub whose word counts. It is asked without a token, whatever this holds. */
  readonly hub: Pick<HubAccess, 'http' | 'endpoint'>
  /** `undefined`: what is heard ends with the process. */
  readonly memory: VisibilityMemory | undefined
  /** Repositories that are shared all the same. */
  readonly rules: Pick<Config, 'shareGated' | 'sharePrivate'>
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

/** Which answers count. */
interface Trust {
  readonly maxAgeMs: number
  /** Whether one that another process wrote down does. */
  readonly fromDisk: boolean
}

const trustFor: Record<Purpose, Trust> = {
  fetch: { maxAgeMs: dayMs, fromDisk: true },
  seed: { maxAgeMs: hourMs, fromDisk: false },
}
const anyTrust: Trust = { maxAgeMs: Number.POSITIVE_INFINITY, fromDisk: true }
/** A Hub that did not answer is left alone for this long: thousands of files may be waiting to ask the same. */
const silenceMs = minuteMs
/** Small files speak for themselves alone. So many of one repository are asked about in an hour; the rest is not shared. */
const maxSmallQuestions = 16

/** What one Hub shows to everybody. One per endpoint and process, whatever tokens are used there. */
export class Visibility {
  readonly #deps: VisibilityDeps
  readonly #allowed: Readonly<Record<'gated' | 'private', ReadonlySet<string>>>
  /** By repository: what was said of it as a whole. */
  readonly #repos = new Map<string, Said>()
  /** By repository and etag: what was said of one file only. */
  readonly #files = new Map<string, Said>()
  /** Questions under way, one per repository: the answer to one may be the answer to all. */
  readonly #pending = new Map<string, Promise<unknown>>()
  readonly #smallQuestions = new Map<string, { sinceMs: number; count: number }>()
  /** When something was last written down, by what. */
  readonly #noted = new Map<string, number>()
  /** Where the last public file of a repository lies. */
  readonly #locations = new Map<string, { readonly etag: string; readonly location: string }>()
  #silentUntilMs = 0

  constructor(deps: VisibilityDeps) {
    this.#deps = deps
    const { shareGated, sharePrivate } = deps.rules
    this.#allowed = { gated: new Set(shareGated), private: new Set(sharePrivate) }
  }

  /** The Hub whose word it is. */
  get endpoint(): string {
    return this.#deps.hub.endpoint
  }

  /** Whether `file` may be shared now. Costs at most one anonymous HEAD request per repository in the normal case. */
  async mayShare(file: HubFile, options: VerdictOptions): Promise<boolean> {
    return allowsSharing(await this.verdict(file, options))
  }

  /** Like `mayShare`, with the reason. @throws Only the signal's reason. */
  async verdict(file: HubFile, options: VerdictOptions): Promise<SharingVerdict> {
    return await unlessAborted(this.#judge(file, options.for), options.signal)
  }

  /**
   * Whether the Hub shows `file` itself to everybody, under this name: other repositories with the same content do not count. For
   * large-file storage it is so for its whole repository. @throws Only the signal's reason.
   */
  async isShown(file: HubFile, signal?: AbortSignal): Promise<boolean> {
    const said = await unlessAborted(this.#said(file, trustFor.fetch), signal)
    return said?.openness === 'public'
  }

  /**
   * Tells that the Hub has just shown `file` (its content, or where that is) to a request without a token: nobody has to
   * ask again. A list of files is no such sight, gated repositories list theirs for everybody.
   */
  async shown(file: HubFile): Promise<void> {
    await this.#note(file, 'public')
  }

  /**
   * When the Hub last showed this content to everybody, in ms since 1970, as far as anybody remembers; nothing is asked.
   * It allows nothing by itself: `mayShare` knows how old an answer may be.
   */
  async wasPublic(file: HubFile): Promise<{ readonly atMs: number } | undefined> {
    const own = await this.#latest(file, anyTrust)
    if (own?.openness === 'public') return { atMs: own.atMs }
    for (const witness of await this.#witnesses(file)) {
      const said = await this.#latest(witness, anyTrust)
      if (said === undefined || said.openness === 'public') {
        return { atMs: said?.atMs ?? witness.atMs }
      }
    }
    return undefined
  }

  /** Where the answer that `file` is public said that its content lies, once. Saves a request for that. */
  takeLocation(file: HubFile): string | undefined {
    const key = repoNameOf(file)
    const found = this.#locations.get(key)
    if (found?.etag !== file.etag) return undefined
    this.#locations.delete(key)
    return found.location
  }

  async #judge(file: HubFile, purpose: Purpose): Promise<SharingVerdict> {
    const name = repoNameOf(file)
    if (this.#allowed.gated.has(name) && this.#allowed.private.has(name)) return 'on-request'
    const trust = trustFor[purpose]
    const said = await this.#said(file, trust)
    if (said?.openness === 'public') {
      // Whoever seeds it meets it again under other names, and after a restart.
      if (purpose === 'seed') await this.#noteWitness(file, said.atMs)
      return 'public'
    }
    if (said !== undefined && this.#allowed[said.openness].has(name)) return 'on-request'
    for (const witness of await this.#witnesses(file)) {
      if ((await this.#said(witness, trust))?.openness === 'public') return 'public'
    }
    return said?.openness ?? (this.#isTooMuch(file) ? 'not-asked' : 'unknown')
  }

  /** The same content in other repositories, where everybody saw it. */
  async #witnesses(file: HubFile): Promise<(HubFile & { readonly atMs: number })[]> {
    const { etag, sizeBytes } = file
    const found = await this.#deps.memory?.witnesses(this.#deps.hub.endpoint, etag)
    return (found ?? [])
      .filter((witness) => repoNameOf(witness) !== repoNameOf(file))
      .map((witness) => ({ ...witness, etag, sizeBytes }))
  }

  /** What is known and may be trusted, else what the Hub says; `undefined` when it says nothing. */
  async #said(file: HubFile, trust: Trust): Promise<Said | undefined> {
    const repo = repoNameOf(file)
    for (;;) {
      const said = await this.#latest(file, trust)
      if (said !== undefined) return said
      const pending = this.#pending.get(repo)
      if (pending === undefined) break
      await pending
    }
    if (this.#now() < this.#silentUntilMs || !this.#mayAsk(file)) return undefined
    const asking = this.#ask(file).finally(() => this.#pending.delete(repo))
    this.#pending.set(repo, asking)
    return await asking
  }

  /** The last thing said of the file or of its repository, if it may be trusted. */
  async #latest(file: HubFile, { maxAgeMs, fromDisk }: Trust): Promise<Said | undefined> {
    const repo = repoNameOf(file)
    const own = [this.#repos.get(repo), this.#files.get(`${repo} ${file.etag}`)]
    const heard = this.#lastWithin(maxAgeMs, own)
    if (!fromDisk || this.#lastWithin(hourMs, [heard]) !== undefined) return heard
    // Another process may have asked since.
    const written = await this.#deps.memory?.repo(this.#deps.hub.endpoint, file)
    return this.#lastWithin(maxAgeMs, [heard, written])
  }

  #lastWithin(maxAgeMs: number, answers: readonly (Said | undefined)[]): Said | undefined {
    return answers
      .filter((said) => said !== undefined)
      .filter(({ atMs }) => {
        // What was said in the future was said by a wrong clock, or by somebody else.
        const ageMs = this.#now() - atMs
        return ageMs >= 0 && ageMs <= maxAgeMs
      })
      .toSorted((a, b) => b.atMs - a.atMs)[0]
  }

  async #ask(file: HubFile): Promise<Said | undefined> {
    const { repoType, repo, path, commit: revision } = file
    const { http, endpoint } = this.#deps.hub
    try {
      const seen = await fileMetadata({ http, endpoint }, { repoType, repo, path, revision }, { retries: 0 })
      const isSame = seen.etag === file.etag && seen.sizeBytes === file.sizeBytes
      if (!isSame) return await this.#noteRepo(file, 'private')
      this.#locations.set(repoNameOf(file), { etag: file.etag, location: seen.location })
      return await this.#note(file, 'public')
    } catch (error) {
      const refusal = refusalIn(error)
      if (refusal !== undefined) return await this.#note(file, refusal.openness, refusal.isForAll)
      this.#silentUntilMs = this.#now() + silenceMs
      log.debug(`cannot tell whether ${repoNameOf(file)} is public: ${messageOf(error)}`)
      return undefined
    }
  }

  /** @param isForAll Whether it was said of the repository as a whole. */
  async #note(
    file: HubFile,
    openness: Openness,
    isForAll: boolean = digestOf(file.etag) === 'sha256',
  ): Promise<Said> {
    if (isForAll) return await this.#noteRepo(file, openness)
    const said = { openness, atMs: this.#now() }
    this.#files.set(`${repoNameOf(file)} ${file.etag}`, said)
    return said
  }

  async #noteRepo(repo: RepoRef, openness: Openness): Promise<Said> {
    const name = repoNameOf(repo)
    const said = { openness, atMs: this.#now() }
    const hasChanged = this.#repos.get(name)?.openness !== openness
    this.#repos.set(name, said)
    if (hasChanged || this.#isDue(name)) {
      this.#noted.set(name, said.atMs)
      await this.#deps.memory?.noteRepo(this.#deps.hub.endpoint, repo, said)
    }
    return said
  }

  async #noteWitness(file: HubFile, atMs: number): Promise<void> {
    const key = `${repoNameOf(file)} ${file.etag}`
    if (!this.#isDue(key)) return
    this.#noted.set(key, this.#now())
    await this.#deps.memory?.noteWitness(this.#deps.hub.endpoint, file, atMs)
  }

  /** Whether it is long enough ago that something was written down: every file of a repository tells the same. */
  #isDue(key: string): boolean {
    return this.#now() - (this.#noted.get(key) ?? 0) >= hourMs / 4
  }

  #mayAsk(file: HubFile): boolean {
    if (digestOf(file.etag) === 'sha256') return true
    const repo = repoNameOf(file)
    const asked = this.#smallQuestions.get(repo)
    if (asked === undefined || this.#now() - asked.sinceMs >= hourMs) {
      this.#smallQuestions.set(repo, { sinceMs: this.#now(), count: 1 })
      return true
    }
    asked.count += 1
    return asked.count <= maxSmallQuestions
  }

  /** Whether that, and not the Hub's silence, is why nothing is known of a file. */
  #isTooMuch(file: HubFile): boolean {
    const asked = this.#smallQuestions.get(repoNameOf(file))
    return digestOf(file.etag) !== 'sha256' && asked !== undefined && asked.count > maxSmallQuestions
  }

  #now(): number {
    return this.#deps.hub.http.now()
  }
}

/** What a refusal says, and of what; `undefined` when it says nothing about who may see the file. */
function refusalIn(error: unknown): { readonly openness: Openness; readonly isForAll: boolean } | undefined {
  if (!(error instanceof HubError) || error.status === undefined) return undefined
  if (error.status < 400 || error.status > 499 || [408, 425, 429].includes(error.status)) return undefined
  if (error.hubCode === 'GatedRepo') return { openness: 'gated', isForAll: true }
  // The repository is there for everybody; its history was rewritten.
  const isOneFile = error.hubCode === 'EntryNotFound' || error.hubCode === 'RevisionNotFound'
  return { openness: 'private', isForAll: !isOneFile }
}
