/**
 * Single flipped bits, anywhere in a cache: each is found as its piece, and a repair fetches the pieces that were hit
 * and hardly anything else. `npm run test:full` does it with 1,000 bits in 2 GiB, and prints what it found.
 */
import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { type DemoHubFile, type FileTree, startHub } from '../../src/demo/hub.ts'
import { blobPath } from '../../src/hub/cache-layout.ts'
import { requireAddon } from '../../src/native/load.ts'
import { TorrentStore } from '../../src/seeding/torrent-store.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'
import { rounds } from '../support/rounds.ts'
import { newUser, type User } from '../support/users.ts'
import { flipBit, mebibyte } from './fixtures.ts'

/** How many files of which size: 64 MiB, or 2 GiB; with pieces of 256 KiB and of 1 MiB, and files of a single piece. */
const isFull = rounds(0, 1) === 1
const sizes = isFull
  ? ([
      [1, 512 * mebibyte],
      [1, 256 * mebibyte],
      [12, 96 * mebibyte],
      [40, 3 * mebibyte],
      [100, 83_886],
    ] as const)
  : ([
      [1, 32 * mebibyte],
      [2, 12 * mebibyte],
      [7, mebibyte],
      [10, 104_857],
    ] as const)
const flips = rounds(40, 1_000)
const patienceMs = rounds(60_000, 1_800_000)

/** The same positions in every run: integers below `limit`. */
function* positions(limit: number): Generator<number> {
  for (let counter = 0; ; counter++) {
    const digest = createHash('sha256').update(`flip ${counter}`).digest()
    yield Number(digest.readBigUInt64BE(0) % BigInt(limit))
  }
}

interface Named {
  readonly name: string
  readonly file: DemoHubFile
}

/** One flipped bit: the file and the piece it is in. */
interface Hit {
  readonly name: string
  readonly piece: number
}

const treeOf = (): FileTree =>
  Object.fromEntries(
    sizes.flatMap(([count, sizeBytes], kind) =>
      Array.from({ length: count }, (_, n) => [`${kind}/${n}.bin`, { seed: `${kind}/${n}`, sizeBytes }]),
    ),
  )

async function knowTorrents(user: User, files: readonly Named[]): Promise<void> {
  const store = new TorrentStore(user.stateDir)
  for (const { file } of files) {
    const made = await createBlobTorrent(requireAddon(), blobPath(user.cacheDir, file, file.etag), file)
    await store.save(file, made?.torrentFile ?? new Uint8Array())
  }
}

/** Flips bits at random positions, each another one, as if the files were one. */
async function flipBits(user: User, files: readonly Named[]): Promise<Hit[]> {
  const totalBytes = files.reduce((sum, { file }) => sum + file.sizeBytes, 0)
  const seen = new Set<number>()
  const hits: Hit[] = []
  for (const position of positions(totalBytes * 8)) {
    if (hits.length === flips) break
    if (seen.has(position)) continue
    seen.add(position)
    let offset = Math.floor(position / 8)
    const at = files.find(({ file }) => {
      if (offset < file.sizeBytes) return true
      offset -= file.sizeBytes
      return false
    })
    if (at === undefined) throw new Error('a position outside of the cache')
    await flipBit(blobPath(user.cacheDir, at.file, at.file.etag), offset, position % 8)
    hits.push({ name: at.name, piece: Math.floor(offset / pieceLengthFor(at.file.sizeBytes)) })
  }
  return hits
}

function bytesOf(pieces: ReadonlySet<number> | undefined, { sizeBytes }: DemoHubFile): number {
  const pieceLength = pieceLengthFor(sizeBytes)
  const lengthOf = (piece: number): number => Math.min(pieceLength, sizeBytes - piece * pieceLength)
  return [...(pieces ?? [])].reduce((sum, piece) => sum + lengthOf(piece), 0)
}

const claim = `every one of ${flips} flipped bits is found, and only the pieces they are in are fetched again`
test(claim, { timeout: patienceMs }, async () => {
  const tree = treeOf()
  await using hub = await startHub(tree)
  await using user = await newUser({ endpoint: hub.url, seed: false, headStartMs: 0 })
  await user.client.downloadSnapshot({ repoType: 'model', repo: 'acme/tiny' }, 'main')
  const files = Object.keys(tree).map((name) => ({ name, file: hub.file(name) }))
  await knowTorrents(user, files)
  const hits = await flipBits(user, files)
  const hitIn = new Map(files.map(({ name }) => [name, new Set<number>()]))
  for (const { name, piece } of hits) hitIn.get(name)?.add(piece)
  const hitBytes = files.reduce((sum, { name, file }) => sum + bytesOf(hitIn.get(name), file), 0)

  hub.resetStats()
  const startedMs = performance.now()
  const report = await user.client.verifyCache({ repair: true })
  const seconds = (performance.now() - startedMs) / 1000
  const fetched = hub.stats('cdn').bytesSent
  const wrongIn = new Map(
    report.files.map(({ names, damage }) => [names[0] ?? '', damage?.wrongPieces ?? []]),
  )
  const found = hits.filter(({ name, piece }) => wrongIn.get(name)?.includes(piece)).length
  if (isFull) {
    const ratio = (fetched / hitBytes).toFixed(4)
    console.info(
      `${found} of ${flips} flipped bits found in ${files.length} files; ${fetched} bytes fetched for ` +
        `${hitBytes} bytes of pieces hit (${ratio}); check and repair took ${seconds.toFixed(1)} s`,
    )
  }

  expect(found).toBe(flips)
  for (const { names, verdict, damage } of report.files) {
    const expected = [...(hitIn.get(names[0] ?? '') ?? [])].sort((a, b) => a - b)
    expect([names[0], verdict]).toEqual([names[0], expected.length > 0 ? 'repaired' : 'right'])
    expect([names[0], damage?.wrongPieces ?? []]).toEqual([names[0], expected])
  }
  expect(fetched).toBeGreaterThanOrEqual(hitBytes)
  // A request that a busy machine holds up for seconds is sent twice.
  expect(fetched).toBeLessThanOrEqual(hitBytes * 1.05)
  const again = await user.client.verifyCache()
  expect(again.files.filter(({ verdict }) => verdict !== 'right')).toEqual([])
})
