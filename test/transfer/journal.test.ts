import { EventEmitter, once } from 'node:events'
import { existsSync, readFileSync, statSync, watch } from 'node:fs'
import { appendFile, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import type { UnfinishedPiece } from '../../src/native/alerts.ts'
import { Journal, journalPath, type Leftover } from '../../src/transfer/journal.ts'
import { blockBytes, PieceMap } from '../../src/transfer/piece-map.ts'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'

const pieceLength = 16 * blockBytes
/** Six pieces; the last one has one block and 100 bytes. */
const sizeBytes = 5 * pieceLength + blockBytes + 100
const partialPath = '/cache/blobs/abc.llmpt.incomplete'
const identity = 'an etag'

function newMap(): PieceMap {
  return new PieceMap(sizeBytes, pieceLength)
}

/** A journal and the file it is in. */
async function rig(): Promise<
  AsyncDisposable & { folder: TemporaryDirectory; path: string; journal: Journal; load: typeof load }
> {
  const folder = await temporaryDirectory()
  const journal = new Journal(folder.path, partialPath, identity)
  // As a process that comes later.
  async function load(
    change: { identity?: string; size?: number; length?: number } = {},
  ): Promise<Leftover | undefined> {
    const later = new Journal(folder.path, partialPath, change.identity ?? identity)
    return await later.load(change.size ?? sizeBytes, change.length ?? pieceLength)
  }
  return {
    folder,
    path: journalPath(folder.path, partialPath),
    journal,
    load,
    [Symbol.asyncDispose]: async () => {
      journal.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** Everything a leftover says, as plain values. */
function told(leftover: Leftover | undefined): object | undefined {
  if (leftover === undefined) return undefined
  const { map, unfinished, endBytes } = leftover
  return {
    pieces: Object.fromEntries([...map.present()].map((piece) => [piece, map.sourceOf(piece)])),
    runs: [...map.writtenRuns()],
    unfinished: unfinished.map(({ piece, blocks }) => [piece, Buffer.from(blocks).toString('hex')]),
    endBytes,
  }
}

function bits(piece: number, hex: string): UnfinishedPiece {
  return { piece, blocks: new Uint8Array(Buffer.from(hex, 'hex')) }
}

/** The end of this turn of the event loop, when the journal has written what it was told. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
}

const nothing = { pieces: {}, runs: [], unfinished: [], endBytes: 0 }

describe('what a journal was told', () => {
  test('is known to whoever comes after a kill, without a goodbye', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    it.journal.piece(2, 'p2p')
    it.journal.written(pieceLength, pieceLength + 3 * blockBytes)
    it.journal.unfinished([bits(3, 'ff01')])
    await turn()
    expect(told(await it.load())).toEqual({
      pieces: { 0: 'http', 2: 'p2p' },
      runs: [[pieceLength, pieceLength + 3 * blockBytes]],
      unfinished: [[3, 'ff01']],
      endBytes: 4 * pieceLength,
    })
  })

  test('in the same turn as its end is known, too', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(1, 'http')
    it.journal.close()
    expect(told(await it.load())).toMatchObject({ pieces: { 1: 'http' } })
  })

  test('of HTTP adds up, over lines that end within a block', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.written(0, blockBytes + 5)
    await turn()
    expect(told(await it.load())).toMatchObject({ runs: [[0, blockBytes]], endBytes: blockBytes })
    it.journal.written(blockBytes, 2 * blockBytes)
    await turn()
    expect(told(await it.load())).toMatchObject({ runs: [[0, 2 * blockBytes]] })
  })

  test('and taken back is not there any more', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'p2p')
    it.journal.written(pieceLength, pieceLength + blockBytes)
    it.journal.unfinished([bits(2, '8000')])
    for (const piece of [0, 1, 2]) it.journal.takenBack(piece)
    await turn()
    expect(told(await it.load())).toEqual(nothing)
  })

  test('of blocks is forgotten when their piece is there', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.unfinished([bits(1, '8000'), bits(2, '4000')])
    it.journal.written(pieceLength, pieceLength + blockBytes)
    it.journal.piece(1, 'p2p')
    await turn()
    expect(told(await it.load())).toMatchObject({ pieces: { 1: 'p2p' }, runs: [], unfinished: [[2, '4000']] })
  })

  test('keeps the credit of a piece that both brought', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.written(0, 2 * blockBytes)
    it.journal.piece(0, 'p2p')
    await turn()
    const leftover = await it.load()
    expect(leftover?.map.bytes()).toEqual({ http: 2 * blockBytes, p2p: pieceLength - 2 * blockBytes })
  })

  test('of blocks counts with its latest word, and repeats cost nothing', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.unfinished([bits(3, '8000')])
    it.journal.unfinished([bits(3, 'c000')])
    it.journal.close()
    const { size } = await stat(it.path)
    it.journal.begin(newMap())
    it.journal.unfinished([bits(3, '8000')])
    for (let again = 0; again < 10; again++) it.journal.unfinished([bits(3, 'c000')])
    it.journal.close()
    expect(told(await it.load())).toMatchObject({ unfinished: [[3, 'c000']] })
    expect((await stat(it.path)).size).toBe(size)
  })

  test('of blocks is told again after a new beginning', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.unfinished([bits(3, '8000')])
    it.journal.begin(newMap())
    it.journal.unfinished([bits(3, '8000')])
    await turn()
    expect(told(await it.load())).toMatchObject({ unfinished: [[3, '8000']] })
  })

  test('before it began or after it ended goes nowhere', async () => {
    await using it = await rig()
    it.journal.piece(0, 'http')
    it.journal.begin(newMap())
    it.journal.close()
    it.journal.piece(1, 'http')
    await turn()
    expect(told(await it.load())).toEqual(nothing)
  })
})

describe('a new beginning', () => {
  test('keeps what is there in few lines', async () => {
    await using it = await rig()
    const map = newMap()
    it.journal.begin(map)
    for (let block = 0; block < 40; block++) {
      map.write(block * blockBytes, (block + 1) * blockBytes)
      it.journal.written(block * blockBytes, (block + 1) * blockBytes)
    }
    for (const piece of [0, 1]) {
      map.mark(piece, 'http')
      it.journal.piece(piece, 'http')
    }
    it.journal.unfinished([bits(4, '0100')])
    await turn()
    const before = told(await it.load())
    expect((await readFile(it.path, 'utf8')).split('\n')).toHaveLength(1 + 40 + 2 + 1 + 1)
    it.journal.begin(map, [bits(4, '0100')])
    expect((await readFile(it.path, 'utf8')).split('\n')).toHaveLength(1 + 2 + 1 + 1 + 1)
    expect(told(await it.load())).toEqual(before)
  })

  test('goes on from what was loaded', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    it.journal.unfinished([bits(2, '00f0')])
    it.journal.close()
    const first = await it.load()
    const later = new Journal(it.folder.path, partialPath, identity)
    if (first !== undefined) later.begin(first.map, first.unfinished)
    later.piece(1, 'p2p')
    later.close()
    expect(told(await it.load())).toMatchObject({
      pieces: { 0: 'http', 1: 'p2p' },
      unfinished: [[2, '00f0']],
    })
  })

  test('leaves no other file behind', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.begin(newMap())
    expect(await readdir(dirname(it.path))).toHaveLength(1)
  })

  test('and its removal leave nothing', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    await it.journal.remove()
    expect(await readdir(dirname(it.path))).toEqual([])
    expect(await it.load()).toBeUndefined()
  })
})

describe('a journal that has grown long while the download goes on', () => {
  const long = 2 * 1024 * 1024
  const largePieces = 1024 * blockBytes
  const blocks = (byte: number): Uint8Array => new Uint8Array(128).fill(byte)

  /** What a swarm does to a journal: the same few pieces are noted again and again, with other blocks. */
  async function longRig(): Promise<
    Awaited<ReturnType<typeof rig>> & {
      map: PieceMap
      left: () => Promise<Leftover | undefined>
      grow: () => Promise<void>
      written: Promise<void>
    }
  > {
    const it = await rig()
    const map = new PieceMap(100 * largePieces, largePieces)
    it.journal.begin(map)
    // The short form has come and gone: it was given the journal's name, or nobody wanted it.
    const written = new Promise<void>((resolve) => {
      const watcher = watch(dirname(it.path), (_event, name) => {
        if (!name?.endsWith('.short') || existsSync(`${it.path}.short`)) return
        watcher.close()
        resolve()
      })
    })
    // Within one turn of the event loop, so that nothing is written anew before a test looks.
    const grow = async (): Promise<void> => {
      for (let at = 0; at < 9 * 4096; at++) {
        it.journal.unfinished([{ piece: 7 + (at % 3), blocks: blocks(1 + (at % 200)) }])
        if (at % 1000 === 0) await Promise.resolve()
      }
      await Promise.resolve()
    }
    const left = async (): Promise<Leftover | undefined> =>
      await new Journal(it.folder.path, partialPath, identity).load(map.sizeBytes, largePieces)
    return Object.assign(it, { map, left, grow, written })
  }

  test('is written anew in its shortest form, which says the same', async () => {
    await using it = await longRig()
    it.map.mark(3, 'p2p')
    it.journal.piece(3, 'p2p')
    it.map.write(0, blockBytes)
    it.journal.written(0, blockBytes)
    await it.grow()
    expect(statSync(it.path).size).toBeGreaterThan(8 * 1024 * 1024)
    await it.written
    expect(statSync(it.path).size).toBeLessThan(long)
    const hex = (byte: number): string => Buffer.from(blocks(byte)).toString('hex')
    expect(told(await it.left())).toMatchObject({
      pieces: { 3: 'p2p' },
      runs: [[0, blockBytes]],
      unfinished: [
        [7, hex(62)],
        [8, hex(63)],
        [9, hex(64)],
      ],
    })
  })

  test('loses nothing of what it is told meanwhile, nor what it is told afterwards', async () => {
    await using it = await longRig()
    await it.grow()
    it.map.mark(4, 'http')
    it.journal.piece(4, 'http')
    // A kill before the short form has its name finds it in the old file.
    await Promise.resolve()
    expect(readFileSync(it.path, 'utf8').endsWith('\np 4 http\n')).toBe(true)
    await it.written
    it.map.mark(5, 'p2p')
    it.journal.piece(5, 'p2p')
    await turn()
    expect(told(await it.left())).toMatchObject({ pieces: { 4: 'http', 5: 'p2p' } })
    expect(statSync(it.path).size).toBeLessThan(long)
  })

  test('is not brought back by its short form when it was removed meanwhile', async () => {
    await using it = await longRig()
    await it.grow()
    await it.journal.remove()
    await it.written
    expect(await readdir(dirname(it.path))).toEqual([])
  })

  test('is removed without waiting for the disk to have its short form, which goes by itself', async () => {
    await using it = await longRig()
    await using other = await open(it.path)
    const disk = new EventEmitter()
    const syncing = once(disk, 'asked')
    const sync = vi.spyOn(Object.getPrototypeOf(other), 'sync').mockImplementation(async () => {
      disk.emit('asked')
      await once(disk, 'answer')
    })
    try {
      await it.grow()
      await syncing
      await it.journal.remove()
      expect(await readdir(dirname(it.path))).toEqual([basename(`${it.path}.short`)])
      disk.emit('answer')
      await it.written
      expect(await readdir(dirname(it.path))).toEqual([])
    } finally {
      sync.mockRestore()
    }
  })

  test('does not bother the disk with a short form that nobody wants any more', async () => {
    await using it = await longRig()
    await using other = await open(it.path)
    const sync = vi.spyOn(Object.getPrototypeOf(other), 'sync')
    try {
      await it.grow()
      it.journal.close()
      await it.written
      expect(sync).not.toHaveBeenCalled()
    } finally {
      sync.mockRestore()
    }
  })

  test('does not take the place of another beginning', async () => {
    await using it = await longRig()
    await it.grow()
    it.journal.begin(new PieceMap(100 * largePieces, largePieces))
    it.journal.piece(9, 'http')
    await it.written
    expect(told(await it.left())).toMatchObject({ pieces: { 9: 'http' }, unfinished: [] })
  })

  test('goes on as it is where it cannot be written anew', async () => {
    await using it = await longRig()
    await mkdir(`${it.path}.short`)
    await it.grow()
    it.journal.piece(9, 'http')
    await turn()
    expect(told(await it.left())).toMatchObject({ pieces: { 9: 'http' } })
  })
})

describe('a journal is not used', () => {
  test.each([
    ['when it is of another file', { identity: 'another etag' }],
    ['when the file has another size', { size: sizeBytes - 1 }],
    ['when the pieces have another length', { length: 2 * pieceLength }],
  ])('%s', async (_name, change) => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    await turn()
    expect(await it.load(change)).toBeUndefined()
    expect(await it.load()).toBeDefined()
  })

  test.each([
    ['when there is none', undefined],
    ['when it is empty', ''],
    ['when it is rubbish', '\0\xff\n'],
    ['when its header is cut', '{"version":2,"identity":"an etag","sizeB'],
    [
      'when it is of another version',
      JSON.stringify({ version: 1, identity, sizeBytes, pieceLength, pieces: [] }),
    ],
  ])('%s', async (_name, text) => {
    await using it = await rig()
    await mkdir(dirname(it.path), { recursive: true })
    if (text !== undefined) await writeFile(it.path, text)
    expect(await it.load()).toBeUndefined()
  })

  test('for another partial file', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    const other = new Journal(it.folder.path, `${partialPath}2`, identity)
    expect(await other.load(sizeBytes, pieceLength)).toBeUndefined()
  })
})

describe('lines that make no sense are skipped', () => {
  const good = { pieces: { 2: 'http' }, runs: [], unfinished: [], endBytes: 3 * pieceLength }

  test.each([
    'p',
    'p 1',
    'p 1 htt',
    'p 1 missing',
    'p 1 toString',
    'p 6 http',
    'p -1 http',
    'p 1.5 http',
    'p 1e0 http',
    'p 0x1 http',
    'p 99999999999999999999 http',
    'p NaN http',
    'p  http',
    'P 1 http',
    'f 6',
    'f -0',
    'b 16384',
    'b 16384 16384',
    'b 32768 16384',
    'b 1 32768',
    'b -16384 32768',
    `b 0 ${sizeBytes + 1}`,
    'b 0 9007199254740993',
    'b 0 Infinity',
    'u 1',
    'u 1 ff',
    'u 1 ff0000',
    'u 1 ff0',
    'u 1 FF00',
    'u 1 zz00',
    'u 6 ff00',
    'u 2 ff00',
    'u 5 ff00',
    '__proto__ 1 1',
    '{}',
    '\0\0\0\0\0\0',
    '',
  ])('such as %j', async (line) => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(2, 'http')
    it.journal.close()
    await appendFile(it.path, `${line}\n`)
    expect(told(await it.load())).toEqual(good)
  })

  test('and what follows them is not', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.close()
    await appendFile(it.path, 'p 99 http\n\0\np 3 p2p\n')
    expect(told(await it.load())).toMatchObject({ pieces: { 3: 'p2p' } })
  })

  test('wherever the last one is cut, what came before it counts, and no byte more than was said', async () => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    it.journal.close()
    const whole = await readFile(it.path, 'utf8')
    const lines = ['p 1 p2p', `b ${pieceLength} ${pieceLength + 4 * blockBytes}`, 'u 1 ffff']
    for (const line of lines) {
      for (let length = 0; length < line.length; length++) {
        await writeFile(it.path, whole + line.slice(0, length))
        const leftover = await it.load()
        expect(leftover?.map.has(0)).toBe(true)
        expect([...(leftover?.map.present() ?? [])]).toEqual([0])
        expect(leftover?.endBytes).toBeLessThanOrEqual(pieceLength + 4 * blockBytes)
      }
    }
  })
})

describe('how long the file has to be', () => {
  test.each([
    ['is nothing for nothing', [], 0],
    ['is the end of the last piece', ['p 0 http', 'p 3 p2p'], 4 * pieceLength],
    ['is the end of the file for its last piece', ['p 5 http'], sizeBytes],
    [
      'is the end of the last run',
      ['p 0 http', `b ${pieceLength} ${pieceLength + blockBytes}`],
      pieceLength + blockBytes,
    ],
    ['is the end of the last block from peers', ['u 2 8000'], 2 * pieceLength + blockBytes],
    ['is the end of the last block in the second byte', ['u 2 0110'], 2 * pieceLength + 12 * blockBytes],
    ['is the end of a piece whose last block is there', ['u 2 0001'], 3 * pieceLength],
    ['is not behind the end of the file', ['u 5 40'], sizeBytes],
    ['is no more when the bits say more', ['u 5 ff'], sizeBytes],
    ['is not begun by bits that are all zero', ['u 0 0000'], 0],
  ])('%s', async (_name, lines, endBytes) => {
    await using it = await rig()
    it.journal.begin(newMap())
    it.journal.close()
    await appendFile(it.path, lines.map((line) => `${line}\n`).join(''))
    expect((await it.load())?.endBytes).toBe(endBytes)
  })
})

test('bits past the end of the last piece are not handed on', async () => {
  await using it = await rig()
  it.journal.begin(newMap())
  it.journal.close()
  await appendFile(it.path, 'u 5 ff\n')
  const blocks = Math.ceil((sizeBytes - 5 * pieceLength) / blockBytes)
  expect((await it.load())?.unfinished).toEqual([{ piece: 5, blocks: Uint8Array.of(0xff00 >> blocks) }])
})

describe('a journal that cannot be written costs nothing but itself', () => {
  test('when something else has its name', async () => {
    await using it = await rig()
    await mkdir(it.path, { recursive: true })
    it.journal.begin(newMap())
    it.journal.piece(0, 'http')
    await turn()
    expect(await it.load()).toBeUndefined()
    await it.journal.remove()
    expect(await readdir(dirname(it.path))).toEqual([it.path.slice(dirname(it.path).length + 1)])
  })

  // A file where a folder should be refuses everybody, root too.
  test('when its folder cannot be made', async () => {
    await using folder = await temporaryDirectory()
    await writeFile(`${folder.path}/file`, '')
    const journal = new Journal(`${folder.path}/file`, partialPath, identity)
    expect(() => {
      journal.begin(newMap())
      journal.piece(0, 'http')
      journal.takenBack(0)
      journal.unfinished([bits(1, '8000')])
      journal.close()
    }).not.toThrow()
    expect(await journal.load(sizeBytes, pieceLength)).toBeUndefined()
    await expect(journal.remove()).resolves.toBeUndefined()
  })

  test('and is tried again at the next beginning', async () => {
    await using folder = await temporaryDirectory()
    const stateDir = `${folder.path}/state`
    await writeFile(stateDir, '')
    const journal = new Journal(stateDir, partialPath, identity)
    journal.begin(newMap())
    await rm(stateDir)
    journal.begin(newMap())
    journal.piece(0, 'http')
    journal.close()
    expect(told(await journal.load(sizeBytes, pieceLength))).toMatchObject({ pieces: { 0: 'http' } })
  })
})

test('a piece that peers were asked for and have sent nothing of does not make the file longer than it has to be', async () => {
  await using folder = await temporaryDirectory()
  const pieceLength = 32_768
  const map = new PieceMap(4 * pieceLength, pieceLength)
  map.mark(0, 'p2p')
  const journal = new Journal(folder.path, '/a/partial', 'etag')
  journal.begin(map)
  journal.unfinished([
    { piece: 1, blocks: Uint8Array.of(0x80) },
    { piece: 3, blocks: Uint8Array.of(0) },
  ])
  journal.close()
  const left = await journal.load(map.sizeBytes, pieceLength)
  expect(left?.endBytes).toBe(pieceLength + 16_384)
})
