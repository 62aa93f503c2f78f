import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CacheError } from '../../src/errors.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
import { PieceMap, type PieceSource } from '../../src/transfer/piece-map.ts'
import { SwarmLeg } from '../../src/transfer/swarm-leg.ts'
import type { InfoHash } from '../../src/values.ts'
import { addressOf, makeTorrent, openSession, someBytes, until } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 64 * 1024
const bytes = someBytes(3 * pieceLength - 100)

/** A leg of a torrent of `content` at `path`, and what it says. */
async function joinSwarm(folder: string, path: string, content: Uint8Array = bytes) {
  const made = await makeTorrent(folder, content, { pieceLength })
  const swarm = new Swarm(requireAddon(), {
    listen: ['127.0.0.1:0'],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: 0,
    limitLocalPeers: false,
  })
  const errors: Error[] = []
  const pieces: [number, PieceSource][] = []
  const leg = await SwarmLeg.join({
    swarm,
    offer: {
      infoHash: made.infoHashV2 as InfoHash,
      torrentFile: made.torrentFile,
      pieceLength,
      announceUrls: [],
      peers: [],
      isPromising: false,
      mayBeCrowd: false,
      isTied: false,
    },
    path,
    map: new PieceMap(content.length, pieceLength),
    priorityOf: () => 4,
    unfinished: [],
    sliceId: '0123456789abcdef',
    read: () => Promise.reject(new Error('nobody reads pieces that are checked in place')),
    nowMs: () => performance.now(),
    rateWindowMs: 1000,
    signal: new AbortController().signal,
    onPiece: (piece, source) => pieces.push([piece, source]),
    onError: (error) => errors.push(error),
  })
  if (leg === undefined) throw new Error('not joined')
  return { leg, made, errors, pieces, [Symbol.asyncDispose]: () => swarm.close() }
}

test('a piece that libtorrent cannot read ends the leg with the error of the disk, without a wait', async () => {
  await using folder = await temporaryDirectory()
  const target = join(folder.path, 'target')
  await mkdir(target)
  await using scene = await joinSwarm(folder.path, target)
  const began = performance.now()
  expect(await scene.leg.give(1)).toBe('ignored')
  expect(performance.now() - began).toBeLessThan(2_000)
  expect(scene.errors).toHaveLength(1)
  expect(scene.errors[0]).toBeInstanceOf(CacheError)
  expect(scene.pieces).toEqual([])
})

test('pieces from HTTP are accepted and rejected by their own hash, and count as from HTTP', async () => {
  await using folder = await temporaryDirectory()
  const target = join(folder.path, 'target')
  await using scene = await joinSwarm(folder.path, target)
  await writeFile(target, bytes)
  await writeFile(target, Buffer.concat([bytes.subarray(0, pieceLength), Buffer.alloc(pieceLength)]))
  expect(await scene.leg.give(1)).toBe('rejected')
  expect(await scene.leg.give(0)).toBe('accepted')
  expect(scene.pieces).toEqual([[0, 'http']])
  expect(scene.leg.hashFailures).toBe(0)
})

test('what peers bring of a piece while it is being announced counts as from peers', async () => {
  await using folder = await temporaryDirectory()
  const target = join(folder.path, 'target')
  const many = someBytes(100 * pieceLength)
  await using scene = await joinSwarm(folder.path, target, many)
  const { leg, pieces, made } = scene
  await using seeding = openSession({ listen_interfaces: '127.0.0.2:0' })
  await seeding.addTorrent({
    torrentFile: made.torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: made.path },
    flags: { seed_mode: true, upload_mode: true },
  })
  leg.torrent.connectPeer(await addressOf(seeding))
  await until(async () => pieces.length > 0)
  // Nobody but the peer writes: an announce finds the piece there, or finds it wrong.
  for (let round = 0; round < 10; round++) {
    const missing = [...Array(100).keys()].filter((piece) => !leg.hasSeen(piece))
    await Promise.all(missing.slice(0, 20).map((piece) => leg.give(piece)))
  }
  await until(async () => new Set(pieces.map(([piece]) => piece)).size === 100)
  expect(pieces.filter(([, source]) => source !== 'p2p')).toEqual([])
})
