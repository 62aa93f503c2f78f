/** Makes one torrent with this package, and tells how long the making alone took. */
import { writeFileSync } from 'node:fs'
import { requireAddon } from '../../dist/native/load.js'
import { createTorrentOf } from '../../dist/torrent/create.js'
import { options, tell, tellUsageAndExit } from '../harness/in-child.mjs'

const { path, out, format, pieceLength, threads } = options
const addon = requireAddon()
const startedAt = performance.now()
const { torrentFile } = await createTorrentOf(addon, path, { format, pieceLength, threads })
const seconds = (performance.now() - startedAt) / 1000
writeFileSync(out, torrentFile)
tell('done', { seconds })
tellUsageAndExit()
