import { afterEach, describe, expect, test, vi } from 'vitest'
import { columnsOf } from '../../src/cli/columns.ts'
import { hasColor, Output } from '../../src/cli/output.ts'
import { BarsView, type Terminal } from '../../src/cli/progress-bars.ts'
import { EventsView, LinesView } from '../../src/cli/progress-view.ts'
import { activeFile, type DownloadProgress } from '../../src/transfer/progress.ts'

const mebibyte = 1024 * 1024
const names = [
  'model.safetensors',
  '模型/権重.safetensors',
  `${'long'.repeat(50)}.bin`,
  'a',
  'b',
  'c',
  'd',
  'e',
]

function progress(done: number, activeFiles = 0): DownloadProgress {
  const transfer = {
    sizeBytes: 10 * mebibyte,
    bytes: { p2p: 2 * mebibyte, http: 3 * mebibyte, cache: 0 },
    httpRate: mebibyte,
    p2pRate: mebibyte,
    peers: 1,
  }
  return {
    files: { done, total: 200 },
    sizeBytes: 1000 * mebibyte,
    bytes: { p2p: 200 * mebibyte, http: 250 * mebibyte, cache: 50 * mebibyte },
    httpRate: 10 * mebibyte,
    p2pRate: 20 * mebibyte,
    rate: 30 * mebibyte,
    secondsLeft: 17,
    peers: 3,
    active: names.slice(0, activeFiles).map((name) => activeFile(name, 'downloading', transfer)),
    finished: [],
  }
}

afterEach(() => {
  vi.unstubAllEnvs()
})

describe('events', () => {
  test('are the first, the last, and few in between', () => {
    const shown: number[] = []
    const view = new EventsView(60_000, ({ files }) => shown.push(files.done))
    for (const done of [0, 1, 2, 3]) view.onProgress(progress(done))
    expect(shown).toEqual([0])
    view[Symbol.dispose]()
    view[Symbol.dispose]()
    expect(shown).toEqual([0, 3])
  })
})

describe('lines', () => {
  /** When lines are shown of a download that tells its progress ten times a second for so long. */
  function shownAt(seconds: number): number[] {
    let now = 0
    const shown: number[] = []
    using view = new LinesView(
      () => shown.push(now / 1000),
      () => now,
    )
    for (; now <= seconds * 1000; now += 100) view.onProgress(progress(0))
    return shown
  }

  test('come every five seconds, and not at all for what is over by then', () => {
    expect(shownAt(4)).toEqual([])
    expect(shownAt(16)).toEqual([5, 10, 15])
  })

  test('become fewer when it takes long, and there is one a minute at least', () => {
    const hour = shownAt(3_600)
    expect(hour.length).toBeLessThan(120)
    const gaps = hour.map((at, index) => at - (hour[index - 1] ?? 0))
    expect(Math.max(...gaps)).toBeLessThanOrEqual(60.1)
  })
})

describe('bars', () => {
  /** What is on a terminal of this size when this progress has been shown, line by line, colours included. */
  function screenOf(
    terminal: { columns?: number; rows?: number },
    shown: DownloadProgress,
    isColored = false,
  ): { lines: string[]; text: string } {
    let text = ''
    using out = new Output({ json: false, quiet: false })
    const stream: Terminal = { ...terminal, write: (part: string) => (text += part) }
    vi.useFakeTimers()
    try {
      using view = new BarsView(out, stream, isColored)
      view.onProgress(shown)
      text = ''
      vi.advanceTimersByTime(200)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: what moves a cursor.
      const moves = /\x1b\[\??[0-9;]*[A-LN-Za-ln-z]/g
      const lines = text.replace(moves, '').split('\n')
      return { lines: lines.map((line) => line.replace(/^\r/, '')), text }
    } finally {
      vi.useRealTimers()
    }
  }

  // biome-ignore lint/suspicious/noControlCharactersInRegex: what colours a text.
  const plainOf = (line: string): string => line.replace(/\x1b\[\d+m/g, '')

  test.each([
    [60, ['[==--    ] 50 % of 0.98 GiB, 17 s left, 30.0 MiB/s']],
    [120, ['[~=====------            ] 50 % of 0.98 GiB, 17 s left, 30.0 MiB/s, 7 of 200 files, swarm 44 %']],
  ])('at %d columns tell the whole in one line', (columns, expected) => {
    const { lines } = screenOf({ columns, rows: 24 }, progress(7))
    expect(lines).toEqual(expected)
  })

  test.each([1, 10, 30, 44, 45, 60, 80, 120, 300])(
    'never take more than %d columns, with colours too',
    (columns) => {
      const { lines } = screenOf({ columns, rows: 24 }, progress(7, 8), true)
      expect(lines).toHaveLength(5)
      for (const line of lines) expect(columnsOf(plainOf(line))).toBeLessThan(columns)
    },
  )

  test('have a line for each of four files at most, and leave room on a low terminal', () => {
    expect(screenOf({ columns: 80, rows: 24 }, progress(7, 8)).lines).toHaveLength(5)
    expect(screenOf({ columns: 80, rows: 4 }, progress(7, 8)).lines).toHaveLength(3)
    expect(screenOf({ columns: 0, rows: 0 }, progress(7, 2)).lines).toHaveLength(3)
  })

  test('are coloured by source only when colours are wanted', () => {
    const colored = screenOf({ columns: 120 }, progress(7), true).lines[0]
    expect(colored).toContain('\x1b[32m=====\x1b[0m\x1b[34m------\x1b[0m')
    expect(screenOf({ columns: 120 }, progress(7), false).lines[0]).not.toContain('\x1b[3')
  })

  test('are gone in the end, and what is said meanwhile is not', () => {
    let text = ''
    using out = new Output({ json: false, quiet: false })
    const view = new BarsView(out, { columns: 80, rows: 24, write: (part: string) => (text += part) }, false)
    view.onProgress(progress(7, 2))
    out.say('a word in between')
    view[Symbol.dispose]()
    expect(text).toContain('a word in between\n')
    expect(text.endsWith('\x1b[0J')).toBe(true)
  })
})

describe('colours', () => {
  test.each([
    [{}, true, true],
    [{}, false, false],
    [{ NO_COLOR: '1' }, true, false],
    [{ NO_COLOR: '' }, true, true],
    [{ TERM: 'dumb' }, true, false],
    [{ FORCE_COLOR: '1' }, false, true],
    [{ FORCE_COLOR: '1', NO_COLOR: '1' }, false, true],
    [{ FORCE_COLOR: '0' }, true, false],
    [{ FORCE_COLOR: '' }, false, false],
  ])('with %j and a terminal: %s, they are wanted: %s', (env, isTTY, expected) => {
    const neutral = { NO_COLOR: '', FORCE_COLOR: '', TERM: 'xterm' }
    for (const [name, value] of Object.entries({ ...neutral, ...env })) vi.stubEnv(name, value)
    expect(hasColor({ isTTY })).toBe(expected)
  })
})
