/**
 * Ties a torrent to what the Hub serves, by sample. A torrent says of its own bytes that they are whole, not that they
 * are the Hub's; the file's digest does, but only at the end. Whoever reads while the file grows is given bytes from
 * peers only after several places of it, head and tail among them, were the same at the Hub.
 *
 * A place is settled when HTTP brought its piece and the torrent found it right, or when the 16 KiB block that peers
 * brought equals what the Hub sends for the same range (the metainfo has hashes of pieces only). A block that differs is
 * asked for once more: only a Hub that says the same thing twice contradicts a torrent.
 */
import { randomInt } from 'node:crypto'
import { log, messageOf } from '../log.ts'
import type { RangeOpener } from './http-leg.ts'
import type { PartialFile } from './partial-file.ts'
import { blockBytes, type PieceMap } from './piece-map.ts'
import type { SwarmLeg } from './swarm-leg.ts'

export interface TieCheckOptions {
  readonly map: PieceMap
  readonly file: PartialFile
  readonly leg: SwarmLeg
  readonly open: RangeOpener
  readonly signal: AbortSignal
  readonly nowMs: () => number
  /** Picks a block, from 0 to below `count`. @defaultValue one that nobody can foresee */
  readonly pick?: ((count: number) => number) | undefined
  /** Called once, when all places are the same. */
  readonly onTied: () => void
  /** Called once, when one differs. */
  readonly onContradiction: () => Promise<void>
}

/** Places that are compared; a torrent of other content that agrees in all of them is no accident but a forgery. */
export const tieSamples = 8
/** Pause after a request that failed: whoever cannot answer now is not asked ten times a second. */
const retryMs = 1_000
/** How much is read to get to a place, from a server that begins before it. */
const maxSkippedBytes = 1024 * 1024

export class TieCheck {
  readonly leg: SwarmLeg
  readonly #options: TieCheckOptions
  /** First byte of each block that is still to be compared. */
  readonly #places: Set<number>
  readonly #comparing = new Set<number>()
  #notBeforeMs = 0
  #isOver = false

  constructor(options: TieCheckOptions) {
    this.leg = options.leg
    this.#options = options
    this.#places = samplePlaces(options.map.sizeBytes, options.pick ?? randomInt)
  }

  /** Pieces that hold a place to compare and are not there. */
  *wanted(): Generator<number> {
    const { map } = this.#options
    for (const place of this.#places) if (!map.has(map.pieceAt(place))) yield map.pieceAt(place)
  }

  /** Compares what can be compared by now; called by the race's tick. */
  step(): void {
    const { map, leg, signal, nowMs } = this.#options
    for (const place of this.#places) {
      if (this.#isOver || signal.aborted) return
      const piece = map.pieceAt(place)
      if (this.#comparing.has(place) || !map.has(piece)) continue
      if (map.sourceOf(piece) === 'http') {
        if (leg.hasSeen(piece)) this.#settled(place)
      } else if (nowMs() >= this.#notBeforeMs) this.#compareSoon(place)
    }
  }

  #compareSoon(place: number): void {
    this.#comparing.add(place)
    this.#compare(place)
      .catch((error) => {
        this.#notBeforeMs = this.#options.nowMs() + retryMs
        log.debug(`cannot compare byte ${place} with the Hub's: ${messageOf(error)}`)
      })
      .finally(() => this.#comparing.delete(place))
  }

  async #compare(place: number): Promise<void> {
    const { map, file, signal } = this.#options
    const start = place
    const end = Math.min(place + blockBytes, map.sizeBytes)
    const theirs = await file.read(start, end - start)
    const ours = await this.#ask(start, end)
    const isSame = ours.equals(theirs)
    if (!isSame && !(await this.#ask(start, end)).equals(ours))
      throw new Error('the Hub does not agree with itself')
    // Peers' piece may have been taken back meanwhile, and with it the question.
    if (this.#isOver || signal.aborted || map.sourceOf(map.pieceAt(place)) !== 'p2p') return
    if (isSame) return this.#settled(place)
    this.#isOver = true
    await this.#options.onContradiction()
  }

  /** What the Hub has from `start` to `end`. */
  async #ask(start: number, end: number): Promise<Buffer> {
    const { open, signal } = this.#options
    const asking = new AbortController()
    const abort = (): void => asking.abort(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      signal.throwIfAborted()
      const answer = await open({ start, end, signal: asking.signal })
      if (start - answer.start > maxSkippedBytes) throw new Error('the server does not know ranges')
      const chunks: Uint8Array[] = []
      let at = answer.start
      for await (const batch of answer.batches) {
        for (const chunk of batch) {
          chunks.push(chunk.subarray(Math.max(0, start - at), Math.max(0, end - at)))
          at += chunk.length
        }
        if (at >= end) break
      }
      // Half an answer says nothing about the other half.
      if (at < end) throw new Error(`the Hub's answer ended at byte ${at}`)
      return Buffer.concat(chunks)
    } finally {
      signal.removeEventListener('abort', abort)
      // What is left of the body is not wanted.
      asking.abort(new DOMException('compared', 'AbortError'))
    }
  }

  #settled(place: number): void {
    this.#places.delete(place)
    if (this.#places.size > 0 || this.#isOver) return
    this.#isOver = true
    this.#options.onTied()
  }
}

/** Blocks at random, the first and the last one among them; all of a file that has no more. */
function samplePlaces(sizeBytes: number, pick: (count: number) => number): Set<number> {
  const blocks = Math.ceil(sizeBytes / blockBytes)
  const places = new Set([0, (blocks - 1) * blockBytes])
  while (places.size < Math.min(tieSamples, blocks)) places.add(pick(blocks) * blockBytes)
  return places
}
