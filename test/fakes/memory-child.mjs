/**
 * Brings one file in a process of its own, and says what that took. `argv`: a JSON object with `way` and the rest of what
 * the functions below ask for. Prints `maxRssBytes`, and `readBytes`: what the process read through system calls meanwhile,
 * its sockets (but not libtorrent's) included.
 */
import { readFileSync } from 'node:fs'
import { p2pDownload, shutdown } from '../../dist/index.js'
import { requireAddon } from '../../dist/native/load.js'
import { Swarm } from '../../dist/swarm/swarm.js'
import { followDigest } from '../../dist/transfer/digest.js'
import { PartialFile } from '../../dist/transfer/partial-file.js'
import { PieceMap } from '../../dist/transfer/piece-map.js'
import { defaultRacePolicy } from '../../dist/transfer/plan.js'
import { race } from '../../dist/transfer/race.js'

const options = JSON.parse(process.argv[2])
const readSoFar = () => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1])

async function overHttp({ endpoint, folder, path }) {
  await p2pDownload({
    repo: 'acme/tiny',
    path,
    endpoint,
    trackers: [],
    seed: false,
    cacheDir: `${folder}/hub`,
    stateDir: `${folder}/llmpt`,
  })
  await shutdown()
}

/** The race alone: piece lengths follow from sizes above it, and long pieces would need long files. */
async function overSwarm({ folder, torrentPath, infoHash, sizeBytes, pieceLength, peer, host, sha256 }) {
  const addon = requireAddon()
  const limits = { maxDownloadBytesPerSecond: 0, maxUploadBytesPerSecond: 0, limitLocalPeers: false }
  const swarm = new Swarm(addon, { listen: [`${host}:0`], utp: false, ...limits })
  const target = `${folder}/target`
  const file = await PartialFile.open(target, false)
  const digest = followDigest(addon, target, { sizeBytes, sha256: true, gitSha1: false })
  const nothing = () => {}
  const { leg } = await race({
    map: new PieceMap(sizeBytes, pieceLength),
    file,
    unfinished: [],
    open: undefined,
    swarm,
    findTorrent: async () => ({
      infoHash,
      torrentFile: readFileSync(torrentPath),
      pieceLength,
      announceUrls: [],
      peers: [peer],
      isPromising: true,
      mayBeCrowd: false,
      isTied: true,
    }),
    http: 'never',
    swarmStart: 'at-once',
    policy: defaultRacePolicy,
    patienceMs: 20_000,
    signal: new AbortController().signal,
    listener: {
      piece: nothing,
      written: nothing,
      takenBack: nothing,
      unfinished: nothing,
      final: (endBytes) => digest.advance(endBytes),
    },
  })
  const found = await digest.finished
  if (found.sha256 !== sha256) throw new Error('the content is wrong')
  await leg?.leave()
  await file[Symbol.asyncDispose]()
  await swarm.close()
}

// Neither a session nor a digest keeps a process alive.
const alive = setInterval(() => {}, 1_000)
const before = readSoFar()
await (options.way === 'http' ? overHttp(options) : overSwarm(options))
const readBytes = readSoFar() - before
clearInterval(alive)
console.log(JSON.stringify({ readBytes, maxRssBytes: process.resourceUsage().maxRSS * 1024 }))
