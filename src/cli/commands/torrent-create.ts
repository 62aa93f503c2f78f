/** `llmpt torrent create` */
import { stat, writeFile } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { requireAddon } from '../../native/load.ts'
import { createTorrentOf } from '../../torrent/create.ts'
import { makeMagnet } from '../../torrent/magnet.ts'
import type { TorrentFormat } from '../../torrent/metainfo.ts'
import { type CommandContext, CommandError } from '../command.ts'
import { formatBytes, formatTime } from '../format.ts'
import { parseTrackerUrl } from '../parse.ts'
import { explainMissing } from '../torrent-source.ts'

export interface TorrentCreateArguments {
  readonly file: string
  readonly out?: string
  readonly format: TorrentFormat
  readonly pieceLength?: number
  readonly tracker?: readonly string[]
}

export async function torrentCreate(
  args: TorrentCreateArguments,
  { out, signal }: CommandContext,
): Promise<void> {
  const addon = requireAddon()
  const found = await stat(args.file).catch((error: unknown) => explainMissing(args.file, error))
  if (found.isDirectory())
    throw new CommandError(`${args.file} is a folder: torrents are made of only single files`)
  const announceUrls = args.tracker?.map(parseTrackerUrl) ?? []
  const startedMs = performance.now()
  const { format, pieceLength } = args
  const created = await createTorrentOf(addon, resolve(args.file), {
    format,
    pieceLength,
    announceUrls,
    signal,
  })
  const elapsedMs = Math.round((performance.now() - startedMs) * 10) / 10
  if (created === undefined)
    throw new CommandError(`${args.file} is empty: there is nothing to make a torrent of`)
  const { infoHash, infoHashV1, infoHashV2, name, sizeBytes } = created
  const path = resolve(args.out ?? `${basename(name)}.torrent`)
  await writeFile(path, created.torrentFile)
  const magnet = makeMagnet({ infoHashV1, infoHashV2, name, sizeBytes, trackers: announceUrls })
  out.event('done', {
    path,
    infoHash,
    infoHashV1,
    infoHashV2,
    pieceLength: created.pieceLength,
    sizeBytes,
    magnet,
    elapsedMs,
  })
  out.say(
    `${formatBytes(sizeBytes)} in ${formatTime(elapsedMs)}, pieces of ${formatBytes(created.pieceLength)}`,
  )
  out.say(`info hash ${infoHash}`)
  out.say(magnet)
  out.result(path)
}
