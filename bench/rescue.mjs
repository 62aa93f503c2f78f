/** What does a download cost when a source fails it? The origin or the peers stop, dribble, vanish or lie. */
import { join } from 'node:path'
import { pieceLengthFor } from '../dist/index.js'
import { Child, nodeCommand } from './harness/child.mjs'
import { runIfMain, showSize } from './harness/command.mjs'
import { openLab } from './harness/lab.mjs'
import { startNginx } from './harness/nginx.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'
import {
  downloadOnce,
  fillCache,
  machineOf,
  pathOfPart,
  startDownloader,
  startHub,
  startSeeder,
  startTrackers,
} from './harness/world.mjs'

const mib = 2 ** 20
const name = 'model.safetensors'
const peerNames = ['peer1', 'peer2']
/** The origin is the faster one, so that it too has work to lose. */
const rates = { originMbit: 50, peerMbit: 25, fastMbit: 1000, rttMs: 20 }
const faultAtShare = 0.4
const dribbleBytesPerSecond = 1000
const reference = 'HTTP alone'

/**
 * `peers` seeders, of which `limit` is bytes per second; `fault` happens once, when 40 % of the file is there.
 * `failing` is the source that fails. A seeder that was killed cannot say what it gave; the link can.
 */
const situations = [
  { name: reference, peers: 0, config: { p2p: false } },
  { name: 'nothing wrong', peers: 1 },
  {
    name: 'origin silent at 40 %',
    peers: 1,
    failing: 'http',
    fault: ({ nginx }) => nginx.child.signal('SIGSTOP'),
  },
  {
    name: 'peer silent at 40 %',
    peers: 1,
    failing: 'p2p',
    fault: ({ seeders }) => seeders[0].child.signal('SIGSTOP'),
  },
  { name: 'peer dribbles 1 kB/s', peers: 1, limit: dribbleBytesPerSecond },
  {
    name: 'all (2) peers gone at 40 %',
    peers: 2,
    failing: 'p2p',
    fault: ({ seeders }) => {
      for (const { child } of seeders) child.signal('SIGKILL')
    },
    isKilled: true,
  },
  { name: 'peer sends corrupt blocks', peers: 0, isCorrupt: true },
]

export const benchmark = {
  name: 'rescue',
  question: 'when a source fails, how long does a download stand still, and how much does it fetch in vain?',
  needs: { root: true, programs: ['nginx', 'ip', 'chrt', 'g++'] },
  defaults: { runs: 5, sizes: '128MiB' },
  quick: { runs: 1, sizes: '32MiB' },
  options: {
    situations: { type: 'string', help: 'only those whose names contain this' },
  },
  roomFor: ({ sizes }) => 4 * Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, situations: filter = '', directory, signal, say }) {
  const [sizeBytes] = sizes
  const fast = { up: rates.fastMbit, down: rates.fastMbit }
  const machines = Object.fromEntries(
    ['origin', 'tracker', ...peerNames, 'downloader'].map((machine) => [machine, fast]),
  )
  const lab = await openLab(machines, { rttMs: rates.rttMs })
  const world = await setWorld(lab, directory, sizeBytes)
  lab.setRates('origin', { up: rates.originMbit })
  for (const peer of peerNames) lab.setRates(peer, { up: rates.peerMbit })
  const chosen = situations.filter((situation) => situation.name.includes(filter))
  const participants = chosen.map((situation) => ({
    name: situation.name,
    isOurs: true,
    run: () => meet(situation, world),
  }))
  const results = await measureInTurns(participants, runs, { signal, say, warmups: 0 })
  await world.end()
  await lab.close()
  const errors = results.flatMap((result) => (result.failure ? [`${result.name}: ${result.failure}`] : []))
  return {
    settings: {
      file: showSize(sizeBytes),
      links: `up ${rates.originMbit} Mbit/s origin, ${rates.peerMbit} each peer; ${rates.fastMbit} otherwise; ${rates.rttMs} ms round trip`,
      runs: `${runs} of each in turns, each with a new tracker and new seeders`,
    },
    tables: [tableOf(results.filter(({ failure }) => failure === undefined))],
    errors,
    notes: [
      'Medians and quartiles. Gap: the longest time without a new byte in what the call reports as there, from the call on.',
      'Waste: bytes beyond those that the call counts as from there; of the origin by its log (with what its kernel still held',
      'when it was cut off), of peers by what they say they gave, or for those that were killed by the link. Link: all bytes',
      'that reached the downloader from both, beyond the file. What the source that fails had brought until then: nothing, and',
      'its failure was no test. Every file was compared afterwards.',
    ],
    data: results,
  }
}

async function setWorld(lab, directory, sizeBytes) {
  const source = join(directory, name)
  await writePayload(source, sizeBytes)
  const origin = machineOf(lab, 'origin')
  const files = { [name]: source }
  const nginx = await startNginx({ directory: join(directory, 'nginx'), ...origin, port: 8080, files })
  const hub = await startHub(origin, files, { [name]: nginx.url(name) })
  for (const peer of peerNames)
    await fillCache(machineOf(lab, peer), { directory: join(directory, peer), endpoint: hub.url })
  const downloader = await startDownloader(machineOf(lab, 'downloader'))
  return {
    lab,
    directory,
    source,
    sizeBytes,
    nginx,
    hub,
    downloader,
    end: () => Promise.all([nginx.child, hub.child, downloader].map((child) => child.end())),
  }
}

/** One download in one situation. */
async function meet(situation, world) {
  const { lab, directory, source, sizeBytes, nginx, hub, downloader } = world
  const trackersDirectory = join(directory, `trackers-${performance.now()}`)
  const trackers = await startTrackers(machineOf(lab, 'tracker'), trackersDirectory, ['only'])
  const tracker = trackers.urls.only
  const { seeders, corrupt } = await startPeers(situation, world, trackers)
  const linkBefore = await lab.traffic()
  const logBefore = await nginx.settledBytesSent()
  let atFault = situation.fault === undefined ? {} : undefined
  const stopListening = downloader.on('progress', ({ share, bytes }) => {
    if (atFault !== undefined || share < faultAtShare) return
    atFault = bytes
    situation.fault({ nginx, seeders })
  })
  try {
    const sample = await downloadOnce(downloader, {
      directory,
      source,
      endpoint: hub.url,
      path: name,
      config: { tracker, ...situation.config },
      tellsProgress: true,
    })
    if (atFault === undefined) throw new Error('VOID: it was complete before anything could go wrong')
    nginx.child.signal('SIGCONT')
    const linkAfter = await lab.traffic()
    const link = (from) => linkAfter(from, 'downloader') - linkBefore(from, 'downloader')
    const fromPeersByLink = peerNames.reduce((sum, peer) => sum + link(peer), 0)
    const given = situation.isKilled ? fromPeersByLink : await bytesGiven(seeders, corrupt)
    const sent = (await nginx.settledBytesSent()) - logBefore
    return {
      ...sample,
      originWaste: sent - sample.bytes.http,
      peerWaste: given - sample.bytes.p2p,
      linkWaste: link('origin') + fromPeersByLink - sizeBytes,
      peerShare: sample.bytes.p2p / sizeBytes,
      failedBrought: atFault[situation.failing] ?? 0,
    }
  } finally {
    stopListening()
    nginx.child.signal('SIGCONT')
    await Promise.all(
      [...seeders.map(({ child }) => child), corrupt, trackers.child].map((child) => child?.end()),
    )
  }
}

async function startPeers(situation, { lab, directory, source, sizeBytes, hub, downloader }, trackers) {
  const tracker = trackers.urls.only
  const seeders = []
  for (const peer of peerNames.slice(0, situation.peers)) {
    const where = { directory: join(directory, peer), endpoint: hub.url, tracker }
    seeders.push(await startSeeder(machineOf(lab, peer), { ...where, maxUpload: situation.limit }))
  }
  if (!situation.isCorrupt) return { seeders }
  const { infoHash } = await downloader.ask('publish', {
    path: source,
    ...hub.files[name],
    trackers: [tracker],
  })
  const { host, on } = machineOf(lab, peerNames[0])
  const pieces = Math.ceil(sizeBytes / pieceLengthFor(sizeBytes))
  const corrupt = new Child(on(nodeCommand(pathOfPart('corrupt-peer'), { host, infoHash, pieces })))
  const { port } = await corrupt.event('listening')
  const { etag } = hub.files[name]
  await trackers.child.ask('setPeers', { name: 'only', etag, infoHash, peers: [{ address: host, port }] })
  return { seeders, corrupt }
}

async function bytesGiven(seeders, corrupt) {
  const given = await Promise.all(seeders.map((seeder) => seeder.end()))
  const { bytesSent } = corrupt === undefined ? { bytesSent: 0 } : await corrupt.ask('bytesSent')
  return given.reduce((sum, bytes) => sum + bytes, bytesSent)
}

function tableOf(results) {
  const base = results.find((result) => result.name === reference)
  return {
    header: [
      '',
      'seconds',
      `/ ${reference}`,
      'gap s',
      'longest',
      'waste: origin MiB',
      'peers MiB',
      'link MiB',
      'from peers',
      'failed had brought MiB',
    ],
    rows: results.map(({ name: situation, samples }) => {
      const seconds = over(samples, 'seconds')
      const { failing } = situations.find((each) => each.name === situation)
      const mebibytes = (figure) => (over(samples, figure).median / mib).toFixed(2)
      return [
        situation,
        withQuartiles(seconds, 2),
        base === undefined ? '' : times(seconds.median / over(base.samples, 'seconds').median),
        withQuartiles(over(samples, 'longestGapSeconds'), 2),
        over(samples, 'longestGapSeconds').max.toFixed(2),
        mebibytes('originWaste'),
        mebibytes('peerWaste'),
        mebibytes('linkWaste'),
        `${(over(samples, 'peerShare').median * 100).toFixed(0)} %`,
        failing === undefined ? '' : mebibytes('failedBrought'),
      ]
    }),
  }
}

await runIfMain(import.meta.url, benchmark)
