/**
 * A Hugging Face Hub on this machine, for the demo and for tests: real HTTP servers for the Hub, its large-file
 * storage and its Xet service, on three origins. It answers as the real one does, counts what it
 * sends, and fails in every way a test asks for.
 */
import { createHash, createHmac, randomBytes } from 'node:crypto'
import type { Commit, Etag, FileRef, HubFile, RepoType } from '../values.ts'
import { answerHub, type HubWorld } from './hub-api.ts'
import {
  type Availability,
  collect,
  type Exchange,
  type Fault,
  Origin,
  type OriginName,
  type RequestRecord,
  reply,
  replyFault,
} from './hub-origin.ts'
import { type DemoFile, DemoRepo, type FileTree, type RepoAccess, type RepoSpec } from './hub-repos.ts'
import { answerCas, xetHash } from './hub-xet.ts'

export {
  type Content,
  makeSafetensors,
  noiseBytes,
  type SafetensorsOptions,
  type Storage,
} from './hub-content.ts'
export type { Availability, Fault, OriginName, RequestRecord } from './hub-origin.ts'
export type { FileSpec, FileTree, RepoAccess, RepoSpec } from './hub-repos.ts'

/** How the Hub behaves apart from faults. */
export interface HubOptions {
  /** @defaultValue '127.0.0.1' */
  readonly host?: string
  /** Of the Hub's own origin; 0 picks one. @defaultValue 0 */
  readonly port?: number
  /** In front of every path of the Hub, such as `/mirror`. */
  readonly pathPrefix?: string
  /** Token -> ids of the private and gated repositories it may read. Other tokens are refused. */
  readonly tokens?: Readonly<Record<string, readonly string[]>>
  /** Entries per page of the tree API. @defaultValue 1000 */
  readonly pageSize?: number
  /** How long a storage URL works. @defaultValue one hour */
  readonly signatureLifetimeMs?: number
  /** The clock of signatures, in ms since 1970. */
  readonly now?: () => number
  /** Bytes per second of file content, all connections of an origin together. */
  readonly throttleBytesPerSecond?: number
}

/** Which file of which repository; without it, the first repository's `main`. */
export interface Where {
  readonly repo?: string
  readonly repoType?: RepoType
  readonly revision?: string
}

/** Sums over requests. */
export interface TrafficStats {
  readonly requests: number
  /** Of bodies. */
  readonly bytesSent: number
  /** Requests that carried an Authorization header. */
  readonly authorized: number
}

/** A file of the demo Hub with everything a test wants to compare with. */
export interface DemoHubFile extends HubFile {
  readonly sha256: string
  readonly gitSha1: string
  /** The whole content, in memory. */
  bytes(): Promise<Buffer>
}

/** Starts a Hub with one public model repository `acme/tiny` holding `files`, or with the given repositories. */
export async function startHub(
  spec: FileTree | RepoSpec | readonly RepoSpec[],
  options: HubOptions = {},
): Promise<HubServer> {
  const specs = isRepoSpecs(spec) ? [spec].flat() : [{ repo: 'acme/tiny', files: spec as FileTree }]
  const repos: DemoRepo[] = []
  for (const repo of specs) repos.push(await DemoRepo.create(repo))
  const hub = new HubServer(repos, options)
  await hub.listen()
  return hub
}

/** A running Hub. Close it, or the process stays alive. */
export class HubServer implements AsyncDisposable {
  readonly repos: readonly DemoRepo[]
  readonly #origins: Record<OriginName, Origin>
  readonly #faults = new Set<Fault & { left: number }>()
  readonly #pathPrefix: string
  readonly #now: () => number
  readonly #lifetimeMs: number
  #signingKey: Buffer = randomBytes(16)

  /** Use `startHub`. */
  constructor(repos: readonly DemoRepo[], options: HubOptions) {
    this.repos = repos
    this.#pathPrefix = options.pathPrefix ?? ''
    this.#now = options.now ?? Date.now
    this.#lifetimeMs = options.signatureLifetimeMs ?? 3_600_000
    const world: HubWorld = {
      repos,
      tokens: options.tokens ?? {},
      pageSize: options.pageSize ?? 1000,
      pathPrefix: this.#pathPrefix,
      hub: () => this.#origins.hub,
      casUrl: () => this.casUrl,
      sign: (file) => this.#sign(file),
    }
    const host = options.host ?? '127.0.0.1'
    const origin = (name: OriginName, port: number, handler: (exchange: Exchange) => Promise<void>): Origin =>
      new Origin(name, host, port, this.#faults, handler)
    this.#origins = {
      hub: origin('hub', options.port ?? 0, (exchange) => answerHub(world, exchange)),
      cdn: origin('cdn', 0, (exchange) => this.#answerStorage(exchange)),
      cas: origin('cas', 0, (exchange) => this.#answerCas(exchange)),
    }
    for (const name of originNames) this.setThrottle(name, options.throttleBytesPerSecond ?? 0)
  }

  /** The endpoint, without a trailing slash. */
  get url(): string {
    return this.#origins.hub.url + this.#pathPrefix
  }

  get cdnUrl(): string {
    return this.#origins.cdn.url
  }

  get casUrl(): string {
    return this.#origins.cas.url
  }

  async listen(): Promise<void> {
    for (const name of originNames) await this.#origins[name].listen()
  }

  /** @throws {Error} when there is no such repository. */
  repo(where: Where = {}): DemoRepo {
    const repoType = where.repoType
    const found = this.repos.find(
      (repo) =>
        (where.repo === undefined || repo.repo === where.repo) && (!repoType || repo.repoType === repoType),
    )
    if (!found) throw new Error(`the demo Hub has no repository ${where.repo}`)
    return found
  }

  /** @throws {Error} when there is no such file. */
  file(path: string, where: Where = {}): DemoHubFile {
    const repo = this.repo(where)
    const commit = repo.find(where.revision ?? 'main')
    const file = commit?.files.get(path)
    if (!commit || !file) throw new Error(`the demo Hub has no file ${path}`)
    const { blob } = file
    return {
      repoType: repo.repoType,
      repo: repo.repo,
      path,
      commit: commit.id as Commit,
      etag: blob.etag as Etag,
      sizeBytes: blob.sizeBytes,
      sha256: blob.sha256,
      gitSha1: blob.gitSha1,
      bytes: () => collect(blob.read()),
    }
  }

  ref(path: string, where: Where = {}): FileRef {
    const { repoType, repo } = this.repo(where)
    return { repoType, repo, path, revision: where.revision ?? 'main' }
  }

  /** Its owner changes who may see a repository. */
  setAccess(access: RepoAccess, where: Where = {}): void {
    this.repo(where).access = access
  }

  /** Makes `files` the whole tree of a branch and returns the commit id. */
  async commit(files: FileTree, where: Where = {}): Promise<Commit> {
    return (await this.repo(where).commit(where.revision ?? 'main', files)).id as Commit
  }

  /** Every request so far, of all origins or one, in the order of arrival per origin. */
  requests(origin?: OriginName): RequestRecord[] {
    return originNames
      .filter((name) => !origin || name === origin)
      .flatMap((name) => this.#origins[name].records)
  }

  stats(origin?: OriginName): TrafficStats {
    return summarize(this.requests(origin))
  }

  /** Requests for one file, by its name, at the Hub and in storage. */
  fileStats(path: string, origin?: OriginName): TrafficStats {
    return summarize(this.requests(origin).filter((record) => record.file === path))
  }

  resetStats(): void {
    for (const name of originNames) this.#origins[name].records.length = 0
  }

  /** Switches a fault on; the returned function switches it off. */
  inject(fault: Fault): () => void {
    const armed = { ...fault, left: fault.times ?? Number.POSITIVE_INFINITY }
    this.#faults.add(armed)
    return () => void this.#faults.delete(armed)
  }

  /** Open connections are cut unless it comes up. */
  async setAvailability(origin: OriginName, availability: Availability): Promise<void> {
    await this.#origins[origin].setAvailability(availability)
  }

  /** Bytes per second of file content, all connections together; 0 is no limit. */
  setThrottle(origin: OriginName, bytesPerSecond: number): void {
    this.#origins[origin].setThrottle(bytesPerSecond)
  }

  /** Makes every storage URL given out so far worthless. */
  expireSignatures(): void {
    this.#signingKey = randomBytes(16)
  }

  async close(): Promise<void> {
    await Promise.all(originNames.map((name) => this.#origins[name].close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #sign(file: DemoFile): string {
    const url = new URL(`/repos/${file.blob.storage}/${file.blob.sha256}`, this.cdnUrl)
    url.searchParams.set(
      'response-content-disposition',
      `inline; filename="${encodeURIComponent(file.path)}"`,
    )
    url.searchParams.set('Expires', String(Math.ceil((this.#now() + this.#lifetimeMs) / 1000)))
    url.searchParams.set('Signature', this.#signature(url))
    url.searchParams.set('Key-Pair-Id', 'DEMO')
    return url.href
  }

  #signature(url: URL): string {
    const signed = `${url.pathname} ${url.searchParams.get('Expires')}`
    return createHmac('sha256', this.#signingKey).update(signed).digest('base64url')
  }

  /** Large-file storage: knows no tokens, only signatures, and refuses to see both. */
  async #answerStorage(exchange: Exchange): Promise<void> {
    const { req, url, record } = exchange
    const origin = this.#origins.cdn
    const [, , storage, sha256] = url.pathname.split('/')
    const names = this.#allFiles().filter((file) => file.blob.sha256 === sha256)
    const asked = /filename="(.*)"/.exec(url.searchParams.get('response-content-disposition') ?? '')?.[1]
    record.file = asked === undefined ? undefined : decodeURIComponent(asked)
    const paths = names.map((file) => file.path)
    const fault = origin.faultsFor(exchange, paths, true)
    if (await replyFault(exchange, fault)) return
    if (req.headers.authorization !== undefined)
      return storageError(exchange, 400, 'Only one auth mechanism allowed')
    const isExpired = Number(url.searchParams.get('Expires')) * 1000 <= this.#now()
    if (isExpired || url.searchParams.get('Signature') !== this.#signature(url)) {
      return storageError(exchange, 403, 'Request has expired')
    }
    const file = names[0]
    if (!file) return storageError(exchange, 404, 'NoSuchKey')
    const md5 = createHash('md5').update(file.blob.sha256).digest('hex')
    const headers = { etag: `"${storage === 'xet' ? file.blob.sha256 : `${md5}-7`}"` }
    await origin.sendBlob(exchange, file.blob, headers, fault)
  }

  #allFiles(): DemoFile[] {
    const commits = this.repos.flatMap((repo) => [...repo.commits.values()])
    return commits.flatMap((commit) => [...commit.files.values()])
  }

  async #answerCas(exchange: Exchange): Promise<void> {
    const { cas } = this.#origins
    if (await replyFault(exchange, cas.faultsFor(exchange, []))) return
    await answerCas(cas, exchange, (hash) => {
      const files = this.#allFiles().filter((file) => file.blob.storage === 'xet')
      return files.find((file) => xetHash(file.blob.sha256) === hash)
    })
  }
}

const originNames: readonly OriginName[] = ['hub', 'cdn', 'cas']

function isRepoSpecs(
  spec: FileTree | RepoSpec | readonly RepoSpec[],
): spec is RepoSpec | readonly RepoSpec[] {
  return (
    Array.isArray(spec) ||
    (typeof spec['repo' as never] === 'string' && typeof spec['files' as never] === 'object')
  )
}

function summarize(records: readonly RequestRecord[]): TrafficStats {
  return {
    requests: records.length,
    bytesSent: records.reduce((sum, record) => sum + record.bytesSent, 0),
    authorized: records.filter((record) => record.authorization).length,
  }
}

function storageError(exchange: Exchange, status: number, message: string): void {
  const xml = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${message}</Code></Error>`
  reply(exchange, status, { 'content-type': 'application/xml' }, xml)
}
