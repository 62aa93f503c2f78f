/**
 * What others learn of files that not everybody may have: nothing. Somebody with a token uses every way there is to get
 * files of a private, a gated and a public repository, and seeds. Meanwhile everything that is said to the tracker is
 * recorded, a peer that has all files and is known to that tracker says who comes for what, another one asks for all of
 * them, and every origin keeps the headers it was sent.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { type DemoHubFile, type FileTree, type HubServer, startHub } from '../../src/demo/hub.ts'
import { requireAddon } from '../../src/native/load.ts'
import { createBlobTorrent } from '../../src/torrent/create.ts'
import { TrackerClient } from '../../src/tracker/client.ts'
import { startTracker } from '../../src/tracker/server/main.ts'
import type { PeerAddress, RepoRef } from '../../src/values.ts'
import { TalkingProgram } from '../support/lines.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { startWiretap } from '../support/wiretap.ts'

const token = 'hf_canarytokenofsomebody'
const sizeBytes = 200_000
const largeFiles = ['own.bin', 'sub/snapshot.bin', 'fetch.bin', 'hub.bin', 'xet.bin']
const repos = {
  private: { repo: 'umbra/vault', repoType: 'model' },
  gated: { repo: 'penumbra/turnstile', repoType: 'dataset' },
  public: { repo: 'acme/plaza', repoType: 'model' },
} as const
type Kind = keyof typeof repos
const kinds = Object.keys(repos) as Kind[]

function filesOf({ repo }: RepoRef): FileTree {
  const large = largeFiles.map((path) => {
    const content = { seed: `${repo} ${path}`, sizeBytes }
    return [path, { content, storage: path === 'xet.bin' ? 'xet' : 'lfs' }] as const
  })
  return { 'config.json': JSON.stringify({ repo }), ...Object.fromEntries(large) }
}

interface Known {
  /** `private own.bin` */
  readonly name: string
  readonly kind: Kind
  readonly file: DemoHubFile
  readonly infoHash: string
  readonly torrentPath: string
  readonly content: string
}

/** Every large file, with its torrent, on disk and at the tracker. */
async function publishAll(hub: HubServer, trackerUrl: string, folder: string): Promise<Known[]> {
  const tracker = new TrackerClient({ url: trackerUrl })
  const known: Known[] = []
  for (const kind of kinds) {
    for (const path of largeFiles) {
      const file = hub.file(path, repos[kind])
      const content = `${folder}/${file.etag}`
      await writeFile(content, await file.bytes())
      const torrent = await createBlobTorrent(requireAddon(), content, file)
      if (torrent === undefined) throw new Error('no torrent')
      await writeFile(`${content}.torrent`, torrent.torrentFile)
      await tracker.publish({ ...file, ...torrent })
      const { infoHash } = torrent
      known.push({
        name: `${kind} ${path}`,
        kind,
        file,
        infoHash,
        torrentPath: `${content}.torrent`,
        content,
      })
    }
  }
  return known
}

/** The addresses of those who seed all of `files`, as the tracker knows them, when there are any besides `host`. */
async function seedersOf(
  trackerUrl: string,
  files: readonly DemoHubFile[],
  host: string,
): Promise<PeerAddress> {
  const tracker = new TrackerClient({ url: trackerUrl })
  for (;;) {
    const found = await tracker.lookup(files)
    const others = files.map((file) => found.get(file.etag)?.[0]?.peers.find((peer) => peer.host !== host))
    const [first] = others
    if (first !== undefined && !others.includes(undefined)) return first
    await new Promise((next) => setImmediate(next))
  }
}

const script = (name: string): string => fileURLToPath(new URL(`fixtures/${name}.mjs`, import.meta.url))

test.each([
  ['nothing but the public one', [], {}],
  ['the private one as well, when it was named', ['private'], { HF_P2P_SHARE_PRIVATE: 'umbra/vault' }],
] as const)(
  'of three repositories others learn of %s',
  async (_what, named, env) => {
    await using folder = await temporaryDirectory()
    for (const name of ['known', 'wanted']) await mkdir(`${folder.path}/${name}`)
    const tokens = { [token]: [repos.private.repo, repos.gated.repo] }
    const specs = [
      { ...repos.private, files: filesOf(repos.private), isPrivate: true },
      { ...repos.gated, files: filesOf(repos.gated), isGated: true },
      { ...repos.public, files: filesOf(repos.public) },
    ]
    await using hub = await startHub(specs, { tokens })
    const mirrored = { 'mirrored.bin': { seed: 'mirrored', sizeBytes } }
    await using mirror = await startHub([{ repo: 'acme/mirrored', files: mirrored }])
    await using tracker = await startTracker({ dataDir: `${folder.path}/tracker`, trustProxy: true })
    await using tap = await startWiretap(tracker.url)
    const known = await publishAll(hub, tracker.url, `${folder.path}/known`)
    const insiderHost = '127.0.2.1'
    const announceUrl = `${tracker.url}/announce`
    await using insider = new TalkingProgram(script('insider'), {
      host: insiderHost,
      announceUrl,
      torrents: known,
    })
    await seedersOf(
      tracker.url,
      known.map(({ file }) => file),
      '',
    )
    hub.resetStats()
    const isShared = (kind: Kind): boolean => kind === 'public' || (named as readonly Kind[]).includes(kind)
    const shared = known.filter(({ kind }) => isShared(kind))

    await using user = new TalkingProgram(
      script('leak-user'),
      {
        host: '127.0.2.2',
        hubUrl: hub.url,
        mirrorUrl: mirror.url,
        repos: Object.values(repos),
        // A small file comes with each snapshot.
        seeds: shared.length + kinds.filter(isShared).length,
      },
      {
        HF_HOME: `${folder.path}/home`,
        HF_ENDPOINT: hub.url,
        HF_TOKEN: token,
        HF_P2P_TRACKER: tap.url,
        // A busy machine must not make HTTP lose patience with a peer that is there.
        HF_P2P_HEAD_START: '20',
        ...env,
      },
    )
    const { got } = await user.line((line) => 'got' in line)
    const { seeded } = await user.line((line) => 'seeded' in line)
    // Everything came, however it was shared.
    expect.soft(got).toEqual([...known.map(({ file }) => file.sha256), mirror.file('mirrored.bin').sha256])
    const small = kinds.filter(isShared).map((kind) => hub.file('config.json', repos[kind]))
    expect
      .soft((seeded as string[]).toSorted())
      .toEqual(
        [...shared.map(({ file }) => file), ...small]
          .map(({ repo, path }) => `seeding ${repo}/${path}`)
          .toSorted(),
      )

    // The user came to the peer that has everything for what is shared.
    for (const kind of kinds.filter(isShared)) {
      await insider.line(({ type, name }) => type === 'peer_connect' && kindOf(name) === kind)
    }

    // A peer that asks the user for each of them is given what is shared.
    const address = await seedersOf(
      tracker.url,
      shared.map(({ file }) => file),
      insiderHost,
    )
    const torrents = known.map((each) => ({
      ...each,
      content: `${folder.path}/wanted/${each.file.etag}`,
      peers: [address],
    }))
    await using asker = new TalkingProgram(script('insider'), { host: '127.0.2.3', torrents })
    for (const each of known) {
      const isGiven = shared.includes(each)
      const types = isGiven ? ['torrent_finished'] : ['torrent_finished', 'peer_disconnected']
      const line = await asker.line(({ type, name }) => name === each.name && types.includes(String(type)))
      expect.soft([each.name, line['type']]).toEqual([each.name, types.at(-1)])
    }
    await asker.end()
    await user.end()
    await insider.end()

    // The tracker heard of what is shared, by etag and info hash, and never a name or a token.
    const said = tap.said()
    for (const { name, kind, file, infoHash } of known) {
      expect.soft([name, said.includes(file.etag)]).toEqual([name, isShared(kind)])
      expect.soft([name, said.includes(infoHash.slice(0, 40))]).toEqual([name, isShared(kind)])
    }
    for (const word of ['umbra', 'vault', 'turnstile', 'plaza', 'own.bin', 'snapshot.bin', token.slice(3)]) {
      expect
        .soft([word, said.includes(word), said.includes(Buffer.from(word).toString('hex'))])
        .toEqual([word, false, false])
    }

    // Nobody came to the peer that has everything for anything else.
    const visited = insider.lines
      .filter(({ type }) => type === 'peer_connect')
      .map(({ name }) => kindOf(name))
    expect.soft([...new Set(visited)].toSorted()).toEqual(kinds.filter(isShared).toSorted())

    // The token went to the Hub, and to no other origin.
    expect.soft(hub.stats('hub').authorized).toBeGreaterThan(0)
    expect.soft(JSON.stringify(hub.requests('hub'))).toContain(token)
    const others = [...hub.requests('cdn'), ...hub.requests('cas'), ...mirror.requests()]
    for (const origin of ['cdn', 'cas'] as const) expect(hub.requests(origin).length).toBeGreaterThan(0)
    expect.soft(mirror.requests('hub').length).toBeGreaterThan(0)
    expect.soft(JSON.stringify(others)).not.toContain(token)
  },
  60_000,
)

/** `private own.bin`: `private` */
function kindOf(name: unknown): string {
  return String(name).split(' ')[0] ?? ''
}
