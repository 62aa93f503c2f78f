/** One run of one creator: what it takes, and which torrent it made. */
import { readFileSync, rmSync } from 'node:fs'
import { parseMetainfo } from '../../dist/index.js'
import { Child, withChild } from '../harness/child.mjs'
import { showSize } from '../harness/command.mjs'
import { bytesRead, childrenCpuSeconds, watchMemory } from '../harness/process.mjs'

/** A script of ours, which measures itself. */
export async function runScript(command, { out, timeoutMs }, env = {}) {
  rmSync(out, { force: true })
  return await withChild(command, { timeoutMs, env }, async (child) => {
    const memory = watchMemory(child.pid)
    try {
      const figures = await child.event('done')
      const seen = memory.stop()
      await child.exited
      return { ...figures, ...seen }
    } finally {
      memory.stop()
    }
  })
}

/** A program of somebody else's: from its start to its end. */
export async function runWhole(command, { out, timeoutMs }) {
  rmSync(out, { force: true })
  const [cpuBefore, readBefore] = [childrenCpuSeconds(), bytesRead()]
  const startedAt = performance.now()
  const child = new Child(command, { timeoutMs })
  const memory = watchMemory(child.pid)
  const how = await child.exited
  const seconds = (performance.now() - startedAt) / 1000
  const seen = memory.stop()
  if (how !== 0) throw new Error(`ended (${how}): ${child.stderr}`)
  const readBytes = readBefore === undefined ? undefined : bytesRead() - readBefore
  return { seconds, cpuSeconds: childrenCpuSeconds() - cpuBefore, readBytes, ...seen }
}

/** Two that disagree about the info hash did not do the same work. */
export function noteInfoHash({ infoHashes, out }, format, pieceLength, label) {
  const made = parseMetainfo(withoutPrivateZero(readFileSync(out)))
  if (made.format !== format || made.pieceLength !== pieceLength)
    throw new Error(`made a ${made.format} torrent with pieces of ${made.pieceLength} bytes`)
  const key = `${format}, ${showSize(pieceLength)}`
  const makers = infoHashes.get(key) ?? new Map()
  makers.set(made.infoHash, (makers.get(made.infoHash) ?? new Set()).add(label))
  infoHashes.set(key, makers)
}

/** transmission-create says that a torrent is not private; nobody else does, and it changes the info hash. */
function withoutPrivateZero(torrentFile) {
  const entry = Buffer.from('7:privatei0e')
  const at = torrentFile.lastIndexOf(entry)
  if (at < 0) return torrentFile
  return Buffer.concat([torrentFile.subarray(0, at), torrentFile.subarray(at + entry.length)])
}

export function disagreements({ size, infoHashes }) {
  return [...infoHashes].flatMap(([key, makers]) => {
    if (makers.size < 2) return []
    const each = [...makers].map(([infoHash, names]) => `${infoHash} (${[...names].join('; ')})`)
    return `${size}, ${key}: not the same torrent: ${each.join(', ')}`
  })
}
