/** What `hash.mjs` found, as tables and as sentences. */
import { showSize } from '../harness/command.mjs'
import { times, withQuartiles } from '../harness/report.mjs'
import { over } from '../harness/rounds.mjs'
import { labels, reference, threadCounts } from './participants.mjs'
import { notInstalled } from './tools.mjs'

const gib = 2 ** 30
const mib = 2 ** 20

export function tableOf(title, { sizeBytes }, results) {
  const base = results.find(({ label, samples }) => label === reference && samples.length > 0)
  const baseSeconds = base && over(base.samples, 'seconds').median
  return {
    title,
    header: [
      '',
      'seconds',
      'MB/s',
      'speed / create-torrent',
      'CPU s/GiB',
      'RSS MiB',
      'anonymous MiB',
      'read',
    ],
    rows: results.filter(isShown).map(({ label, samples }) => {
      if (samples.length === 0) return [label, notInstalled, '', '', '', '', '', '']
      const median = (figure, show) =>
        samples[0][figure] === undefined ? '' : show(over(samples, figure).median)
      const seconds = over(samples, 'seconds')
      return [
        label,
        withQuartiles(seconds, 3),
        (sizeBytes / 1e6 / seconds.median).toFixed(0),
        baseSeconds === undefined ? '' : times(baseSeconds / seconds.median),
        median('cpuSeconds', (cpu) => (cpu / (sizeBytes / gib)).toFixed(2)),
        median('peakMemoryBytes', (bytes) => (bytes / mib).toFixed(0)),
        anonymousOf(samples),
        median('readBytes', (bytes) => (bytes / sizeBytes < 0.01 ? '' : (bytes / sizeBytes).toFixed(2))),
      ]
    }),
  }
}

/** Who was measured, and who is not installed; who failed is told of elsewhere. */
export function isShown({ samples, isMissing }) {
  return samples.length > 0 || isMissing
}

/** The most, and in parentheses what the call added. */
function anonymousOf(samples) {
  if (samples[0].peakAnonymousBytes === undefined) return ''
  const peak = (over(samples, 'peakAnonymousBytes').median / mib).toFixed(1)
  const added = addedMemory(samples)
  return added === undefined ? peak : `${peak} (${(added / mib).toFixed(1)})`
}

function addedMemory(samples) {
  const [{ peakAnonymousBytes, anonymousBytesBefore }] = samples
  if (peakAnonymousBytes === undefined || anonymousBytesBefore === undefined) return undefined
  const added = samples.map((sample) => ({
    bytes: Math.max(0, sample.peakAnonymousBytes - sample.anonymousBytesBefore),
  }))
  return over(added, 'bytes').median
}

export function loopTable(title, results) {
  return {
    title,
    header: ['', 'loop delay p99 ms'],
    rows: results
      .filter(({ samples }) => samples.length > 0)
      .map(({ label, pieceLength, samples }) => [
        `${label}, pieces of ${showSize(pieceLength)}`,
        withQuartiles(over(samples, 'loopDelayMs'), 2),
      ]),
  }
}

// --- Claims ----------------------------------------------------------------------------------------------

export function claimsOf(scene, pieceLengths, results, watched) {
  return pieceLengths.flatMap((pieceLength) => {
    const of = (label) =>
      results.find((each) => each.label === label && [undefined, pieceLength].includes(each.pieceLength))
    return [
      ...speedClaims(scene, pieceLength, of),
      ...digestClaims(scene, pieceLength, of),
      ...memoryClaims(
        scene,
        results.filter((each) => each.pieceLength === pieceLength),
      ),
      ...loopClaims(
        scene,
        watched.filter((each) => each.pieceLength === pieceLength),
      ),
    ]
  })
}

/** (1): against the bare digest and against create-torrent. */
function speedClaims(scene, pieceLength, of) {
  const ours = of(labels.torrent('v2', false, 2))
  const what = `(1) ${headOf(scene, pieceLength)}v2, 2 threads`
  return [
    ...compare(ours, of(labels.speed(2)), (mine, theirs) => {
      const [rate, bare] = [mine, theirs].map((seconds) => scene.sizeBytes / 1e6 / seconds)
      const rates = `${rate.toFixed(0)} MB/s, openssl speed -multi 2 ${bare.toFixed(0)} MB/s`
      return `${what}: ${rates}: ${times(rate / bare)} of its speed`
    }),
    ...compare(ours, of(reference), (mine, theirs) => {
      const seconds = `${mine.toFixed(3)} s, create-torrent (v1) ${theirs.toFixed(3)} s`
      return `${what}: ${seconds}: ${times(theirs / mine)} times its speed; ${memoryRatio(ours, of(reference))}`
    }),
  ]
}

function memoryRatio(ours, theirs) {
  const ratioOf = (figure, word) => {
    if (ours.samples[0][figure] === undefined || theirs.samples[0][figure] === undefined) return []
    const [mine, its] = [ours, theirs].map(({ samples }) => over(samples, figure).median)
    return `${word} ${(mine / mib).toFixed(0)} and ${(its / mib).toFixed(0)} MiB, ${times(mine / its)} of its memory`
  }
  return [ratioOf('peakMemoryBytes', 'RSS'), ratioOf('peakAnonymousBytes', 'anonymous')].flat().join('; ')
}

/** (2): the torrent and the digest in one pass, against the digest alone and against two passes. */
function digestClaims(scene, pieceLength, of) {
  const head = `(2) ${headOf(scene, pieceLength)}`
  const pairs = [
    ...threadCounts.map((threads) => [of(labels.torrent('v2', true, threads)), of(labels.digest())]),
    ...threadCounts.map((threads) => [of(labels.torrent('v2', true, threads, true)), of(labels.twoCalls)]),
    ...threadCounts.map((threads) => [of(labels.torrent('v2', true, threads)), of(labels.twoCalls)]),
  ]
  return pairs.flatMap(([ours, base]) =>
    compare(ours, base, (mine, theirs) => {
      const [cpu, baseCpu] = [ours, base].map(({ samples }) => over(samples, 'cpuSeconds').median)
      const ratios = `speed ${times(theirs / mine)}, CPU ${times(cpu / baseCpu)}`
      const figures = `${mine.toFixed(3)} s, CPU ${cpu.toFixed(3)} s; ${base.label} ${theirs.toFixed(3)} s, CPU ${baseCpu.toFixed(3)} s`
      return `${head}${ours.label} in one pass ${figures}: ${ratios}`
    }),
  )
}

/** (4): what the whole process has in memory of its own at the most. */
export function memoryClaims(scene, results) {
  return results.flatMap(({ label, pieceLength, samples, isOurs }) => {
    const isMeant = isOurs && /v2.*2 threads$/.test(label) && samples[0]?.peakAnonymousBytes !== undefined
    if (!isMeant) return []
    const most = (over(samples, 'peakAnonymousBytes').median / mib).toFixed(1)
    const added = (addedMemory(samples) / mib).toFixed(1)
    const head = headOf(scene, pieceLength)
    return `(4) ${head}${label}: ${most} MiB of anonymous memory at the most, ${added} MiB of it for the call`
  })
}

/** (5): whether JavaScript runs on meanwhile. */
function loopClaims(scene, watched) {
  return watched.flatMap(({ label, pieceLength, samples }) => {
    if (samples.length === 0) return []
    const { median } = over(samples, 'loopDelayMs')
    return `(5) ${headOf(scene, pieceLength)}${label}: event loop late by ${median.toFixed(2)} ms at p99`
  })
}

function headOf({ size }, pieceLength) {
  return `${size}, ${showSize(pieceLength)} pieces, `
}

/** `sentence` of the median seconds of two that were measured. */
function compare(one, other, sentence) {
  if (!(one?.samples.length > 0 && other?.samples.length > 0)) return []
  return [sentence(...[one, other].map(({ samples }) => over(samples, 'seconds').median))]
}
