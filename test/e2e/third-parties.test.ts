/** Other people's programs on the other end of the wire. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { describe, expect, test } from 'vitest'
import { noiseBytes, startHub } from '../../src/demo/hub.ts'
import { requireAddon } from '../../src/native/load.ts'
import { Swarm } from '../../src/swarm/swarm.ts'
import { createBlobTorrent, createTorrentOf } from '../../src/torrent/create.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import { sha256Of } from '../support/digest.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { newUser } from '../support/users.ts'

const sizeBytes = 5_000_003

function newSwarm(host: string): Swarm {
  return new Swarm(requireAddon(), {
    listen: [`${host}:0`],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: 0,
    limitLocalPeers: false,
  })
}

type Arguments = (torrent: string, dir: string) => string[]

const aria2: Arguments = (torrent, dir) => [
  ...['--seed-time=0', '--enable-dht=false', '--enable-dht6=false', '--bt-enable-lpd=false', '--quiet=true'],
  ...['--interface=127.0.0.1', '--enable-peer-exchange=false', `--dir=${dir}`, torrent],
]
const rtorrent: Arguments = (torrent, dir) => {
  const options = [
    ...['system.daemon.set=true', 'session.path.set=', 'dht.mode.set=disable', 'protocol.pex.set=no'],
    ...['network.bind_address.set=127.0.0.1', `directory.default.set=${dir}`, `load.start=${torrent}`],
  ]
  return ['-n', ...options.flatMap((option) => ['-o', option])]
}

describe('a torrent of ours, seeded by us', () => {
  // Debian 12's aria2 (1.36) computes a wrong info hash for every hybrid torrent, because of the empty key in
  // BEP 52's file tree (https://github.com/aria2/aria2/pull/1905); rtorrent does not mind it.
  test.each<[string, 'v1' | 'hybrid', Arguments]>([
    ['rtorrent', 'hybrid', rtorrent],
    ['aria2c', 'v1', aria2],
  ])('is downloaded by %s (%s)', async (program, format, argumentsFor) => {
    await using folder = await temporaryDirectory()
    await using tracker = await startTracker({
      host: '127.0.0.1',
      port: 0,
      dataDir: `${folder.path}/tracker`,
    })
    const source = `${folder.path}/source.bin`
    await writeFile(source, noiseBytes('hybrid', sizeBytes))
    const announceUrls = [tracker.announceUrl]
    const torrent = await createTorrentOf(requireAddon(), source, { name: 'got.bin', format, announceUrls })
    if (torrent === undefined) throw new Error('no torrent')
    const torrentPath = `${folder.path}/got.torrent`
    await writeFile(torrentPath, torrent.torrentFile)
    await using swarm = newSwarm('127.0.0.1')
    const joined = await swarm.join(
      { ...torrent, announceUrls, peers: [], isPromising: false, mayBeCrowd: false, isTied: false },
      { path: source, mode: 'seed' },
    )
    await announced(joined, format === 'hybrid' ? 2 : 1)
    const child = spawn(program, argumentsFor(torrentPath, folder.path), { stdio: 'ignore' })
    const exited = once(child, 'exit')
    const wanted = await sha256Of(source)
    const got = (): Promise<string> => sha256Of(`${folder.path}/got.bin`).catch(() => '')
    // Only aria2 ends by itself. The file is complete some time after its last byte has left us.
    while ((await got()) !== wanted) await new Promise((resolve) => setImmediate(resolve))
    child.kill('SIGINT')
    await exited
    expect(await got()).toBe(wanted)
    expect((await joined?.status())?.payloadUpload).toBeGreaterThanOrEqual(sizeBytes)
  })
})

/** Until the tracker has answered the first announce of each info hash; a hybrid torrent has two. */
function announced(torrent: Awaited<ReturnType<Swarm['join']>>, hashes: number): Promise<void> {
  let replies = 0
  return new Promise((resolve) => {
    const stop = torrent?.onAlert((alert) => {
      if (alert.type === 'tracker_reply') replies += 1
      if (replies < hashes) return
      stop?.()
      resolve()
    })
  })
}

/** Seeds the file of a torrent until its input ends; says so once the tracker knows. */
const pythonSeeder = `
import libtorrent as lt, sys, os
torrent, path = sys.argv[1:3]
session = lt.session({'listen_interfaces': '127.0.0.77:0', 'enable_dht': False, 'enable_lsd': False,
  'enable_upnp': False, 'enable_natpmp': False, 'alert_mask': lt.alert.category_t.all_categories})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = os.path.dirname(path)
params.renamed_files = {0: path}
handle = session.add_torrent(params)
while True:
  session.wait_for_alert(1000)
  if any(isinstance(alert, lt.tracker_reply_alert) for alert in session.pop_alerts()): break
print('seeding', flush=True)
sys.stdin.read()
print(handle.status().total_payload_upload, flush=True)
`

test('a python3-libtorrent seeder is all a download needs', async () => {
  await using folder = await temporaryDirectory()
  await using hub = await startHub({ 'model.safetensors': { seed: 'python', sizeBytes } })
  await using tracker = await startTracker({ host: '127.0.0.1', port: 0, dataDir: `${folder.path}/tracker` })
  const file = hub.file('model.safetensors')
  const path = `${folder.path}/theirs`
  await writeFile(path, await file.bytes())
  const torrent = await createBlobTorrent(requireAddon(), path, file, { announceUrls: [tracker.announceUrl] })
  if (torrent === undefined) throw new Error('no torrent')
  await writeFile(`${path}.torrent`, torrent.torrentFile)
  await new TrackerClient({ url: tracker.url }).publish({ ...file, ...torrent })
  const child = spawn('/usr/bin/python3', ['-c', pythonSeeder, `${path}.torrent`, path], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  expect((await lines.next()).value).toBe('seeding')
  await hub.setAvailability('cdn', 'refused')
  await using user = await newUser({ endpoint: hub.url, trackers: [tracker.url] })
  const got = await user.client.downloadFile(hub.ref('model.safetensors'))
  expect(got.bytes).toEqual({ p2p: sizeBytes, http: 0, cache: 0 })
  expect(await sha256Of(got.path)).toBe(file.sha256)
  const exited = once(child, 'exit')
  child.stdin.end()
  expect(Number((await lines.next()).value)).toBeGreaterThanOrEqual(sizeBytes)
  await exited
})
