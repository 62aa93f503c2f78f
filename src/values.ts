/** The words every room shares. Distinct things have distinct types; the brands exist only at compile time. */

declare const brand: unique symbol
type Branded<T extends string> = string & { readonly [brand]: T }

/** Info hash of a torrent: 64 lower-case hex digits (v2, hybrid) or 40 (v1). */
export type InfoHash = Branded<'InfoHash'>
/** The Hub's identity of a file's content: 64 hex digits (SHA-256) or 40 (git blob SHA-1). */
export type Etag = Branded<'Etag'>
/** A git commit: 40 lower-case hex digits. */
export type Commit = Branded<'Commit'>

export type RepoType = 'model' | 'dataset' | 'space'
export const repoTypes: readonly RepoType[] = ['model', 'dataset', 'space']

/** A repository on the Hub. `repo` is `name` or `org/name`. */
export interface RepoRef {
  readonly repoType: RepoType
  readonly repo: string
}

const repoPrefixes: Record<RepoType, string> = { model: '', dataset: 'datasets/', space: 'spaces/' }

/** A repository in one word, as the Hub's own addresses have it: `org/name`, `datasets/org/name`, `spaces/org/name`. */
export function repoNameOf({ repoType, repo }: RepoRef): string {
  return repoPrefixes[repoType] + repo
}

/** The repository that `repoNameOf` calls `text`; `undefined` for what cannot be one. */
export function parseRepoName(text: string): RepoRef | undefined {
  const repoType =
    repoTypes.find((type) => type !== 'model' && text.startsWith(repoPrefixes[type])) ?? 'model'
  const repo = text.slice(repoPrefixes[repoType].length)
  return isRepoId(repo) ? { repoType, repo } : undefined
}

/** A file as a person names it: `revision` is a branch, a tag, `refs/pr/N` or a commit. */
export interface FileRef extends RepoRef {
  readonly revision: string
  readonly path: string
}

/** What the Hub says a file is. The Hub alone decides this. */
export interface FileMetadata {
  readonly commit: Commit
  readonly etag: Etag
  readonly sizeBytes: number
}

/** A file of a repository at one commit, with its identity. */
export interface HubFile extends FileMetadata, RepoRef {
  readonly path: string
}

/** Content, apart from any name it came under: the unit of sharing. */
export interface BlobRef {
  readonly etag: Etag
  readonly sizeBytes: number
}

/** Where the bytes of a download came from. */
export interface BytesBySource {
  p2p: number
  http: number
  cache: number
}

export interface PeerAddress {
  readonly host: string
  readonly port: number
}

const hex40 = /^[0-9a-f]{40}$/
const hex64 = /^[0-9a-f]{64}$/

export function asInfoHash(text: string): InfoHash | undefined {
  return hex64.test(text) || hex40.test(text) ? (text as InfoHash) : undefined
}

export function asEtag(text: string): Etag | undefined {
  return hex64.test(text) || hex40.test(text) ? (text as Etag) : undefined
}

export function asCommit(text: string): Commit | undefined {
  return hex40.test(text) ? (text as Commit) : undefined
}

/** Which digest an etag is: LFS and Xet files carry the SHA-256 of the content, the others git's blob SHA-1. */
export function digestOf(etag: Etag): 'sha256' | 'git-sha1' {
  return etag.length === 64 ? 'sha256' : 'git-sha1'
}

/** Whether `name` can be a repository id (`name` or `org/name`) and so a folder name: ids never contain `--` or `..`. */
export function isRepoId(name: string): boolean {
  return (
    name.length <= 193 &&
    /^[\w.-]+(?:\/[\w.-]+)?$/.test(name) &&
    !name.includes('--') &&
    !name.includes('..') &&
    !name.split('/').some((part) => part.startsWith('.') || part.endsWith('.'))
  )
}
