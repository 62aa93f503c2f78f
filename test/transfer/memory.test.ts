/**
 * What a download costs a process does not grow with the file: its memory stays the same, and what it reads is the payload
 * and, once more, the file for its digest. Sizes are small here; LLMPT_TEST_FULL makes them 256 MiB and 1 GiB.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startHub } from '../../src/demo/hub.ts'
import { noise } from '../../src/demo/hub-content.ts'
import { requireAddon } from '../../src/native/load.ts'
import { createTorrentOf } from '../../src/torrent/create.ts'
import { ownHost } from '../support/race-scene.ts'
import { rounds } from '../support/rounds.ts'
import { SeederProcess } from '../support/seeder.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const mebibyte = 1024 * 1024
const sizes = [rounds(64, 256) * mebibyte, rounds(256, 1024) * mebibyte] as const
const [small, large] = sizes
/** Node itself takes 50 to 60 MiB. */
const capBytes = 240 * mebibyte
/** Far below the difference of the sizes; the collector of garbage has its moods. */
const moodBytes = 48 * mebibyte
const capMs = 120_000

interface Cost {
  readonly readBytes: number
  readonly maxRssBytes: number
}

async function costOf(options: object): Promise<Cost> {
  const path = fileURLToPath(new URL('../fakes/memory-child.mjs', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [path, JSON.stringify(options)])
  const cost = JSON.parse(stdout) as Cost
  if (process.env['SHOW']) console.log(options, cost.maxRssBytes / mebibyte, cost.readBytes / mebibyte)
  return cost
}

function readPerByte([ofSmall, ofLarge]: readonly [Cost, Cost]): number {
  return (ofLarge.readBytes - ofSmall.readBytes) / (large - small)
}

test(
  'over HTTP, memory stays and the payload is read once more than it comes',
  async () => {
    await using hub = await startHub({
      'small.bin': { seed: 'memory', sizeBytes: small },
      'large.bin': { seed: 'memory', sizeBytes: large },
    })
    await using folder = await temporaryDirectory()
    const of = (path: string) => costOf({ way: 'http', endpoint: hub.url, folder: folder.path, path })
    const costs = [await of('small.bin'), await of('large.bin')] as const
    for (const { maxRssBytes } of costs) expect(maxRssBytes).toBeLessThan(capBytes)
    expect(costs[1].maxRssBytes - costs[0].maxRssBytes).toBeLessThan(moodBytes)
    // From the socket, and from the file.
    expect(readPerByte(costs)).toBeLessThan(2.05)
  },
  capMs,
)

test(
  'from peers, in pieces of 16 MiB, memory stays',
  async () => {
    await using folder = await temporaryDirectory()
    const cost = async (sizeBytes: number): Promise<Cost> => {
      const content = `${folder.path}/${sizeBytes}`
      const torrentPath = `${content}.torrent`
      const pieceLength = 16 * mebibyte
      await pipeline(Readable.from(noise('memory', 0, sizeBytes)), createWriteStream(content))
      const made = await createTorrentOf(requireAddon(), content, { pieceLength })
      if (made === undefined) throw new Error('no torrent')
      await writeFile(torrentPath, made.torrentFile)
      const sha256 = createHash('sha256')
      await pipeline(createReadStream(content), sha256)
      await using seed = await SeederProcess.start({ torrentPath, content, host: ownHost() })
      return await costOf({
        way: 'swarm',
        folder: folder.path,
        torrentPath,
        infoHash: made.infoHash,
        sizeBytes,
        pieceLength,
        peer: seed.address,
        host: ownHost(),
        sha256: sha256.digest('hex'),
      })
    }
    const costs = [await cost(small), await cost(large)] as const
    for (const { maxRssBytes } of costs) expect(maxRssBytes).toBeLessThan(capBytes)
    expect(costs[1].maxRssBytes - costs[0].maxRssBytes).toBeLessThan(moodBytes)
    // From the file alone: what libtorrent receives is not counted.
    expect(readPerByte(costs)).toBeLessThan(1.05)
  },
  capMs,
)
