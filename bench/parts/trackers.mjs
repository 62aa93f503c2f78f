/** Trackers, and things that look like one, in one process: they all are idle nearly all the time. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { startTracker } from '../../dist/tracker/server/main.js'
import { options, serve, tell } from '../harness/in-child.mjs'

const { host, directory, names } = options
const trackers = {}
for (const name of names) {
  // Behind a proxy, peers can be registered that are somewhere else, or nowhere.
  trackers[name] = await startTracker({ dataDir: join(directory, name), host, trustProxy: true })
}
// Accepts, and never answers.
const silent = createServer((socket) => socket.on('error', () => {}).resume()).listen(0, host)
await once(silent, 'listening')

serve({
  /** Makes `peers` the whole swarm of a torrent: whoever left without a word is still in it. */
  setPeers: async ({ name, etag, infoHash, peers }) => {
    const { url } = trackers[name]
    for (;;) {
      const { data } = await (await fetch(`${url}/api/v1/torrents?blob=${etag}`)).json()
      const present = data.flatMap((row) => (row.info_hash === infoHash ? row.peers : []))
      if (present.length === 0) break
      for (const { ip, port } of present) await announce(name, infoHash, ip, port, 'stopped')
    }
    for (const { address, port } of peers) await announce(name, infoHash, address, port, 'started')
  },
})
tell('listening', {
  urls: Object.fromEntries(Object.entries(trackers).map(([name, { url }]) => [name, url])),
  silentUrl: `http://${host}:${silent.address().port}`,
})

async function announce(name, infoHash, address, port, event) {
  const key = infoHash.slice(0, 40).replace(/../g, '%$&')
  const query = `info_hash=${key}&peer_id=-XX0000-000000000000&port=${port}&left=0&compact=1&event=${event}`
  const headers = { 'x-forwarded-for': address }
  const text = await (await fetch(`${trackers[name].announceUrl}?${query}`, { headers })).text()
  if (text.includes('failure')) throw new Error(`the tracker refuses ${address}: ${text}`)
}
