/** A Hub for programs under test, and two trackers: one that knows nothing, and one whose torrents somebody seeds. */
import { writeFile } from 'node:fs/promises'
import { type DemoHubFile, type HubServer, type RepoSpec, startHub } from '../../../src/demo/hub.ts'
import { requireAddon } from '../../../src/native/load.ts'
import { Swarm } from '../../../src/swarm/swarm.ts'
import { startTracker } from '../../../src/tracker/server/main.ts'
import { publishTorrent, untilSeeded } from '../../support/swarms.ts'
import { temporaryDirectory } from '../../support/temp-dir.ts'
import { registerUrl } from './program.ts'

/** Without the hook, with the hook where nobody has anything, with the hook and a peer that has every large file. */
export type Mode = 'unhooked' | 'hooked' | 'peers'
export const modes: readonly Mode[] = ['unhooked', 'hooked', 'peers']

/** How long all programs of a file may take together, on a machine that is busy. */
export const patienceMs = 240_000

/** Below this size no swarm is asked. */
const smallFileBytes = 1024 * 1024
/** Two addresses tie a torrent to its file: what comes through it is not compared with samples from the Hub. */
const publishers = ['127.0.0.1', '127.0.0.77']

export interface World extends AsyncDisposable {
  readonly hub: HubServer
  /** Base URL of the tracker that knows of peers. */
  readonly trackerUrl: string
  /** Of a new user, whose home is empty. */
  environment(mode: Mode): Record<string, string>
  /** Node's arguments for a program in this mode. */
  preload(mode: Mode): string[]
}

export async function newClientWorld(
  repos: readonly RepoSpec[],
  tokens: Readonly<Record<string, readonly string[]>> = {},
): Promise<World> {
  const folder = await temporaryDirectory()
  // Signed URLs are the same all the time, so that what programs see of them can be compared.
  const startedMs = Date.now()
  const hub = await startHub(repos, { tokens, now: () => startedMs })
  const tracker = (name: string) =>
    startTracker({ host: '127.0.0.1', port: 0, dataDir: `${folder.path}/${name}` })
  const quiet = await tracker('quiet')
  const busy = await tracker('busy')
  const seeder = await seed(largeFiles(hub), busy.url, folder.path)
  let homes = 0
  return {
    hub,
    trackerUrl: busy.url,
    environment: (mode) => ({
      HF_HOME: `${folder.path}/home${++homes}`,
      HF_ENDPOINT: hub.url,
      HF_P2P_TRACKER: mode === 'peers' ? busy.url : quiet.url,
      // A busy machine must not make us lose patience with a tracker or a peer that is there.
      HF_P2P_LOOKUP_TIMEOUT: '20',
      HF_P2P_HEAD_START: '20',
    }),
    preload: (mode) => (mode === 'unhooked' ? [] : ['--import', registerUrl]),
    [Symbol.asyncDispose]: async () => {
      await seeder.close()
      await Promise.all([hub.close(), quiet.close(), busy.close()])
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** What a swarm may have: the large files of public repositories. */
function largeFiles(hub: HubServer): DemoHubFile[] {
  return hub.repos
    .filter(({ spec }) => !spec.isGated && !spec.isPrivate)
    .flatMap(({ repo, spec }) => Object.keys(spec.files).map((path) => hub.file(path, { repo })))
    .filter(({ sizeBytes }) => sizeBytes >= smallFileBytes)
}

async function seed(files: readonly DemoHubFile[], trackerUrl: string, folder: string): Promise<Swarm> {
  const swarm = new Swarm(requireAddon(), {
    listen: ['127.0.0.77:0'],
    utp: false,
    maxDownloadBytesPerSecond: 0,
    maxUploadBytesPerSecond: 0,
    limitLocalPeers: false,
  })
  for (const file of files) {
    const path = `${folder}/${file.etag}`
    await writeFile(path, await file.bytes())
    const offer = await publishTorrent(trackerUrl, file, path, publishers)
    await swarm.join(offer, { path, mode: 'seed' })
  }
  await untilSeeded(trackerUrl, files)
  return swarm
}
