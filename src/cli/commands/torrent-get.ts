/** `llmpt torrent get` */
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { getConfig } from '../../config.ts'
import { ConfigError } from '../../errors.ts'
import { HubHttp } from '../../hub/http.ts'
import { requireAddon } from '../../native/load.ts'
import type { Swarm } from '../../swarm/swarm.ts'
import { progressOfOne, sumOf, type TransferProgress } from '../../transfer/progress.ts'
import type { PeerAddress } from '../../values.ts'
import type { CommandContext } from '../command.ts'
import {
  type FetchedTorrent,
  type FetchOptions,
  fetchFolder,
  fetchSingleFile,
  removeEmptyPartial,
} from '../fetch-torrent.ts'
import { formatBytes, formatTime } from '../format.ts'
import { Interrupted, untilAborted } from '../interrupt.ts'
import { movedPort } from '../listen-check.ts'
import type { Output } from '../output.ts'
import { resolvePeers, showAddress } from '../peers.ts'

import { type ProgressView, progressView } from '../progress-view.ts'
import { openSwarm } from '../torrent-session.ts'
import {
  checkMagnet,
  isMagnet,
  readTorrentFile,
  resolveMagnet,
  type TorrentSource,
} from '../torrent-source.ts'
import { openUrls } from '../url-source.ts'

export interface TorrentGetArguments {
  /** A torrent file or a magnet link. */
  readonly source: string
  readonly out: string
  readonly gate?: boolean
  readonly listen?: readonly string[]
  readonly peer?: readonly PeerAddress[]
  readonly url?: readonly string[]
  readonly seed?: boolean
}

export async function torrentGet(args: TorrentGetArguments, { out, signal }: CommandContext): Promise<void> {
  const folder = resolve(args.out)
  const peers = await resolvePeers(args.peer)
  // What can be wrong is found before the gate: behind it, the clock runs.
  const fromFile = isMagnet(args.source) ? undefined : await readTorrentFile(args.source, peers)
  if (fromFile === undefined) checkMagnet(args.source, peers)
  const { timeoutMs } = getConfig()
  await using swarm = openSwarm(requireAddon(), { listen: args.listen })
  const moved = movedPort(getConfig({ listen: args.listen }).listen, await swarm.session.listening())
  if (moved !== undefined) out.complain(moved)
  await using http = new HubHttp()
  if (args.url !== undefined) await http.load()
  if (args.gate) await passGate(out, signal)
  const startedMs = performance.now()
  if (fromFile === undefined) out.say('Asking peers for the torrent ...')
  const source = fromFile ?? (await resolveMagnet(swarm, args.source, folder, peers, timeoutMs, signal))
  const fetched = await fetchAll(args, source, { swarm, http, folder, out, signal })
  const elapsedMs = Math.round(performance.now() - startedMs)
  tellDone(args, source, fetched, elapsedMs, out)
  if (args.seed) await giveBack(args, fetched, swarm, { out, signal })
}

/** Says that everything is set up, and waits for the first line on stdin, or its end. */
async function passGate(out: Output, signal: AbortSignal): Promise<void> {
  out.line('RIG READY')
  const lines = createInterface({ input: process.stdin })
  try {
    await Promise.race([once(lines, 'line', { signal }), once(lines, 'close', { signal })])
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    lines.close()
    // An open pipe would keep the process alive.
    process.stdin.destroy()
  }
}

interface Surroundings {
  readonly swarm: Swarm
  readonly http: HubHttp
  readonly folder: string
  readonly out: Output
  readonly signal: AbortSignal
}

async function fetchAll(
  args: TorrentGetArguments,
  source: TorrentSource,
  around: Surroundings,
): Promise<FetchedTorrent> {
  const { swarm, http, folder, out, signal } = around
  const { metainfo } = source
  const { isSingleFile, totalBytes, name } = metainfo
  if (!isSingleFile && args.url !== undefined) {
    throw new ConfigError('--url is for torrents of one file, and this one is of a folder')
  }
  const open = args.url === undefined ? undefined : openUrls(http, args.url, totalBytes)
  using view = await progressView(out)
  const onProgress = tellTo(view, name)
  const options: FetchOptions = {
    swarm,
    source,
    folder,
    open,
    patienceMs: getConfig().timeoutMs,
    stateDir: getConfig().stateDir,
    out,
    signal,
    onProgress,
  }
  try {
    return await (isSingleFile ? fetchSingleFile(options) : fetchFolder(options))
  } catch (error) {
    view[Symbol.dispose]()
    await removeEmptyPartial(folder, name)
    if (!(error instanceof Interrupted)) throw error
    const kept = view.latest === undefined ? 0 : sumOf(view.latest.bytes)
    const detail = `kept ${formatBytes(kept)} of ${formatBytes(totalBytes)}; run the same command again to go on`
    throw new Interrupted(error.signalName, kept === 0 ? 'nothing was downloaded yet' : detail)
  }
}

/** A transfer of one torrent, as the view wants to see it. */
function tellTo(view: ProgressView, name: string): (progress: TransferProgress) => void {
  return (progress) => {
    view.onProgress(progressOfOne(name, 'downloading', progress))
  }
}

function tellDone(
  args: TorrentGetArguments,
  source: TorrentSource,
  fetched: FetchedTorrent,
  elapsedMs: number,
  out: Output,
): void {
  const { path, bytes } = fetched
  const { metainfo } = source
  const files = metainfo.files.map((file) => ({
    path: file.path,
    size: file.sizeBytes,
    etag: null,
    infoHash: metainfo.infoHash,
    ...(metainfo.isSingleFile && { bytes }),
  }))
  const got = `${formatBytes(bytes.p2p)} from peers, ${formatBytes(bytes.http)} over HTTP, ${formatBytes(bytes.cache)} were there`
  out.event('done', { path, infoHash: metainfo.infoHash, bytes, elapsedMs, files })
  out.say(`${path}: ${got}, in ${formatTime(elapsedMs)}`)
  if (args.seed) out.line('done')
  else out.result(path)
}

/** Gives to others until a signal, the normal end. */
async function giveBack(
  args: TorrentGetArguments,
  { path, torrent, httpPieces }: FetchedTorrent,
  swarm: Swarm,
  { out, signal }: CommandContext,
): Promise<void> {
  const listen = (await swarm.session.listening()).map(showAddress)
  out.event('seeding', { infoHash: torrent?.infoHash ?? null, listen, path })
  out.say(`Giving it to others at ${listen.join(', ')}, until you press Ctrl-C.`)
  await untilAborted(signal)
  const status = await torrent?.status()
  out.event('ended', { uploadedBytes: status?.payloadUpload ?? 0 })
  if (!args.gate) return
  const statistics = {
    redundant: status?.redundantBytes ?? 0,
    failed: status?.failedBytes ?? 0,
    http_pieces: httpPieces,
  }
  out.line(`RIG STAT ${JSON.stringify(statistics)}`)
}
