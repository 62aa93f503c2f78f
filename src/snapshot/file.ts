/** One file of a repository, by its name. */
import type { HubError } from '../errors.ts'
import type { RemoteFile } from '../hub/metadata.ts'
import { noBytes, tellThere } from '../transfer/progress.ts'
import { asCommit, type FileRef, type HubFile } from '../values.ts'
import { type BringJob, bringFiles, findSettledFiles } from './bring.ts'
import {
  type BroughtFile,
  type CallDeps,
  checkOptions,
  type DownloadCallOptions,
  type DownloadedFile,
} from './call.ts'
import { incompleteBecause, isUnreachable, withoutPeers } from './incomplete.ts'
import { notSeen, tellUnchecked } from './listing.ts'

/**
 * Makes sure that a file is in its place.
 *
 * @throws {HubError | IntegrityError | SwarmError | CacheError} What stopped it.
 * @throws {LlmptError} `ERR_LLMPT_CACHE`, when nobody may be asked and it is not there.
 * @throws {ConfigError} For options that cannot be met.
 */
export async function downloadFile(
  ref: FileRef,
  options: DownloadCallOptions,
  deps: CallDeps,
): Promise<DownloadedFile> {
  checkOptions(options, deps)
  const anew = options.forceDownload === true
  const known = anew ? undefined : await findFile(ref, deps)
  const isLocal = deps.hub === undefined
  if (isLocal && known === undefined) throw notSeen(nameOf(ref), deps.whyLocal)
  // A commit never changes; a branch may have moved, and only the Hub knows.
  if (known !== undefined && (isLocal || isCommit(ref))) return present(ref, known, options, isLocal)
  const found = await noting(ref, deps, identify(ref, deps))
  if ('file' in found) {
    const { location, ...file } = found.file
    return { ...(await bring(file, ref, { anew, location, isHubThere: true }, deps)), isUnchecked: false }
  }
  if (anew) throw found.outage
  if (known === undefined) return { ...(await bringWithoutHub(ref, found.outage, deps)), isUnchecked: true }
  tellUnchecked(ref, ref.revision, known.commit, found.outage)
  return present(ref, known, options, true)
}

function present(
  { path }: FileRef,
  known: BroughtFile,
  { onProgress }: DownloadCallOptions,
  isUnchecked: boolean,
): DownloadedFile {
  tellThere([{ path, sizeBytes: known.sizeBytes }], onProgress)
  return { ...known, isUnchecked }
}

/** What is there under this name, as far as it can be told without the Hub. */
export async function findFile(
  ref: FileRef,
  { place, hub }: Pick<CallDeps, 'place' | 'hub'>,
): Promise<BroughtFile | undefined> {
  const found = await place.find(ref, { isLastResort: hub === undefined })
  if (found === undefined) return undefined
  const { path, commit, sizeBytes, blob } = found
  const bytes = { ...noBytes(), cache: sizeBytes }
  return { path, commit, etag: blob?.etag, sizeBytes, infoHash: undefined, bytes }
}

/** What the Hub says the file is, or why it does not answer. @throws {HubError} When it refuses. */
export async function identify(
  ref: FileRef,
  { hub }: Pick<CallDeps, 'hub'>,
): Promise<{ readonly file: RemoteFile } | { readonly outage: HubError }> {
  if (hub === undefined) throw new TypeError('nobody may be asked')
  try {
    return { file: await hub.identify(ref) }
  } catch (error) {
    if (isUnreachable(error)) return { outage: error }
    throw error
  }
}

/** Notes that the commit has no such file, when that is the answer. */
async function noting<T>(ref: FileRef, { place }: Pick<CallDeps, 'place'>, answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    const { hubCode, commit: named } = error as Partial<HubError>
    const commit = asCommit(named ?? ref.revision)
    if (hubCode === 'EntryNotFound' && commit !== undefined) {
      await place.noteMissing(ref, commit, ref.path)
      // A ref to a snapshot that is not there would make the cache a broken one.
      if (await place.hasSnapshot(ref, commit)) await place.noteRevision(ref, ref.revision, commit)
    }
    throw error
  }
}

async function bringWithoutHub(ref: FileRef, outage: HubError, deps: CallDeps): Promise<BroughtFile> {
  const { place } = deps
  const commit = await place.findCommit(ref, ref.revision)
  const tree = commit && (await place.tree(ref, commit))
  const file = tree?.find(({ path }) => path === ref.path)
  if (file === undefined) throw outage
  tellUnchecked(ref, ref.revision, file.commit, outage)
  try {
    return await bring(file, ref, { anew: false, isHubThere: false }, deps)
  } catch (error) {
    const missing = { what: `${ref.repo}@${ref.revision}`, names: [file.path], total: 1 }
    throw incompleteBecause(missing, withoutPeers(outage, error))
  }
}

async function bring(
  file: HubFile,
  ref: FileRef,
  how: Pick<BringJob, 'anew' | 'location' | 'isHubThere'>,
  deps: CallDeps,
): Promise<BroughtFile> {
  const settled = how.anew ? new Map() : await findSettledFiles([file], deps)
  const job = { files: [file], settled, revision: ref.revision, commit: file.commit, maxWorkers: 1, ...how }
  const { done, failure } = await bringFiles(job, deps)
  const brought = done.get(file)
  if (brought === undefined) throw failure?.error
  return brought
}

function isCommit({ revision }: FileRef): boolean {
  return asCommit(revision) !== undefined
}

function nameOf({ repo, path, revision }: FileRef): string {
  return `${repo}/${path}@${revision}`
}
