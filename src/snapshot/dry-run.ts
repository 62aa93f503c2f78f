/** What a download would do, without doing it: nothing is fetched and nothing is written. */
import type { Place } from '../hub/place.ts'
import { forEachBounded } from '../transfer/bounded.ts'
import { asCommit, type Commit, type FileRef, type HubFile, type RepoRef } from '../values.ts'
import { type CallDeps, checkOptions, type DownloadCallOptions, type SnapshotCallOptions } from './call.ts'
import { findFile, identify } from './file.ts'
import { listCommit, notSeen, tellUnchecked } from './listing.ts'
import { selectFiles } from './selection.ts'

/** One file a download is about, and whether it would be fetched. @see huggingface_hub, `DryRunFileInfo` */
export interface DryRunFile {
  /** Path within the repository. */
  readonly name: string
  /** The commit that the revision is now. */
  readonly commit: Commit
  readonly sizeBytes: number
  /** Where the file is or would be: the snapshot entry, or the file in `localDir`. Absolute. */
  readonly path: string
  /** Whether the content is in its place. */
  readonly isCached: boolean
  /** Whether the content would be fetched: it is not on this disk, or `forceDownload` asks for it anyway. */
  readonly willDownload: boolean
}

const looksAtOnce = 32

/**
 * What `downloadSnapshot` would do, in the order of the paths. Without the Hub it answers as far as the files of the
 * commit are known.
 *
 * @throws {HubError} When the Hub refuses, or does not answer and the files are not known here.
 * @throws {LlmptError} `ERR_LLMPT_CACHE`, when nobody may be asked and the files are not known.
 */
export async function planSnapshot(
  repo: RepoRef,
  revision: string,
  options: SnapshotCallOptions,
  deps: CallDeps,
): Promise<readonly DryRunFile[]> {
  checkOptions(options, deps)
  const { files, outage } = await listCommit(repo, revision, deps, { keep: false })
  if (files === undefined)
    throw outage ?? notSeen(`the list of files of ${repo.repo}@${revision}`, deps.whyLocal)
  const plans = new Map<HubFile, DryRunFile>()
  const wanted = selectFiles(files, repo.repo, options)
  await forEachBounded(wanted, looksAtOnce, async (file) => {
    deps.signal.throwIfAborted()
    plans.set(file, await planOf(file, options, deps.place))
  })
  return wanted.flatMap((file) => plans.get(file) ?? [])
}

/** What `downloadFile` would do. @throws As it does. */
export async function planFile(
  ref: FileRef,
  options: DownloadCallOptions,
  deps: CallDeps,
): Promise<DryRunFile> {
  checkOptions(options, deps)
  const known = await findFile(ref, deps)
  const { forceDownload: willDownload = false } = options
  const asKnown = known && {
    name: ref.path,
    commit: known.commit,
    sizeBytes: known.sizeBytes,
    path: known.path,
    isCached: true,
    willDownload,
  }
  if (deps.hub === undefined && asKnown === undefined) {
    throw notSeen(`${ref.repo}/${ref.path}@${ref.revision}`, deps.whyLocal)
  }
  if (asKnown !== undefined && (deps.hub === undefined || asCommit(ref.revision) !== undefined))
    return asKnown
  const found = await identify(ref, deps)
  if ('file' in found) return await planOf(found.file, options, deps.place)
  if (asKnown === undefined || willDownload) throw found.outage
  tellUnchecked(ref, ref.revision, asKnown.commit, found.outage)
  return asKnown
}

async function planOf(file: HubFile, options: DownloadCallOptions, place: Place): Promise<DryRunFile> {
  const { path: name, commit, sizeBytes } = file
  const isCached = (await place.has(file)) !== undefined
  const isHere = isCached || (await place.findElsewhere(file)) !== undefined
  const willDownload = options.forceDownload === true || !isHere
  return { name, commit, sizeBytes, path: place.pathOf(file), isCached, willDownload }
}
