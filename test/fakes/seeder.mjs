/**
 * A real seed in a process of its own, so that it can be stopped, slowed down and killed in the middle of a transfer.
 * `argv`: torrent file, content, host, bytes per second (0 is no limit), announce URL or nothing. Prints its port; a
 * number on stdin is a new rate; the end of stdin is its own end.
 */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { addTorrent, openSession } from '../native/fixtures/transfer.mjs'

const [torrentPath, content, host, rate, announceUrl] = process.argv.slice(2)
const seeding = openSession({ listen_interfaces: `${host}:0`, upload_rate_limit: Number(rate) })
// libtorrent lets peers of the local network have everything otherwise.
seeding.session.exemptLocalPeers(false)
const { port } = await seeding.alert(
  (alert) => alert.type === 'listen_succeeded' && alert.socketType === 'tcp',
)
await addTorrent(seeding, {
  torrentFile: readFileSync(torrentPath),
  savePath: dirname(content),
  renamedFiles: { 0: content },
  trackers: announceUrl ? [announceUrl] : [],
  flags: { seed_mode: true, upload_mode: true },
})
console.log(port)
const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => seeding.session.applySettings({ upload_rate_limit: Number(line) }))
await new Promise((resolve) => lines.once('close', resolve))
await seeding.session.close()
