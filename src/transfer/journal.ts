/**
 * Which pieces of a partial file are good, kept beside our other state so that an interrupted download
 * goes on where it stopped. A journal is a hint: whatever it says, the digest decides at the end.
 */
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { log, messageOf } from '../log.ts'
import type { Etag } from '../values.ts'
import { PieceMap } from './piece-map.ts'

const journalSchema = v.object({
  version: v.literal(1),
  etag: v.string(),
  sizeBytes: v.number(),
  pieceLength: v.number(),
  pieces: v.pipe(v.string(), v.base64()),
})

export class Journal {
  readonly #path: string
  readonly #etag: Etag | undefined
  /** Writes go one after the other, so that an early one cannot overtake a later one or the removal. */
  #last: Promise<void> = Promise.resolve()

  /** @param stateDir Our own state folder. @param partialPath The file the journal is about. */
  constructor(stateDir: string, partialPath: string, etag: Etag | undefined) {
    const name = createHash('sha256').update(partialPath).digest('hex').slice(0, 32)
    this.#path = join(stateDir, 'partial', `${name}.json`)
    this.#etag = etag
  }

  /** The pieces an earlier attempt left, or `undefined` when there is nothing usable. */
  async load(sizeBytes: number, pieceLength: number): Promise<PieceMap | undefined> {
    try {
      const parsed = v.safeParse(journalSchema, JSON.parse(await readFile(this.#path, 'utf8')))
      if (!parsed.success) return undefined
      const { output } = parsed
      if (
        output.etag !== (this.#etag ?? '') ||
        output.sizeBytes !== sizeBytes ||
        output.pieceLength !== pieceLength
      ) {
        return undefined
      }
      return new PieceMap(sizeBytes, pieceLength, new Uint8Array(Buffer.from(output.pieces, 'base64')))
    } catch {
      return undefined // Absent or damaged: the download starts from nothing.
    }
  }

  /** Writes the state of `map`. Never rejects: without a journal a crash costs bandwidth, not the download. */
  save(map: PieceMap): Promise<void> {
    const text = JSON.stringify({
      version: 1,
      etag: this.#etag ?? '',
      sizeBytes: map.sizeBytes,
      pieceLength: map.pieceLength,
      pieces: Buffer.from(map.toBytes()).toString('base64'),
    })
    this.#last = this.#last.then(() => this.#write(text))
    return this.#last
  }

  /** Never rejects. */
  remove(): Promise<void> {
    this.#last = this.#last.then(() => rm(this.#path, { force: true }).catch(() => {}))
    return this.#last
  }

  async #write(text: string): Promise<void> {
    const temporary = `${this.#path}.${randomBytes(4).toString('hex')}`
    try {
      await mkdir(join(this.#path, '..'), { recursive: true })
      await writeFile(temporary, text)
      await rename(temporary, this.#path)
    } catch (error) {
      log.debug(`cannot write the journal ${this.#path}: ${messageOf(error)}`)
      await rm(temporary, { force: true }).catch(() => {})
    }
  }
}
