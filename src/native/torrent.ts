/** One torrent of a session: its promises, its listeners, and how they end. */
import type { InfoHash, PeerAddress } from '../values.ts'
import type { Alert, AlertError, AlertOf, PeerSight, TorrentStatus, UnfinishedPiece } from './alerts.ts'
import type { NativeTorrent, TorrentFlags } from './binding.ts'
import { type AlertListener, Listeners } from './listeners.ts'
import { callNative } from './native-error.ts'
import { Request, RequestQueue } from './requests.ts'

/** What libtorrent says of a handle whose torrent is gone. */
export const torrentGone: AlertError = {
  message: 'invalid torrent handle used',
  category: 'libtorrent',
  value: 20,
}

/** What libtorrent found about a piece that was announced. */
export interface PieceCheck {
  /** Its hash is right. */
  readonly hasPassed: boolean
  /** libtorrent had it before, and did not look at it. */
  readonly wasThere: boolean
}

/** What a session tells its torrents; made with each, so that nobody else can. */
export interface TorrentControl {
  /** An alert of this torrent. */
  receive(alert: Alert): void
  /** Fails what waits for alerts of these types: they were dropped. */
  failDropped(names: readonly string[], error: AlertError): void
  /** Nothing will come any more. */
  end(error: AlertError): void
}

/** What a torrent asks of its session. */
export interface TorrentOwner {
  remove(deleteFiles: boolean): void
  /** The torrent was removed, and its files deleted if that was asked. */
  hasEnded(id: number): void
}

/**
 * A name for one torrent in a session. After it was removed, or its session closed, every call throws or
 * rejects with a `NativeError`.
 */
export class Torrent {
  readonly id: number
  readonly infoHashV1: InfoHash | undefined
  readonly infoHashV2: InfoHash | undefined
  readonly #native: NativeTorrent
  readonly #owner: TorrentOwner
  readonly #listeners = new Listeners()
  readonly #status = new RequestQueue<TorrentStatus>('status')
  readonly #availability = new RequestQueue<Uint32Array>('pieceAvailability')
  readonly #unfinished = new RequestQueue<readonly UnfinishedPiece[]>('unfinishedPieces')
  readonly #peers = new RequestQueue<PeerSight[]>('peers')
  readonly #resumeData = new RequestQueue<Uint8Array>('saveResumeData')
  readonly #renames = new Map<number, RequestQueue<void>>()
  readonly #removal = new RequestQueue<void>('remove')
  readonly #checks = new Map<number, Request<PieceCheck>>()
  #nextCheck = 1
  #removing: Promise<void> | undefined
  #deletesFiles = false
  #hasEnded = false

  private constructor(native: NativeTorrent, owner: TorrentOwner, added: AlertOf<'add_torrent'>) {
    this.id = native.id
    this.infoHashV1 = added.infoHashV1 as InfoHash | undefined
    this.infoHashV2 = added.infoHashV2 as InfoHash | undefined
    this.#native = native
    this.#owner = owner
    this.#listeners.holdEarly()
  }

  /** For `Session` alone: only an `add_torrent` alert makes a torrent. */
  static adopt(
    native: NativeTorrent,
    owner: TorrentOwner,
    added: AlertOf<'add_torrent'>,
  ): { torrent: Torrent; control: TorrentControl } {
    const torrent = new Torrent(native, owner, added)
    const control: TorrentControl = {
      receive: (alert) => torrent.#receive(alert),
      failDropped: (names, error) => torrent.#failDropped(names, error),
      end: (error) => torrent.#end(error),
    }
    return { torrent, control }
  }

  /** v2 where there is one, else v1. */
  get infoHash(): InfoHash {
    return (this.infoHashV2 ?? this.infoHashV1) as InfoHash
  }

  /** Whether it was removed, is being removed, or lost its session. */
  get isRemoved(): boolean {
    return this.#hasEnded || this.#removing !== undefined
  }

  /**
   * Calls back for every alert of this torrent; returns the way to stop. A listener that is there as soon as
   * `addTorrent` resolves misses nothing: what came with the torrent is kept that long.
   */
  onAlert(listener: AlertListener): () => void {
    return this.#listeners.add(listener)
  }

  /** As it is when libtorrent's thread gets to the question, behind all earlier calls. */
  status(): Promise<TorrentStatus> {
    return this.#status.ask(() => this.#native.postStatus(), this.status)
  }

  /** For each piece, how many connected peers have it. Empty while the torrent seeds. */
  pieceAvailability(): Promise<Uint32Array> {
    return this.#availability.ask(() => this.#native.postPieceAvailability(), this.pieceAvailability)
  }

  /** Pieces that libtorrent is fetching, with the blocks of them that are on disk. */
  unfinishedPieces(): Promise<readonly UnfinishedPiece[]> {
    return this.#unfinished.ask(() => this.#native.postUnfinishedPieces(), this.unfinishedPieces)
  }

  /** Every connection that is past its handshake, in no order. */
  peers(): Promise<PeerSight[]> {
    return this.#peers.ask(() => this.#native.postPeers(), this.peers)
  }

  /** `priority` is 0 (do not download) to 7. @throws {RangeError} For a piece that is not in the torrent. */
  setPiecePriority(piece: number, priority: number): void {
    callNative(() => this.#native.setPiecePriority(piece, priority))
  }

  /** One entry per piece, each 0 to 7. */
  setPiecePriorities(priorities: Uint8Array): void {
    callNative(() => this.#native.setPiecePriorities(priorities))
  }

  /**
   * Gives a piece from elsewhere; it is checked like one from a peer, and answered by `piece_finished` or
   * `hash_failed`. A piece that libtorrent has already is ignored unless `overwrite`.
   *
   * @param data The piece in full: `pieceLength` bytes, fewer for the last one of a file. It is copied.
   * @throws {RangeError} For another length.
   */
  addPiece(piece: number, data: Uint8Array, options: { overwrite?: boolean } = {}): void {
    callNative(() => this.#native.addPiece(piece, data, options.overwrite ?? false))
  }

  /**
   * Says that the bytes of a piece are in the torrent's file, written there by somebody else, all of them. libtorrent
   * hashes them where they are and tells its peers; nothing is written and nothing is copied. What peers have sent of the
   * piece counts no longer.
   *
   * A piece that has not passed may be written and announced again; bytes that are not there count as wrong, and no peer
   * is blamed for them. Each call has an answer of its own, whatever peers bring of the same piece meanwhile; the alerts
   * `piece_finished` and `hash_failed` come all the same, before it.
   *
   * @throws {RangeError} For a piece that is not in the torrent.
   * @throws {NativeError} When the file cannot be read, while libtorrent still checks the files (`torrent_checked`
   *   ends that), when the torrent ends first, or when the session's disk backend is `posix`.
   */
  async announcePiece(piece: number): Promise<PieceCheck> {
    const request = new Request<PieceCheck>('announcePiece', this.announcePiece)
    const number = this.#nextCheck++
    callNative(() => this.#native.announcePiece(piece, number))
    this.#checks.set(number, request)
    return request.promise
  }

  /**
   * Says that somebody else may write into the pieces `[first, end)` from now on, beside peers: they are hashed from the
   * file, not from what peers sent, and when the two differ no peer is blamed. To be called before the first such write.
   *
   * @throws {RangeError} For pieces that are not in the torrent.
   * @throws {NativeError} When the session's disk backend is `posix`.
   */
  sharePieces(first: number, end: number): void {
    callNative(() => this.#native.sharePieces(first, end))
  }

  /** Asks for a piece within `deadlineMs` from now, ahead of others. */
  setPieceDeadline(piece: number, deadlineMs: number): void {
    callNative(() => this.#native.setPieceDeadline(piece, deadlineMs))
  }

  clearPieceDeadlines(): void {
    callNative(() => this.#native.clearPieceDeadlines())
  }

  /** Everything `addTorrent` needs to go on from here, the info dictionary included. */
  saveResumeData(): Promise<Uint8Array> {
    return this.#resumeData.ask(() => this.#native.saveResumeData(), this.saveResumeData)
  }

  /**
   * Moves a file to an absolute path on the same file system, and goes on with it there. libtorrent before
   * 2.0.12 overwrites what is there.
   *
   * @throws {NativeError} When it could not be moved; it then stays where it was.
   */
  renameFile(file: number, path: string): Promise<void> {
    const queue = this.#renames.get(file) ?? new RequestQueue<void>('renameFile')
    this.#renames.set(file, queue)
    return queue.ask(() => this.#native.renameFile(file, path), this.renameFile)
  }

  /** Sets the flags named `true`, clears those named `false`, and leaves the others. */
  setFlags(flags: TorrentFlags): void {
    callNative(() => this.#native.setFlags(flags))
  }

  /** Absent or 0 is no limit. */
  setRateLimits(limits: { downloadBytesPerSecond?: number; uploadBytesPerSecond?: number }): void {
    const { downloadBytesPerSecond = 0, uploadBytesPerSecond = 0 } = limits
    callNative(() => this.#native.setRateLimits(downloadBytesPerSecond, uploadBytesPerSecond))
  }

  /** @throws {TypeError} When the host is not an IP address. */
  connectPeer(peer: PeerAddress): void {
    callNative(() => this.#native.connectPeer(peer.host, peer.port))
  }

  forceReannounce(): void {
    callNative(() => this.#native.forceReannounce())
  }

  forceRecheck(): void {
    callNative(() => this.#native.forceRecheck())
  }

  /**
   * Takes the torrent out of its session; a second call waits for the same removal. Resolves when it is out, and
   * with `deleteFiles` when its files are gone.
   *
   * @throws {NativeError} When the session is closed, or the files could not be deleted.
   */
  remove(options: { deleteFiles?: boolean } = {}): Promise<void> {
    if (this.#removing !== undefined) return this.#removing
    const deleteFiles = options.deleteFiles ?? false
    this.#removing = this.#removal.ask(() => this.#owner.remove(deleteFiles), this.remove)
    this.#deletesFiles = deleteFiles
    return this.#removing
  }

  #receive(alert: Alert): void {
    this.#settle(alert)
    this.#listeners.emit(alert)
  }

  #settle(alert: Alert): void {
    switch (alert.type) {
      case 'torrent_status':
        this.#status.answer(alert.status)
        break
      case 'piece_availability':
        this.#availability.answer(alert.availability)
        break
      case 'unfinished_pieces':
        this.#unfinished.answer(alert.pieces)
        break
      case 'peers':
        this.#peers.answer(alert.peers)
        break
      case 'piece_checked':
        this.#settleCheck(alert)
        break
      case 'save_resume_data':
        this.#resumeData.answer(alert.resumeData)
        break
      case 'save_resume_data_failed':
        this.#resumeData.fail(alert.error)
        break
      case 'file_renamed':
        this.#renames.get(alert.file)?.answer()
        break
      case 'file_rename_failed':
        this.#renames.get(alert.file)?.fail(alert.error)
        break
      case 'torrent_removed':
        if (this.#deletesFiles) this.#failQuestions(torrentGone)
        else this.#finish()
        break
      case 'torrent_deleted':
        this.#finish()
        break
      case 'torrent_delete_failed':
        this.#removal.fail(alert.error)
        this.#finish()
        break
      default:
    }
  }

  #settleCheck({ request, hasPassed, wasThere, error }: AlertOf<'piece_checked'>): void {
    const check = this.#checks.get(request)
    this.#checks.delete(request)
    if (error === undefined) check?.resolve({ hasPassed, wasThere })
    else check?.fail(error)
  }

  #finish(): void {
    this.#removal.answer()
    this.#end(torrentGone)
    this.#owner.hasEnded(this.id)
  }

  #end(error: AlertError): void {
    this.#hasEnded = true
    this.#failQuestions(error)
    this.#removal.failAll(error)
  }

  #failQuestions(error: AlertError): void {
    for (const queue of [this.#status, this.#availability, this.#unfinished, this.#peers, this.#resumeData])
      queue.failAll(error)
    for (const queue of this.#renames.values()) queue.failAll(error)
    for (const check of this.#checks.values()) check.fail(error)
    this.#checks.clear()
  }

  #failDropped(names: readonly string[], error: AlertError): void {
    const includes = (...types: string[]): boolean => types.some((type) => names.includes(type))
    if (includes('save_resume_data', 'save_resume_data_failed')) this.#resumeData.failAll(error)
    if (includes('file_renamed', 'file_rename_failed')) {
      for (const queue of this.#renames.values()) queue.failAll(error)
    }
    if (includes('torrent_removed', 'torrent_deleted', 'torrent_delete_failed')) this.#removal.failAll(error)
  }
}
