/**
 * One peer of this package, with the session and the settings that downloads use. A seeder tells its port; a
 * leecher gets the file from one seeder and tells how long that took.
 */
import { readFileSync } from 'node:fs'
import { requireAddon } from '../../dist/native/load.js'
import { Swarm } from '../../dist/swarm/swarm.js'
import { parseMetainfo } from '../../dist/torrent/metainfo.js'
import {
  cpuSeconds,
  failOn,
  options,
  orReleased,
  released,
  tell,
  tellUsageAndExit,
} from '../harness/in-child.mjs'

const { role, torrentPath, path, peer } = options
const torrentFile = readFileSync(torrentPath)
const { infoHash, pieceLength } = parseMetainfo(torrentFile)
const swarm = new Swarm(requireAddon(), {
  listen: ['127.0.0.1:0'],
  utp: false,
  maxDownloadBytesPerSecond: 0,
  maxUploadBytesPerSecond: 0,
  limitLocalPeers: false,
})
const offer = {
  infoHash,
  torrentFile,
  pieceLength,
  announceUrls: [],
  peers: peer === undefined ? [] : [peer],
  isPromising: true,
}
const [address] = await swarm.session.listening()
const cpuSecondsToStart = cpuSeconds()

if (role === 'seeder') {
  await swarm.join(offer, { path, mode: 'seed' })
  tell('listening', { port: address.port })
  await released
} else {
  const startedAt = performance.now()
  const torrent = await swarm.join(offer, { path, mode: 'download' })
  await orReleased(finished(torrent))
  tell('done', { seconds: (performance.now() - startedAt) / 1000 })
}
await swarm.close()
tellUsageAndExit(cpuSecondsToStart)

/** Every piece has passed its hash and has been written. */
function finished(torrent) {
  return new Promise((resolve) => {
    torrent.onAlert((alert) => {
      if (alert.type === 'torrent_finished') resolve()
      if (alert.type === 'torrent_error' || alert.type === 'file_error') failOn(alert.error.message)
    })
  })
}
