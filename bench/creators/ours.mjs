/**
 * Reads one file with this package: its SHA-256 (`digest`), then a torrent of it (`format`), either or both, and tells
 * how long the calls took. `sha256` asks for the digest in the torrent's own pass.
 */
import { writeFileSync } from 'node:fs'
import { requireAddon } from '../../dist/index.js'
import { measured, options, tell } from '../harness/in-child.mjs'

const { path, out, name, pieceLength, format, threads, sha256 = false, digest = false, watchesLoop } = options
// Loaded before the clock runs.
const addon = requireAddon()
const { result, ...figures } = await measured(work, { watchesLoop })
const { torrent, digests } = result
if (torrent !== undefined) writeFileSync(out, torrent.torrentFile)
tell('done', { ...figures, sha256: (digests ?? torrent).sha256, saysItRead: torrent?.readBytes })

async function work() {
  const digests = digest
    ? await addon.hashFile(path, { sha256: true, gitSha1: false }, undefined).promise
    : undefined
  const torrent = format === undefined ? undefined : await makeTorrent()
  return { digests, torrent }
}

function makeTorrent() {
  const wish = { path, name, pieceLength, format, threads, trackers: [], createdBy: '', comment: '' }
  return addon.createTorrent(sha256 ? { ...wish, sha256 } : wish, undefined).promise
}
