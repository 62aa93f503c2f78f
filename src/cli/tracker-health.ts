/** Whether trackers can be asked at all: "nobody has it" and "nobody answers" look the same from afar. */
import type { Config } from '../config.ts'
import { HubHttp } from '../hub/http.ts'
import { messageOf } from '../log.ts'
import { restUrl } from '../tracker/protocol.ts'
import type { Output } from './output.ts'

const patienceMs = 3_000

/** A tracker that does not answer, and why. */
export interface SilentTracker {
  readonly url: string
  readonly reason: string
}

/** Those of the configured trackers that do not answer now. Asks each once; never throws. */
export async function silentTrackers(
  { trackers }: Pick<Config, 'trackers'>,
  signal: AbortSignal,
): Promise<readonly SilentTracker[]> {
  const limits = { connectTimeoutMs: patienceMs, headersTimeoutMs: patienceMs, retries: 0 }
  await using http = new HubHttp(limits)
  const reasons = await Promise.all(trackers.map((url) => whySilent(http, url, signal)))
  return trackers.flatMap((url, index) => {
    const reason = reasons[index]
    return reason === undefined ? [] : [{ url, reason }]
  })
}

/** One line for each tracker that does not answer, for somebody who wants to be found through it. */
export async function warnAboutSilentTrackers(
  config: Pick<Config, 'trackers'>,
  out: Output,
  signal: AbortSignal,
): Promise<void> {
  const silent = await silentTrackers(config, signal)
  const how = silent.length < config.trackers.length ? ' through it' : ''
  for (const { url, reason } of silent) {
    if (signal.aborted) return
    out.complain(
      `tracker ${url} does not answer (${reason}): nobody can find these files${how} until it does`,
    )
  }
}

async function whySilent(http: HubHttp, url: string, signal: AbortSignal): Promise<string | undefined> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)])
  try {
    const response = await http.request({
      method: 'GET',
      url: restUrl(url, '/health').href,
      signal: deadline,
    })
    response.discard()
    // A tracker of another kind may know no such page; it is there.
    return response.status >= 500 ? `status ${response.status}` : undefined
  } catch (error) {
    if (signal.aborted) return undefined
    return deadline.aborted ? `no answer within ${patienceMs / 1000} s` : messageOf(error)
  }
}
