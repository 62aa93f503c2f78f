/** What one answer of the Hub says a file is. */
import { parseEtag, parseSize } from '../hub/header-values.ts'
import { asCommit, type FileMetadata } from '../values.ts'

const redirectStatuses = new Set([301, 302, 303, 307, 308])
/** Whole files above this are not served by the Hub's storage either; programs fetch them in their own way. */
const maxSizeBytes = 50_000_000_000

/** Where `response` redirects to, as its header says it, or `undefined` for an answer that is none. */
export function locationOf(response: Response): string | undefined {
  if (!redirectStatuses.has(response.status)) return undefined
  return response.headers.get('location') ?? undefined
}

/**
 * Commit, etag and size of a file that is not empty, all from one answer of the Hub itself: content, or a redirect
 * to it. `undefined` when it does not say, or says something that cannot be.
 */
export function metadataOf(response: Response): FileMetadata | undefined {
  const isContent = response.status === 200 || response.status === 206
  if (!isContent && locationOf(response) === undefined) return undefined
  const { headers } = response
  const commit = asCommit(headers.get('x-repo-commit') ?? '')
  // What is linked is described by the linked headers alone: the body may be a note about where it is.
  const linkedEtag = headers.get('x-linked-etag')
  const isLinked = linkedEtag !== null || !isContent
  const etag = parseEtag((isLinked ? linkedEtag : headers.get('etag')) ?? undefined)
  const sizeBytes = parseSize(headers.get('x-linked-size') ?? (isLinked ? undefined : contentSize(response)))
  if (commit === undefined || etag === undefined || sizeBytes === undefined) return undefined
  return sizeBytes > 0 && sizeBytes <= maxSizeBytes ? { commit, etag, sizeBytes } : undefined
}

/** The length of a compressed body is not the file's. */
function contentSize(response: Response): string | undefined {
  const { headers, status } = response
  if (headers.has('content-encoding')) return undefined
  if (status === 206) return /^bytes \d+-\d+\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1]
  return headers.get('content-length') ?? undefined
}
