/** Makes one torrent with create-torrent, and tells what the making alone took. */
import { writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import createTorrent from 'create-torrent'
import { measured, options, tell } from '../harness/in-child.mjs'

const { path, out, pieceLength, watchesLoop } = options
const make = () => promisify(createTorrent)(path, { pieceLength, announceList: [] })
const { result, ...figures } = await measured(make, { watchesLoop })
writeFileSync(out, result)
tell('done', figures)
