/** Repositories of the demo Hub: commits, and the names that point to them. */
import { createHash } from 'node:crypto'
import type { RepoType } from '../values.ts'
import { type Content, type DemoBlob, describeContent, type Storage } from './hub-content.ts'

/** A content, and if need be how the Hub keeps it. */
export type FileSpec = Content | { readonly content: Content; readonly storage: Storage }
/** File names (with `/` for folders) and what is in them. */
export type FileTree = Readonly<Record<string, FileSpec>>

/** A repository to be. */
export interface RepoSpec {
  /** `name` or `org/name`. */
  readonly repo: string
  /** @defaultValue 'model' */
  readonly repoType?: RepoType
  /** The branch `main`. */
  readonly files: FileTree
  /** More branches, each with its complete tree. */
  readonly branches?: Readonly<Record<string, FileTree>>
  /** Names for commits: tag -> branch. */
  readonly tags?: Readonly<Record<string, string>>
  /** Pull requests: `refs/pr/N` -> its complete tree. */
  readonly pulls?: Readonly<Record<number, FileTree>>
  /** Only for tokens that name it. */
  readonly isPrivate?: boolean
  /** Content only for tokens that name it; the API is open. */
  readonly isGated?: boolean
  /** Files that a gate does not guard, such as its README. @defaultValue none */
  readonly openFiles?: readonly string[]
  /** Switched off by the Hub. */
  readonly isDisabled?: boolean
  /** Former ids, which redirect. */
  readonly renamedFrom?: readonly string[]
}

/** Who may see a repository: everybody, tokens that name it (`gated`: its content), or nobody. */
export type RepoAccess = 'public' | 'gated' | 'private' | 'deleted'

/** A file of one commit. */
export interface DemoFile {
  readonly path: string
  readonly blob: DemoBlob
  /** The commit that last changed the file. */
  readonly lastCommit: string
}

/** A commit: its complete tree. */
export interface DemoCommit {
  readonly id: string
  readonly files: ReadonlyMap<string, DemoFile>
}

/** One repository with its commits and refs. */
export class DemoRepo {
  readonly repoType: RepoType
  readonly repo: string
  readonly spec: RepoSpec
  /** Who may see it now. */
  access: RepoAccess
  readonly commits: Map<string, DemoCommit> = new Map()
  /** `main`, tags, branches, `refs/pr/N` -> commit id. */
  readonly refs: Map<string, string> = new Map()

  private constructor(spec: RepoSpec) {
    this.spec = spec
    this.repo = spec.repo
    this.repoType = spec.repoType ?? 'model'
    this.access = spec.isPrivate ? 'private' : spec.isGated ? 'gated' : 'public'
  }

  static async create(spec: RepoSpec): Promise<DemoRepo> {
    const repo = new DemoRepo(spec)
    await repo.commit('main', spec.files)
    for (const [name, files] of Object.entries(spec.branches ?? {})) await repo.commit(name, files)
    for (const [name, files] of Object.entries(spec.pulls ?? {})) await repo.commit(`refs/pr/${name}`, files)
    for (const [tag, ref] of Object.entries(spec.tags ?? {})) repo.refs.set(tag, repo.refs.get(ref) ?? ref)
    return repo
  }

  /** Makes `files` the whole tree of `ref`, creating it when needed, and returns the commit. */
  async commit(ref: string, files: FileTree): Promise<DemoCommit> {
    const parent = this.commits.get(this.refs.get(ref) ?? this.refs.get('main') ?? '')
    const blobs: [string, DemoBlob][] = []
    for (const [path, spec] of Object.entries(files)) {
      const { content, storage } = contentOf(spec)
      blobs.push([path, await describeContent(path, content, storage)])
    }
    blobs.sort(([a], [b]) => (a < b ? -1 : 1))
    const text = blobs.map(([path, blob]) => `${blob.oid} ${path}`).join('\n')
    const id = createHash('sha1')
      .update(`${this.repoType} ${this.repo}\n${parent?.id ?? ''}\n${text}`)
      .digest('hex')
    const tree = new Map<string, DemoFile>()
    for (const [path, blob] of blobs) {
      const before = parent?.files.get(path)
      tree.set(path, { path, blob, lastCommit: before?.blob.oid === blob.oid ? before.lastCommit : id })
    }
    const commit = { id, files: tree }
    this.commits.set(id, commit)
    this.refs.set(ref, id)
    return commit
  }

  /** The commit of a branch, a tag, a pull request, or a commit id of 7 digits or more. */
  find(revision: string): DemoCommit | undefined {
    const ref = revision === 'HEAD' ? 'main' : revision
    const named = this.commits.get(this.refs.get(ref) ?? this.refs.get(`refs/heads/${ref}`) ?? ref)
    if (named || !/^[0-9a-f]{7,39}$/.test(revision)) return named
    return [...this.commits.values()].find((commit) => commit.id.startsWith(revision))
  }
}

function contentOf(spec: FileSpec): { content: Content; storage?: Storage } {
  return typeof spec === 'object' && 'content' in spec ? spec : { content: spec }
}
