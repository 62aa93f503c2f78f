/** A user with a downloaded repository, and ways to damage it. */
import { mkdir, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClientOverrides } from '../../src/client.ts'
import type { ConfigOptions } from '../../src/config.ts'
import { type DemoHubFile, type HubServer, startHub } from '../../src/demo/hub.ts'
import { blobPath } from '../../src/hub/cache-layout.ts'
import { requireAddon } from '../../src/native/load.ts'
import { TorrentStore } from '../../src/seeding/torrent-store.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser, type User } from '../support/users.ts'

export const mebibyte: number = 1024 * 1024
export const pieceLength: number = 256 * 1024

const files = {
  'model.safetensors': { seed: 'verify', sizeBytes: 5 * mebibyte + 4_321 },
  'second.bin': { seed: 'second', sizeBytes: 3 * mebibyte },
  'config.json': '{"hidden_size": 8}',
  'empty.txt': '',
} as const

export interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  readonly user: User
  blob(name: string): string
  entry(name: string): string
}

/** A hub with `files`, and a user who has them all in the cache. */
export async function downloadedCache(
  options: ConfigOptions = {},
  overrides: ClientOverrides = {},
): Promise<Scene> {
  const hub = await startHub(files)
  const user = await newUser({ endpoint: hub.url, seed: false, headStartMs: 0, ...options }, overrides)
  await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
  hub.resetStats()
  return {
    hub,
    user,
    blob: (name) => blobPath(user.cacheDir, hub.file(name), hub.file(name).etag),
    entry: (name) =>
      join(user.cacheDir, 'models--acme--tiny', 'snapshots', hub.file(name).commit, ...name.split('/')),
    [Symbol.asyncDispose]: async () => {
      await user[Symbol.asyncDispose]()
      await hub.close()
    },
  }
}

/** Turns one bit of a file around. */
export async function flipBit(path: string, offset: number, bit = 0): Promise<void> {
  await using file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, offset)
  await file.write(Buffer.from([(byte[0] ?? 0) ^ (1 << bit)]), 0, 1, offset)
}

/** Makes this machine know the torrent of a file, as after seeding it. @param forge Makes the torrent a lie. */
export async function knowTorrent(
  stateDir: string,
  file: DemoHubFile,
  forge: (bytes: Buffer) => void = () => {},
): Promise<void> {
  await using folder = await temporaryDirectory()
  await mkdir(stateDir, { recursive: true })
  const bytes = await file.bytes()
  forge(bytes)
  const path = join(folder.path, 'content')
  await writeFile(path, bytes)
  const torrent = await createBlobTorrent(requireAddon(), path, file)
  if (torrent === undefined) throw new Error('an empty file has no torrent')
  await new TorrentStore(stateDir).save(file, torrent.torrentFile)
}
