/**
 * Which bytes of a partial file are good, kept beside our other state so that an interrupted download goes on where
 * it stopped, even after `kill -9`. A file of lines that only grows: each says what was on disk when it was written.
 * A journal is a hint: whatever it says, the digest decides at the end.
 *
 *     {"version":2,"partial":…,"identity":…,"sizeBytes":…,"pieceLength":…}
 *     p 17 http        piece 17 is there, from HTTP
 *     b 32768 65536    HTTP wrote these bytes of pieces that are not complete
 *     u 18 ff00        blocks of piece 18 that peers brought, most significant bit first
 *     f 17             piece 17 was taken back
 *
 * One that has grown long is written anew in its shortest form, beside itself, while the download goes on.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { log, messageOf } from '../log.ts'
import type { UnfinishedPiece } from '../native/alerts.ts'
import { blockBytes, PieceMap, type PieceSource } from './piece-map.ts'

const headerSchema = v.object({
  version: v.literal(2),
  partial: v.string(),
  identity: v.string(),
  sizeBytes: v.number(),
  pieceLength: v.number(),
})

/** What an earlier attempt left. */
export interface Leftover {
  readonly map: PieceMap
  readonly unfinished: readonly UnfinishedPiece[]
  /** How long the file has to be to hold all that. */
  readonly endBytes: number
}

/** No journal of ours gets this long; what is longer is not read. */
const maxJournalBytes = 64 * 1024 * 1024
/** From here on a journal is written anew, and when it has grown to this many times its shortest form. */
const longBytes = 8 * 1024 * 1024
const longRatio = 4

/** Where the journal of a partial file is. */
export function journalPath(stateDir: string, partialPath: string): string {
  const name = createHash('sha256').update(partialPath).digest('hex').slice(0, 32)
  return join(stateDir, 'partial', `${name}.journal`)
}

/** A journal is removed when nothing was noted in it for this long, as its partial file is: 7 days, in ms. */
export const journalKeptMs: number = 7 * 24 * 60 * 60 * 1000

/** Removes the journal of a partial file that is gone. */
export async function removeJournal(stateDir: string, partialPath: string): Promise<void> {
  const path = journalPath(stateDir, partialPath)
  for (const each of [path, draftOf(path), shortFormOf(path)]) await rm(each, { force: true }).catch(() => {})
}

/**
 * Removes the journals nobody will read again: those whose partial file is gone, as after a crash between the rename
 * of the finished file and the end of its journal, and those that were forgotten. Never throws.
 *
 * All in one turn: a journal that this process begins meanwhile would be taken for the old one.
 */
export function sweepJournals(stateDir: string, nowMs: number = Date.now()): void {
  const folder = join(stateDir, 'partial')
  try {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      const partial = partialOf(path)
      const isOrphan = partial !== undefined && !existsSync(partial)
      if (isOrphan || nowMs - lstatSync(path).mtimeMs > journalKeptMs) rmSync(path, { force: true })
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.debug(`${folder} was not tidied: ${messageOf(error)}`)
  }
}

/** Paths are shorter on every system we know. */
const maxHeaderBytes = 16 * 1024

/** The partial file a journal is about; `undefined` when it does not say. */
function partialOf(path: string): string | undefined {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    const bytes = Buffer.alloc(maxHeaderBytes)
    const [first = ''] = bytes.toString('utf8', 0, readSync(fd, bytes)).split('\n')
    return v.parse(headerSchema, JSON.parse(first)).partial
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch {
    // Where a folder is none, or not ours, even looking fails.
  }
}

/** Where a journal is written before it gets its name. Its owner has the lock, so that one name is enough. */
function draftOf(path: string): string {
  return `${path}.new`
}

/** Where a running journal is written anew. Another name than that of a beginning, which does not wait for it. */
function shortFormOf(path: string): string {
  return `${path}.short`
}

export class Journal {
  readonly #path: string
  readonly #partialPath: string
  readonly #identity: string
  #fd: number | undefined
  #lines: string[] = []
  #isBroken = false
  /** What the download has, as it goes on; absent before the beginning. */
  #map: PieceMap | undefined
  #sizeBytes = 0
  /** At which length it is written anew. */
  #longBytes = longBytes
  /** What was noted since the short form in the making; `undefined` when none is, or nobody wants it any more. */
  #since: string[] | undefined
  #shortening: Promise<void> | undefined
  readonly #unfinished = new Map<number, string>()

  /**
   * @param stateDir Our own state folder.
   * @param partialPath The file the journal is about.
   * @param identity What the file is to become: an etag or an info hash. A journal of something else is not used.
   */
  constructor(stateDir: string, partialPath: string, identity: string) {
    this.#path = journalPath(stateDir, partialPath)
    this.#partialPath = partialPath
    this.#identity = identity
  }

  /** What an earlier attempt left, or `undefined` when there is nothing usable. */
  async load(sizeBytes: number, pieceLength: number): Promise<Leftover | undefined> {
    try {
      const text = await readFile(this.#path, 'utf8')
      if (text.length > maxJournalBytes) return undefined
      const [first = '', ...lines] = text.split('\n')
      const header = v.parse(headerSchema, JSON.parse(first))
      const isOurs =
        header.identity === this.#identity &&
        header.sizeBytes === sizeBytes &&
        header.pieceLength === pieceLength
      return isOurs ? replay(new PieceMap(sizeBytes, pieceLength), lines) : undefined
    } catch {
      return undefined // Absent or damaged: the download starts from nothing.
    }
  }

  /**
   * Begins anew with what is there. Never throws: without a journal a crash costs bandwidth, not the download.
   *
   * @param map Goes on saying what is there: a journal that has grown long is written anew from it.
   */
  begin(map: PieceMap, unfinished: readonly UnfinishedPiece[] = []): void {
    this.close()
    this.#map = map
    this.#unfinished.clear()
    for (const { piece, blocks } of unfinished) this.#unfinished.set(piece, hexOf(blocks))
    const text = this.#shortForm(map)
    const draft = draftOf(this.#path)
    try {
      mkdirSync(dirname(this.#path), { recursive: true })
      writeFileSync(draft, text)
      renameSync(draft, this.#path)
      this.#fd = openSync(this.#path, 'a')
      this.#isBroken = false
      this.#grewTo(text.length, text.length)
    } catch (error) {
      this.#giveUp(error)
      removeQuietly(draft)
    }
  }

  #shortForm(map: PieceMap): string {
    const { sizeBytes, pieceLength } = map
    const header = {
      version: 2,
      partial: this.#partialPath,
      identity: this.#identity,
      sizeBytes,
      pieceLength,
    }
    const lines = [
      JSON.stringify(header),
      ...[...map.present()].map((piece) => `p ${piece} ${map.sourceOf(piece)}`),
      ...[...map.writtenRuns()].map(([start, end]) => `b ${start} ${end}`),
      ...[...this.#unfinished].map(([piece, hex]) => `u ${piece} ${hex}`),
    ]
    return `${lines.join('\n')}\n`
  }

  /** Whether peers brought parts of pieces that are not complete. */
  get hasUnfinished(): boolean {
    return [...this.#unfinished.values()].some((hex) => /[^0]/.test(hex))
  }

  piece(piece: number, source: PieceSource): void {
    this.#unfinished.delete(piece)
    this.#note(`p ${piece} ${source}`)
  }

  written(start: number, end: number): void {
    this.#note(`b ${start} ${end}`)
  }

  takenBack(piece: number): void {
    this.#unfinished.delete(piece)
    this.#note(`f ${piece}`)
  }

  /** The blocks of unfinished pieces that peers brought. */
  unfinished(pieces: readonly UnfinishedPiece[]): void {
    for (const { piece, blocks } of pieces) {
      const hex = hexOf(blocks)
      if (this.#unfinished.get(piece) === hex) continue
      this.#unfinished.set(piece, hex)
      this.#note(`u ${piece} ${hex}`)
    }
  }

  /** Deletes it: the file is complete, or worth nothing. A short form in the making deletes itself; nobody waits for it. */
  async remove(): Promise<void> {
    this.close()
    await rm(this.#path, { force: true }).catch(() => {})
  }

  /** Idempotent. Everything noted is on disk. */
  close(): void {
    this.#flush()
    this.#since = undefined
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  /** Lines of one turn of the event loop go out together, before anything else happens. */
  #note(line: string): void {
    if (this.#fd === undefined) return
    if (this.#lines.push(line) === 1) queueMicrotask(() => this.#flush())
  }

  #flush(): void {
    if (this.#fd === undefined || this.#lines.length === 0) return
    const text = `${this.#lines.join('\n')}\n`
    this.#lines = []
    try {
      writeSync(this.#fd, text)
      this.#since?.push(text)
      this.#sizeBytes += text.length
    } catch (error) {
      this.#giveUp(error)
    }
    if (this.#sizeBytes >= this.#longBytes) this.#shorten()
  }

  #grewTo(sizeBytes: number, shortBytes: number): void {
    this.#sizeBytes = sizeBytes
    this.#longBytes = Math.max(longBytes, longRatio * shortBytes)
  }

  /** One at a time: a beginning does not wait for the one it has made useless. */
  #shorten(): void {
    const map = this.#map
    if (this.#shortening !== undefined || this.#fd === undefined || map === undefined) return
    this.#shortening = this.#rewrite(map).finally(() => {
      this.#shortening = undefined
    })
  }

  /** What is noted while the short form goes to disk is in the old file as well, until the new one has its name. */
  async #rewrite(map: PieceMap): Promise<void> {
    const since: string[] = []
    this.#since = since
    const path = shortFormOf(this.#path)
    try {
      const text = this.#shortForm(map)
      await writeDurably(path, text, () => this.#since === since)
      if (this.#since === since) this.#replace(path, text, since.join(''))
    } catch (error) {
      log.debug(`cannot write the journal ${this.#path} anew: ${messageOf(error)}`)
      this.#longBytes = this.#sizeBytes + longBytes
    } finally {
      if (this.#since === since) this.#since = undefined
      removeQuietly(path)
    }
  }

  /** In one turn: nothing is noted in between. */
  #replace(path: string, text: string, since: string): void {
    const fd = openSync(path, 'a')
    try {
      writeSync(fd, since)
      renameSync(path, this.#path)
    } catch (error) {
      closeSync(fd)
      throw error
    }
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = fd
    this.#grewTo(text.length + since.length, text.length)
  }

  #giveUp(error: unknown): void {
    if (!this.#isBroken) log.debug(`cannot write the journal ${this.#path}: ${messageOf(error)}`)
    this.#isBroken = true
    this.#since = undefined
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }
}

/** After a loss of power too, the name leads to all of it: a file system may bring the rename to disk before the bytes. */
async function writeDurably(path: string, text: string, isWanted: () => boolean): Promise<void> {
  const handle = await open(path, 'w')
  try {
    await handle.writeFile(text)
    if (isWanted()) await handle.sync()
  } finally {
    await handle.close()
  }
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/** What the lines add up to. Lines that make no sense are skipped: the last one may be cut, and any may lie. */
function replay(map: PieceMap, lines: readonly string[]): Leftover {
  const unfinished = new Map<number, Uint8Array>()
  for (const line of lines) {
    const [kind, first = '', second = ''] = line.split(' ')
    const piece = wholeNumber(first)
    if (piece === undefined) continue
    const isPiece = piece < map.count
    if (kind === 'p' && isPiece && (second === 'http' || second === 'p2p')) {
      map.mark(piece, second)
      unfinished.delete(piece)
    } else if (kind === 'f' && isPiece) {
      map.forget(piece)
      unfinished.delete(piece)
    } else if (kind === 'u' && isPiece && isBitsOf(second, map.lengthOf(piece))) {
      if (!map.has(piece)) unfinished.set(piece, bitsOf(second, map.lengthOf(piece)))
    } else if (kind === 'b') {
      const end = wholeNumber(second)
      const isRange = piece % blockBytes === 0 && end !== undefined && end > piece && end <= map.sizeBytes
      if (isRange) map.write(piece, end)
    }
  }
  // Peers are asked for pieces of which nothing is there yet, and which the file need not reach to.
  const left = [...unfinished]
    .filter(([, blocks]) => blocks.some((byte) => byte !== 0))
    .map(([piece, blocks]) => ({ piece, blocks }))
  return { map, unfinished: left, endBytes: endOf(map, left) }
}

function endOf(map: PieceMap, unfinished: readonly UnfinishedPiece[]): number {
  let end = 0
  for (const piece of map.present()) end = Math.max(end, map.endOf(piece))
  for (const [, to] of map.writtenRuns()) end = Math.max(end, to)
  for (const { piece, blocks } of unfinished) {
    const last = blocks.length * 8 - trailingZeros(blocks)
    if (last === 0) continue // Asked for, and nothing of it came: the file need not reach there.
    end = Math.max(end, Math.min(map.offsetOf(piece) + last * blockBytes, map.endOf(piece)))
  }
  return end
}

function trailingZeros(bits: Uint8Array): number {
  const last = bits.findLastIndex((byte) => byte !== 0)
  const byte = bits[last] ?? 0
  return (bits.length - 1 - last) * 8 + (31 - Math.clz32(byte & -byte))
}

function isBitsOf(hex: string, pieceBytes: number): boolean {
  const bytes = Math.ceil(Math.ceil(pieceBytes / blockBytes) / 8)
  return hex.length === 2 * bytes && /^[0-9a-f]+$/.test(hex)
}

/** Without bits past the end of the piece: libtorrent is not given any. */
function bitsOf(hex: string, pieceBytes: number): Uint8Array {
  const bits = new Uint8Array(Buffer.from(hex, 'hex'))
  const spare = bits.length * 8 - Math.ceil(pieceBytes / blockBytes)
  bits[bits.length - 1] = (bits.at(-1) ?? 0) & (0xff << spare)
  return bits
}

function wholeNumber(text: string): number | undefined {
  const value = Number(text)
  return /^\d{1,16}$/.test(text) && Number.isSafeInteger(value) ? value : undefined
}
