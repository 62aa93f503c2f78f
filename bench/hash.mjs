/**
 * How fast is one file read for its torrent and its SHA-256, at what cost? Every run is a process of its own; who takes
 * part is in `creators/participants.mjs`.
 */
import { createHash } from 'node:crypto'
import { createReadStream, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { claimsOf, isShown, loopTable, memoryClaims, tableOf } from './creators/findings.mjs'
import { disagreements } from './creators/one-run.mjs'
import { largeParticipants, loopParticipants, oursOn, participantsOf } from './creators/participants.mjs'
import { findTools } from './creators/tools.mjs'
import { parseSize, runIfMain, showSize } from './harness/command.mjs'
import { measureInTurns } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'

const gib = 2 ** 30
const mib = 2 ** 20
/** Slower than this, a run is taken for stuck. */
const slowestBytesPerSecond = 5e6
/** Of holes: what it shows is memory, which must not grow with the file. */
const largeFile = { sizeBytes: 12 * gib, quickBytes: 256 * mib, pieceLength: 16 * mib }

export const benchmark = {
  name: 'hash',
  question:
    'how fast is one file read for its torrent and its SHA-256, at what cost, against what others do?',
  needs: {},
  defaults: { runs: 5, sizes: '1GiB' },
  quick: { runs: 1, sizes: '64MiB' },
  options: {
    only: { type: 'string', help: 'only those whose names contain this (hash, swarm-leg)' },
    pieces: { type: 'string', help: 'piece lengths; 256KiB,4MiB,16MiB unless given (hash)' },
  },
  roomFor: ({ sizes }) => Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, isQuick, only = '', pieces, directory, signal, say }) {
  const pieceLengths = (pieces ?? '256KiB,4MiB,16MiB').split(',').map(parseSize)
  const tools = findTools()
  const report = {
    settings: tools.versions,
    tables: [],
    claims: [],
    errors: [],
    failures: [],
    notes,
    data: {},
  }
  const noDigest = await whyNoDigest(directory)
  if (noDigest !== undefined) report.errors.push(noDigest)
  const measure = async (scene, participants, rounds, title, warmups = 1) => {
    const chosen = participants
      .filter(({ name }) => name.includes(only))
      .map((each) =>
        each.asksForDigest && noDigest !== undefined ? { ...each, unavailable: noDigest } : each,
      )
    const told = { signal, say: (text) => say(`${scene.size}: ${text}`), warmups }
    const measured = await measureInTurns(chosen, rounds, told)
    const results = measured.map((result, index) => ({ ...result, ...tagsOf(chosen[index]) }))
    report.data[title] = results
    for (const { name, isOurs, failure, isMissing } of results) {
      if (failure !== undefined && !isMissing && failure !== noDigest)
        (isOurs ? report.errors : report.failures).push(`${scene.size}, ${name}: ${failure}`)
    }
    return results
  }
  for (const sizeBytes of sizes) {
    const scene = await setScene(directory, sizeBytes)
    const participants = participantsOf(scene, pieceLengths, tools, isQuick ? 1 : 3)
    const results = await measure(scene, participants, runs, scene.size)
    const watched = await measure(
      scene,
      loopParticipants(scene, pieceLengths, tools),
      runs,
      `${scene.size}, loop`,
    )
    rmSync(scene.path)
    report.errors.push(...disagreements(scene))
    const rounds = `${runs} ${runs === 1 ? 'run' : 'runs'} of each in turns`
    for (const pieceLength of [undefined, ...pieceLengths]) {
      const title = pieceLength === undefined ? 'no pieces' : `pieces of ${showSize(pieceLength)}`
      const rows = results.filter((result) => result.pieceLength === pieceLength)
      if (rows.some(isShown)) report.tables.push(tableOf(`${scene.size}, ${title}, ${rounds}`, scene, rows))
    }
    if (watched.some(({ samples }) => samples.length > 0))
      report.tables.push(loopTable(`${scene.size}, the event loop, ${rounds}`, watched))
    report.claims.push(...claimsOf(scene, pieceLengths, results, watched))
  }
  const large = await setSparseScene(directory, isQuick ? largeFile.quickBytes : largeFile.sizeBytes)
  const results = await measure(large, largeParticipants(large, largeFile.pieceLength), 1, large.size, 0)
  const title = `${large.size}, pieces of ${showSize(largeFile.pieceLength)}, 1 run`
  if (results.some(isShown)) report.tables.push(tableOf(title, large, results))
  report.claims.push(...memoryClaims(large, results))
  // By their number; those of one number stay in the order of sizes and pieces.
  report.claims.sort((one, other) => Number(one.slice(1, 2)) - Number(other.slice(1, 2)))
  return report
}

const notes = [
  'Medians and quartiles; ratios are of medians. Seconds are of the call alone in Node and Python, of the whole program else.',
  'CPU: user and system time of all threads, over the same span. RSS: the most that was resident (VmHWM). Anonymous: the most',
  `of it that is no file's (RssAnon, looked at every 10 ms), in parentheses without what the process had before the call.`,
  'Read: bytes that system calls read, in sizes of the file; python3-libtorrent maps the file instead and shows nothing.',
  'All torrents of one format and piece length had to have the same info hash, and every SHA-256 to be that of the file;',
  'transmission-create writes "private: 0" into every torrent, which is taken out before its info hash is compared.',
  'openssl speed: blocks of 16 KiB that stay in the cache of the processor, nothing read; seconds are those of as many bytes.',
  'transmission-create looks every half a second whether it is done.',
  `"(openssl)": with HF_P2P_SHA256=openssl, so that OpenSSL's code does all SHA-256. "Two calls": hashFile, then createTorrent.`,
  'create-torrent makes v1 only, with WebCrypto on the threads of libuv (4); libtorrent from Python hashes on one thread.',
]

/** Half of the questions are about a digest that comes with the torrent: without it, one sentence instead of many. */
async function whyNoDigest(directory) {
  const scene = await setScene(directory, mib)
  const wish = { pieceLength: 256 * 1024, format: 'v2', sha256: true, threads: 1 }
  try {
    await oursOn(scene, '', wish).run()
    return undefined
  } catch (error) {
    return `createTorrent with \`sha256: true\`: ${error.message}; what needs it was not measured`
  }
}

/** What `measureInTurns` does not keep of a participant. */
function tagsOf({ label, pieceLength, isMissing = false }) {
  return { label, pieceLength, isMissing }
}

async function setScene(directory, sizeBytes) {
  const path = join(directory, 'payload.bin')
  await writePayload(path, sizeBytes)
  return sceneOf(directory, path, sizeBytes, showSize(sizeBytes), await sha256Of(path))
}

/** Nobody else hashes it, so that its SHA-256 is compared with nothing. */
async function setSparseScene(directory, sizeBytes) {
  const path = join(directory, 'holes.bin')
  writeFileSync(path, '')
  truncateSync(path, sizeBytes)
  return sceneOf(directory, path, sizeBytes, `${showSize(sizeBytes)} of holes`)
}

function sceneOf(directory, path, sizeBytes, size, sha256) {
  return {
    path,
    sizeBytes,
    size,
    sha256,
    out: join(directory, 'made.torrent'),
    timeoutMs: 60_000 + (sizeBytes / slowestBytesPerSecond) * 1000,
    /** Who made which info hash, by format and piece length. */
    infoHashes: new Map(),
  }
}

async function sha256Of(path) {
  const hash = createHash('sha256')
  for await (const part of createReadStream(path, { highWaterMark: 8 * mib })) hash.update(part)
  return hash.digest('hex')
}

await runIfMain(import.meta.url, benchmark)
