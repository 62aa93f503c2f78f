/** What every client is held to. */
import { describe, expect, test } from 'vitest'
import type { RequestRecord } from '../../../src/demo/hub.ts'
import { comparable, fromStorage, isLook, type Observed, type Run } from './observe.ts'
import type { Seen } from './program.ts'
import type { Mode } from './world.ts'

export interface Expectations {
  /** What the program did; asked for when the tests run. */
  readonly runs: () => Readonly<Record<Mode, Run>>
  /** Names of all calls. */
  readonly calls: readonly string[]
  /** Those that want the bytes of a large file. */
  readonly large: readonly string[]
  /** The part of an answer that peers must not change. @defaultValue all of it */
  readonly common?: (result: unknown, call: string) => unknown
  /**
   * In how many chunks a call may ask storage for files, when it is up to the client's haste in how many it does.
   * @defaultValue each run of a call makes the same requests
   */
  readonly mostChunks?: Readonly<Record<string, number>>
}

/** Compares the answers and the requests of one program in all modes. */
export function isHeldTo(expectations: Expectations): void {
  const { runs, calls, large, common = (result) => result, mostChunks = {} } = expectations
  const observed = (mode: Mode, call: string): Observed => {
    const found = runs()[mode].calls[call]
    if (found === undefined) throw new Error(`${call} was not called`)
    return found
  }

  describe('with the hook and nobody to get anything from', () => {
    test.each(calls)('%s gives the same answer', (call) => {
      expect(withoutIds(observed('hooked', call).seen)).toEqual(withoutIds(observed('unhooked', call).seen))
    })

    test.each(calls)('%s makes the same requests, and at most one look without a token', (call) => {
      const isCompared = ({ origin }: RequestRecord): boolean => origin === 'hub' || !(call in mostChunks)
      const { requests } = observed('hooked', call)
      const own = requests.filter((request) => !isLook(request))
      expect(comparable(own.filter(isCompared))).toEqual(
        comparable(observed('unhooked', call).requests.filter(isCompared)),
      )
      expect(requests.length - own.length).toBeLessThanOrEqual(1)
    })
  })

  describe('with the hook and a peer', () => {
    test.each(calls)('%s gives the same answer', (call) => {
      const answerOf = (mode: Mode): Seen => {
        const { seen } = observed(mode, call)
        return withoutIds('result' in seen ? { result: common(seen.result, call) } : seen)
      }
      expect(answerOf('peers')).toEqual(answerOf('unhooked'))
    })

    test.each(calls)('%s makes no more requests, but for a look without a token', (call) => {
      const made = observed('unhooked', call).requests
      const hubs = made.filter(({ origin }) => origin === 'hub')
      const most = call in mostChunks ? hubs.length + (mostChunks[call] ?? 0) : made.length
      const { requests } = observed('peers', call)
      expect(requests.length).toBeLessThanOrEqual(most + (requests.some(isLook) ? 1 : 0))
    })

    test.each(large)('%s takes nothing from storage, which it would have done', (call) => {
      expect(fromStorage(observed('unhooked', call).requests)).not.toEqual([])
      expect(fromStorage(observed('peers', call).requests)).toEqual([])
    })
  })

  test('the program ends by itself in each case, and we have said nothing', () => {
    for (const { ending } of Object.values(runs())) {
      expect(ending).toMatchObject({ code: 0, signal: null })
      expect(ending.stderr).not.toMatch(/llmpt/)
    }
  })
}

/** Clients give each request an id of its own. */
function withoutIds(seen: Seen): Seen {
  return JSON.parse(JSON.stringify(seen).replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'id')) as Seen
}
