/**
 * Torrents that lied about a file, remembered for good: once the bytes of a torrent turned out not to be the
 * ones the Hub promises for an etag, no later download of that etag uses it again.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { log, messageOf } from '../log.ts'
import type { Etag, InfoHash } from '../values.ts'

const fileSchema = v.array(v.tuple([v.string(), v.string()]))
/** Enough for a lifetime of honest use; a flood of lies pushes out the oldest. */
const capacity = 5_000

export class CondemnedTorrents {
  readonly #path: string
  #pairs: Promise<Set<string>> | undefined

  constructor(stateDir: string) {
    this.#path = join(stateDir, 'condemned.json')
  }

  async has(etag: Etag, infoHash: InfoHash): Promise<boolean> {
    return (await this.#load()).has(`${etag} ${infoHash}`)
  }

  async add(etag: Etag, infoHash: InfoHash): Promise<void> {
    const pairs = await this.#load()
    pairs.add(`${etag} ${infoHash}`)
    const kept = [...pairs].slice(-capacity)
    try {
      await mkdir(dirname(this.#path), { recursive: true })
      const temporary = `${this.#path}.${randomBytes(4).toString('hex')}`
      await writeFile(temporary, JSON.stringify(kept.map((pair) => pair.split(' '))))
      await rename(temporary, this.#path)
    } catch (error) {
      log.warn(`cannot remember a torrent that lied in ${this.#path}: ${messageOf(error)}`)
    }
  }

  #load(): Promise<Set<string>> {
    this.#pairs ??= readFile(this.#path, 'utf8').then(
      (text) => {
        const parsed = v.safeParse(fileSchema, safeJson(text))
        return new Set(parsed.success ? parsed.output.map((pair) => pair.join(' ')) : [])
      },
      () => new Set<string>(),
    )
    return this.#pairs
  }
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
