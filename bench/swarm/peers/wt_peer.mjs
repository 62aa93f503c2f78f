// WebTorrent peer for the rig, with the webtorrent package of the benchmarks, or the one in WEBTORRENT_DIR.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { WEBTORRENT_DIR: directory } = process.env
const { default: WebTorrent } = await import(
  directory === undefined ? 'webtorrent' : pathToFileURL(`${directory}/index.js`).href
)
const [torrent, out, port, role] = process.argv.slice(2)
const client = new WebTorrent({
  torrentPort: Number(port),
  dht: false,
  lsd: false,
  natUpnp: false,
  natPmp: false,
  utp: process.env.WT_UTP === '1',
  webSeeds: true,
  maxConns: 60,
})
client.on('error', (e) => {
  console.error('error', e.message)
  process.exitCode = 1
})
console.log('RIG READY')
createInterface({ input: process.stdin }).once('line', () => {
  client.add(new Uint8Array(readFileSync(torrent)), { path: out }, (t) => {
    if (role === 'seed') return
    const done = () => console.log('RIG DONE')
    if (t.done) done()
    else t.once('done', done)
  })
})
process.on('SIGTERM', () => {
  const t = client.torrents[0]
  console.log(`RIG STAT ${JSON.stringify({ down: t?.downloaded, up: t?.uploaded, peers: t?.numPeers })}`)
  process.exit(0)
})
