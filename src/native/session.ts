/**
 * The typed, promise-speaking face of libtorrent. A `Session` is one set of listen sockets and many
 * torrents; a `Torrent` is a name for one of them and owns nothing.
 *
 * Every promise settles: by libtorrent's answer, or with a `NativeError` when the torrent is removed, the session closes,
 * or libtorrent had to drop the answer. None of them keeps the process alive, except `close()`.
 */
import type { PeerAddress } from '../values.ts'
import type { Alert, AlertError, AlertOf } from './alerts.ts'
import type {
  DiskBackend,
  NativeAddon,
  NativeAddTorrentParams,
  NativeLoadLimits,
  NativeSession,
  SessionSettings,
} from './binding.ts'
import { type AlertListener, Listeners } from './listeners.ts'
import { alertError, callNative, callSite } from './native-error.ts'
import { Request, RequestQueue } from './requests.ts'
import { Torrent, type TorrentControl, torrentGone } from './torrent.ts'

export type { DiskBackend } from './binding.ts'
export type { AlertListener } from './listeners.ts'
export { Torrent } from './torrent.ts'

export type AddTorrentParams = NativeAddTorrentParams

export interface SessionOptions {
  /** @defaultValue `own` */
  readonly diskBackend?: DiskBackend
}

/** libtorrent's alert categories, the bits of the setting `alert_mask`. */
export const alertCategory: {
  readonly error: number
  readonly peer: number
  readonly storage: number
  readonly tracker: number
  readonly connect: number
  readonly status: number
  readonly pieceProgress: number
} = {
  error: 1 << 0,
  /** `peer_ban`; with it come several alerts per peer and second. */
  peer: 1 << 1,
  storage: 1 << 3,
  tracker: 1 << 4,
  /** `peer_connect` and `peer_disconnected`. */
  connect: 1 << 5,
  status: 1 << 6,
  pieceProgress: 1 << 22,
}

/** The alerts this room needs to answer requests, and those that come at most once per piece or announce. */
export const baseAlertMask: number =
  alertCategory.error |
  alertCategory.status |
  alertCategory.storage |
  alertCategory.tracker |
  alertCategory.pieceProgress

/**
 * What every session needs whatever its policy: nothing that speaks to strangers by itself, TCP only (uTP ran at a
 * tenth of its speed on loopback), and an alert queue that holds the pieces of a large torrent at once.
 */
export const baseSettings: SessionSettings = {
  enable_dht: false,
  enable_lsd: false,
  enable_upnp: false,
  enable_natpmp: false,
  enable_outgoing_utp: false,
  enable_incoming_utp: false,
  alert_mask: baseAlertMask,
  alert_queue_size: 200_000,
}

/** Below libtorrent's own defaults: ours are torrents of one file, or of one repository. */
export const baseLoadLimits: NativeLoadLimits = {
  maxBufferBytes: 10_000_000,
  maxPieces: 1 << 20,
  maxDepth: 64,
  maxTokens: 1_000_000,
}

// libtorrent's own words and number.
const sessionClosed: AlertError = { message: 'session is closing', category: 'libtorrent', value: 18 }
const answerDropped: AlertError = {
  message: 'libtorrent dropped the answer because its alert queue was full',
  category: 'generic',
  value: 105,
}

/** Opens its listen sockets at construction. It is never collected while open: close it. */
export class Session implements AsyncDisposable {
  readonly #native: NativeSession
  readonly #torrents = new Map<number, TorrentControl>()
  readonly #adding = new Map<number, Request<Torrent>>()
  readonly #statistics = new RequestQueue<Record<string, number>>('statistics')
  readonly #listeners = new Listeners()
  #listenAlerts: (AlertOf<'listen_succeeded'> | AlertOf<'listen_failed'>)[] = []
  #nextRequest = 1
  #closing: Promise<void> | undefined

  /**
   * @throws {TypeError} For an unknown setting or disk backend, or a wrong type.
   * @throws {RangeError} For a number that is no 32-bit integer.
   */
  constructor(addon: NativeAddon, settings: SessionSettings, options: SessionOptions = {}) {
    const { diskBackend = 'own' } = options
    this.#native = callNative(
      () => new addon.Session(settings, (alerts) => this.#receive(alerts), { diskBackend }),
    )
  }

  /**
   * The bound TCP addresses, once every interface has answered; none when none was asked for.
   * Needs the alert category `status`.
   *
   * @throws {NativeError} When none of several could be bound.
   */
  async listening(): Promise<readonly PeerAddress[]> {
    const site = callSite(this.listening)
    // libtorrent opens its sockets before it answers anything: what has not been told by then will not come.
    await this.statistics()
    const bound = this.#listenAlerts.filter(
      (alert) => alert.type === 'listen_succeeded' && alert.socketType === 'tcp',
    )
    const failed = this.#listenAlerts.find((alert) => alert.type === 'listen_failed')
    if (bound.length === 0 && failed !== undefined) {
      throw alertError('listen', failed.error, site, `${failed.host}:${failed.port}`)
    }
    return bound.map(({ host, port }) => ({ host, port }))
  }

  /** Takes effect soon after, without an answer. @throws {TypeError | RangeError} As the constructor. */
  applySettings(settings: SessionSettings): void {
    callNative(() => this.#native.applySettings(settings))
    if ('listen_interfaces' in settings) this.#listenAlerts = []
  }

  /** Whether peers on the local network may ignore the rate limits and upload slots; libtorrent begins with `true`. */
  exemptLocalPeers(exempt: boolean): void {
    callNative(() => this.#native.exemptLocalPeers(exempt))
  }

  /** Disconnects an IP address and keeps it away from all torrents of this session. */
  banPeer(host: string): void {
    callNative(() => this.#native.banPeer(host))
  }

  /**
   * Adds a torrent; unless the flags say otherwise it starts at once and is not managed by libtorrent's own queue.
   *
   * @throws {NativeError} For what is not a torrent, or one that this session has already.
   */
  async addTorrent(params: AddTorrentParams, limits: NativeLoadLimits = baseLoadLimits): Promise<Torrent> {
    const request = new Request<Torrent>('addTorrent', this.addTorrent)
    const number = this.#nextRequest++
    const flags = { auto_managed: false, paused: false, ...params.flags }
    callNative(() => this.#native.addTorrent({ ...params, flags }, limits, number))
    this.#adding.set(number, request)
    return request.promise
  }

  /** libtorrent's counters by name. @see https://libtorrent.org/manual-ref.html#session-statistics */
  statistics(): Promise<Record<string, number>> {
    return this.#statistics.ask(() => this.#native.postSessionStats(), this.statistics)
  }

  /** Asks for a `state_update` alert with every torrent that has changed since the last one. */
  postTorrentUpdates(): void {
    callNative(() => this.#native.postTorrentUpdates())
  }

  /** Calls back for every alert; returns the way to stop. */
  onAlert(listener: AlertListener): () => void {
    return this.#listeners.add(listener)
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  /** Idempotent. Resolves once trackers were told and libtorrent's threads are joined. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const closed = this.#native.close()
    for (const request of this.#adding.values()) request.fail(sessionClosed)
    this.#adding.clear()
    this.#statistics.failAll(sessionClosed)
    for (const torrent of this.#torrents.values()) torrent.end(sessionClosed)
    this.#torrents.clear()
    await closed
    this.#listeners.clear()
  }

  // A batch may end in the middle: a listener can close the session.
  #receive(alerts: Alert[]): void {
    for (const alert of alerts) {
      if (this.isClosed) return
      this.#settle(alert)
      this.#listeners.emit(alert)
      if ('torrent' in alert) this.#torrents.get(alert.torrent)?.receive(alert)
    }
  }

  #settle(alert: Alert): void {
    switch (alert.type) {
      case 'add_torrent':
        this.#settleAdded(alert)
        break
      case 'session_stats':
        this.#statistics.answer(alert.counters)
        break
      case 'listen_succeeded':
      case 'listen_failed':
        this.#listenAlerts.push(alert)
        break
      case 'alerts_dropped':
        this.#failDropped(alert.names)
        break
      default:
    }
  }

  #settleAdded(alert: AlertOf<'add_torrent'>): void {
    const request = this.#adding.get(alert.request)
    if (request === undefined) return
    this.#adding.delete(alert.request)
    const native = alert.error ? undefined : this.#native.torrent(alert.torrent)
    if (native === undefined) {
      request.fail(alert.error ?? torrentGone)
      return
    }
    const { torrent, control } = Torrent.adopt(
      native,
      {
        remove: (deleteFiles) => this.#native.removeTorrent(alert.torrent, deleteFiles),
        hasEnded: (id) => this.#torrents.delete(id),
      },
      alert,
    )
    this.#torrents.set(alert.torrent, control)
    request.resolve(torrent)
  }

  /** Answers come as alerts; one that was dropped will not come again. */
  #failDropped(names: readonly string[]): void {
    if (names.includes('add_torrent')) {
      for (const request of this.#adding.values()) request.fail(answerDropped)
      this.#adding.clear()
    }
    if (names.includes('session_stats')) this.#statistics.failAll(answerDropped)
    for (const torrent of this.#torrents.values()) torrent.failDropped(names, answerDropped)
  }
}
