/**
 * Every native signature, in one place. Nothing here has an opinion: names, units and defaults are
 * libtorrent's, and the policy lives in the rooms above.
 *
 * Requests that libtorrent answers later return nothing here and take a `request` number: the answer
 * arrives as an alert that carries the same number (`src/native/session.ts` turns it into a promise).
 */
import type { Alert, UnfinishedPiece } from './alerts.ts'

/** Settings by libtorrent's own names (`settings_pack`). An unknown name or a wrong type is a TypeError. */
export type SessionSettings = Record<string, string | number | boolean>

/**
 * Who reads and writes the files. `own`: `native/disk_io.cpp`, which is faster and stricter (no symbolic link inside a
 * save path, no write to a torrent that was added in seed mode, no file made twice). `posix`: libtorrent's.
 */
export type DiskBackend = 'own' | 'posix'

export interface NativeSessionOptions {
  /** `own` when absent. */
  diskBackend?: DiskBackend
}

/** libtorrent's `torrent_flags`, by name. */
export type TorrentFlag =
  | 'seed_mode'
  | 'upload_mode'
  | 'share_mode'
  | 'apply_ip_filter'
  | 'paused'
  | 'auto_managed'
  | 'super_seeding'
  | 'sequential_download'
  | 'stop_when_ready'
  | 'disable_dht'
  | 'disable_lsd'
  | 'disable_pex'
  | 'no_verify_files'
  | 'default_dont_download'
export type TorrentFlags = Partial<Record<TorrentFlag, boolean>>

export interface NativeAddTorrentParams {
  /** Exactly one of `torrentFile`, `magnet`, `resumeData`. */
  torrentFile?: Uint8Array
  magnet?: string
  resumeData?: Uint8Array
  /** Absolute folder. */
  savePath: string
  /** File index -> absolute path. */
  renamedFiles?: Record<number, string>
  flags?: TorrentFlags
  /** Replaces the torrent's own trackers; each is one tier. Web seeds and DHT nodes of the torrent are always dropped. */
  trackers?: string[]
  peers?: { host: string; port: number }[]
  /** One entry per file, 0 to 7. */
  filePriorities?: number[]
  /** One entry per piece, 0 to 7. */
  piecePriorities?: number[]
  /**
   * One bit per piece, most significant bit first: what is on disk and right. With it, also all zeros, libtorrent does
   * not look for itself.
   */
  havePieces?: Uint8Array
  /** Blocks on disk of pieces that are not complete. */
  unfinishedPieces?: readonly UnfinishedPiece[]
  /** Bytes per second; 0 is no limit. */
  uploadLimit?: number
  downloadLimit?: number
  /** 16 lower-case hex digits, told to every peer of the torrent; without it nothing is told. Belongs to one torrent only. */
  sliceId?: string
}

/** Limits for parsing a `.torrent` from elsewhere (`load_torrent_limits`). */
export interface NativeLoadLimits {
  maxBufferBytes: number
  maxPieces: number
  maxDepth: number
  maxTokens: number
}

export interface NativeTorrent {
  /** Unique in its session; alerts carry it as `torrent`. */
  readonly id: number
  /** Answered by a `torrent_status` alert. */
  postStatus(): void
  setPiecePriority(piece: number, priority: number): void
  setPiecePriorities(priorities: Uint8Array): void
  /** Answered by a `piece_availability` alert. */
  postPieceAvailability(): void
  /** Answered by an `unfinished_pieces` alert. */
  postUnfinishedPieces(): void
  /** Answered by a `peers` alert. */
  postPeers(): void
  /** `data` is copied. Its length is the piece's true length: the padding that a v2-only torrent needs is added here. */
  addPiece(piece: number, data: Uint8Array, overwrite: boolean): void
  /**
   * The bytes of this piece are in the torrent's file, written there by somebody else: libtorrent hashes them where they
   * are and announces the piece. Answered by a `piece_checked` alert with the same `request`.
   */
  announcePiece(piece: number, request: number): void
  /** From now on somebody else may write into the pieces `[first, end)`: they are hashed from the file. */
  sharePieces(first: number, end: number): void
  setPieceDeadline(piece: number, deadlineMs: number): void
  clearPieceDeadlines(): void
  /** Answered by `save_resume_data`, which contains the info dictionary, or `save_resume_data_failed`. */
  saveResumeData(): void
  /** Answered by `file_renamed` or `file_rename_failed`. Before 2.0.12 an existing file at `path` is overwritten. */
  renameFile(file: number, path: string): void
  setFlags(flags: TorrentFlags): void
  setRateLimits(downloadBytesPerSecond: number, uploadBytesPerSecond: number): void
  /** `host` is an IP address. */
  connectPeer(host: string, port: number): void
  forceReannounce(): void
  forceRecheck(): void
}

export interface NativeSession {
  applySettings(settings: SessionSettings): void
  /** Answered by an `add_torrent` alert with the same `request`. */
  addTorrent(params: NativeAddTorrentParams, limits: NativeLoadLimits, request: number): void
  /** The torrent of an `add_torrent` alert; `undefined` when it has been removed meanwhile. */
  torrent(id: number): NativeTorrent | undefined
  /** Answered by `torrent_removed`; with `deleteFiles` then `torrent_deleted` or `torrent_delete_failed`. */
  removeTorrent(id: number, deleteFiles: boolean): void
  /** Answered by `state_update` with the torrents that have changed since the last one. */
  postTorrentUpdates(): void
  postSessionStats(): void
  /** Peers on the local network obey the rate limits too when `false` (libtorrent's default exempts them). */
  exemptLocalPeers(exempt: boolean): void
  /** `host` is an IP address. */
  banPeer(host: string): void
  /** Idempotent; resolves when libtorrent's threads are joined. */
  close(): Promise<void>
}

export interface NativeJob<T> {
  readonly promise: Promise<T>
  /** The promise then rejects with a NativeError whose operation is cancelled. Idempotent. */
  cancel(): void
}

export interface NativeCreateTorrentOptions {
  /** File to hash. */
  path: string
  /** The torrent's `name`. */
  name: string
  pieceLength: number
  format: 'v1' | 'v2' | 'hybrid'
  trackers: string[]
  /** Outside the info dictionary; empty for none. No creation date is ever written. */
  createdBy: string
  comment: string
  /** Digests of the whole file, from the same pass. */
  sha256?: boolean
  gitSha1?: boolean
  /** Hashing threads, 1 to 1024; never more than this environment's budget has to spare. */
  threads: number
  /** The process does not wait for it: when everything else has ended, it is cancelled. */
  background?: boolean
}

export interface NativeCreatedTorrent {
  torrentFile: Uint8Array
  /** 64 hex digits, absent for v1. */
  infoHashV2?: string
  /** 40 hex digits, absent for v2. */
  infoHashV1?: string
  pieceLength: number
  sizeBytes: number
  /** 64 hex digits. */
  sha256?: string
  /** 40 hex digits: git's blob SHA-1. */
  gitSha1?: string
  /** All that was read from the file. */
  readBytes: number
}

export interface NativeFileDigests {
  sizeBytes: number
  /** 64 hex digits. */
  sha256?: string
  /** 40 hex digits: git's blob SHA-1. */
  gitSha1?: string
}

export interface NativeHashedFile extends NativeFileDigests {
  /** All that was read from the file. */
  readBytes: number
}

export interface NativeFileDigestOptions {
  /** Length of the complete file. */
  sizeBytes: number
  sha256: boolean
  gitSha1: boolean
  /** Makes the v2 torrent of the same bytes, equal to what `createTorrent` gives. */
  torrent?: { name: string; pieceLength: number; createdBy: string; trackers: string[] }
}

export interface NativeFollowedDigests extends NativeFileDigests {
  /** Absent for an empty file too, which has no torrent. */
  torrentFile?: Uint8Array
  /** 64 hex digits; comes with `torrentFile`. */
  infoHashV2?: string
}

export interface NativeFileDigest {
  readonly hashedBytes: number
  /** All that was ever read from the file. */
  readonly readBytes: number
  /** Does not keep the process alive. */
  readonly finished: Promise<NativeFollowedDigests>
  /** The bytes `[0, endBytes)` will not be written again. Never less than before. */
  advance(endBytes: number): void
  close(): void
}

export interface NativeSelfCheck {
  ok: boolean
  /** Why not, for people. */
  reason?: string
}

export interface NativeAddon {
  readonly versions: {
    /** The library that was loaded. */
    libtorrent: string
    /** The headers the addon was compiled with. */
    libtorrentHeaders: string
    openssl: string
    napi: number
  }
  /** Whether the library that was loaded fits this addon; `expectVersion` stands in for the addon's own in tests. */
  selfCheck(options?: { expectVersion?: string }): NativeSelfCheck
  readonly Session: new (
    settings: SessionSettings,
    onAlerts: (alerts: Alert[]) => void,
    options?: NativeSessionOptions,
  ) => NativeSession
  createTorrent(
    options: NativeCreateTorrentOptions,
    onProgress: ((hashedPieces: number, totalPieces: number) => void) | undefined,
  ): NativeJob<NativeCreatedTorrent>
  hashFile(
    path: string,
    /** `threads`: at most so many, 1 to 1024; 1 unless said otherwise. */
    digests: { sha256: boolean; gitSha1: boolean; threads?: number },
    onProgress: ((hashedBytes: number, totalBytes: number) => void) | undefined,
  ): NativeJob<NativeHashedFile>
  readonly FileDigest: new (path: string, options: NativeFileDigestOptions) => NativeFileDigest
  /** `flock(2)` without waiting: `false` when another holder has it. Released by `unlock` or by closing the descriptor. */
  tryLock(fd: number): boolean
  unlock(fd: number): void
}
