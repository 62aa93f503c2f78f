/**
 * A file at a Hub and in a swarm of real seeds, one who downloads it, and what came of it: for tests of what the race
 * does when a source fails in the middle.
 */
import { writeFile } from 'node:fs/promises'
import { onTestFinished } from 'vitest'
import { type DemoHubFile, type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { HubHttp } from '../../src/hub/http.ts'
import type { NativeAddon } from '../../src/native/binding.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm, type TorrentOffer } from '../../src/swarm/swarm.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import type { DownloadDeps, FetchedFile, FileDownload } from '../../src/transfer/download.ts'
import type { TorrentFinder } from '../../src/transfer/find-torrent.ts'
import type { RacePolicy } from '../../src/transfer/plan.ts'
import type { TransferProgress } from '../../src/transfer/progress.ts'
import type { PeerAddress } from '../../src/values.ts'
import { SeederProcess } from './seeder.ts'
import { temporaryDirectory } from './temp-dir.ts'
import { type TransferRig, transferRig } from './transfer-rig.ts'

export interface SceneOptions {
  readonly sizeBytes: number
  /** Of the Hub's storage, in bytes per second. */
  readonly httpRate: number
  readonly announceUrls?: readonly string[]
  /** Where the downloader's cache is. @defaultValue a temporary directory */
  readonly folder?: string
}

export interface Run {
  readonly peers: readonly PeerAddress[]
  readonly policy?: Partial<RacePolicy>
  readonly deps?: Partial<DownloadDeps>
  readonly change?: Partial<FileDownload>
  /** Called whenever something has arrived, with the part of the file that is there. */
  readonly onProgress?: (share: number, progress: TransferProgress) => void
  /** The fault: called once, when this part of the file is there. */
  readonly at?: number
  readonly fault?: () => void
}

export interface Outcome {
  readonly fetched: FetchedFile
  /** The longest time in which no new byte was seen, from the fault to the end. */
  readonly longestGapMs: number
  /** Payload received, beyond one copy of the file. */
  readonly wastedBytes: number
  /** Received over HTTP, useful or not. */
  readonly httpBytes: number
}

export interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly file: DemoHubFile
  readonly offer: TorrentOffer
  readonly rig: TransferRig
  readonly swarm: Swarm
  readonly addon: NativeAddon
  /** The content, and the torrent file, on disk. */
  readonly content: string
  readonly torrentPath: string
  seeder(bytesPerSecond?: number, announceUrl?: string): Promise<SeederProcess>
  run(options: Run): Promise<Outcome>
}

const name = 'model.safetensors'
// libtorrent bans and counts by address: everybody has one of their own.
let lastHost = 0
export function ownHost(): string {
  lastHost += 1
  return `127.0.1.${lastHost}`
}

export async function raceScene(options: SceneOptions): Promise<Scene> {
  const opened: AsyncDisposable[] = []
  const keep = <T extends AsyncDisposable>(one: T): T => {
    opened.push(one)
    return one
  }
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= (async () => {
      for (const one of opened.reverse()) await one[Symbol.asyncDispose]()
    })()
    return closing
  }
  // A test that hangs never comes to the end of its `await using`.
  onTestFinished(close)
  const folder = keep(await temporaryDirectory())
  const { sizeBytes, httpRate, announceUrls = [] } = options
  const hub = keep(await startHub({ [name]: { seed: 'race', sizeBytes } }))
  hub.setThrottle('cdn', httpRate)
  const file = hub.file(name)
  const content = `${folder.path}/content`
  await writeFile(content, noiseBytes('race', sizeBytes))
  const addon = requireAddon()
  const torrent = await createBlobTorrent(addon, content, file)
  if (torrent === undefined) throw new Error('no torrent')
  const torrentPath = `${folder.path}/torrent`
  await writeFile(torrentPath, torrent.torrentFile)
  const offer: TorrentOffer = {
    ...torrent,
    announceUrls,
    peers: [],
    isPromising: true,
    mayBeCrowd: false,
    isTied: false,
  }
  const http = keep(new HubHttp())
  const rig = keep(await transferRig(hub.url, options.folder === undefined ? {} : { folder: options.folder }))
  const swarm = keep(
    new Swarm(addon, {
      listen: [`${ownHost()}:0`],
      utp: false,
      maxDownloadBytesPerSecond: 0,
      maxUploadBytesPerSecond: 0,
      limitLocalPeers: true,
    }),
  )
  const run = async (how: Run): Promise<Outcome> => {
    const source = new FileSource({ http, endpoint: hub.url }, file)
    let httpBytes = 0
    const counted: FileDownload['source'] = {
      openRange: async (range) => {
        const body = await source.openRange(range)
        return {
          ...body,
          batches: counting(body.batches, (bytes) => {
            httpBytes += bytes
          }),
        }
      },
    }
    let done = 0
    let changedMs = performance.now()
    let longestGapMs = 0
    let isFaulty = false
    const note = (): void => {
      const now = performance.now()
      if (isFaulty) longestGapMs = Math.max(longestGapMs, now - changedMs)
      changedMs = now
    }
    const fetched = await rig.fetch(
      file,
      {
        source: counted,
        onProgress: (_phase, progress) => {
          const { bytes } = progress
          const sum = bytes.http + bytes.p2p + bytes.cache
          if (sum > done) note()
          done = sum
          how.onProgress?.(sum / sizeBytes, progress)
          if (isFaulty || how.at === undefined || sum < how.at * sizeBytes) return
          isFaulty = true
          how.fault?.()
        },
        ...how.change,
      },
      {
        addon,
        swarm,
        finder: { find: async () => ({ ...offer, peers: how.peers }) } as unknown as TorrentFinder,
        policy: { ...rig.deps.policy, ...how.policy },
        ...how.deps,
      },
    )
    note()
    const { 'net.recv_payload_bytes': p2pBytes = 0 } = await swarm.session.statistics()
    await fetched.joined?.leg.leave()
    return { fetched, longestGapMs, httpBytes, wastedBytes: httpBytes + p2pBytes - sizeBytes }
  }
  return {
    hub,
    file,
    offer,
    rig,
    swarm,
    addon,
    content,
    torrentPath,
    seeder: async (bytesPerSecond = 0, announceUrl = '') =>
      keep(await SeederProcess.start({ torrentPath, content, host: ownHost(), bytesPerSecond, announceUrl })),
    run,
    [Symbol.asyncDispose]: close,
  }
}

async function* counting(
  batches: AsyncIterable<Uint8Array[]>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array[]> {
  for await (const batch of batches) {
    for (const chunk of batch) count(chunk.length)
    yield batch
  }
}
