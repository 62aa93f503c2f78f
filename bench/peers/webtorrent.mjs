/**
 * One WebTorrent peer, over TCP alone and without discovery. A seeder tells its port; a leecher gets the file from
 * one seeder and tells how long that took. Run it with `no-webrtc.mjs` imported before.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import WebTorrent from 'webtorrent'
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
const client = new WebTorrent({
  utp: false,
  dht: false,
  lsd: false,
  tracker: false,
  utPex: false,
  natUpnp: false,
  natPmp: false,
  webSeeds: false,
  // No encryption handshake: on trust between two of its kind it would only cost time.
  secure: 0,
})
client.on('error', failOn)
await once(client, 'listening')
const cpuSecondsToStart = cpuSeconds()

if (role === 'seeder') {
  const torrent = client.add(torrentFile, { path: dirname(path), skipVerify: true })
  await once(torrent, 'ready')
  tell('listening', { port: client.address().port })
  await released()
} else {
  const torrent = client.add(torrentFile, { path: dirname(path) })
  await once(torrent, 'ready')
  const startedAt = performance.now()
  torrent.addPeer(`${peer.host}:${peer.port}`)
  await orReleased(once(torrent, 'done'))
  tell('done', { seconds: (performance.now() - startedAt) / 1000 })
}
await promisify(client.destroy.bind(client))()
tellUsageAndExit(cpuSecondsToStart)
