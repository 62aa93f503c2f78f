/**
 * Fetches what a torrent describes. Here the torrent is the authority: what it refuses is wrong, wherever it came
 * from. A file has its name only when libtorrent has found every piece of it right.
 */
import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hasPiece, type TorrentStatus, type UnfinishedPiece } from '../native/alerts.ts'
import type { Torrent } from '../native/session.ts'
import type { Swarm, TorrentOffer } from '../swarm/swarm.ts'
import { settledStatus, statusWhen } from '../swarm/torrent-status.ts'
import type { RangeOpener } from '../transfer/http-leg.ts'
import { Journal } from '../transfer/journal.ts'
import { PartialFile } from '../transfer/partial-file.ts'
import { leftIn, raceInPartial } from '../transfer/partial-race.ts'
import { PieceMap } from '../transfer/piece-map.ts'
import { defaultRacePolicy } from '../transfer/plan.ts'
import { noBytes, type TransferProgress } from '../transfer/progress.ts'
import type { BytesBySource } from '../values.ts'
import { CommandError } from './command.ts'
import type { Output } from './output.ts'
import type { TorrentSource } from './torrent-source.ts'

export interface FetchOptions {
  readonly swarm: Swarm
  readonly source: TorrentSource
  readonly folder: string
  /** Opens the file over HTTP, if it is there. */
  readonly open: RangeOpener | undefined
  /** How long nothing at all may happen. */
  readonly patienceMs: number
  /** Our own state folder, for what an interrupted attempt left. */
  readonly stateDir: string
  readonly out: Output
  readonly signal: AbortSignal
  readonly onProgress: (progress: TransferProgress) => void
}

export interface FetchedTorrent {
  /** The file, or the folder of a torrent of many. */
  readonly path: string
  readonly bytes: BytesBySource
  readonly httpPieces: number
  /** Still in its swarm, giving. */
  readonly torrent: Torrent | undefined
}

const smallFileBytes = 1024 * 1024
const maxAttempts = 3
/** How long libtorrent may take from the last piece to saying that it is done. */
const confirmMs = 5_000

/** Fetches a torrent of one file as `folder/<name>`. @throws {CommandError | SwarmError | HubError | CacheError} */
export async function fetchSingleFile(options: FetchOptions): Promise<FetchedTorrent> {
  const { name, totalBytes } = options.source.metainfo
  const path = join(options.folder, name)
  await mkdir(options.folder, { recursive: true })
  if (totalBytes === 0) {
    await using _empty = await PartialFile.open(path, true)
    return { path, bytes: noBytes(), httpPieces: 0, torrent: undefined }
  }
  if ((await sizeOf(path)) !== undefined) return await adoptExisting(options, path)
  return await new SingleFileFetch(options, path).run()
}

class SingleFileFetch {
  readonly #options: FetchOptions
  readonly #path: string
  readonly #partialPath: string
  readonly #offer: TorrentOffer
  readonly #journal: Journal
  #map: PieceMap
  #unfinished: readonly UnfinishedPiece[] = []
  #bytes = noBytes()

  constructor(options: FetchOptions, path: string) {
    const { metainfo } = options.source
    this.#options = options
    this.#path = path
    this.#partialPath = `${path}.llmpt.incomplete`
    this.#offer = offerOf(options.source)
    this.#journal = new Journal(options.stateDir, this.#partialPath, this.#offer.infoHash)
    this.#map = new PieceMap(metainfo.totalBytes, metainfo.pieceLength)
  }

  async run(): Promise<FetchedTorrent> {
    try {
      return await this.#run()
    } finally {
      this.#journal.close()
    }
  }

  async #run(): Promise<FetchedTorrent> {
    await this.#resume()
    let { open } = this.#options
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const torrent = await this.#race(open)
      if (torrent !== undefined) return await this.#finish(torrent)
      await this.#check()
      if (open !== undefined)
        this.#options.out.complain('what --url sends is not what the torrent describes; going on without it')
      open = undefined
    }
    throw new CommandError(`${this.#path} cannot be completed: pieces that were right turn out wrong on disk`)
  }

  /** What is there, by the journal of whoever left it, or else by what the torrent finds right. */
  async #resume(): Promise<void> {
    const size = (await sizeOf(this.#partialPath)) ?? 0
    const { sizeBytes, pieceLength } = this.#map
    const left = await leftIn(this.#partialPath, this.#journal, sizeBytes, pieceLength)
    if (left !== undefined) {
      this.#map = left.map
      this.#unfinished = left.unfinished
      const { http, p2p } = this.#map.bytes()
      this.#bytes = { ...noBytes(), cache: http + p2p }
    } else if (size > 0) await this.#check()
  }

  /** @returns The torrent, when libtorrent says that every piece is right. */
  async #race(open: RangeOpener | undefined): Promise<Torrent | undefined> {
    const { swarm, signal, patienceMs, source } = this.#options
    const before = this.#bytes
    let isContradicted = false
    const unfinished = this.#unfinished
    this.#unfinished = []
    // Nobody reads along: the torrent itself says which bytes are right, and libtorrent at the end that all are.
    const { leg, isMixed } = await raceInPartial({
      partialPath: this.#partialPath,
      journal: this.#journal,
      map: this.#map,
      unfinished,
      open,
      swarm,
      findTorrent: async () => this.#offer,
      http:
        open === undefined ? 'never' : source.metainfo.totalBytes < smallFileBytes ? 'at-once' : 'with-swarm',
      swarmStart: 'at-once',
      policy: defaultRacePolicy,
      patienceMs,
      signal,
      onCondemned: async () => {
        isContradicted = true
      },
      onProgress: (progress) => {
        // What an earlier attempt brought and the torrent confirmed is there before this one, and was fetched all the same.
        this.#bytes = {
          ...progress.bytes,
          cache: Math.max(0, progress.bytes.cache - before.p2p - before.http),
        }
        this.#bytes.p2p += before.p2p
        this.#bytes.http += before.http
        this.#options.onProgress({ ...progress, bytes: this.#bytes })
      },
    })
    if (isContradicted) {
      await leg?.leave()
      return undefined
    }
    // libtorrent hashed what peers sent, before HTTP wrote it once more: there is no other digest to tell the difference.
    if (isMixed) await leg?.leave()
    // HTTP may have been done before libtorrent was: then it looks at the file now.
    const torrent = isMixed || leg === undefined ? await this.#join() : leg.release()
    await settledStatus(torrent, signal)
    const status = await statusWhen(
      torrent,
      AbortSignal.any([signal, AbortSignal.timeout(confirmMs)]),
      isComplete,
    ).catch((error: unknown) => {
      signal.throwIfAborted()
      if ((error as Error).name === 'TimeoutError') return undefined
      throw error
    })
    if (status !== undefined) return torrent
    await swarm.leave(torrent)
    return undefined
  }

  /** Marks those pieces on disk that the torrent finds right, and no others. */
  async #check(): Promise<void> {
    const torrent = await this.#join()
    try {
      const { pieces } = await settledStatus(torrent, this.#options.signal)
      const { sizeBytes, pieceLength } = this.#map
      const before = this.#map
      this.#map = new PieceMap(sizeBytes, pieceLength)
      for (let piece = 0; piece < before.count; piece++) {
        if (hasPiece(pieces, piece)) this.#map.mark(piece, before.sourceOf(piece) ?? 'p2p')
      }
      const { http, p2p } = this.#map.bytes()
      // On the first look, all of it was there before; later, keep to what was counted.
      if (this.#bytes.http + this.#bytes.p2p === 0) this.#bytes = { ...noBytes(), cache: http + p2p }
      else
        this.#bytes = {
          p2p: Math.min(p2p, this.#bytes.p2p),
          http: Math.min(http, this.#bytes.http),
          cache: this.#bytes.cache,
        }
    } finally {
      await this.#options.swarm.leave(torrent)
    }
  }

  async #join(): Promise<Torrent> {
    const torrent = await this.#options.swarm.join(this.#offer, { path: this.#partialPath, mode: 'download' })
    if (torrent === undefined) throw new TypeError('the torrent is in this session twice')
    return torrent
  }

  async #finish(torrent: Torrent): Promise<FetchedTorrent> {
    // Through libtorrent, so that it goes on giving from the new name.
    await torrent.renameFile(0, this.#path)
    await this.#journal.remove()
    const httpPieces = [...this.#map.present()].filter((piece) => this.#map.sourceOf(piece) === 'http').length
    return { path: this.#path, bytes: this.#bytes, httpPieces, torrent }
  }
}

/** A file of that name is there already. It is the right one, or it is in the way. */
async function adoptExisting(options: FetchOptions, path: string): Promise<FetchedTorrent> {
  const { swarm, source, signal } = options
  const { totalBytes } = source.metainfo
  const torrent = await swarm.session.addTorrent({
    torrentFile: source.torrentFile,
    savePath: options.folder,
    renamedFiles: { 0: path },
    trackers: [...source.announceUrls],
    peers: [...source.peers],
    // Never writes: this file is not ours to repair.
    flags: { upload_mode: true },
  })
  const isRight = (await sizeOf(path)) === totalBytes && (await settledStatus(torrent, signal)).isSeeding
  if (!isRight) throw new CommandError(`${path} exists and is not what the torrent describes: move it away`)
  return { path, bytes: { ...noBytes(), cache: totalBytes }, httpPieces: 0, torrent }
}

/** Fetches a torrent of several files below `folder/<name>`. libtorrent writes them under their own names. */
export async function fetchFolder(options: FetchOptions): Promise<FetchedTorrent> {
  const { swarm, source, folder, signal, onProgress } = options
  const { name, totalBytes } = source.metainfo
  await mkdir(folder, { recursive: true })
  const torrent = await swarm.session.addTorrent({
    torrentFile: source.torrentFile,
    savePath: folder,
    trackers: [...source.announceUrls],
    peers: [...source.peers],
  })
  const { totalDone: cache } = await settledStatus(torrent, signal)
  const tell = ({ totalDone, downloadRate, numPeers }: TorrentStatus): BytesBySource => {
    const bytes = { p2p: Math.max(0, totalDone - cache), http: 0, cache }
    onProgress({ sizeBytes: totalBytes, bytes, httpRate: 0, p2pRate: downloadRate, peers: numPeers })
    return bytes
  }
  const timer = setInterval(() => void torrent.status().then(tell, () => {}), 200)
  try {
    const done = await statusWhen(torrent, signal, isComplete)
    return { path: join(folder, name), bytes: tell(done), httpPieces: 0, torrent }
  } finally {
    clearInterval(timer)
  }
}

/** Removes an empty partial file that an interrupted start left. */
export async function removeEmptyPartial(folder: string, name: string): Promise<void> {
  const path = `${join(folder, name)}.llmpt.incomplete`
  if ((await sizeOf(path)) === 0) await rm(path, { force: true })
}

function offerOf({ torrentFile, metainfo, announceUrls, peers }: TorrentSource): TorrentOffer {
  const { infoHash, pieceLength } = metainfo
  return {
    infoHash,
    torrentFile,
    pieceLength,
    announceUrls,
    peers,
    isPromising: peers.length > 0,
    mayBeCrowd: peers.length + announceUrls.length > 0,
    isTied: true,
  }
}

function isComplete({ isSeeding }: TorrentStatus): boolean {
  return isSeeding
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size
}
