/**
 * What libtorrent tells us, as plain objects told apart by `type` (libtorrent's alert names without `_alert`).
 * `native/alerts.cpp` is their only maker. Torrent alerts carry `torrent`, the torrent's id in its session.
 * `torrent_status`, `piece_checked`, `piece_availability`, `unfinished_pieces` and `peers` are our own: libtorrent 2.0.8
 * has no alert for these answers.
 */

export interface AlertError {
  message: string
  category: string
  value: number
}

export type TorrentState =
  | 'checking_files'
  | 'downloading_metadata'
  | 'downloading'
  | 'finished'
  | 'seeding'
  | 'checking_resume_data'

/** A snapshot of one torrent (`torrent_status`). Sizes in bytes, rates in bytes per second of payload. */
export interface TorrentStatus {
  torrent: number
  state: TorrentState
  /** 0 to 1 of what is wanted; of the files to check while `state` is a checking one. */
  progress: number
  hasMetadata: boolean
  totalDone: number
  totalWanted: number
  totalWantedDone: number
  payloadDownload: number
  payloadUpload: number
  allTimeUpload: number
  allTimeDownload: number
  failedBytes: number
  redundantBytes: number
  downloadRate: number
  uploadRate: number
  numPeers: number
  numSeeds: number
  numConnections: number
  connectCandidates: number
  numPieces: number
  isPaused: boolean
  isSeeding: boolean
  isFinished: boolean
  error?: AlertError
  /** One bit per piece, most significant bit first; absent before metadata. */
  pieces?: Uint8Array
}

/** A piece that peers brought a part of. `blocks` has one bit per 16 KiB block, most significant bit first. */
export interface UnfinishedPiece {
  piece: number
  blocks: Uint8Array
}

/**
 * One connection of a torrent that is past its handshake. Counts and rates are of this connection alone and begin at 0
 * when the peer connects again.
 */
export interface PeerSight {
  host: string
  /** Of the connection: where the peer listens only when we connected to it. */
  port: number
  /**
   * 16 lower-case hex digits: what the peer calls itself in this torrent. Absent for a peer that names none, and for a
   * moment after any peer has connected. The peer's word: it may be anybody else's id, ours included.
   */
  sliceId?: string
  /** It has all pieces; `false` while we have no metadata. */
  isSeed: boolean
  /** How many pieces it has. */
  numPieces: number
  /** Payload received from it. */
  downloadBytes: number
  /** Payload in bytes per second: an average over some five seconds that changes once per second. */
  downloadRate: number
  /** Pieces that it took part in and that failed their hash, at most 255; kept when it connects again. */
  hashFailures: number
  /** It refuses our requests (BEP 3, "choked"). */
  isChoking: boolean
  /** It has pieces that we want. */
  isInteresting: boolean
}

interface TorrentAlert {
  torrent: number
}

export type Alert =
  | { type: 'listen_succeeded'; host: string; port: number; socketType: string }
  | { type: 'listen_failed'; host: string; port: number; socketType: string; error: AlertError }
  | { type: 'session_stats'; counters: Record<string, number> }
  | { type: 'state_update'; statuses: TorrentStatus[] }
  /** The queue overflowed; `names` are the alert types that are missing. */
  | { type: 'alerts_dropped'; names: string[] }
  | ({
      type: 'add_torrent'
      request: number
      error?: AlertError
      infoHashV1?: string
      infoHashV2?: string
    } & TorrentAlert)
  | ({ type: 'torrent_removed' } & TorrentAlert)
  /** After `torrent_removed`, when the files were to be deleted too. */
  | ({ type: 'torrent_deleted' } & TorrentAlert)
  | ({ type: 'torrent_delete_failed'; error: AlertError } & TorrentAlert)
  | ({ type: 'torrent_status'; status: TorrentStatus } & TorrentAlert)
  | ({ type: 'torrent_checked' } & TorrentAlert)
  | ({ type: 'torrent_finished' } & TorrentAlert)
  | ({ type: 'torrent_paused' } & TorrentAlert)
  | ({ type: 'torrent_resumed' } & TorrentAlert)
  | ({ type: 'torrent_error'; error: AlertError; file: string } & TorrentAlert)
  | ({ type: 'file_error'; error: AlertError; file: string; operation: string } & TorrentAlert)
  /** `torrentFile` holds the info dictionary alone; a v2 torrent's piece layers come later, from peers. */
  | ({ type: 'metadata_received'; torrentFile: Uint8Array } & TorrentAlert)
  | ({ type: 'metadata_failed'; error: AlertError } & TorrentAlert)
  | ({ type: 'piece_finished'; piece: number } & TorrentAlert)
  | ({ type: 'hash_failed'; piece: number } & TorrentAlert)
  /** The answer to one `announcePiece`. With `wasThere` libtorrent had the piece before, and did not look at it. */
  | ({
      type: 'piece_checked'
      request: number
      piece: number
      hasPassed: boolean
      wasThere: boolean
      error?: AlertError
    } & TorrentAlert)
  | ({ type: 'piece_availability'; availability: Uint32Array } & TorrentAlert)
  | ({ type: 'unfinished_pieces'; pieces: UnfinishedPiece[] } & TorrentAlert)
  | ({ type: 'peers'; peers: PeerSight[] } & TorrentAlert)
  | ({ type: 'save_resume_data'; resumeData: Uint8Array } & TorrentAlert)
  | ({ type: 'save_resume_data_failed'; error: AlertError } & TorrentAlert)
  /** The resume data does not fit the files: they are checked from scratch. */
  | ({ type: 'fastresume_rejected'; error: AlertError; file: string } & TorrentAlert)
  | ({ type: 'file_renamed'; file: number; path: string } & TorrentAlert)
  | ({ type: 'file_rename_failed'; file: number; error: AlertError } & TorrentAlert)
  | ({ type: 'state_changed'; state: TorrentState } & TorrentAlert)
  | ({ type: 'tracker_reply'; url: string; peers: number } & TorrentAlert)
  | ({
      type: 'tracker_error'
      url: string
      error: AlertError
      reason: string
      failures: number
    } & TorrentAlert)
  | ({ type: 'peer_connect'; host: string; port: number } & TorrentAlert)
  | ({ type: 'peer_disconnected'; host: string; port: number; error: AlertError } & TorrentAlert)
  | ({ type: 'peer_ban'; host: string; port: number } & TorrentAlert)

export type AlertType = Alert['type']
export type AlertOf<T extends AlertType> = Extract<Alert, { type: T }>

/** Whether a piece is in the bitfield of a status. */
export function hasPiece(pieces: Uint8Array | undefined, piece: number): boolean {
  return ((pieces?.[piece >> 3] ?? 0) & (0x80 >> (piece & 7))) !== 0
}
