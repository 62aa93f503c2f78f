/** The `.torrent` files of blobs this machine has hashed or fetched, so that no blob is hashed twice. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { checkBlobTorrent, parseMetainfo } from '../torrent/metainfo.ts'
import type { BlobRef, InfoHash } from '../values.ts'

export interface StoredTorrent {
  readonly torrentFile: Uint8Array
  readonly infoHash: InfoHash
  readonly pieceLength: number
}

export class TorrentStore {
  readonly #dir: string

  constructor(stateDir: string) {
    this.#dir = join(stateDir, 'torrents')
  }

  /** The stored torrent of a blob; `undefined` when there is none, or what is there is not one. */
  async load(blob: BlobRef): Promise<StoredTorrent | undefined> {
    try {
      const torrentFile = new Uint8Array(await readFile(this.#pathOf(blob)))
      const metainfo = parseMetainfo(torrentFile)
      if (checkBlobTorrent(metainfo, blob).length > 0) return undefined
      return { torrentFile, infoHash: metainfo.infoHash, pieceLength: metainfo.pieceLength }
    } catch {
      return undefined
    }
  }

  async save(blob: BlobRef, torrentFile: Uint8Array): Promise<void> {
    await mkdir(this.#dir, { recursive: true })
    const temporary = `${this.#pathOf(blob)}.${randomBytes(4).toString('hex')}`
    await writeFile(temporary, torrentFile)
    await rename(temporary, this.#pathOf(blob))
  }

  #pathOf(blob: BlobRef): string {
    return join(this.#dir, `${blob.etag}.torrent`)
  }
}
