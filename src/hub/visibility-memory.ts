/**
 * What the Hub told somebody without a token, kept for later processes in `$HF_HOME/llmpt/visibility`:
 *
 *     repos/<hash of endpoint and repository>.json   what was said last about a repository as a whole
 *     blobs/<etag>.json                              in which repositories everybody saw a content that was shared
 *
 * Files are small, replaced as a whole, and hints: one that is lost costs a question. Whoever writes last wins, so an
 * answer may be overwritten by an older one that another process was about to write; each says when it was given, and how
 * old it may be is for the reader to decide.
 */
import { createHash, randomBytes } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { log, messageOf } from '../log.ts'
import {
  asCommit,
  type Commit,
  type Etag,
  type HubFile,
  parseRepoName,
  type RepoRef,
  repoNameOf,
} from '../values.ts'
import { isSafePath } from './file-ref.ts'

/** What the Hub shows of something to somebody without a token. What is gone is `private`. */
export type Openness = 'public' | 'gated' | 'private'

/** An answer, and when it was given, in ms since 1970. */
export interface Said {
  readonly openness: Openness
  readonly atMs: number
}

/** A file by which everybody saw a content, and when. */
export interface Witness extends RepoRef {
  readonly commit: Commit
  readonly path: string
  readonly atMs: number
}

/** Of one content. */
const maxWitnesses = 8
/** Ample for eight witnesses; a longer file is not ours. */
const maxFileBytes = 64 * 1024
/** What nobody has written anew for this long says nothing that would not be asked again. */
const keptMs = 30 * 24 * 3_600_000

const time = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const repoSchema = v.object({
  endpoint: v.string(),
  repo: v.string(),
  openness: v.picklist(['public', 'gated', 'private']),
  at: time,
})
const witnessSchema = v.object({
  endpoint: v.string(),
  repo: v.string(),
  commit: v.string(),
  path: v.string(),
  at: time,
})

/** The folder of one state directory. Nothing here throws: a disk that refuses costs questions. */
export class VisibilityMemory {
  readonly #folder: string
  readonly #now: () => number
  readonly #writing = new Set<Promise<void>>()
  #hasTidied = false

  /** @param now The clock, in ms since 1970. */
  constructor(stateDir: string, now: () => number = Date.now) {
    this.#folder = join(stateDir, 'visibility')
    this.#now = now
  }

  /** What was said last about a repository as a whole. */
  async repo(endpoint: string, repo: RepoRef): Promise<Said | undefined> {
    const parsed = v.safeParse(repoSchema, await readJson(this.#repoPath(endpoint, repo)))
    if (!parsed.success) return undefined
    const { endpoint: ofEndpoint, repo: ofRepo, openness, at } = parsed.output
    return ofEndpoint === endpoint && ofRepo === repoNameOf(repo) ? { openness, atMs: at } : undefined
  }

  /** An answer that is older than the one that is there changes nothing. */
  noteRepo(endpoint: string, repo: RepoRef, said: Said): Promise<void> {
    return this.#busy(this.#noteRepo(endpoint, repo, said))
  }

  async #noteRepo(endpoint: string, repo: RepoRef, said: Said): Promise<void> {
    const known = await this.repo(endpoint, repo)
    // What was said in the future was said by a wrong clock, and must not stand until then.
    if (known !== undefined && said.atMs <= known.atMs && known.atMs <= this.#now()) return
    const record = { endpoint, repo: repoNameOf(repo), openness: said.openness, at: said.atMs }
    await this.#write(this.#repoPath(endpoint, repo), record)
  }

  /** Where at this Hub everybody saw a content, the latest first; at most 8. */
  async witnesses(endpoint: string, etag: Etag): Promise<readonly Witness[]> {
    const entries = await this.#blob(etag)
    return entries.filter((entry) => entry.endpoint === endpoint).map(({ witness }) => witness)
  }

  /** That everybody saw this file; of one repository the last sight is kept. */
  noteWitness(endpoint: string, file: HubFile, atMs: number): Promise<void> {
    return this.#busy(this.#noteWitness(endpoint, file, atMs))
  }

  /** Resolves when nothing is being written; whoever deletes the folder waits for that. */
  async idle(): Promise<void> {
    await Promise.all(this.#writing)
  }

  async #noteWitness(endpoint: string, file: HubFile, atMs: number): Promise<void> {
    const { repoType, repo, commit, path } = file
    const others = (await this.#blob(file.etag)).filter(
      (entry) => entry.endpoint !== endpoint || repoNameOf(entry.witness) !== repoNameOf(file),
    )
    const seen = { endpoint, witness: { repoType, repo, commit, path, atMs } }
    const kept = latestFirst([seen, ...others]).slice(0, maxWitnesses)
    const records = kept.map(({ endpoint: of, witness: { atMs: at, ...where } }) => ({
      endpoint: of,
      repo: repoNameOf(where),
      commit: where.commit,
      path: where.path,
      at,
    }))
    await this.#write(this.#blobPath(file.etag), records)
  }

  #busy(write: Promise<void>): Promise<void> {
    const done = write.finally(() => this.#writing.delete(done))
    this.#writing.add(done)
    return done
  }

  async #blob(etag: Etag): Promise<Entry[]> {
    const json = await readJson(this.#blobPath(etag))
    if (!Array.isArray(json)) return []
    return latestFirst(json.flatMap((record) => entryOf(record) ?? [])).slice(0, maxWitnesses)
  }

  #repoPath(endpoint: string, repo: RepoRef): string {
    const name = createHash('sha256')
      .update(`${endpoint} ${repoNameOf(repo)}`)
      .digest('hex')
      .slice(0, 40)
    return join(this.#folder, 'repos', `${name}.json`)
  }

  #blobPath(etag: Etag): string {
    return join(this.#folder, 'blobs', `${etag}.json`)
  }

  async #write(path: string, record: unknown): Promise<void> {
    try {
      // What is above is not ours alone: it gets the mode that the user wants for new folders.
      await mkdir(dirname(this.#folder), { recursive: true })
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      const temporary = `${path}.${randomBytes(4).toString('hex')}`
      // The names of private repositories are nobody else's business, on this machine either.
      await writeFile(temporary, JSON.stringify(record), { mode: 0o600, flag: 'wx' })
      await rename(temporary, path)
    } catch (error) {
      log.debug(`cannot remember what everybody may see in ${path}: ${messageOf(error)}`)
    }
    if (this.#hasTidied) return
    this.#hasTidied = true
    for (const folder of ['repos', 'blobs']) await sweep(join(this.#folder, folder))
  }
}

interface Entry {
  readonly endpoint: string
  readonly witness: Witness
}

function entryOf(record: unknown): Entry | undefined {
  const parsed = v.safeParse(witnessSchema, record)
  if (!parsed.success) return undefined
  const { endpoint, path, at } = parsed.output
  const repo = parseRepoName(parsed.output.repo)
  const commit = asCommit(parsed.output.commit)
  if (repo === undefined || commit === undefined || !isSafePath(path)) return undefined
  return { endpoint, witness: { ...repo, commit, path, atMs: at } }
}

function latestFirst(entries: readonly Entry[]): Entry[] {
  return entries.toSorted((a, b) => b.witness.atMs - a.witness.atMs)
}

/** `undefined` for what is not there, no file, too long, or not JSON. */
async function readJson(path: string): Promise<unknown> {
  try {
    const found = await lstat(path)
    // Opening a pipe that somebody put there would wait for its writer.
    if (!found.isFile() || found.size > maxFileBytes) return undefined
    return JSON.parse(await readFile(path, 'utf8'))
  } catch {
    return undefined
  }
}

async function sweep(folder: string): Promise<void> {
  try {
    for (const name of await readdir(folder)) {
      const path = join(folder, name)
      if (Date.now() - (await lstat(path)).mtimeMs > keptMs) await rm(path, { force: true })
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.debug(`${folder} was not tidied: ${messageOf(error)}`)
  }
}
