/** Waiting for libtorrent's word about one torrent. */
import { SwarmError } from '../errors.ts'
import type { TorrentStatus } from '../native/alerts.ts'
import type { Torrent } from '../native/session.ts'

/**
 * The status once libtorrent has looked at what is on disk.
 *
 * @throws {SwarmError} When libtorrent cannot go on. @throws The signal's reason.
 */
export function settledStatus(torrent: Torrent, signal: AbortSignal): Promise<TorrentStatus> {
  return statusWhen(torrent, signal, ({ hasMetadata, state }) => hasMetadata && !/^checking/.test(state))
}

/** The first status, of now or after a change of state, for which `isIt` holds. */
export function statusWhen(
  torrent: Torrent,
  signal: AbortSignal,
  isIt: (status: TorrentStatus) => boolean,
): Promise<TorrentStatus> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void): void => {
      stop()
      signal.removeEventListener('abort', abort)
      settle()
    }
    const abort = (): void => finish(() => reject(signal.reason))
    const look = (): void => {
      torrent.status().then(
        (status) => isIt(status) && finish(() => resolve(status)),
        (error) => finish(() => reject(error)),
      )
    }
    const stop = torrent.onAlert((alert) => {
      if (
        alert.type === 'torrent_checked' ||
        alert.type === 'state_changed' ||
        alert.type === 'torrent_finished'
      )
        look()
      else if (alert.type === 'torrent_error' || alert.type === 'file_error') {
        finish(() => reject(new SwarmError(`${alert.error.message} (${alert.file})`)))
      }
    })
    signal.addEventListener('abort', abort)
    if (signal.aborted) abort()
    else look()
  })
}
