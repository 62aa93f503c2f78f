/** A race in a partial file whose journal says what is there, and what an earlier one left in it. */
import type { Journal, Leftover } from './journal.ts'
import { PartialFile } from './partial-file.ts'
import { type ByteListener, type RaceOptions, type RaceOutcome, race } from './race.ts'

export interface PartialRaceOptions extends Omit<RaceOptions, 'file' | 'listener'> {
  readonly partialPath: string
  /** `undefined` for a partial file that nobody goes on from. */
  readonly journal: Journal | undefined
  /** Hears what the journal was told. */
  readonly listener?: Partial<ByteListener> | undefined
  /** Called when the file is there, before anything is written. */
  readonly onOpen?: (() => void) | undefined
}

/** What an earlier attempt left, when the partial file can still hold it. @throws {CacheError} */
export async function leftIn(
  partialPath: string,
  journal: Journal,
  sizeBytes: number,
  pieceLength: number,
): Promise<Leftover | undefined> {
  const left = await journal.load(sizeBytes, pieceLength)
  if (left === undefined) return undefined
  await using partial = await PartialFile.open(partialPath, true)
  return (await partial.sizeBytes()) < left.endBytes ? undefined : left
}

/** Fetches every missing piece of `map`. What the file holds beyond that is dropped when nothing of it counts. */
export async function raceInPartial(options: PartialRaceOptions): Promise<RaceOutcome> {
  const { partialPath, journal, listener, onOpen, ...rest } = options
  const { map, unfinished } = rest
  await using file = await PartialFile.open(partialPath, !map.isEmpty || unfinished.length > 0)
  journal?.begin(map, unfinished)
  onOpen?.()
  return await race({
    ...rest,
    file,
    listener: {
      piece: (piece, source) => {
        journal?.piece(piece, source)
        listener?.piece?.(piece, source)
      },
      written: (range) => {
        journal?.written(range.start, range.end)
        listener?.written?.(range)
      },
      takenBack: (piece, source) => {
        journal?.takenBack(piece)
        listener?.takenBack?.(piece, source)
      },
      unfinished: (pieces) => {
        journal?.unfinished(pieces)
        listener?.unfinished?.(pieces)
      },
      final: (endBytes) => listener?.final?.(endBytes),
    },
  })
}
