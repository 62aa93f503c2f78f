/**
 * The process's one place in all swarms: a libtorrent session that opens on first use, and the torrents
 * in it by info hash. Downloads and seeds share it, so that a finished download goes on seeding in place.
 */
import { dirname } from 'node:path'
import { log, messageOf } from '../log.ts'
import type { UnfinishedPiece } from '../native/alerts.ts'
import type { NativeAddon } from '../native/binding.ts'
import { Session, type Torrent } from '../native/session.ts'
import type { InfoHash, PeerAddress } from '../values.ts'
import { LastWords } from './last-words.ts'
import { type SwarmOptions, sessionSettings } from './settings.ts'

export type { SwarmOptions } from './settings.ts'

/** A torrent of one file, and who may have it. */
export interface TorrentOffer {
  readonly infoHash: InfoHash
  readonly torrentFile: Uint8Array
  readonly pieceLength: number
  /** Announce URLs; they replace whatever the torrent names. */
  readonly announceUrls: readonly string[]
  readonly peers: readonly PeerAddress[]
  /** Whether somebody is known to be there. */
  readonly isPromising: boolean
  /** Whether others may be fetching it at this moment. */
  readonly mayBeCrowd: boolean
  /** Whether this machine, or two publishers at different addresses, vouch that its bytes are the Hub's. */
  readonly isTied: boolean
}

/** What a download that joins a swarm brings along. */
export interface Progress {
  /** One entry per piece, 0 (leave it alone) to 7. */
  readonly priorities: Uint8Array
  /** Blocks on disk of pieces that peers left unfinished. */
  readonly unfinished: readonly UnfinishedPiece[]
  /** Under which name this download shares the origin with others: 16 hex digits. */
  readonly sliceId: string
}

export interface JoinOptions {
  /** Absolute path of the file the torrent's content is read from and written to. */
  readonly path: string
  /** `seed`: the file is complete and must never be written to. */
  readonly mode: 'download' | 'seed'
  /** Without it, libtorrent looks at what is on disk by itself. With it, nothing is there until it is handed in. */
  readonly progress?: Progress | undefined
}

/** How long trackers may take to answer the last announce but one before it is the last. */
const lastWordsMs = 1_000

export class Swarm implements AsyncDisposable {
  readonly #addon: NativeAddon
  readonly #options: SwarmOptions
  readonly #members = new Map<InfoHash, Promise<Torrent>>()
  readonly #lastWords = new Map<Torrent, LastWords>()
  /** Complete torrents that go as soon as trackers can be told. */
  readonly #retiring = new Map<InfoHash, Torrent>()
  #session: Session | undefined
  #closing: Promise<void> | undefined

  constructor(addon: NativeAddon, options: SwarmOptions) {
    this.#addon = addon
    this.#options = options
  }

  /** Whether the torrent checks pieces that were written into its file by others where they are. */
  get checksInPlace(): boolean {
    return (this.#options.diskBackend ?? 'own') === 'own'
  }

  /** The session, opened on first use. */
  get session(): Session {
    if (this.#closing !== undefined) throw new TypeError('the swarm is closed')
    if (this.#session === undefined) {
      const { diskBackend = 'own' } = this.#options
      this.#session = new Session(this.#addon, sessionSettings(this.#options), { diskBackend })
      if (this.#options.limitLocalPeers) this.#session.exemptLocalPeers(false)
    }
    return this.#session
  }

  /**
   * Adds a torrent of one file.
   *
   * @returns `undefined` when this process is in that swarm already: one torrent serves one path.
   * @throws {NativeError} When libtorrent refuses it.
   */
  async join(offer: TorrentOffer, options: JoinOptions): Promise<Torrent | undefined> {
    const retiring = this.#retiring.get(offer.infoHash)
    if (retiring !== undefined) await this.leave(retiring)
    if (this.#members.has(offer.infoHash)) return undefined
    const adding = this.session.addTorrent({
      torrentFile: offer.torrentFile,
      savePath: dirname(options.path),
      renamedFiles: { 0: options.path },
      trackers: [...offer.announceUrls],
      peers: [...offer.peers],
      ...(options.progress && {
        havePieces: new Uint8Array(Math.ceil(options.progress.priorities.length / 8)),
        piecePriorities: [...options.progress.priorities],
        unfinishedPieces: options.progress.unfinished,
        sliceId: options.progress.sliceId,
      }),
      // Upload mode keeps libtorrent from repairing, and so from writing to, a blob that turns out damaged.
      flags: {
        auto_managed: false,
        paused: false,
        ...(options.mode === 'seed' && { seed_mode: true, upload_mode: true }),
      },
    })
    this.#members.set(offer.infoHash, adding)
    try {
      const torrent = await adding
      if (options.mode === 'download')
        this.#lastWords.set(torrent, new LastWords(torrent, offer.announceUrls))
      return torrent
    } catch (error) {
      this.#members.delete(offer.infoHash)
      throw error
    }
  }

  /** Takes a torrent out of its swarm; its file stays. Idempotent. */
  async leave(torrent: Torrent): Promise<void> {
    // A session that closes takes its torrents along.
    if (this.#closing !== undefined) return await this.#closing
    if (this.#retiring.get(torrent.infoHash) === torrent) this.#retiring.delete(torrent.infoHash)
    this.#lastWords.delete(torrent)
    await torrent.remove().finally(() => this.#members.delete(torrent.infoHash))
  }

  /**
   * Takes a torrent whose file is complete out of its swarm when its trackers can be told, a moment later at most. Until
   * then it gives, and never writes.
   */
  retire(torrent: Torrent): void {
    if (this.#closing !== undefined || torrent.isRemoved) return
    torrent.setFlags({ upload_mode: true })
    this.#retiring.set(torrent.infoHash, torrent)
    const told = this.#lastWords.get(torrent)?.answered(lastWordsMs) ?? Promise.resolve()
    told
      .then(async () => {
        // Somebody who came for the same torrent may have ended it.
        if (this.#retiring.get(torrent.infoHash) === torrent) await this.leave(torrent)
      })
      .catch((error) => log.debug(`leaving a swarm: ${messageOf(error)}`))
  }

  /** Idempotent. Tells the trackers, joins libtorrent's threads. */
  close(): Promise<void> {
    this.#closing ??= this.#end()
    return this.#closing
  }

  async #end(): Promise<void> {
    await Promise.all([...this.#lastWords.values()].map((each) => each.answered(lastWordsMs)))
    await this.#session?.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
