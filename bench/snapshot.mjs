/**
 * How fast is a whole repository of many files here? Cold, warm and after an interruption, in turns with the JavaScript
 * client's own `snapshotDownload`.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { open, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { runIfMain } from './harness/command.mjs'
import { openLab } from './harness/lab.mjs'
import { startNginx } from './harness/nginx.mjs'
import { times, withQuartiles } from './harness/report.mjs'
import { measureInTurns, over } from './harness/rounds.mjs'
import { haveSameContent, writePayload } from './harness/workspace.mjs'
import { here, machineOf, startDownloader, startHub, WrongDownload } from './harness/world.mjs'

const [kib, mib] = [2 ** 10, 2 ** 20]
/** Fast enough that it is not what the JavaScript client waits for. */
const link = { mbitPerSecond: 1000, rttMs: 20 }
const goal = { cold: 3, warm: 10 }
const ours = 'llmpt-native'
const theirs = '@huggingface/hub'
const callMs = 300_000
/** Sizes are spread evenly over the logarithms between `from` and `to`. What is large is in large-file storage. */
const kinds = [
  { count: 150, from: kib, to: 256 * kib, name: (at) => `data/part-${at}.json` },
  { count: 38, from: mib, to: 8 * mib, name: (at) => `shards/shard-${at}.safetensors` },
  { count: 12, from: 16 * mib, to: 64 * mib, name: (at) => `model-${at}.safetensors` },
]
const cases = [
  { key: 'cold', name: 'cold' },
  { key: 'warm', name: 'warm' },
  { key: 'commit', name: 'warm, by commit' },
  { key: 'resumed', name: 'resumed' },
]

export const benchmark = {
  name: 'snapshot',
  question: 'how fast does a repository of 200 files arrive, against the JavaScript client?',
  needs: { root: true, programs: ['nginx', 'ip', 'chrt', 'g++'] },
  defaults: { runs: 5 },
  quick: { runs: 1 },
  options: { place: { type: 'string', help: 'only "link" or only "loopback" (snapshot)' } },
  roomFor: () => 2 * sum(repository(false).map(({ sizeBytes }) => sizeBytes)) + 2 ** 27,
  run,
}

async function run({ runs, place: only, directory, signal, say, isQuick }) {
  const repo = repository(isQuick)
  const files = await writeFiles(join(directory, 'source'), repo)
  const rate = link.mbitPerSecond
  const places = [
    { key: 'link', name: `${rate} Mbit/s, ${link.rttMs} ms round trip`, open: openLink },
    {
      key: 'loopback',
      name: 'loopback',
      open: async () => ({ origin: here, user: here, close: async () => {} }),
    },
  ].filter(({ key }) => only === undefined || key === only)
  const report = { tables: [], goals: [], errors: [], failures: [], data: {} }
  for (const { key, name, open: openPlace } of places) {
    const place = await openPlace()
    const scene = await setScene(place, { directory: join(directory, key), repo, files })
    const results = await measureInTurns(
      [
        { name: ours, isOurs: true, run: () => runOnce(scene, 'downloader', interruptOurs) },
        { name: theirs, run: () => runOnce(scene, 'hub-client', interruptTheirs) },
      ],
      runs,
      { signal, say: (text) => say(`${name}: ${text}`) },
    )
    await scene.end()
    await place.close()
    for (const { name: who, isOurs, failure } of results) {
      if (failure !== undefined)
        (isOurs ? report.errors : report.failures).push(`${name}, ${who}: ${failure}`)
    }
    report.data[key] = results
    const [mine, other] = results.map(({ failure, samples }) => (failure === undefined ? samples : undefined))
    report.tables.push(tableOf(`${name}, ${runs} runs of each in turns`, mine, other))
    if (key === 'link' && mine !== undefined && other !== undefined) judge(mine, other, report.goals)
  }
  return { ...report, settings: settingsOf(repo), notes }
}

const notes = [
  'Seconds of the call, medians and quartiles, each client in a process of its own that has downloaded before.',
  'Requests: to the API, for where a file is (resolve), for small files at the Hub, and to storage; MB from storage.',
  'Resumed: every second file is there, and half of the largest of the others. Every file was compared afterwards.',
  `What limits the link: ${link.mbitPerSecond} Mbit/s for ours; for ${theirs}, one request after the other.`,
]

function settingsOf(repo) {
  const total = sum(repo.map(({ sizeBytes }) => sizeBytes))
  const text = kinds.map(({ count, from, to }) => `${count} of ${show(from)} to ${show(to)}`).join(', ')
  return { repository: `${repo.length} files, ${(total / 1e6).toFixed(0)} MB: ${text}` }
}

/** The files of the repository: the same in every run, no two with the same content. */
function repository(isQuick) {
  const shrink = isQuick ? 10 : 1
  return kinds.flatMap(({ count, from, to, name }) => {
    const many = Math.ceil(count / shrink)
    return Array.from({ length: many }, (_, at) => {
      const exact = from * (to / from) ** (many === 1 ? 0 : at / (many - 1))
      return { path: name(at), sizeBytes: Math.round(exact), isLarge: from >= mib }
    })
  })
}

/** @returns {Promise<Record<string, string>>} Where they are, by path. */
async function writeFiles(folder, repo) {
  const files = {}
  for (const { path, sizeBytes } of repo) {
    files[path] = join(folder, path)
    mkdirSync(dirname(files[path]), { recursive: true })
    await writePayload(files[path], sizeBytes)
  }
  return files
}

async function openLink() {
  const rate = link.mbitPerSecond
  const lab = await openLab(
    { origin: { up: rate, down: rate }, user: { up: rate, down: rate } },
    { rttMs: link.rttMs },
  )
  return { origin: machineOf(lab, 'origin'), user: machineOf(lab, 'user'), close: () => lab.close() }
}

async function setScene({ origin, user }, { directory, repo, files }) {
  // nginx knows them by names without folders.
  const large = repo.filter(({ isLarge }) => isLarge).map(({ path }) => [path, path.replaceAll('/', '_')])
  const nginx = await startNginx({
    directory: join(directory, 'nginx'),
    ...origin,
    ...(origin !== here && { port: 8080 }),
    files: Object.fromEntries(large.map(([path, name]) => [name, files[path]])),
  })
  const storage = Object.fromEntries(large.map(([path, name]) => [path, nginx.url(name)]))
  const hub = await startHub(origin, files, storage)
  return {
    directory,
    user,
    repo,
    files,
    hub,
    nginx,
    end: () => Promise.all([nginx.child.end(), hub.child.end()]),
  }
}

/** One client's whole life with one cache: empty, complete, complete and asked for by commit, and half complete. */
async function runOnce(scene, kind, interruptWith) {
  const { directory, user, hub } = scene
  const home = mkdtempSync(join(directory, 'home-'))
  const child = await startDownloader(user, kind)
  try {
    const counted = (revision) => snapshotCounted(scene, child, { home, revision })
    // Modules are loaded and the code is warm; what it fetched is gone.
    await counted('main')
    rmSync(home, { recursive: true, force: true })
    const cold = await counted('main')
    await compare(scene, cold.path)
    const warm = await counted('main')
    const commit = await counted(hub.commit)
    const left = await removeHalf(scene, home)
    await interruptWith({ ...scene, child, home, file: left.largest })
    const resumed = await counted('main')
    await compare(scene, resumed.path)
    return { cold, warm, commit, resumed }
  } finally {
    await child.end()
    rmSync(home, { recursive: true, force: true, maxRetries: 3 })
  }
}

async function snapshotCounted({ hub, nginx }, child, { home, revision }) {
  await nginx.settledBytesSent()
  await hub.child.ask('requests')
  const before = { requests: nginx.requests(), bytes: nginx.bytesSent() }
  const config = { p2p: false }
  const sample = await child.ask('snapshot', { home, endpoint: hub.url, revision, config }, callMs)
  const bytes = (await nginx.settledBytesSent()) - before.bytes
  const asked = await hub.child.ask('requests')
  return { ...sample, ...asked, storage: nginx.requests() - before.requests, storageBytes: bytes }
}

async function compare({ repo, files }, folder) {
  for (const { path } of repo) {
    if (!(await haveSameContent(files[path], join(folder, path))))
      throw new WrongDownload(`${path} is not what was sent`)
  }
}

/** Removes every second file from a cache. @returns The largest of those. */
async function removeHalf({ repo, hub }, home) {
  const removed = repo.filter((_, at) => at % 2 === 1)
  for (const { path } of removed) {
    await rm(join(folderOf(home), 'snapshots', hub.commit, path))
    await rm(join(folderOf(home), 'blobs', hub.files[path].etag))
  }
  return { largest: removed.at(-1) }
}

function folderOf(home) {
  return join(home, 'hub', 'models--acme--bench')
}

async function interruptOurs({ child, hub, home, file }) {
  const config = { p2p: false }
  await child.ask('interrupt', { home, endpoint: hub.url, path: file.path, share: 0.5, config }, callMs)
}

/** What it leaves when its connection is cut. */
async function interruptTheirs({ files, hub, home, file }) {
  const source = await open(files[file.path])
  try {
    const half = Buffer.alloc(Math.floor(file.sizeBytes / 2))
    await source.read(half, 0, half.length, 0)
    await writeFile(join(folderOf(home), 'blobs', `${hub.files[file.path].etag}.incomplete`), half)
  } finally {
    await source.close()
  }
}

function tableOf(title, mine, other) {
  const figures = (samples, key) => samples?.map((sample) => sample[key])
  const seconds = (samples) => (samples === undefined ? '' : withQuartiles(over(samples, 'seconds'), 3))
  return {
    title,
    header: [
      '',
      'ours s',
      `${theirs} s`,
      'its / ours',
      'our requests',
      'its requests',
      'our MB',
      'its MB',
      'our CPU s',
      'its CPU s',
    ],
    rows: cases.map(({ key, name }) => {
      const [a, b] = [figures(mine, key), figures(other, key)]
      const both = [a, b]
      return [
        name,
        ...both.map(seconds),
        a && b ? times(over(b, 'seconds').median / over(a, 'seconds').median) : '',
        ...both.map(requestsOf),
        ...both.map((samples) => (samples ? (over(samples, 'storageBytes').median / 1e6).toFixed(0) : '')),
        ...both.map((samples) => (samples ? over(samples, 'cpuSeconds').median.toFixed(2) : '')),
      ]
    }),
  }
}

/** `2 + 200 + 150 + 62`, as the notes say. */
function requestsOf(samples) {
  if (samples === undefined) return ''
  return ['api', 'resolve', 'small', 'storage'].map((what) => over(samples, what).median).join(' + ')
}

function judge(mine, other, goals) {
  for (const key of ['cold', 'warm']) {
    const of = (samples) =>
      over(
        samples.map((sample) => sample[key]),
        'seconds',
      ).median
    const ratio = of(other) / of(mine)
    goals.push({
      isMet: ratio >= goal[key],
      text: `${key}: ${times(ratio)} times as fast as ${theirs}, goal >= ${goal[key]}`,
    })
  }
}

function show(bytes) {
  return bytes >= mib ? `${bytes / mib} MiB` : `${bytes / kib} KiB`
}

function sum(numbers) {
  return numbers.reduce((total, one) => total + one, 0)
}

await runIfMain(import.meta.url, benchmark)
