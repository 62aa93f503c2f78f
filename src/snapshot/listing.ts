/**
 * Which commit a revision is and which files it has: from the Hub, or as it was last seen here when the Hub is not to be
 * asked or does not answer. The files of a commit are asked for once and then kept.
 */
import { type HubError, LlmptError } from '../errors.ts'
import type { TreeFile } from '../hub/tree-cache.ts'
import { log, messageOf } from '../log.ts'
import { asCommit, type Commit, type RepoRef } from '../values.ts'
import type { CallDeps, HubQuestions } from './call.ts'
import { isUnreachable } from './incomplete.ts'

export interface Listing {
  readonly commit: Commit
  /** In the order of their paths. `undefined`: nobody who may be asked knows. */
  readonly files: readonly TreeFile[] | undefined
  /** Whether they are as they were noted here, by whoever can write there, and not as the Hub has just said. */
  readonly isKept: boolean
  /** Whether the Hub has answered during this call. */
  readonly hasAnswered: boolean
  /** Why it has not, when it was asked. */
  readonly outage: HubError | undefined
}

/**
 * The files of `revision`. Asks the Hub for nothing that is known: the commit of a branch can change, the files of a
 * commit cannot.
 *
 * @param options.keep Whether a list that the Hub gave is kept on disk.
 * @throws {HubError} When the Hub refuses, or does not answer and nothing is known here.
 * @throws {LlmptError} `ERR_LLMPT_CACHE`, when it is not to be asked and nothing is known here.
 */
export async function listCommit(
  repo: RepoRef,
  revision: string,
  deps: Pick<CallDeps, 'hub' | 'place' | 'whyLocal'>,
  options: { readonly keep: boolean },
): Promise<Listing> {
  const { hub, place } = deps
  const asked = asCommit(revision)
  if (hub === undefined) {
    const commit = await place.findCommit(repo, revision, { isLastResort: true })
    if (commit === undefined) throw notSeen(`${repo.repo}@${revision}`, deps.whyLocal)
    const files = await place.tree(repo, commit)
    return { commit, files, isKept: true, hasAnswered: false, outage: undefined }
  }
  const { commit, outage } =
    asked === undefined ? await resolve(repo, revision, hub, place) : { commit: asked, outage: undefined }
  const known = await place.tree(repo, commit)
  if (outage !== undefined) tellUnchecked(repo, revision, commit, outage, { isListed: known !== undefined })
  const hasAnswered = asked === undefined && outage === undefined
  if (known !== undefined || outage !== undefined)
    return { commit, files: known, isKept: true, hasAnswered, outage }
  try {
    const files = await hub.listFiles(repo, commit)
    if (options.keep) await place.keepTree(repo, commit, files)
    return { commit, files, isKept: false, hasAnswered: true, outage }
  } catch (error) {
    if (!isUnreachable(error) || !(await place.hasSnapshot(repo, commit))) throw error
    tellUnchecked(repo, revision, commit, error, { isListed: false })
    return { commit, files: undefined, isKept: false, hasAnswered, outage: error }
  }
}

/** `what` was never seen on this machine, and asking is forbidden. */
export function notSeen(what: string, whyLocal: string): LlmptError {
  return new LlmptError('ERR_LLMPT_CACHE', `${what} is not in the cache, and ${whyLocal}`)
}

/**
 * Says what nobody knows because the Hub does not answer.
 *
 * @param options.isListed Whether it is known here which files are asked for. @defaultValue true
 */
export function tellUnchecked(
  repo: RepoRef,
  revision: string,
  commit: Commit,
  outage: unknown,
  { isListed = true }: { readonly isListed?: boolean } = {},
): void {
  const unknowns = [
    ...(revision === commit ? [] : [`whether "${revision}" still is ${commit}`]),
    'whether the repository is still there and public',
    ...(isListed ? [] : ['whether all of its files are here (no list of them was kept)']),
  ]
  log.warn(
    `the Hub does not answer; using ${repo.repo} as it was last seen here. Not checked: ${unknowns.join(', and ')} (${messageOf(outage)})`,
  )
}

async function resolve(
  repo: RepoRef,
  revision: string,
  hub: HubQuestions,
  place: CallDeps['place'],
): Promise<Pick<Listing, 'commit' | 'outage'>> {
  try {
    return { commit: await hub.resolveRevision(repo, revision), outage: undefined }
  } catch (error) {
    if (!isUnreachable(error)) throw error
    const commit = await place.findCommit(repo, revision)
    if (commit === undefined) throw error
    return { commit, outage: error }
  }
}
