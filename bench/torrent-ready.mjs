/**
 * How long after the last byte of a download is its torrent there? From nginx over HTTP alone, the torrent made while the
 * file comes, and registered with a tracker that knows nothing yet.
 */
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { runIfMain, showSize } from './harness/command.mjs'
import { startNginx } from './harness/nginx.mjs'
import { withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'
import { downloadOnce, here, startDownloader, startHub, startTrackers } from './harness/world.mjs'

const mib = 2 ** 20
const goalMs = 200
const smallFile = 'small.safetensors'
const publishPath = '/api/v1/publish'

export const benchmark = {
  name: 'torrent-ready',
  question: 'how long after the last byte of an HTTP download is its torrent there?',
  needs: { programs: ['nginx'] },
  defaults: { runs: 7, sizes: '1GiB' },
  quick: { runs: 2, sizes: '64MiB' },
  roomFor: ({ sizes }) => 2 * Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, directory, signal, say }) {
  const report = { tables: [], goals: [], errors: [], data: {} }
  for (const sizeBytes of sizes) {
    const size = showSize(sizeBytes)
    const scene = await setScene(directory, sizeBytes, runs)
    const one = { name: `${size} over HTTP`, isOurs: true, run: () => downloadAndPublish(scene) }
    const [{ samples, failure }] = await measureInTurns([one], runs, { signal, say })
    await scene.end()
    report.data[size] = samples
    if (failure !== undefined) report.errors.push(`${size}: ${failure}`)
    else judge(size, samples, report)
  }
  return {
    ...report,
    settings: {
      path: 'Hub (redirects) and nginx on 127.0.0.1, each run in a process of its own, an empty cache, a new tracker',
    },
    notes: [
      'Medians, quartiles and the worst. The last byte: when nginx had given it to the kernel (its log), or when the download',
      'told of it, whichever was first. The torrent: when its file had its name, by its inode, to the nearest 4 ms.',
    ],
  }
}

async function setScene(directory, sizeBytes, runs) {
  const name = `model-${sizeBytes}.safetensors`
  const files = { [name]: join(directory, name), [smallFile]: join(directory, smallFile) }
  await writePayload(files[name], sizeBytes)
  await writePayload(files[smallFile], mib)
  const nginx = await startNginx({ directory: join(directory, `nginx-${sizeBytes}`), ...here, files })
  const storage = Object.fromEntries(Object.keys(files).map((file) => [file, nginx.url(file)]))
  const hub = await startHub(here, files, storage)
  // One for each run and for the warm-up: a torrent that is known already is fetched, not made.
  const names = Array.from({ length: runs + 1 }, (_, index) => `${sizeBytes}-${index}`)
  const trackers = await startTrackers(here, directory, names)
  const gate = await openGate()
  const unused = Object.values(trackers.urls)
  return {
    nginx,
    gate,
    nextTracker: () => unused.shift(),
    request: { directory, source: files[name], endpoint: hub.url, path: name },
    small: { directory, source: files[smallFile], endpoint: hub.url, path: smallFile },
    end: async () => {
      await Promise.all([nginx.child.end(), hub.child.end(), trackers.child.end(), gate.close()])
      rmSync(files[name])
    },
  }
}

/** Stands before a tracker, and notes when a registration arrives. */
async function openGate() {
  const gate = { target: undefined, publishedAt: undefined }
  const server = createServer((request, response) => {
    if (request.url === publishPath) gate.publishedAt ??= Date.now()
    void forward(gate.target, request, response)
  }).listen(0, here.host)
  await once(server, 'listening')
  gate.url = `http://${here.host}:${server.address().port}`
  gate.close = () => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  }
  return gate
}

async function forward(target, request, response) {
  try {
    const parts = []
    for await (const part of request) parts.push(part)
    const type = request.headers['content-type']
    const answer = await fetch(target + request.url, {
      method: request.method,
      ...(type && { headers: { 'content-type': type } }),
      ...(parts.length > 0 && { body: Buffer.concat(parts) }),
    })
    const body = Buffer.from(await answer.arrayBuffer())
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' })
    response.end(body)
  } catch {
    response.destroy()
  }
}

async function downloadAndPublish({ nginx, gate, nextTracker, request, small }) {
  const child = await startDownloader(here, 'publisher')
  try {
    await downloadOnce(child, small)
    gate.target = nextTracker()
    gate.publishedAt = undefined
    const sample = await downloadOnce(child, { ...request, tracker: gate.url })
    const { seconds, allAt, resolvedAt, torrentAt, bytes } = sample
    if (bytes.p2p > 0) throw new Error(`${bytes.p2p} bytes came from peers, and there are none`)
    // A request that was given up is logged too, perhaps after the last byte.
    const lastByteAt = Math.min(nginx.lastSentAt(), allAt)
    return {
      seconds,
      named: resolvedAt - lastByteAt,
      torrent: torrentAt - lastByteAt,
      published: gate.publishedAt - lastByteAt,
    }
  } finally {
    await child.end()
  }
}

function judge(size, samples, { tables, goals }) {
  const row = (name, figure) => {
    const all = over(samples, figure)
    return [name, withQuartiles(all, 0), all.max.toFixed(0)]
  }
  const runs = `${samples.length} ${samples.length === 1 ? 'run' : 'runs'}`
  const whole = `the whole call ${withQuartiles(over(samples, 'seconds'), 3)} s`
  tables.push({
    title: `${size} over HTTP, ${runs}; ${whole}`,
    header: ['', 'ms after the last byte', 'worst'],
    rows: [
      row('the call has returned', 'named'),
      row('the torrent is there', 'torrent'),
      row('its registration arrives at the tracker', 'published'),
    ],
  })
  const { median, max } = over(samples, 'torrent')
  const text = `(3) ${size}: the torrent is there ${median.toFixed(0)} ms after the last byte (worst ${max.toFixed(0)} ms)`
  goals.push({ isMet: median <= goalMs, text: `${text}, goal <= ${goalMs} ms` })
}

await runIfMain(import.meta.url, benchmark)
