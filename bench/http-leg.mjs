/** How good is our HTTP download by itself? From nginx on loopback, into the cache, compared with the Hub's digest. */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { runIfMain, showSize } from './harness/command.mjs'
import { startNginx } from './harness/nginx.mjs'
import { childrenCpuSeconds } from './harness/process.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { writePayload } from './harness/workspace.mjs'
import { downloadOnce, here, startDownloader, startHub, WrongDownload } from './harness/world.mjs'

const runProgram = promisify(execFile)
const gib = 2 ** 30
const mib = 2 ** 20
const ours = 'llmpt-native, HTTP alone'
const hubClient = '@huggingface/hub'
const curl = 'curl, then openssl sha256'
const goal = { speedToHubClient: 1.7, timeToCurl: 1.15, loopDelayMs: 10 }
const smallFile = 'small.safetensors'

export const benchmark = {
  name: 'http-leg',
  question:
    'how fast is our own HTTP download, digest included, against the JavaScript client and against curl?',
  needs: { programs: ['nginx', 'curl', 'openssl'] },
  defaults: { runs: 7, sizes: '1GiB' },
  quick: { runs: 2, sizes: '64MiB' },
  roomFor: ({ sizes }) => 2 * Math.max(...sizes) + 2 ** 26,
  run,
}

async function run({ runs, sizes, directory, signal, say }) {
  const tables = []
  const goals = []
  const errors = []
  const failures = []
  const data = {}
  for (const sizeBytes of sizes) {
    const size = showSize(sizeBytes)
    const scene = await setScene(directory, sizeBytes)
    const results = await measureInTurns(
      [
        { name: ours, isOurs: true, run: () => downloadWith('downloader', scene, { p2p: false }) },
        { name: hubClient, run: () => downloadWith('hub-client', scene) },
        { name: curl, run: () => downloadWithCurl(scene, directory) },
      ],
      runs,
      { signal, say },
    )
    await scene.end()
    data[size] = results
    for (const { name, isOurs, failure } of results) {
      if (failure !== undefined) (isOurs ? errors : failures).push(`${size}, ${name}: ${failure}`)
    }
    const complete = results.filter(({ failure }) => failure === undefined)
    tables.push(tableOf(`${size}, ${runs} runs of each in turns`, sizeBytes, complete))
    judge(size, complete, goals)
  }
  return {
    settings: {
      path: 'Hub (redirects) and nginx on 127.0.0.1, each run in a process of its own, an empty cache',
    },
    tables,
    goals,
    errors,
    failures,
    notes: [
      `Medians and quartiles. ${hubClient} compares nothing with the digest; curl writes a file that openssl then reads.`,
      'The Node processes have downloaded 1 MiB before. RSS is the most in the life of the process, Node included.',
      'Loop delay: 99th percentile of how late the event loop was, looked at every millisecond of the call.',
    ],
    data,
  }
}

async function setScene(directory, sizeBytes) {
  const name = `model-${sizeBytes}.safetensors`
  const files = { [name]: join(directory, name), [smallFile]: join(directory, smallFile) }
  await writePayload(files[name], sizeBytes)
  await writePayload(files[smallFile], mib)
  const nginx = await startNginx({ directory: join(directory, `nginx-${sizeBytes}`), ...here, files })
  const storage = Object.fromEntries(Object.keys(files).map((file) => [file, nginx.url(file)]))
  const hub = await startHub(here, files, storage)
  return {
    request: { directory, source: files[name], endpoint: hub.url, path: name },
    small: { directory, source: files[smallFile], endpoint: hub.url, path: smallFile },
    sha256: hub.files[name].etag,
    end: async () => {
      await Promise.all([nginx.child.end(), hub.child.end()])
      rmSync(files[name])
    },
  }
}

async function downloadWith(kind, { request, small }, config = {}) {
  const child = await startDownloader(here, kind)
  try {
    await downloadOnce(child, { ...small, config })
    const sample = await downloadOnce(child, { ...request, config })
    return { ...sample, ...(await child.ask('usage')) }
  } finally {
    await child.end()
  }
}

async function downloadWithCurl({ request, sha256 }, directory) {
  const target = join(directory, 'curl.out')
  const url = `${request.endpoint}/acme/bench/resolve/main/${request.path}`
  const before = childrenCpuSeconds()
  const startedAt = performance.now()
  try {
    await runProgram('curl', ['--silent', '--show-error', '--fail', '--location', '--output', target, url])
    const { stdout } = await runProgram('openssl', ['dgst', '-sha256', target])
    const seconds = (performance.now() - startedAt) / 1000
    if (!stdout.trim().endsWith(sha256)) throw new WrongDownload('curl brought something else')
    return { seconds, cpuSeconds: childrenCpuSeconds() - before }
  } finally {
    rmSync(target, { force: true })
  }
}

function tableOf(title, sizeBytes, results) {
  const base = results.find(({ name }) => name === ours)
  return {
    title,
    header: ['', 'seconds', 'MB/s', 'our speed / its', 'CPU s/GiB', 'RSS MiB', 'loop delay ms'],
    rows: results.map(({ name, samples }) => {
      const seconds = over(samples, 'seconds')
      const has = (figure) => samples[0][figure] !== undefined
      return [
        name,
        withQuartiles(seconds, 3),
        (sizeBytes / 1e6 / seconds.median).toFixed(0),
        base === undefined ? '' : times(seconds.median / over(base.samples, 'seconds').median),
        (over(samples, 'cpuSeconds').median / (sizeBytes / gib)).toFixed(2),
        has('peakMemoryBytes') ? (over(samples, 'peakMemoryBytes').median / mib).toFixed(0) : '',
        has('loopDelayMs') ? withQuartiles(over(samples, 'loopDelayMs'), 1) : '',
      ]
    }),
  }
}

function judge(size, results, goals) {
  const of = (wanted) => results.find(({ name }) => name === wanted)?.samples
  const [mine, theirs, plain] = [of(ours), of(hubClient), of(curl)]
  if (mine === undefined) return
  const seconds = over(mine, 'seconds').median
  const add = (isMet, text) => goals.push({ isMet, text: `${size}, ${text}` })
  if (theirs !== undefined) {
    const ratio = over(theirs, 'seconds').median / seconds
    add(
      ratio >= goal.speedToHubClient,
      `speed ${times(ratio)} of ${hubClient}, goal >= ${goal.speedToHubClient}`,
    )
  }
  if (plain !== undefined) {
    const ratio = seconds / over(plain, 'seconds').median
    add(ratio <= goal.timeToCurl, `time ${times(ratio)} of curl and openssl, goal <= ${goal.timeToCurl}`)
  }
  const delay = over(mine, 'loopDelayMs').median
  add(delay <= goal.loopDelayMs, `loop delay ${delay.toFixed(1)} ms, goal <= ${goal.loopDelayMs} ms`)
}

await runIfMain(import.meta.url, benchmark)
