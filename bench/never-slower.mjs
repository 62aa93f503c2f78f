/**
 * Is a download ever slower because there might have been peers? Every situation in which there are none, in turns with
 * our own HTTP download alone.
 */
import { join } from 'node:path'
import { runIfMain, showSize } from './harness/command.mjs'
import { deadAddress, openLab } from './harness/lab.mjs'
import { startNginx } from './harness/nginx.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { over } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'
import {
  downloadOnce,
  machineOf,
  startDownloader,
  startHub,
  startTrackers,
  WrongDownload,
} from './harness/world.mjs'

const link = { mbitPerSecond: 500, rttMs: 20 }
/** From this size on, over loopback: the emulator would be what is measured. */
const loopbackFromBytes = 2 ** 30
const loopbackRuns = 7
const allowed = { ratio: 1.02, seconds: 0.01 }
const deadPeers = 8
/** Two series of the very same thing that differ by more say that the machine was not quiet. */
const largestControlDifference = 0.02
const control = 'HTTP alone again (control)'

export const benchmark = {
  name: 'never-slower',
  question: 'how much longer does a download take where peers could be, but are not, than over HTTP alone?',
  needs: { root: true, programs: ['nginx', 'ip', 'chrt', 'g++'] },
  defaults: { runs: 15, sizes: '1MiB,64MiB,1GiB' },
  quick: { runs: 3, sizes: '1MiB,16MiB' },
  options: {
    situations: { type: 'string', help: 'only those whose names contain this (never-slower)' },
  },
  roomFor: ({ sizes }) => sizes.reduce((sum, size) => sum + 2 * size, 2 ** 27),
  run,
}

async function run({ runs, sizes, situations: filter = '', directory, signal, say, isQuick }) {
  const rate = link.mbitPerSecond
  const lab = await openLab(
    {
      origin: { up: rate, down: rate },
      tracker: { up: 1000, down: 1000 },
      downloader: { up: rate, down: rate },
    },
    { rttMs: link.rttMs },
  )
  const places = {
    link: { origin: machineOf(lab, 'origin'), tracker: machineOf(lab, 'tracker') },
    loopback: onLoopback(machineOf(lab, 'downloader')),
  }
  const downloader = await startDownloader(machineOf(lab, 'downloader'))
  const tables = []
  const goals = []
  const errors = []
  const data = {}
  for (const sizeBytes of sizes) {
    const isLoopback = sizeBytes >= loopbackFromBytes
    const pairs = isLoopback && !isQuick ? Math.min(runs, loopbackRuns) : runs
    const size = showSize(sizeBytes)
    const scene = await setScene(isLoopback ? places.loopback : places.link, {
      sizeBytes,
      directory,
      downloader,
    })
    const situations = scene.situations.filter(({ name }) => name === control || name.includes(filter))
    const rows = await measurePairs(downloader, scene, situations, { pairs, signal, say, size, errors })
    data[size] = rows
    const where = isLoopback ? 'loopback' : `${rate} Mbit/s, ${link.rttMs} ms round trip`
    tables.push(tableOf(`${size}, ${where}, ${pairs} pairs`, rows))
    // So few pairs say nothing about the machine.
    for (const row of rows) judge(size, row, { goals, errors: isQuick ? [] : errors })
    await scene.end()
  }
  await downloader.end()
  await lab.close()
  return {
    settings: {
      pairs: 'HTTP alone and one situation, one after the other, first the one, then the other first',
      process:
        'one, which has done both before; each download has an empty cache and a new session; no seeding',
    },
    tables,
    goals,
    errors,
    notes: [
      'Seconds of the call, medians and quartiles; the ratio is that of the medians. Every file was compared afterwards.',
      `A control that differs by more than ${largestControlDifference * 100} % makes the run void.`,
    ],
    data,
  }
}

/** Everything on the downloader's own machine, where addresses that answer nobody can still be had. */
function onLoopback({ on }) {
  const machine = { host: '127.0.0.1', on }
  return { origin: machine, tracker: machine }
}

async function setScene({ origin, tracker }, { sizeBytes, directory, downloader }) {
  const name = `model-${sizeBytes}.safetensors`
  const source = join(directory, name)
  await writePayload(source, sizeBytes)
  const nginx = await startNginx({
    directory: join(directory, `nginx-${sizeBytes}`),
    ...origin,
    port: 8080,
    files: { [name]: source },
  })
  const hub = await startHub(origin, { [name]: source }, { [name]: nginx.url(name) })
  const names = ['empty', 'published', 'dead']
  const trackers = await startTrackers(tracker, join(directory, `trackers-${sizeBytes}`), names)
  const { published, dead, empty } = trackers.urls
  const blob = { path: source, ...hub.files[name] }
  const { infoHash } = await downloader.ask('publish', { ...blob, trackers: [published, dead] })
  const peers = Array.from({ length: deadPeers }, (_, index) => ({ address: deadAddress(index), port: 6881 }))
  const { etag } = blob
  const setPeers = (which, list) => () =>
    trackers.child.ask('setPeers', { name: which, etag, infoHash, peers: list })
  return {
    request: { directory, source, endpoint: hub.url, path: name },
    situations: [
      { name: control, config: { p2p: false } },
      { name: 'no tracker', config: {} },
      { name: 'tracker without the torrent', config: { tracker: empty } },
      { name: 'torrent without peers', config: { tracker: published }, prepare: setPeers('published', []) },
      { name: 'tracker that never answers', config: { tracker: trackers.silentUrl } },
      { name: 'tracker that nothing reaches', config: { tracker: `http://${deadAddress(50)}:8000` } },
      { name: 'dead peers only', config: { tracker: dead }, prepare: setPeers('dead', peers) },
    ],
    end: () => Promise.all([nginx.child, hub.child, trackers.child].map((child) => child.end())),
  }
}

/** @returns {Promise<{ name: string, alone: object[], other: object[] }[]>} Samples that count, pair by pair. */
async function measurePairs(downloader, { request }, situations, { pairs, signal, say, size, errors }) {
  const rows = situations.map((situation) => ({ ...situation, alone: [], other: [] }))
  const httpAlone = { p2p: false }
  for (let pair = 0; pair <= pairs; pair++) {
    for (const row of rows) {
      signal.throwIfAborted()
      if (row.failure !== undefined) continue
      say(`${size}: ${pair === 0 ? 'warm-up' : `pair ${pair} of ${pairs}`}: ${row.name}`)
      const inOrder = ['alone', 'other']
      // Whatever the first one leaves behind, it leaves to each as often.
      if (pair % 2 === 1) inOrder.reverse()
      try {
        for (const which of inOrder) {
          // The downloader of the pair before may still be in the swarm.
          if (which === 'other') await row.prepare?.()
          const config = which === 'alone' ? httpAlone : row.config
          const sample = await downloadOnce(downloader, { ...request, config })
          if (pair > 0) row[which].push(sample)
        }
      } catch (error) {
        const what = error instanceof WrongDownload ? 'WRONG DOWNLOAD' : 'failed'
        row.failure = `${size}, ${row.name}: ${what}: ${error.message}`
        errors.push(row.failure)
      }
    }
  }
  return rows
}

function tableOf(title, rows) {
  const complete = rows.filter(({ failure }) => failure === undefined)
  return {
    title,
    header: ['', 'HTTP alone s', 'here s', 'ratio', 'difference ms'],
    rows: complete.map(({ name, alone, other }) => {
      const [a, b] = [over(alone, 'seconds'), over(other, 'seconds')]
      const difference = ((b.median - a.median) * 1000).toFixed(1)
      return [name, withQuartiles(a, 3), withQuartiles(b, 3), times(b.median / a.median), difference]
    }),
  }
}

function judge(size, { name, alone, other, failure }, { goals, errors }) {
  if (failure !== undefined) return
  const [a, b] = [over(alone, 'seconds').median, over(other, 'seconds').median]
  if (name === control) {
    const difference = Math.abs(b / a - 1)
    if (difference <= largestControlDifference) return
    errors.push(`${size}: VOID: HTTP alone differs from itself by ${(difference * 100).toFixed(1)} %`)
    return
  }
  const isMet = b <= allowed.ratio * a + allowed.seconds
  const limit = `${allowed.ratio} x HTTP alone + ${allowed.seconds * 1000} ms`
  goals.push({ isMet, text: `${size}, ${name}: time <= ${limit}` })
}

await runIfMain(import.meta.url, benchmark)
