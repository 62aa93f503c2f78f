/** Real sessions on 127.0.0.1, real torrents, and the way to wait for what they say. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Alert, AlertOf, AlertType } from '../../src/native/alerts.ts'
import type {
  NativeCreatedTorrent,
  NativeCreateTorrentOptions,
  SessionSettings,
} from '../../src/native/binding.ts'
import { createTorrent } from '../../src/native/create-torrent.ts'
import { requireAddon } from '../../src/native/load.ts'
import { baseSettings, type DiskBackend, Session, type SessionOptions } from '../../src/native/session.ts'
import type { PeerAddress } from '../../src/values.ts'

export type Format = NativeCreateTorrentOptions['format']
export const formats: readonly Format[] = ['v1', 'v2', 'hybrid']
export const diskBackends: readonly DiskBackend[] = ['own', 'posix']

/** The same bytes for the same seed, and no two pieces alike. */
export function someBytes(length: number, seed = 'llmpt'): Buffer {
  const parts: Buffer[] = []
  for (let made = 0, i = 0; made < length; i++) {
    const block = createHash('sha512').update(`${seed} ${i}`).digest()
    parts.push(block)
    made += block.length
  }
  return Buffer.concat(parts).subarray(0, length)
}

export function openSession(settings: SessionSettings = {}, options: SessionOptions = {}): Session {
  const base: SessionSettings = {
    ...baseSettings,
    listen_interfaces: '127.0.0.1:0',
    // The default of half a second is what most small transfers would wait for.
    tick_interval: 50,
  }
  return new Session(requireAddon(), { ...base, ...settings }, options)
}

export async function addressOf(session: Session): Promise<PeerAddress> {
  const [address] = await session.listening()
  if (address === undefined) throw new Error('the session does not listen')
  return address
}

/** A torrent of one file, written to `folder` first; pieces of 32 KiB unless said otherwise. */
export async function makeTorrent(
  folder: string,
  bytes: Uint8Array,
  options: Partial<NativeCreateTorrentOptions> = {},
): Promise<NativeCreatedTorrent & { path: string }> {
  const path = options.path ?? join(folder, 'source')
  await writeFile(path, bytes)
  const made = await createTorrent(requireAddon(), { ...plainTorrent, path, ...options })
  return { ...made, path }
}

export const plainTorrent: Omit<NativeCreateTorrentOptions, 'path'> = {
  name: 'blob',
  pieceLength: 32 * 1024,
  format: 'v2',
  trackers: [],
  createdBy: '',
  comment: '',
  threads: 2,
}

interface Source {
  onAlert(listener: (alert: Alert) => void): () => void
}

/** The next alert of a type, for which `matches` holds. */
export function nextAlert<T extends AlertType>(
  source: Source,
  type: T,
  matches: (alert: AlertOf<T>) => boolean = () => true,
  capMs = 20_000,
): Promise<AlertOf<T>> {
  return new Promise((resolve, reject) => {
    const seen: string[] = []
    const stop = source.onAlert((alert) => {
      seen.push(alert.type)
      if (alert.type !== type || !matches(alert as AlertOf<T>)) return
      clearTimeout(timer)
      stop()
      resolve(alert as AlertOf<T>)
    })
    const timer = setTimeout(() => {
      stop()
      reject(new Error(`no ${type} within ${capMs} ms, but: ${seen.join(' ')}`))
    }, capMs)
  })
}

/** Waits until `holds`, which is asked again and again. For what libtorrent has no alert for. */
export async function until(holds: () => Promise<boolean>, capMs = 20_000): Promise<void> {
  const end = Date.now() + capMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${capMs} ms: ${holds}`)
    await sleep(5)
  }
}
