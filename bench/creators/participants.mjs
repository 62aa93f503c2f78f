/**
 * Who takes part in `hash.mjs`. The clock runs inside the process, around the call alone, where that is a script of ours;
 * programs are measured as a whole.
 */
import { execFile } from 'node:child_process'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { nodeCommand } from '../harness/child.mjs'
import { showSize } from '../harness/command.mjs'
import { findProgram } from '../harness/needs.mjs'
import { noteInfoHash, runScript, runWhole } from './one-run.mjs'
import { notInstalled } from './tools.mjs'

const runProgram = promisify(execFile)
const mib = 2 ** 20
const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url))
const formats = ['v1', 'v2', 'hybrid']
export const threadCounts = [1, 2]
export const reference = 'create-torrent v1'
/** The blocks of `openssl speed`: those of a v2 torrent. */
const blockBytes = 16 * 2 ** 10

export function participantsOf(scene, pieceLengths, tools, speedSeconds) {
  const alone = [
    oursOn(scene, labels.digest(), { digest: true }),
    oursOn(scene, labels.digest(true), { digest: true, forcesOpenssl: true }),
    ...threadCounts.map((threads) => opensslSpeed(scene, threads, speedSeconds)),
  ]
  return [...alone, ...pieceLengths.flatMap((pieceLength) => creatorsOf(scene, pieceLength, tools))]
}

function creatorsOf(scene, pieceLength, tools) {
  const forced = { pieceLength, format: 'v2', forcesOpenssl: true }
  const ours = [
    ...formats.flatMap((format) =>
      [false, true].flatMap((sha256) =>
        threadCounts.map((threads) =>
          oursOn(scene, labels.torrent(format, sha256, threads), { pieceLength, format, sha256, threads }),
        ),
      ),
    ),
    ...threadCounts.map((threads) =>
      oursOn(scene, labels.torrent('v2', true, threads, true), { ...forced, sha256: true, threads }),
    ),
    oursOn(scene, labels.twoCalls, { ...forced, digest: true, threads: 1 }),
  ]
  return [
    ...ours,
    createTorrentOn(scene, pieceLength, tools),
    ...threadCounts.map((threads) => mktorrentOn(scene, pieceLength, threads, tools)),
    transmissionOn(scene, pieceLength, tools),
    ...formats.map((format) => pythonOn(scene, pieceLength, format, tools)),
  ]
}

/** Apart from those that are timed: looking at the loop every millisecond is work too. */
export function loopParticipants(scene, pieceLengths, tools) {
  const threads = Math.max(...threadCounts)
  return pieceLengths.flatMap((pieceLength) => [
    oursOn(
      scene,
      labels.torrent('v2', true, threads),
      { pieceLength, format: 'v2', sha256: true, threads, watchesLoop: true },
      'loop, ',
    ),
    createTorrentOn(scene, pieceLength, tools, true),
  ])
}

export function largeParticipants(scene, pieceLength) {
  return [false, true].map((sha256) =>
    oursOn(
      scene,
      labels.torrent('v2', sha256, 2),
      { pieceLength, format: 'v2', sha256, threads: 2 },
      'holes, ',
    ),
  )
}

export const labels = {
  digest: (isForced = false) => `llmpt-native SHA-256 alone${isForced ? ' (openssl)' : ''}`,
  torrent: (format, sha256, threads, isForced = false) =>
    `llmpt-native ${format}${sha256 ? ' + SHA-256' : ''}, ${countOf(threads)}${isForced ? ' (openssl)' : ''}`,
  twoCalls: 'llmpt-native SHA-256, then v2: two calls, 1 thread (openssl)',
  speed: (threads) => `openssl speed -multi ${threads}`,
}

function countOf(threads) {
  return `${threads} thread${threads === 1 ? '' : 's'}`
}

function named(label, pieceLength, prefix = '') {
  const name = `${prefix}${pieceLength === undefined ? '' : `${showSize(pieceLength)}, `}${label}`
  return { name, label, pieceLength }
}

export function oursOn(scene, label, { forcesOpenssl = false, ...task }, prefix = '') {
  return {
    ...named(label, task.pieceLength, prefix),
    isOurs: true,
    asksForDigest: task.sha256 === true,
    run: async () => {
      const { path, out } = scene
      const wish = { path, out, name: basename(path), ...task }
      const env = forcesOpenssl ? { HF_P2P_SHA256: 'openssl' } : {}
      const sample = await runScript(nodeCommand(pathOf('./ours.mjs'), wish), scene, env)
      if (task.sha256 && sample.sha256 === undefined) throw new Error('its result has no `sha256`')
      const isWrong = scene.sha256 !== undefined && sample.sha256 !== scene.sha256
      if ((task.sha256 || task.digest) && isWrong)
        throw new Error(`its SHA-256 is ${sample.sha256}, that of the file ${scene.sha256}`)
      if (task.sha256 && sample.saysItRead === undefined) throw new Error('its result has no `readBytes`')
      const calls = Number(task.digest ?? false) + Number(task.format !== undefined)
      if (sample.readBytes > calls * scene.sizeBytes + mib)
        throw new Error(`it has read ${sample.readBytes} bytes of ${scene.sizeBytes} in ${calls} calls`)
      if (sample.saysItRead !== undefined && sample.saysItRead !== scene.sizeBytes)
        throw new Error(`it says that it has read ${sample.saysItRead} bytes of ${scene.sizeBytes}`)
      if (task.format !== undefined) noteInfoHash(scene, task.format, task.pieceLength, label)
      return sample
    },
  }
}

function createTorrentOn(scene, pieceLength, { npm }, watchesLoop = false) {
  return {
    ...named(reference, pieceLength, watchesLoop ? 'loop, ' : ''),
    unavailable: npm,
    run: async () => {
      const { path, out } = scene
      const task = { path, out, pieceLength, watchesLoop }
      const sample = await runScript(nodeCommand(pathOf('./create-torrent.mjs'), task), scene)
      noteInfoHash(scene, 'v1', pieceLength, reference)
      return sample
    },
  }
}

function pythonOn(scene, pieceLength, format, { python }) {
  const label = `python3-libtorrent ${format}`
  return {
    ...named(label, pieceLength),
    ...optional(python),
    run: async () => {
      const { path, out } = scene
      const task = JSON.stringify({ path, out, name: basename(path), pieceLength, format })
      const sample = await runScript([python, pathOf('./python_libtorrent.py'), task], scene)
      noteInfoHash(scene, format, pieceLength, label)
      return sample
    },
  }
}

function mktorrentOn(scene, pieceLength, threads, { mktorrent }) {
  const label = `mktorrent v1, ${countOf(threads)}`
  return {
    ...named(label, pieceLength),
    ...optional(mktorrent),
    run: async () => {
      const exponent = Math.log2(pieceLength)
      // It wants a tracker, which stands outside the info dictionary.
      const how = ['-d', '-a', 'http://127.0.0.1/announce', '-l', exponent, '-t', threads, '-o', scene.out]
      const sample = await runWhole([mktorrent, ...how.map(String), scene.path], scene)
      noteInfoHash(scene, 'v1', pieceLength, label)
      return sample
    },
  }
}

function transmissionOn(scene, pieceLength, { transmission }) {
  const label = 'transmission-create v1'
  return {
    ...named(label, pieceLength),
    ...optional(transmission),
    run: async () => {
      const how = ['-s', String(pieceLength / 1024), '-o', scene.out]
      const sample = await runWhole([transmission, ...how, scene.path], scene)
      noteInfoHash(scene, 'v1', pieceLength, label)
      return sample
    },
  }
}

/** What SHA-256 costs at the least: its rate, as the time it would take for the file. */
function opensslSpeed(scene, threads, seconds) {
  const openssl = findProgram('openssl')
  return {
    ...named(labels.speed(threads)),
    ...optional(openssl),
    run: async () => {
      const how = ['-evp', 'sha256', '-bytes', blockBytes, '-seconds', seconds, '-multi', threads]
      const { stdout } = await runProgram(openssl, ['speed', ...how.map(String)], { timeout: 60_000 })
      const thousands = /^sha256\s+([\d.]+)k$/im.exec(stdout)?.[1]
      if (thousands === undefined) throw new Error(`openssl speed says: ${stdout.trim()}`)
      return { seconds: scene.sizeBytes / (Number(thousands) * 1000) }
    },
  }
}

/** Who is not there is shown as such, and is no failure. */
function optional(program) {
  return program === undefined ? { unavailable: notInstalled, isMissing: true } : {}
}
