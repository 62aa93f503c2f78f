/** Makes one torrent with this package, and tells how long the making alone took. */
import { writeFileSync } from 'node:fs'
import { createTorrent, requireAddon } from '../../dist/index.js'
import { options, tell, tellUsageAndExit } from '../harness/in-child.mjs'

const { path, out, format, pieceLength, threads } = options
// Loaded before the clock runs.
requireAddon()
const startedAt = performance.now()
const { torrentFile } = await createTorrent(path, { format, pieceLength, threads })
const seconds = (performance.now() - startedAt) / 1000
writeFileSync(out, torrentFile)
tell('done', { seconds })
tellUsageAndExit()
