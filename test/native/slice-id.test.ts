import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import bencode from 'bencode'
import { expect, test } from 'vitest'
import type { PeerSight } from '../../src/native/alerts.ts'
import type { AddTorrentParams, Session, Torrent } from '../../src/native/session.ts'
import type { InfoHash, PeerAddress } from '../../src/values.ts'
import { startBadPeer } from '../fakes/bad-peer.ts'
import { connectExtensionPeer, type ExtensionPeer } from '../fakes/extension-peer.ts'
import { addressOf, makeTorrent, nextAlert, openSession, someBytes, until } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

// libtorrent keeps one connection for each address, so whoever is connected to has their own. All others are 127.0.0.1.
const hosts = ['127.0.0.2', '127.0.0.3', '127.0.0.4'] as const
const blockLength = 16 * 1024
const ids = ['00112233445566ff', 'a0a1a2a3a4a5a6a7', '0000000000000000'] as const

interface Swarm extends AsyncDisposable {
  readonly folder: string
  readonly torrentFile: Uint8Array
  readonly infoHash: InfoHash
  /** The content, for who seeds it. */
  readonly path: string
}

async function newSwarm(sizeBytes = 200_000): Promise<Swarm> {
  const folder = await temporaryDirectory()
  const made = await makeTorrent(folder.path, someBytes(sizeBytes))
  return {
    folder: folder.path,
    torrentFile: made.torrentFile,
    infoHash: made.infoHashV2 as InfoHash,
    path: made.path,
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

/** A member of the swarm that has nothing, in its own session. */
async function enter(
  swarm: Swarm,
  session: Session,
  params: Partial<AddTorrentParams> = {},
): Promise<Torrent> {
  const { host } = await addressOf(session)
  return session.addTorrent({
    torrentFile: swarm.torrentFile,
    savePath: join(swarm.folder, host),
    ...params,
  })
}

async function seed(
  swarm: Swarm,
  session: Session,
  params: Partial<AddTorrentParams> = {},
): Promise<Torrent> {
  const torrent = await enter(swarm, session, {
    savePath: swarm.folder,
    renamedFiles: { 0: swarm.path },
    flags: { seed_mode: true },
    ...params,
  })
  await nextAlert(torrent, 'torrent_checked')
  return torrent
}

/** The one peer that a torrent has, once `matches` holds of it. */
async function sightOf(
  torrent: Torrent,
  matches: (peer: PeerSight) => boolean = () => true,
): Promise<PeerSight> {
  let found: PeerSight | undefined
  await until(async () => {
    const peers = await torrent.peers()
    expect(peers.length).toBeLessThan(2)
    found = peers.find(matches)
    return found !== undefined
  })
  return found as PeerSight
}

/** A peer in another process that waits until it has seen `count` ids. */
async function startPeer(
  swarm: Swarm,
  host: string,
  sliceId: string,
  count: number,
  peers: readonly PeerAddress[],
): Promise<PeerAddress & { seen(): Promise<string> } & AsyncDisposable> {
  const torrent = join(swarm.folder, 'torrent')
  await writeFile(torrent, swarm.torrentFile)
  const script = fileURLToPath(new URL('fixtures/slice-peer.mjs', import.meta.url))
  const child = spawn(
    process.execPath,
    [
      script,
      torrent,
      join(swarm.folder, host),
      host,
      sliceId,
      String(count),
      ...peers.map((peer) => `${peer.host}:${peer.port}`),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const exit = once(child, 'exit')
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    host,
    port: Number((await lines.next()).value),
    seen: async () => (await lines.next()).value ?? '',
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      expect(await exit).toEqual([0, null])
    },
  }
}

test('three processes learn the ids of each other, whoever connected to whom', async () => {
  await using swarm = await newSwarm()
  const [a, b, c] = ids
  await using first = await startPeer(swarm, hosts[0], a, 2, [])
  await using second = await startPeer(swarm, hosts[1], b, 2, [first])
  await using third = await startPeer(swarm, hosts[2], c, 2, [first, second])
  expect(await first.seen()).toBe([b, c].sort().join(' '))
  expect(await second.seen()).toBe([a, c].sort().join(' '))
  expect(await third.seen()).toBe([a, b].sort().join(' '))
})

test('a torrent without an id tells none and learns those of others', async () => {
  await using swarm = await newSwarm()
  await using named = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await using nameless = openSession({ listen_interfaces: `${hosts[1]}:0` })
  const listening = await enter(swarm, named, { sliceId: ids[0] })
  const torrent = await enter(swarm, nameless, { peers: [await addressOf(named)] })
  // Handshakes cross: what is known at one end has left it, and the other's answer comes with the first piece below.
  await sightOf(torrent, (peer) => peer.sliceId === ids[0])
  torrent.addPiece(0, someBytes(200_000).subarray(0, 32768))
  const sight = await sightOf(listening, (peer) => peer.numPieces === 1)
  expect(sight).not.toHaveProperty('sliceId')
})

test('each torrent of a session has its own id', async () => {
  await using swarm = await newSwarm()
  await using other = await newSwarm(100_000)
  await using left = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await using right = openSession({ listen_interfaces: `${hosts[1]}:0` })
  const peers = [await addressOf(left)]
  await enter(swarm, left, { sliceId: ids[0] })
  await enter(other, left, { sliceId: ids[1] })
  const one = await enter(swarm, right, { peers })
  const two = await enter(other, right, { peers })
  expect((await sightOf(one, (peer) => peer.sliceId !== undefined)).sliceId).toBe(ids[0])
  expect((await sightOf(two, (peer) => peer.sliceId !== undefined)).sliceId).toBe(ids[1])
})

test('ids are exchanged before the metadata of a magnet link is there', async () => {
  await using swarm = await newSwarm()
  await using left = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await using right = openSession({ listen_interfaces: `${hosts[1]}:0` })
  const magnet = `magnet:?xt=urn:btmh:1220${swarm.infoHash}`
  const savePath = join(swarm.folder, 'none')
  const one = await left.addTorrent({ magnet, savePath, sliceId: ids[0] })
  const two = await right.addTorrent({ magnet, savePath, sliceId: ids[1], peers: [await addressOf(left)] })
  expect(await sightOf(two, (peer) => peer.sliceId === ids[0])).toMatchObject({ isSeed: false, numPieces: 0 })
  expect(await sightOf(one, (peer) => peer.sliceId === ids[1])).toMatchObject({ isSeed: false, numPieces: 0 })
})

test('the id is 8 raw bytes at the top level of the extension handshake', async () => {
  await using swarm = await newSwarm()
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await enter(swarm, session, { sliceId: ids[0] })
  await using peer = await connectExtensionPeer(hosts[1], await addressOf(session), swarm.infoHash)
  const handshake = bencode.decode(await peer.theirHandshake) as Record<string, Uint8Array>
  expect(Buffer.from(handshake['llmpt_slice'] ?? []).toString('hex')).toBe(ids[0])
})

test('without an id the handshake does not mention it', async () => {
  await using swarm = await newSwarm()
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await enter(swarm, session)
  await using peer = await connectExtensionPeer(hosts[1], await addressOf(session), swarm.infoHash)
  expect((await peer.theirHandshake).includes('llmpt_slice')).toBe(false)
})

/** A session that is connected to a peer of the test's, which then has said `payloads` and been heard. */
async function afterHandshakes(
  payloads: readonly Uint8Array[],
  then: (sight: PeerSight, peer: ExtensionPeer, torrent: Torrent) => Promise<void> | void,
): Promise<void> {
  await using swarm = await newSwarm()
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  const torrent = await enter(swarm, session, { sliceId: ids[0] })
  await using peer = await connectExtensionPeer(hosts[1], await addressOf(session), swarm.infoHash)
  for (const payload of payloads) peer.sendHandshake(payload)
  peer.sendHave(0)
  await then(await sightOf(torrent, (one) => one.numPieces === 1), peer, torrent)
}

const good = Buffer.from(ids[1], 'hex')
const withId = (value: string | Uint8Array): Buffer =>
  Buffer.concat([Buffer.from('d11:llmpt_slice'), Buffer.from(value), Buffer.from('1:md8:lt_otheri7eee')])
const text = (bytes: Uint8Array): Buffer => Buffer.concat([Buffer.from(`${bytes.length}:`), bytes])

test('a foreign implementation that sends 8 bytes is understood', async () => {
  await afterHandshakes([withId(text(good))], (sight) => {
    expect(sight.sliceId).toBe(ids[1])
  })
})

test.each<[string, Uint8Array]>([
  ['7 bytes', withId(text(good.subarray(1)))],
  ['9 bytes', withId(text(Buffer.concat([good, good.subarray(0, 1)])))],
  ['no bytes', withId(text(Buffer.alloc(0)))],
  ['16 hex digits', withId(text(Buffer.from(ids[1])))],
  ['half a megabyte', withId(text(Buffer.alloc(500_000, 'x')))],
  ['an integer', withId('i12345678e')],
  ['an integer without end', withId(`i${'9'.repeat(1000)}e`)],
  ['a list of 8 bytes', withId(Buffer.concat([Buffer.from('l'), text(good), Buffer.from('e')]))],
  ['a dictionary', withId('d1:ai1ee')],
  ['the id among the messages', Buffer.from('d1:md11:llmpt_slicei1eee')],
  ['a list instead of a dictionary', Buffer.from('l11:llmpt_slice8:aaaaaaaae')],
  ['a dictionary that ends in the middle', withId(text(good)).subarray(0, 20)],
  ['a string longer than the message', Buffer.from('d11:llmpt_slice99999999:aaaaaaaae')],
  ['deep nesting', withId('l'.repeat(5000) + 'e'.repeat(5000))],
  ['no bencoding', Buffer.from('\0\xff\xfe garbage')],
  ['nothing', Buffer.alloc(0)],
])('a peer that says %s has no id, and is a peer like any other', async (_, payload) => {
  await afterHandshakes([payload], async (sight, peer, torrent) => {
    expect(sight).not.toHaveProperty('sliceId')
    expect(sight).toMatchObject({ ...peer.address, isInteresting: true, isChoking: true })
    // The next handshake of the same connection is read as ever.
    peer.sendHandshake(withId(text(good)))
    await sightOf(torrent, (one) => one.sliceId === ids[1])
  })
})

test('a message too long for libtorrent costs the connection and nothing else', async () => {
  await using swarm = await newSwarm()
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  const torrent = await enter(swarm, session, { sliceId: ids[0] })
  await using peer = await connectExtensionPeer(hosts[1], await addressOf(session), swarm.infoHash)
  peer.sendHandshake(withId(text(Buffer.alloc(4_000_000, 'x'))))
  await peer.closed
  await until(async () => (await torrent.peers()).length === 0)
})

test('the first id of a connection stays', async () => {
  const others = Array.from({ length: 50 }, (_, index) => withId(text(Buffer.alloc(8, index))))
  await afterHandshakes([withId(text(good)), ...others], (sight) => {
    expect(sight.sliceId).toBe(ids[1])
  })
})

const pythonPeer = `
import libtorrent as lt, sys
torrent, path, host = sys.argv[1:4]
session = lt.session({'listen_interfaces': host + ':0', 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
  'enable_natpmp': False, 'alert_mask': lt.alert.category_t.all_categories})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = '/'
params.renamed_files = {0: path}
session.add_torrent(params)
port = None
checked = False
while not (port and checked):
  session.wait_for_alert(1000)
  for alert in session.pop_alerts():
    if isinstance(alert, lt.listen_succeeded_alert): port = alert.port
    if isinstance(alert, lt.torrent_checked_alert): checked = True
print(port, flush=True)
sys.stdin.read()
`

test('a client that knows nothing of slices has no id, and gives its pieces', async () => {
  await using swarm = await newSwarm()
  const torrentPath = join(swarm.folder, 'torrent')
  await writeFile(torrentPath, swarm.torrentFile)
  // The sanitizers' runtime is not for Python.
  const { LD_PRELOAD: _, ...env } = process.env
  const child = spawn('/usr/bin/python3', ['-c', pythonPeer, torrentPath, swarm.path, hosts[1]], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env,
  })
  const [port] = await once(createInterface(child.stdout), 'line')
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  session.exemptLocalPeers(false)
  const target = join(swarm.folder, 'target')
  const torrent = await enter(swarm, session, {
    sliceId: ids[0],
    renamedFiles: { 0: target },
    // Slow at first, so that there is time to look.
    downloadLimit: 1000,
  })
  torrent.connectPeer({ host: hosts[1], port: Number(port) })
  const sight = await sightOf(torrent, (peer) => peer.isSeed && peer.downloadBytes > 0)
  expect(sight).not.toHaveProperty('sliceId')
  const finished = nextAlert(torrent, 'torrent_finished')
  torrent.setRateLimits({})
  await finished
  expect((await readFile(target)).equals(someBytes(200_000))).toBe(true)
  const exited = once(child, 'exit')
  child.stdin.end()
  await exited
})

test('peers() tells what a seed has and has sent', async () => {
  await using swarm = await newSwarm(2_000_000)
  await using seeding = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await using session = openSession({ listen_interfaces: `${hosts[1]}:0` })
  session.exemptLocalPeers(false)
  const address = await addressOf(seeding)
  const uploading = await seed(swarm, seeding, { sliceId: ids[1] })
  const torrent = await enter(swarm, session, { peers: [address], downloadLimit: 300_000 })
  const sight = await sightOf(torrent, (peer) => peer.downloadRate > 0 && peer.sliceId !== undefined)
  expect(sight).toEqual({
    ...address,
    sliceId: ids[1],
    isSeed: true,
    numPieces: 62,
    downloadBytes: expect.any(Number),
    downloadRate: expect.any(Number),
    hashFailures: 0,
    isChoking: false,
    isInteresting: true,
  })
  const { payloadDownload } = await torrent.status()
  expect(sight.downloadBytes).toBeGreaterThan(0)
  expect(sight.downloadBytes).toBeLessThanOrEqual(payloadDownload)
  // The other side's view of the same connection.
  const [leech] = await uploading.peers()
  expect(leech).toMatchObject({ host: '127.0.0.1', isSeed: false, downloadBytes: 0, isInteresting: false })
  expect(leech?.numPieces).toBeLessThan(62)
})

test('peers() counts the pieces that failed their hash', async () => {
  await using folder = await temporaryDirectory()
  const bytes = someBytes(4 * blockLength)
  const { torrentFile, path, infoHashV2 } = await makeTorrent(folder.path, bytes, {
    pieceLength: bytes.length,
  })
  await using seeding = openSession({ listen_interfaces: `${hosts[1]}:0` })
  seeding.exemptLocalPeers(false)
  await seeding.addTorrent({
    torrentFile,
    savePath: folder.path,
    renamedFiles: { 0: path },
    flags: { seed_mode: true },
    // Time to look before the second try is through.
    uploadLimit: 4 * blockLength,
  })
  // One block of the only piece is a lie, and libtorrent cannot tell whose: who sends a whole piece of lies is banned at
  // once and not to be seen any more.
  await using liar = await startBadPeer(hosts[2], infoHashV2 as InfoHash, 1, 1)
  // Plain handshakes at once: the liar knows no others.
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0`, out_enc_policy: 2 })
  const torrent = await session.addTorrent({
    torrentFile,
    savePath: join(folder.path, 'none'),
  })
  const failed = nextAlert(torrent, 'hash_failed')
  torrent.connectPeer(liar.address)
  await sightOf(torrent, (peer) => peer.downloadBytes >= blockLength)
  expect((await sightOf(torrent)).hashFailures).toBe(0)
  torrent.connectPeer(await addressOf(seeding))
  await failed
  const peers = await torrent.peers()
  expect(peers.find((peer) => peer.host === liar.address.host)).toMatchObject({ hashFailures: 1 })
})

test('a connection without a handshake is not shown', async () => {
  await using swarm = await newSwarm()
  await using session = openSession({ listen_interfaces: `${hosts[0]}:0` })
  const sockets: Socket[] = []
  const mute = createServer((socket) => sockets.push(socket)).listen(0, hosts[1])
  await once(mute, 'listening')
  const connected = once(mute, 'connection')
  const { port } = mute.address() as AddressInfo
  const torrent = await enter(swarm, session, { peers: [{ host: hosts[1], port }] })
  await connected
  expect(await torrent.status()).toMatchObject({ numConnections: 1 })
  expect(await torrent.peers()).toEqual([])
  for (const socket of sockets) socket.destroy()
  mute.close()
})

test('a torrent without peers has none to show', async () => {
  await using swarm = await newSwarm()
  await using session = openSession()
  expect(await (await enter(swarm, session)).peers()).toEqual([])
})

test('peers() answers every question of many while pieces arrive, and the last ones reject when the torrent goes', async () => {
  await using swarm = await newSwarm(8_000_000)
  await using seeding = openSession({ listen_interfaces: `${hosts[0]}:0` })
  await using session = openSession({ listen_interfaces: `${hosts[1]}:0` })
  await seed(swarm, seeding, { sliceId: ids[1] })
  const torrent = await enter(swarm, session, { peers: [await addressOf(seeding)] })
  await sightOf(torrent, (peer) => peer.sliceId !== undefined)
  let isDone = false
  const finished = nextAlert(torrent, 'torrent_finished').then(() => {
    isDone = true
  })
  while (!isDone) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => torrent.peers()))
    expect(answers.every((peers) => peers.length <= 1)).toBe(true)
  }
  await finished
  const removal = torrent.remove()
  const late = torrent.peers().catch((error: unknown) => error)
  await removal
  const gone = { code: 'ERR_LLMPT_NATIVE', operation: 'torrent', value: 20 }
  expect(await late).toMatchObject(gone)
  await expect(torrent.peers()).rejects.toMatchObject(gone)
})

test.each(['', '0011223344556677889', '00112233445566FF', '00112233445566fg', 7, null])(
  'the slice id %j is a TypeError',
  async (sliceId) => {
    await using swarm = await newSwarm(1000)
    await using session = openSession()
    await expect(enter(swarm, session, { sliceId: sliceId as string })).rejects.toThrow(TypeError)
  },
)
