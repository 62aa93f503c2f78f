/** Makes one torrent with create-torrent, and tells how long the making alone took. */
import { writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import createTorrent from 'create-torrent'
import { options, tell, tellUsageAndExit } from '../harness/in-child.mjs'

const { path, out, pieceLength } = options
const startedAt = performance.now()
const torrentFile = await promisify(createTorrent)(path, { pieceLength, announceList: [] })
const seconds = (performance.now() - startedAt) / 1000
writeFileSync(out, torrentFile)
tell('done', { seconds })
tellUsageAndExit()
