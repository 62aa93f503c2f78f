/** A Hub, a tracker, and peers of every kind around one model; libtorrent sessions on loopback addresses of their own. */
import { writeFile } from 'node:fs/promises'
import { Agent } from 'undici'
import { type DemoHubFile, type HubServer, startHub } from '../../src/demo/hub.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm, type TorrentOffer } from '../../src/swarm/swarm.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import type { BlobRef, InfoHash } from '../../src/values.ts'
import { temporaryDirectory } from './temp-dir.ts'

const mebibyte = 1024 * 1024
export const modelPath = 'model.safetensors'

export interface World extends AsyncDisposable {
  readonly hub: HubServer
  readonly tracker: { readonly url: string }
  /** What a user's configuration needs. */
  readonly user: { readonly endpoint: string; readonly trackers: string[] }
  readonly file: DemoHubFile
  readonly url: string
}

/** One model of `sizeBytes`, at a Hub and unknown to its tracker. */
export async function newWorld(sizeBytes: number = 12 * mebibyte + 12_345): Promise<World> {
  const data = await temporaryDirectory()
  const hub = await startHub({ [modelPath]: { seed: 'swarm', sizeBytes } })
  const tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: data.path })
  return {
    hub,
    tracker,
    user: { endpoint: hub.url, trackers: [tracker.url] },
    file: hub.file(modelPath),
    url: `${hub.url}/acme/tiny/resolve/main/${modelPath}`,
    [Symbol.asyncDispose]: async () => {
      await tracker.close()
      await hub.close()
      await data[Symbol.asyncDispose]()
    },
  }
}

export interface PeerOptions {
  /** Changes the model's bytes into those that are served. */
  readonly forge?: ((bytes: Buffer) => void) | undefined
  /** Addresses that publish the torrent; two of them tie it. @defaultValue one */
  readonly publishers?: readonly string[] | undefined
  /** 0 is no limit. */
  readonly bytesPerSecond?: number | undefined
  /** Whether anybody serves it. @defaultValue true */
  readonly isServed?: boolean | undefined
}

export interface Peer extends AsyncDisposable {
  readonly infoHash: InfoHash
  uploadedBytes(): Promise<number>
}

/** A torrent under the model's name that a tracker knows, and somebody who serves it: honest unless it forges. */
export async function startPeer(world: World, options: PeerOptions = {}): Promise<Peer> {
  const { forge, publishers = ['127.0.0.1'], bytesPerSecond = 0, isServed = true } = options
  const { file, tracker } = world
  const addon = requireAddon()
  const folder = await temporaryDirectory()
  const path = `${folder.path}/content`
  const bytes = await file.bytes()
  forge?.(bytes)
  await writeFile(path, bytes)
  const offer = await publishTorrent(tracker.url, file, path, publishers)
  const swarm = new Swarm(addon, {
    listen: [`127.0.1.${nextHost()}:0`],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: bytesPerSecond,
    limitLocalPeers: true,
  })
  const joined = isServed ? await swarm.join(offer, { path, mode: 'seed' }) : undefined
  if (isServed) await untilSeeded(tracker.url, [file])
  return {
    infoHash: offer.infoHash,
    uploadedBytes: async () => (await joined?.status())?.payloadUpload ?? 0,
    [Symbol.asyncDispose]: async () => {
      await swarm.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** Makes a torrent of the bytes at `path` and publishes it as the file's from each of the addresses. Nobody serves it yet. */
export async function publishTorrent(
  trackerUrl: string,
  file: BlobRef,
  path: string,
  publishers: readonly string[],
): Promise<TorrentOffer> {
  const torrent = await createBlobTorrent(requireAddon(), path, file)
  if (torrent === undefined) throw new Error('no torrent')
  for (const localAddress of publishers) {
    const dispatcher = new Agent({ localAddress })
    await new TrackerClient({ url: trackerUrl, dispatcher }).publish({ ...file, ...torrent })
    await dispatcher.close()
  }
  const { announceUrl } = new TrackerClient({ url: trackerUrl })
  const facts = { isPromising: false, mayBeCrowd: false, isTied: false }
  return { ...torrent, ...facts, announceUrls: [announceUrl], peers: [] }
}

/** Until the tracker counts a seeder of each of the files. */
export async function untilSeeded(trackerUrl: string, files: readonly BlobRef[]): Promise<void> {
  const client = new TrackerClient({ url: trackerUrl })
  for (;;) {
    const found = await client.lookup(files)
    const isSeeded = ({ etag }: BlobRef): boolean =>
      found.get(etag)?.some(({ seeders }) => seeders > 0) ?? false
    if (files.every(isSeeded)) return
    await new Promise((resolve) => setImmediate(resolve))
  }
}

// libtorrent bans by address: a liar and an honest peer must not share one.
let last = 0
function nextHost(): number {
  last += 1
  return last
}
