/** Seeding in the foreground: says what has started, and waits until it is over or somebody has had enough. */
import type { Client } from '../client.ts'
import { type SharingVerdict, whyNotShared } from '../hub/sharing.ts'
import type { SeedStatus } from '../seeding/seeder.ts'
import { countOf, formatBytes, formatTime, printable } from './format.ts'
import { untilAborted } from './interrupt.ts'
import { movedPort } from './listen-check.ts'
import type { Output } from './output.ts'
import { showAddress } from './peers.ts'
import { warnAboutSilentTrackers } from './tracker-health.ts'

const pollMs = 200

/**
 * Follows what `client` seeds until everything has ended, or `signal` aborts: the normal end, not a failure.
 *
 * @returns How many blobs were seeded.
 */
export async function keepSeeding(client: Client, out: Output, signal: AbortSignal): Promise<number> {
  const reporter = new Reporter(client, out)
  const { p2p, offline } = client.config
  const probing = p2p && !offline ? warnAboutSilentTrackers(client.config, out, signal) : undefined
  let settled = false
  const settling = client.seedingSettled().finally(() => {
    settled = true
  })
  while (!settled && !signal.aborted) {
    await Promise.race([settling, untilAborted(signal, pollMs)])
    await reporter.report()
  }
  if (!signal.aborted) {
    await settling
    const statuses = await reporter.report()
    const active = statuses.filter(({ state }) => state === 'seeding')
    if (active.length > 0) {
      const leftMs = Math.max(
        ...active.map(({ endsAt }) =>
          endsAt === undefined ? Number.POSITIVE_INFINITY : endsAt.getTime() - Date.now(),
        ),
      )
      const until = Number.isFinite(leftMs) ? `for ${formatTime(leftMs)}` : 'until you press Ctrl-C'
      out.say(`Seeding ${countOf(active.length, 'file')} ${until}.`)
      await untilAborted(signal, leftMs)
      // What has ended by itself is left in peace until it has: its tracker is being told.
      while (!signal.aborted && (await reporter.report()).some(({ state }) => state === 'seeding')) {
        await untilAborted(signal, pollMs)
      }
    }
  }
  await probing
  return await reporter.finish()
}

/** Says that something is not given to others. @param path `null` for the whole repository. */
export function tellSkipped(out: Output, repo: string, path: string | null, verdict: SharingVerdict): void {
  const reason = whyNotShared(verdict)
  out.event('skipped', { repo, path, reason })
  out.complain(`${path === null ? repo : `${repo}/${printable(path)}`} is not seeded: ${reason}`)
}

class Reporter {
  readonly #client: Client
  readonly #out: Output
  readonly #told = new Set<string>()
  #hasToldPort = false

  constructor(client: Client, out: Output) {
    this.#client = client
    this.#out = out
  }

  async report(): Promise<readonly SeedStatus[]> {
    const statuses = await this.#client.seedStatus()
    for (const status of statuses) {
      const { etag, state } = status
      const isOver = state === 'failed' || state === 'withdrawn'
      const news = `${etag} ${isOver}`
      if (this.#told.has(news) || (state !== 'seeding' && !isOver)) continue
      this.#told.add(news)
      if (state === 'seeding') await this.#tellStart(status)
      else this.#tellFailure(status)
    }
    return statuses
  }

  async finish(): Promise<number> {
    const statuses = await this.#client.seedStatus()
    const uploadedBytes = statuses.reduce((sum, status) => sum + status.uploadedBytes, 0)
    const seeded = statuses.filter(
      ({ infoHash, state }) => infoHash !== undefined && state !== 'failed',
    ).length
    this.#out.event('ended', { files: seeded, uploadedBytes })
    if (seeded > 0) this.#out.say(`Gave ${formatBytes(uploadedBytes)} to others.`)
    return seeded
  }

  async #tellStart({ label, etag, infoHash, sizeBytes, endsAt }: SeedStatus): Promise<void> {
    const addresses = await this.#client.listening()
    const listen = addresses.map(showAddress)
    const moved = movedPort(this.#client.config.listen, addresses)
    if (moved !== undefined && !this.#hasToldPort) this.#out.complain(moved)
    this.#hasToldPort = true
    this.#out.event('seeding', {
      label,
      etag,
      infoHash,
      sizeBytes,
      listen,
      endsAt: endsAt?.toISOString() ?? null,
    })
    this.#out.say(`Seeding ${printable(label)} (${formatBytes(sizeBytes)})`)
  }

  #tellFailure({ label, etag, error }: SeedStatus): void {
    this.#out.event('seed-failed', { label, etag, message: error })
    this.#out.complain(`cannot seed ${printable(label)}: ${error}`)
  }
}
