/** `llmpt torrent seed`: serves a file under a torrent, once libtorrent has found every piece of it right. */
import { stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { getConfig } from '../../config.ts'
import { requireAddon } from '../../native/load.ts'
import { settledStatus } from '../../swarm/torrent-status.ts'
import { type CommandContext, CommandError } from '../command.ts'
import { formatBytes } from '../format.ts'
import { untilAborted } from '../interrupt.ts'
import { movedPort } from '../listen-check.ts'
import { showAddress } from '../peers.ts'
import { openSwarm } from '../torrent-session.ts'
import { explainMissing, readTorrentFile } from '../torrent-source.ts'

export interface TorrentSeedArguments {
  readonly file: string
  readonly torrent: string
  readonly listen?: readonly string[]
}

export async function torrentSeed(
  args: TorrentSeedArguments,
  { out, signal }: CommandContext,
): Promise<void> {
  const path = resolve(args.file)
  const { torrentFile, metainfo } = await readTorrentFile(args.torrent, [])
  if (!metainfo.isSingleFile)
    throw new CommandError(`${args.torrent} is the torrent of a folder, and one file can be seeded`)
  const { size } = await stat(path).catch((error: unknown) => explainMissing(args.file, error))
  if (size !== metainfo.totalBytes) {
    throw new CommandError(
      `${args.file} has ${size} bytes, and the torrent is of ${metainfo.totalBytes}: it is another file`,
    )
  }
  await using swarm = openSwarm(requireAddon(), { listen: args.listen })
  const listen = await swarm.session.listening()
  const moved = movedPort(getConfig({ listen: args.listen }).listen, listen)
  if (moved !== undefined) out.complain(moved)
  const torrent = await swarm.session.addTorrent({
    torrentFile,
    savePath: dirname(path),
    renamedFiles: { 0: path },
    trackers: [...metainfo.trackers],
    // Upload mode never writes: a wrong file is reported, not repaired.
    flags: { upload_mode: true },
  })
  const status = await settledStatus(torrent, signal)
  if (!status.isSeeding) {
    const missing = formatBytes(size - status.totalDone)
    throw new CommandError(
      `${args.file} is not what the torrent describes: ${missing} of ${formatBytes(size)} differ`,
    )
  }
  const { infoHash, trackers } = metainfo
  out.event('seeding', { infoHash, port: listen[0]?.port ?? null, listen: listen.map(showAddress), path })
  out.say(`Seeding ${args.file} at ${listen.map(showAddress).join(', ')}, until you press Ctrl-C.`)
  if (trackers.length === 0) out.say('The torrent names no tracker: peers need this address.')
  out.result(infoHash)
  await untilAborted(signal)
  const { payloadUpload } = await torrent.status()
  out.event('ended', { uploadedBytes: payloadUpload })
  out.say(`Gave ${formatBytes(payloadUpload)} to others.`)
}
