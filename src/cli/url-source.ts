/** One file at one or more URLs, for the HTTP hand of a plain torrent. Nobody vouches for it but the torrent's hashes. */
import { HubError } from '../errors.ts'
import { ask } from '../hub/ask.ts'
import { type HubHttp, type HubResponse, withoutQuery } from '../hub/http.ts'
import { messageOf } from '../log.ts'
import type { RangeOpener } from '../transfer/http-leg.ts'

/**
 * Opens ranges of the file at the first of `urls` that works; one that fails, also in the middle of a body, goes to
 * the end of the line.
 *
 * @throws {HubError} from the opener, when none works; its status is that of the last one.
 */
export function openUrls(http: HubHttp, urls: readonly string[], sizeBytes: number): RangeOpener {
  const line = [...urls]
  const demote = (url: string): void => {
    line.splice(line.indexOf(url), 1)
    line.push(url)
  }
  return async ({ start, end, signal, onStart, onWait }) => {
    let failure: unknown
    for (const url of [...line]) {
      try {
        const response = await openRange(http, url, { start, end, signal, onStart, onWait })
        const at = startOf(response, url, start, sizeBytes)
        return {
          start: at,
          batches: watched(response.batches, () => demote(url)),
          giveBack: response.giveBack,
        }
      } catch (error) {
        if (signal.aborted) throw error
        failure = error
        demote(url)
      }
    }
    throw failure
  }
}

async function openRange(
  http: HubHttp,
  url: string,
  { start, end, signal, onStart, onWait }: Parameters<RangeOpener>[0],
): Promise<HubResponse> {
  const { response } = await ask(
    { http, endpoint: new URL(url).origin },
    {
      method: 'GET',
      url,
      // Only refusals of the Hub speak about the subject, and this is not the Hub.
      subject: { repoType: 'model', repo: 'none', revision: '' },
      headers: { range: `bytes=${start}-${end - 1}` },
      signal,
      onStart,
      onWait,
      leaveOrigin: true,
      content: 'range',
      retries: 0,
    },
  )
  if (response.status === 200 || response.status === 206) return response
  response.discard()
  throw new HubError(`${withoutQuery(url)} answered ${response.status}`, {
    url: withoutQuery(url),
    status: response.status,
  })
}

/** The first byte of the body in the file. @throws {HubError} when it is not the file, or not the range. */
function startOf(response: HubResponse, url: string, start: number, sizeBytes: number): number {
  const { status, headers } = response
  const [, first, total] =
    /^bytes (\d{1,16})-\d{1,16}\/(\d{1,16}|\*)$/.exec(headers['content-range'] ?? '') ?? []
  const size = status === 206 ? total : headers['content-length']
  const refuse = (why: string): HubError => {
    response.destroy()
    return new HubError(`${withoutQuery(url)} ${why}`, { url: withoutQuery(url), status })
  }
  if (status === 206 && Number(first) !== start) throw refuse('sent another range than it was asked for')
  if (size !== undefined && size !== '*' && Number(size) !== sizeBytes) {
    throw refuse(`has ${size} bytes, and the torrent is of ${sizeBytes}`)
  }
  return status === 206 ? start : 0
}

async function* watched(
  batches: AsyncIterable<Uint8Array[]>,
  onFailure: () => void,
): AsyncGenerator<Uint8Array[]> {
  try {
    yield* batches
  } catch (error) {
    onFailure()
    throw error instanceof Error ? error : new Error(messageOf(error))
  }
}
