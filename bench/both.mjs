/** Do peers and the Hub add up? One peer and one origin with limited links, alone and together. */
import { join } from 'node:path'
import { runIfMain, showSize } from './harness/command.mjs'
import { openLab } from './harness/lab.mjs'
import { startNginx } from './harness/nginx.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, summary } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'
import {
  downloadOnce,
  fillCache,
  machineOf,
  startDownloader,
  startHub,
  startSeeder,
  startTrackers,
} from './harness/world.mjs'

const name = 'model.safetensors'
const rttMs = 20
const fastMbit = 1000
/** Origin and peer, in shares of the slower one's rate. */
const shares = [
  [1, 1],
  [1, 10],
  [10, 1],
]
/** Beyond this in all, the emulator and two cores would be what is measured. */
const defaultMbit = 40

export const benchmark = {
  name: 'both',
  question: 'how much of what the Hub and a peer can give alone do they give together?',
  needs: { root: true, programs: ['nginx', 'ip', 'chrt', 'g++'] },
  defaults: { runs: 5, sizes: '128MiB' },
  quick: { runs: 1, sizes: '16MiB' },
  options: {
    rate: {
      type: 'string',
      help: `Mbit/s of the slower link; the faster one has 1 or 10 times that (both: ${defaultMbit})`,
    },
  },
  roomFor: ({ sizes }) => 3 * Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, rate = String(defaultMbit), directory, signal, say }) {
  const mbit = Number(rate)
  if (!(mbit > 0)) throw new Error(`--rate takes a number of Mbit/s, not ${rate}`)
  const [sizeBytes] = sizes
  const fast = { up: fastMbit, down: fastMbit }
  const lab = await openLab({ origin: fast, tracker: fast, peer: fast, downloader: fast }, { rttMs })
  const scene = await setScene(lab, directory, sizeBytes)
  const rows = []
  const errors = []
  const data = {}
  for (const [ofOrigin, ofPeer] of shares) {
    lab.setRates('origin', { up: mbit * ofOrigin })
    lab.setRates('peer', { up: mbit * ofPeer })
    const title = `${mbit * ofOrigin} and ${mbit * ofPeer}`
    const results = await measureInTurns(legs(scene), runs, {
      signal,
      warmups: 0,
      say: (text) => say(`origin and peer ${title} Mbit/s: ${text}`),
    })
    data[title] = results
    for (const { name: leg, failure } of results) {
      if (failure !== undefined) errors.push(`${title} Mbit/s, ${leg}: ${failure}`)
    }
    if (results.every(({ failure }) => failure === undefined)) rows.push(rowOf(title, sizeBytes, results))
  }
  await scene.end()
  await lab.close()
  return {
    settings: {
      file: showSize(sizeBytes),
      links: `up as below, ${fastMbit} Mbit/s otherwise, ${rttMs} ms round trip`,
      runs: `${runs} of each in turns`,
    },
    tables: [
      {
        header: [
          'origin and peer Mbit/s',
          'HTTP MB/s',
          'peer MB/s',
          'both MB/s',
          'both / sum',
          'both / better',
          'from the peer',
        ],
        rows,
      },
    ],
    errors,
    notes: [
      'Goodput of the whole call, medians and quartiles: file size over the seconds from the call to its return. Ratios are of',
      'medians of this run. HTTP alone: p2p off; peer alone: HTTP content off. Every file was compared afterwards.',
    ],
    data,
  }
}

async function setScene(lab, directory, sizeBytes) {
  const source = join(directory, name)
  await writePayload(source, sizeBytes)
  const origin = machineOf(lab, 'origin')
  const nginx = await startNginx({
    directory: join(directory, 'nginx'),
    ...origin,
    port: 8080,
    files: { [name]: source },
  })
  const hub = await startHub(origin, { [name]: source }, { [name]: nginx.url(name) })
  const trackers = await startTrackers(machineOf(lab, 'tracker'), join(directory, 'trackers'), ['only'])
  const tracker = trackers.urls.only
  const peer = machineOf(lab, 'peer')
  const seeding = { directory: join(directory, 'seeder'), endpoint: hub.url }
  await fillCache(peer, seeding)
  const seeder = await startSeeder(peer, { ...seeding, tracker })
  const downloader = await startDownloader(machineOf(lab, 'downloader'))
  const request = { directory, source, endpoint: hub.url, path: name }
  return {
    download: (config) => downloadOnce(downloader, { ...request, config: { tracker, ...config } }),
    end: async () => {
      await seeder.end()
      await Promise.all([nginx.child, hub.child, trackers.child, downloader].map((child) => child.end()))
    },
  }
}

function legs({ download }) {
  return [
    { name: 'HTTP', isOurs: true, run: () => download({ p2p: false }) },
    { name: 'peer', isOurs: true, run: () => download({ http: false }) },
    { name: 'both', isOurs: true, run: () => download({}) },
  ]
}

function rowOf(title, sizeBytes, results) {
  const goodputs = results.map(({ samples }) =>
    summary(samples.map(({ seconds }) => sizeBytes / 1e6 / seconds)),
  )
  const [http, peer, both] = goodputs.map(({ median }) => median)
  const fromPeer = summary(results[2].samples.map(({ bytes }) => bytes.p2p / sizeBytes)).median
  return [
    title,
    ...goodputs.map((goodput) => withQuartiles(goodput, 2)),
    times(both / (http + peer)),
    times(both / Math.max(http, peer)),
    `${(fromPeer * 100).toFixed(0)} %`,
  ]
}

await runIfMain(import.meta.url, benchmark)
