/**
 * What the Hub cache holds, for those who want to give it to others: files whose name leads to a blob that is
 * named by its content. Nothing here is verified; that comes before anything is shared.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { findCached, findCommit, repoFolder, repoOfFolder } from '../hub/cache-layout.ts'
import { asCommit, type Commit, type HubFile, type RepoRef } from '../values.ts'

/** A file of a snapshot, and the blob that holds its content. */
export interface SharableFile {
  readonly file: HubFile
  readonly blobPath: string
}

/** Every repository in the cache, by its folder's name. */
export async function cachedRepos(cacheDir: string): Promise<RepoRef[]> {
  const names = (await readdir(cacheDir, { withFileTypes: true }).catch(() => []))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
  return names
    .sort()
    .map(repoOfFolder)
    .filter((repo) => repo !== undefined)
}

/** The commits of a repository that the cache has files of: that of `revision`, or all. */
export async function cachedCommits(cacheDir: string, repo: RepoRef, revision?: string): Promise<Commit[]> {
  const folder = join(repoFolder(cacheDir, repo), 'snapshots')
  const names = await readdir(folder).catch(() => [])
  const commits = names.map(asCommit).filter((commit) => commit !== undefined)
  if (revision === undefined) return commits.sort()
  const wanted = await findCommit(cacheDir, repo, revision)
  return commits.filter((commit) => commit === wanted)
}

/** The files of these snapshots that can be shared, each content once; empty files have nothing to share. */
export async function sharableFiles(
  cacheDir: string,
  repo: RepoRef,
  commits: readonly Commit[],
): Promise<SharableFile[]> {
  const found = new Map<string, SharableFile>()
  for (const commit of commits) {
    const folder = join(repoFolder(cacheDir, repo), 'snapshots', commit)
    for (const path of await filesBelow(folder)) {
      const cached = await findCached(cacheDir, { ...repo, revision: commit, path }).catch(() => undefined)
      if (cached?.blob === undefined || cached.sizeBytes === 0 || found.has(cached.blob.etag)) continue
      const { sizeBytes, blob } = cached
      const file: HubFile = { ...repo, path, commit, etag: blob.etag, sizeBytes }
      found.set(blob.etag, { file, blobPath: blob.path })
    }
  }
  return [...found.values()]
}

/** Paths below `folder` with `/`, links to files included, links to folders not followed. */
export async function filesBelow(folder: string, prefix = ''): Promise<string[]> {
  const entries = await readdir(join(folder, prefix), { withFileTypes: true }).catch(() => [])
  const paths: string[] = []
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = prefix === '' ? entry.name : `${prefix}/${entry.name}`
    if (entry.isDirectory()) paths.push(...(await filesBelow(folder, path)))
    else if (entry.isFile() || entry.isSymbolicLink()) paths.push(path)
  }
  return paths
}
