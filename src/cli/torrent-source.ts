/** From a `.torrent` or a magnet link to a torrent that is complete and checked. */
import { readFile } from 'node:fs/promises'
import { SwarmError, TorrentError } from '../errors.ts'
import type { AlertOf } from '../native/alerts.ts'
import type { Swarm } from '../swarm/swarm.ts'
import { parseMagnet } from '../torrent/magnet.ts'
import { type Metainfo, parseMetainfo } from '../torrent/metainfo.ts'
import type { PeerAddress } from '../values.ts'
import { CommandError } from './command.ts'

export interface TorrentSource {
  readonly torrentFile: Uint8Array
  readonly metainfo: Metainfo
  /** Where to announce: what the torrent or the link names. */
  readonly announceUrls: readonly string[]
  /** Peers that are known from the start. */
  readonly peers: readonly PeerAddress[]
}

export function isMagnet(source: string): boolean {
  return /^magnet:/i.test(source)
}

/** Reads a torrent file. @throws {TorrentError | CommandError} */
export async function readTorrentFile(path: string, peers: readonly PeerAddress[]): Promise<TorrentSource> {
  const torrentFile = new Uint8Array(
    await readFile(path).catch((error: unknown) => explainMissing(path, error)),
  )
  try {
    const metainfo = parseMetainfo(torrentFile)
    return { torrentFile, metainfo, announceUrls: metainfo.trackers, peers }
  } catch (error) {
    if (!(error instanceof TorrentError)) throw error
    throw new TorrentError(`${path} is not a torrent file: ${error.message}`, { cause: error })
  }
}

/** Says in a sentence why a file that somebody named cannot be used. @throws always */
export function explainMissing(path: string, error: unknown): never {
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'ENOENT' || code === 'ENOTDIR')
    throw new CommandError(`there is no file ${path}`, { cause: error })
  if (code === 'EISDIR') throw new CommandError(`${path} is a folder`, { cause: error })
  throw error
}

/** @throws {TorrentError} When nobody could be asked for the torrent of this link. */
export function checkMagnet(link: string, morePeers: readonly PeerAddress[]): void {
  const { trackers, peers } = parseMagnet(link)
  if (trackers.length + peers.length + morePeers.length > 0) return
  throw new TorrentError('this magnet link names no tracker or peer: add --peer')
}

/**
 * Joins the swarm of a magnet link until a peer has sent the torrent, and leaves it again.
 *
 * @param patienceMs How long peers may take to send it.
 * @param folder Where nothing is written: libtorrent wants to know one.
 * @throws {TorrentError} When the link, or what peers sent, makes no sense. @throws {SwarmError} When no peer sends
 * it in time. @throws The signal's reason.
 */
export async function resolveMagnet(
  swarm: Swarm,
  link: string,
  folder: string,
  morePeers: readonly PeerAddress[],
  patienceMs: number,
  signal: AbortSignal,
): Promise<TorrentSource> {
  const magnet = parseMagnet(link)
  const peers = [...magnet.peers, ...morePeers]
  const torrent = await swarm.session.addTorrent({
    magnet: link,
    savePath: folder,
    trackers: [...magnet.trackers],
    peers,
    flags: { default_dont_download: true },
  })
  let timer: NodeJS.Timeout | undefined
  try {
    const { torrentFile } = await new Promise<AlertOf<'metadata_received'>>((resolve, reject) => {
      torrent.onAlert((alert) => {
        if (alert.type === 'metadata_received') resolve(alert)
      })
      const isLate = (): void =>
        reject(new SwarmError(`no peer sent the torrent of this link within ${patienceMs / 1000} s`))
      timer = setTimeout(isLate, Math.min(patienceMs, 2 ** 31 - 1))
      signal.addEventListener('abort', () => reject(signal.reason))
      if (signal.aborted) reject(signal.reason)
    })
    return { torrentFile, metainfo: parseMetainfo(torrentFile), announceUrls: magnet.trackers, peers }
  } finally {
    clearTimeout(timer)
    await torrent.remove()
  }
}
