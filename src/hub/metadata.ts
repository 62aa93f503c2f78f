/** What the Hub says a file is: one HEAD request, as Python's client does it. The Hub alone decides this. */
import { HubError } from '../errors.ts'
import { asCommit, type Etag, type FileRef, type HubFile } from '../values.ts'
import { type Answer, ask, askForSuccess, type HubAccess } from './ask.ts'
import { firstAnswer } from './endpoints.ts'
import { resolveUrl } from './file-ref.ts'
import { parseEtag, parseSize } from './header-values.ts'
import { withoutQuery } from './http.ts'

/** A file of the Hub and where its bytes are. */
export interface RemoteFile extends HubFile {
  /** Absolute URL of the content: on the endpoint itself, or a signed storage URL that expires. Never show its query. */
  readonly location: string
}

/**
 * Commit, etag, size and location of `ref`.
 *
 * @throws {HubError} when the Hub refuses (`status`, `hubCode`), is not reachable (no `status`), or says
 * something that cannot be true.
 */
export async function fileMetadata(
  hub: HubAccess,
  ref: FileRef,
  options: MetadataOptions = {},
): Promise<RemoteFile> {
  return await firstAnswer(hub, (at) => metadataAt(at, ref, options), { signal: options.signal })
}

/** How long to try, and what ends it. */
export interface MetadataOptions {
  readonly signal?: AbortSignal | undefined
  /** @defaultValue that of the `HubHttp` */
  readonly retries?: number | undefined
}

async function metadataAt(hub: HubAccess, ref: FileRef, options: MetadataOptions): Promise<RemoteFile> {
  const url = resolveUrl(hub.endpoint, ref)
  const question = { url, subject: ref, signal: options.signal, retries: options.retries }
  const answer = await askForSuccess(hub, { method: 'HEAD', ...question })
  answer.response.discard()
  const commit = asCommit(answer.linked.commit ?? '')
  const etag = etagOf(answer)
  if (commit === undefined || etag === undefined) throw incomprehensible(url, answer, commit === undefined)
  const stated = statedSize(answer)
  const text = stated ?? (await sizeByRange(hub, url, ref, options.signal))
  const sizeBytes = parseSize(text)
  if (sizeBytes === undefined) {
    const { status } = answer.response
    throw new HubError(`the Hub states an impossible size for "${ref.path}"`, { url, status })
  }
  const { repoType, repo, path } = ref
  return { repoType, repo, path, commit, etag, sizeBytes, location: answer.location ?? answer.url }
}

/** An `ETag` counts only beside `X-Repo-Commit`: storage has etags of its own that identify nothing. */
export function etagOf(answer: Answer): Etag | undefined {
  if (answer.linked.etag !== undefined) return parseEtag(answer.linked.etag)
  const { headers } = answer.response
  return headers['x-repo-commit'] === undefined ? undefined : parseEtag(headers['etag'])
}

/** `undefined` when the answer says nothing: a redirect's or a compressed body's length is not the file's. */
function statedSize(answer: Answer): string | undefined {
  if (answer.linked.size !== undefined) return answer.linked.size
  const { headers } = answer.response
  const encoding = headers['content-encoding'] ?? 'identity'
  return answer.location === undefined && encoding === 'identity' ? headers['content-length'] : undefined
}

async function sizeByRange(
  hub: HubAccess,
  url: string,
  ref: FileRef,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const headers = { range: 'bytes=0-0' }
  const { response } = await ask(hub, {
    method: 'GET',
    url,
    subject: ref,
    headers,
    signal,
    leaveOrigin: true,
  })
  response.discard()
  const range = /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(response.headers['content-range'] ?? '')
  return range?.[1] ?? (response.status === 200 ? response.headers['content-length'] : undefined)
}

function incomprehensible(url: string, answer: Answer, noCommit: boolean): HubError {
  const what = noCommit ? 'no commit (X-Repo-Commit)' : 'no identity of the content (X-Linked-ETag)'
  const where = answer.location === undefined ? '' : `, only a redirect to ${withoutQuery(answer.location)}`
  return new HubError(`the answer has ${what}${where}: is HF_ENDPOINT a Hugging Face Hub?`, {
    url,
    status: answer.response.status,
  })
}
