/** Repositories: what a revision is, and which files a commit has. @huggingface/hub speaks the API, over our connections. */
import type { ListFileEntry } from '@huggingface/hub'
import { HubError, isAbort, LlmptError } from '../errors.ts'
import { asCommit, asEtag, type Commit, isRepoId, type RepoRef } from '../values.ts'
import { askForSuccess, type HubAccess, isHubOrigin } from './ask.ts'
import { atEndpoint } from './endpoint-url.ts'
import { firstAnswer } from './endpoints.ts'
import { isSafePath, isSafeRevision, repoUrl } from './file-ref.ts'
import { withoutQuery } from './http.ts'
import { fileMetadata } from './metadata.ts'
import type { Subject } from './refusal.ts'
import { byPath, type TreeFile } from './tree-cache.ts'

/** What every question about a repository takes. */
export interface RepoOptions {
  readonly signal?: AbortSignal | undefined
}

/** Of all answers of one conversation: room for a tree of a million files. */
const maxAnswerBytes = 512 * 1024 * 1024
const maxPages = 20_000

/** The commit that `revision` (a branch, a tag, `refs/pr/N`, a short or full commit) is now. @throws {HubError} */
export async function resolveRevision(
  hub: HubAccess,
  repo: RepoRef,
  revision: string,
  options: RepoOptions = {},
): Promise<Commit> {
  checkRepo(hub, repo)
  if (!isSafeRevision(revision)) {
    throw new HubError(`"${revision}" cannot be a revision`, { url: repoUrl(hub.endpoint, repo) })
  }
  return await firstAnswer(hub, (at) => revisionAt(at, repo, revision, options), options)
}

async function revisionAt(
  hub: HubAccess,
  repo: RepoRef,
  revision: string,
  options: RepoOptions,
): Promise<Commit> {
  const subject = { ...repo, revision }
  const sha = await speak(hub, subject, options, async (fetch) => {
    const { datasetInfo, modelInfo, spaceInfo } = await import('@huggingface/hub')
    const params = { name: repo.repo, revision, hubUrl: hub.endpoint, fetch }
    if (repo.repoType === 'dataset') return (await datasetInfo({ ...params, additionalFields: ['sha'] })).sha
    if (repo.repoType === 'space') return (await spaceInfo({ ...params, additionalFields: ['sha'] })).sha
    return (await modelInfo({ ...params, additionalFields: ['sha'] })).sha
  })
  const commit = typeof sha === 'string' ? asCommit(sha) : undefined
  if (commit === undefined) {
    throw new HubError(`the Hub names no commit for revision "${revision}"`, {
      url: repoUrl(hub.endpoint, repo),
    })
  }
  return commit
}

/** Every file of `repo` at `commit`, in the order of the paths. @throws {HubError} also for names that would leave a folder. */
export async function listRepoFiles(
  hub: HubAccess,
  repo: RepoRef,
  commit: Commit,
  options: RepoOptions = {},
): Promise<TreeFile[]> {
  checkRepo(hub, repo)
  return await firstAnswer(hub, (at) => filesAt(at, repo, commit, options), options)
}

async function filesAt(
  hub: HubAccess,
  repo: RepoRef,
  commit: Commit,
  options: RepoOptions,
): Promise<TreeFile[]> {
  const entries = await speak(hub, { ...repo, revision: commit }, options, async (fetch) => {
    const { listFiles } = await import('@huggingface/hub')
    const tree = listFiles({
      repo: { type: repo.repoType, name: repo.repo },
      revision: commit,
      recursive: true,
      hubUrl: hub.endpoint,
      fetch,
    })
    const found: ListFileEntry[] = []
    for await (const entry of tree) found.push(entry)
    return found
  })
  const files: TreeFile[] = []
  for (const entry of entries) {
    if (entry?.type !== 'directory') files.push(await fileOf(hub, repo, commit, entry, options))
  }
  return files.sort(byPath)
}

/**
 * The identity of a tree entry. An LFS entry's `oid` is that of its pointer, and `xetHash` identifies nothing
 * outside of Xet: an entry with neither `lfs` nor a plain `oid` is asked for by itself.
 */
async function fileOf(
  hub: HubAccess,
  repo: RepoRef,
  commit: Commit,
  entry: ListFileEntry,
  options: RepoOptions,
): Promise<TreeFile> {
  const url = repoUrl(hub.endpoint, repo)
  const path: unknown = entry?.path
  if (typeof path !== 'string' || !isSafePath(path)) {
    throw new HubError(
      `${repo.repo} lists a file under an unsafe name, ${JSON.stringify(path)}: ask its owner to rename it`,
      { url, status: 200 },
    )
  }
  if (entry.lfs === undefined && entry.xetHash !== undefined) {
    const { location: _, ...file } = await fileMetadata(hub, { ...repo, revision: commit, path }, options)
    return { ...file, ...gitIdsOf(entry) }
  }
  const oid: unknown = entry.lfs ? entry.lfs.oid : entry.oid
  const etag = typeof oid === 'string' ? asEtag(oid.replace(/^sha256:/, '').toLowerCase()) : undefined
  const sizeBytes: unknown = entry.lfs?.size ?? entry.size
  if (etag === undefined || (entry.lfs !== undefined && etag.length !== 64)) {
    throw new HubError(`the Hub lists "${path}" without an identity we know`, { url, status: 200 })
  }
  if (!Number.isSafeInteger(sizeBytes) || (sizeBytes as number) < 0) {
    throw new HubError(`the Hub lists "${path}" with an impossible size`, { url, status: 200 })
  }
  const { repoType, repo: name } = repo
  return { repoType, repo: name, path, commit, etag, sizeBytes: sizeBytes as number, ...gitIdsOf(entry) }
}

/** What other clients want to know of a file besides its identity. */
function gitIdsOf(entry: ListFileEntry): Pick<TreeFile, 'blobId' | 'xetHash'> {
  const oid: unknown = entry.oid
  const xetHash: unknown = entry.xetHash
  return {
    blobId: typeof oid === 'string' ? asCommit(oid.toLowerCase()) : undefined,
    ...(typeof xetHash === 'string' && /^[0-9a-f]{64}$/.test(xetHash) && { xetHash }),
  }
}

function checkRepo(hub: HubAccess, repo: RepoRef): void {
  if (!isRepoId(repo.repo)) {
    throw new HubError(`"${repo.repo}" cannot be a repository: they are called "name" or "org/name"`, {
      url: hub.endpoint,
    })
  }
}

/** Runs a conversation of @huggingface/hub; whatever it makes of an answer leaves here as a HubError. */
async function speak<T>(
  hub: HubAccess,
  subject: Subject,
  options: RepoOptions,
  talk: (fetch: typeof globalThis.fetch) => Promise<T>,
): Promise<T> {
  try {
    return await talk(hubFetch(hub, subject, options))
  } catch (error) {
    if (error instanceof LlmptError || isAbort(error, options.signal)) throw error
    const url = repoUrl(hub.endpoint, subject)
    throw new HubError(`the Hub's answer about ${subject.repo} makes no sense`, { url }, { cause: error })
  }
}

/**
 * A `fetch` for @huggingface/hub: our connections, retries and errors. It adds the token itself, because the
 * library takes only tokens that start with `hf_`, turns pages at the endpoint whichever Hub they name, and refuses to do so
 * on another site or in a circle.
 */
function hubFetch(hub: HubAccess, subject: Subject, options: RepoOptions): typeof globalThis.fetch {
  const seen = new Set<string>()
  let length = 0
  return async (input) => {
    const url = atEndpoint(hub.endpoint, input instanceof Request ? input.url : String(input))
    if (!isHubOrigin(hub, url))
      throw new HubError('the next page is on another site', { url: withoutQuery(url) })
    if (seen.has(url) || seen.size >= maxPages)
      throw new HubError('the pages never end', { url: withoutQuery(url) })
    seen.add(url)
    const headers = { accept: 'application/json' }
    const { response, location } = await askForSuccess(hub, {
      method: 'GET',
      url,
      subject,
      headers,
      signal: options.signal,
    })
    if (location !== undefined) {
      response.discard()
      const { status } = response
      throw new HubError(`an answer that is at another site, ${withoutQuery(location)}`, { url, status })
    }
    const parts: Uint8Array[] = []
    for await (const batch of response.batches) {
      for (const part of batch) length += part.length
      if (length > maxAnswerBytes) throw new HubError('the answer is too long', { url: withoutQuery(url) })
      parts.push(...batch)
    }
    const link = response.headers['link']
    return new Response(Buffer.concat(parts), { status: 200, headers: link === undefined ? {} : { link } })
  }
}
