import { expect, test } from 'vitest'
import { NativeError } from '../../src/errors.ts'
import { baseLoadLimits, Torrent } from '../../src/native/session.ts'
import { formats, makeTorrent, openSession, someBytes } from '../support/native-rig.ts'
import { rounds } from '../support/rounds.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const garbage: [string, Buffer][] = [
  ['nothing', Buffer.alloc(0)],
  ['one byte', Buffer.from('d')],
  ['text', Buffer.from('<html>not found</html>')],
  ['an empty dictionary', Buffer.from('de')],
  ['a list', Buffer.from('le')],
  ['an info that is no dictionary', Buffer.from('d4:info3:abce')],
  ['an empty info', Buffer.from('d4:infodee')],
  ['lists a thousand deep', Buffer.from(`d4:info${'l'.repeat(1000)}${'e'.repeat(1000)}e`)],
  ['dictionaries a million deep', Buffer.from('d1:a'.repeat(1_000_000))],
  ['more tokens than allowed', Buffer.from(`d4:infod1:al${'i0e'.repeat(1_200_000)}eee`)],
  ['a length beyond its end', Buffer.from('d4:info999999999999:x')],
  [
    'a negative length',
    Buffer.from('d4:infod6:lengthi-1e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee'),
  ],
  [
    'a length beyond 64 bits',
    Buffer.from(
      'd4:infod6:lengthi99999999999999999999e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee',
    ),
  ],
  [
    'far more pieces than hashes',
    Buffer.from(
      'd4:infod6:lengthi9000000000000e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee',
    ),
  ],
  [
    'a piece length of 0',
    Buffer.from('d4:infod6:lengthi9e4:name1:x12:piece lengthi0e6:pieces20:01234567890123456789ee'),
  ],
  [
    'a v2 file with more pieces than allowed',
    Buffer.from(
      `d4:infod9:file treed1:xd0:d6:lengthi${2 ** 44}e11:pieces root32:${'r'.repeat(32)}eee12:meta versioni2e4:name1:x12:piece lengthi16384eee`,
    ),
  ],
  [
    'a version that does not exist',
    Buffer.from('d4:infod9:file treede12:meta versioni9e4:name1:x12:piece lengthi16384eee'),
  ],
  [
    'more bytes than allowed',
    Buffer.concat([Buffer.from('d4:info12000000:'), Buffer.alloc(12_000_000), Buffer.from('e')]),
  ],
]

test.each(garbage)('%s is refused with a NativeError', async (_, torrentFile) => {
  await using session = openSession({ listen_interfaces: '' })
  const adding = session.addTorrent({ torrentFile, savePath: '/nonexistent' })
  await expect(adding).rejects.toMatchObject({ name: 'NativeError', operation: 'addTorrent' })
})

test.each(formats)('no truncation of a %s torrent is accepted', async (format) => {
  await using folder = await temporaryDirectory()
  await using session = openSession({ listen_interfaces: '' })
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000), { format })
  for (let length = 0; length < torrentFile.length; length++) {
    const adding = session.addTorrent({ torrentFile: torrentFile.subarray(0, length), savePath: folder.path })
    await expect(adding).rejects.toBeInstanceOf(NativeError)
  }
})

/** Numbers that look random and are the same in each run. */
function* pseudoRandom(seed: number): Generator<number, never> {
  let state = seed
  for (;;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state >>> 8
  }
}

test.each(formats)(
  'mutations of a %s torrent are refused or are torrents, and never a crash',
  async (format) => {
    await using folder = await temporaryDirectory()
    await using session = openSession({ listen_interfaces: '' })
    const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000), {
      format,
      trackers: ['http://tracker.example/announce'],
    })
    const random = pseudoRandom(format.length)
    const next = (below: number): number => random.next().value % below
    let refused = 0
    for (let round = 0; round < rounds(300, 20_000); round++) {
      const mutant = Buffer.from(torrentFile)
      for (let changes = next(4); changes >= 0; changes--) {
        const at = next(mutant.length)
        // Digits and structure most of the time: changed hashes parse too easily.
        mutant[at] = next(3) === 0 ? next(256) : ('0123456789deil:-'.codePointAt(next(16)) ?? 0)
      }
      const outcome: unknown = await session
        .addTorrent({ torrentFile: mutant, savePath: folder.path, flags: { paused: true } })
        .catch((error: unknown) => error)
      if (outcome instanceof Torrent) {
        await outcome.status()
        await outcome.remove()
      } else {
        expect(outcome).toBeInstanceOf(NativeError)
        refused++
      }
    }
    expect(refused).toBeGreaterThan(50)
  },
)

test('mutations of resume data are refused or are torrents, and never a crash', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession({ listen_interfaces: '' })
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const torrent = await session.addTorrent({ torrentFile, savePath: folder.path })
  const resumeData = await torrent.saveResumeData()
  await torrent.remove()
  const random = pseudoRandom(7)
  for (let round = 0; round < rounds(200, 5_000); round++) {
    const mutant = Buffer.from(resumeData)
    mutant[random.next().value % mutant.length] = random.next().value % 256
    const outcome: unknown = await session
      .addTorrent({ resumeData: mutant, savePath: folder.path, flags: { paused: true } })
      .catch((error: unknown) => error)
    if (outcome instanceof Torrent) await outcome.remove()
    else expect(outcome).toBeInstanceOf(NativeError)
  }
})

test.each(['', 'magnet:', 'magnet:?xt=urn:btih:xyz', 'http://example.org', 'magnet:?dn=name'])(
  'the magnet link "%s" is refused with a NativeError',
  async (magnet) => {
    await using session = openSession({ listen_interfaces: '' })
    await expect(session.addTorrent({ magnet, savePath: '/nonexistent' })).rejects.toMatchObject({
      name: 'NativeError',
    })
  },
)

test('web seeds and DHT nodes of a torrent are dropped, and its trackers replaced when others are given', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession({ listen_interfaces: '' })
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const foreign = Buffer.concat([
    Buffer.from('d8:announce24:http://127.0.0.1:9/tolen9:httpseedsl21:http://127.0.0.1:9/see'),
    Buffer.from(torrentFile).subarray(1, -1),
    Buffer.from('5:nodesll9:127.0.0.1i9eee8:url-list21:http://127.0.0.1:9/s/e'),
  ])
  const trackers = ['http://127.0.0.1:9/announce']
  for (const [params, expected] of [
    [{ torrentFile: foreign }, 'http://127.0.0.1:9/tolen'],
    [{ torrentFile: foreign, trackers }, trackers[0]],
    [{ torrentFile: foreign, trackers: [] }, undefined],
  ] as const) {
    const torrent = await session.addTorrent({
      ...params,
      trackers: params.trackers as string[],
      savePath: folder.path,
    })
    const text = Buffer.from(await torrent.saveResumeData()).toString('latin1')
    await torrent.remove()
    expect(text).not.toContain('http://127.0.0.1:9/s')
    expect([...text.matchAll(/http:\/\/127\.0\.0\.1:9\/(?:tolen|announce)/g)].map(([url]) => url)).toEqual(
      expected === undefined ? [] : [expected],
    )
  }
})

test('parameters that contradict each other or have wrong types are TypeErrors or RangeErrors', async () => {
  await using folder = await temporaryDirectory()
  await using session = openSession({ listen_interfaces: '' })
  const { torrentFile } = await makeTorrent(folder.path, someBytes(100_000))
  const magnet = `magnet:?xt=urn:btih:${'a'.repeat(40)}`
  const savePath = folder.path
  const misuse: [object, typeof TypeError | typeof RangeError][] = [
    [{ savePath }, TypeError],
    [{ savePath, torrentFile, magnet }, TypeError],
    [{ torrentFile }, TypeError],
    [{ torrentFile, savePath: 'relative' }, TypeError],
    [{ torrentFile, savePath: `${savePath}\0` }, TypeError],
    [{ torrentFile: 'text', savePath }, TypeError],
    [{ torrentFile: new ArrayBuffer(8), savePath }, TypeError],
    [{ torrentFile, savePath, renamedFiles: { 9: '/x' } }, RangeError],
    [{ torrentFile, savePath, renamedFiles: { x: '/x' } }, RangeError],
    [{ torrentFile, savePath, renamedFiles: { 0: 7 } }, TypeError],
    [{ torrentFile, savePath, flags: { auto: true } }, TypeError],
    [{ torrentFile, savePath, trackers: 'http://x' }, TypeError],
    [{ torrentFile, savePath, peers: [{ host: 'localhost', port: 1 }] }, TypeError],
    [{ torrentFile, savePath, peers: [{ host: '::1', port: 0 }] }, RangeError],
    [{ torrentFile, savePath, filePriorities: [8] }, RangeError],
    [{ torrentFile, savePath, piecePriorities: [-1] }, RangeError],
    [{ torrentFile, savePath, uploadLimit: -1 }, RangeError],
    [{ torrentFile, savePath, downloadLimit: 2 ** 31 }, RangeError],
  ]
  for (const [params, kind] of misuse) {
    await expect(session.addTorrent(params as never), JSON.stringify(params)).rejects.toThrow(kind)
  }
  const limits = { ...baseLoadLimits, maxPieces: 3 }
  await expect(session.addTorrent({ torrentFile, savePath }, limits)).rejects.toMatchObject({
    name: 'NativeError',
  })
  await session.addTorrent({ torrentFile, savePath })
})
