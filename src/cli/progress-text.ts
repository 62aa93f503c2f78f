/** A running download in words, bars and events. Pure. */
import { type ActiveFile, type DownloadProgress, type FinishedFile, sumOf } from '../transfer/progress.ts'
import type { BytesBySource } from '../values.ts'
import { columnsOf, cutEnd, cutStart, joinFitting } from './columns.ts'
import { countOf, formatBytes, formatRate, formatTime, printable } from './format.ts'

const green = '\x1b[32m'
const blue = '\x1b[34m'
const plain = '\x1b[0m'
/** Of a file's name, however much there is to say about it. */
const leastNameColumns = 12

/** What a `progress` event holds besides its name. Rates in bytes per second; `secondsLeft` is null while unknown. */
export function progressEvent(progress: DownloadProgress): object {
  return {
    files: progress.files,
    sizeBytes: progress.sizeBytes,
    bytes: progress.bytes,
    httpRate: Math.round(progress.httpRate),
    p2pRate: Math.round(progress.p2pRate),
    rate: Math.round(progress.rate),
    secondsLeft: rounded(progress.secondsLeft),
    peers: progress.peers,
    active: progress.active.map(({ path, phase, secondsLeft, progress: file }) => ({
      path,
      phase,
      sizeBytes: file.sizeBytes,
      bytes: file.bytes,
      httpRate: Math.round(file.httpRate),
      p2pRate: Math.round(file.p2pRate),
      secondsLeft: rounded(secondsLeft),
    })),
  }
}

/** What a `file` event of a download holds besides its name. */
export function fileEvent({ path, sizeBytes, bytes }: FinishedFile): object {
  return { path, size: sizeBytes, bytes }
}

function rounded(seconds: number | undefined): number | null {
  return seconds === undefined ? null : Math.round(seconds * 10) / 10
}

/** A download in one line: how much, how long still, from where and how fast; in few columns, only what matters most. */
export function progressLine(
  progress: Omit<DownloadProgress, 'finished'>,
  columns: number = Number.POSITIVE_INFINITY,
): string {
  const { sizeBytes, bytes, httpRate, p2pRate, rate, peers, files } = progress
  const share = `${percent(sumOf(bytes), sizeBytes)} of ${formatBytes(sizeBytes)}`
  const start = [share, ...stateOf(progress)]
  const count = files.total > 1 ? [`${files.done} of ${files.total} files`] : []
  const fetched = bytes.p2p + bytes.http
  const sources: string[] = []
  if (bytes.p2p > 0 || peers > 0) {
    const from = peers > 0 ? ` from ${countOf(peers, 'peer')}` : ''
    sources.push(`swarm ${percent(bytes.p2p, fetched)} ${formatRate(p2pRate)}${from}`)
  }
  if (bytes.http > 0 || httpRate > 0)
    sources.push(`HTTP ${percent(bytes.http, fetched)} ${formatRate(httpRate)}`)
  const all = [...start, ...count, ...sources].join(', ')
  if (columnsOf(all) <= columns) return all
  const speed = rate > 0 ? [formatRate(rate)] : []
  const peersShare = bytes.p2p > 0 ? [`swarm ${percent(bytes.p2p, fetched)}`] : []
  return joinFitting([...start, ...speed, ...count, ...peersShare], columns)
}

/** What it is at, when it is not simply on its way; else how long it still takes, when that is known. */
function stateOf({ active, secondsLeft }: Pick<DownloadProgress, 'active' | 'secondsLeft'>): string[] {
  if (active.length > 0 && active.every(({ phase }) => phase === 'verifying')) return ['verifying']
  if (active.length > 0 && active.every(({ phase }) => phase === 'waiting'))
    return ['waiting for another process']
  return timeLeft(secondsLeft)
}

function timeLeft(seconds: number | undefined): string[] {
  return seconds === undefined || seconds === 0 ? [] : [`${formatTime(seconds * 1000)} left`]
}

/** One file under way, in one line that is cut to `columns`. */
export function fileLine(file: ActiveFile, columns: number = Number.POSITIVE_INFINITY): string {
  const name = printable(file.path)
  const nameColumns = Math.min(columnsOf(name), Math.max(leastNameColumns, Math.floor(columns / 2)))
  const what = joinFitting(fileParts(file), columns - nameColumns - 2)
  const shownName = cutStart(name, Math.max(nameColumns, columns - columnsOf(what) - 2))
  return cutEnd(what === '' ? shownName : `${shownName}: ${what}`, columns)
}

function fileParts({ phase, secondsLeft, progress }: ActiveFile): string[] {
  const { sizeBytes, bytes, httpRate, p2pRate } = progress
  const share = `${percent(sumOf(bytes), sizeBytes)} of ${formatBytes(sizeBytes)}`
  if (phase === 'verifying') return ['verifying']
  if (phase === 'waiting') return [`another process has ${share}`]
  const rate = httpRate + p2pRate
  const fetched = bytes.p2p + bytes.http
  return [
    share,
    ...(rate > 0 ? [formatRate(rate)] : []),
    ...timeLeft(secondsLeft),
    ...(bytes.p2p > 0 ? [`swarm ${percent(bytes.p2p, fetched)}`] : []),
  ]
}

/** `part` of `whole` in per cent; 100 % only when nothing is missing, and 0 % only when there is nothing. */
export function percent(part: number, whole: number): string {
  if (whole <= 0) return part > 0 ? '100 %' : '0 %'
  const value = Math.round((part / whole) * 100)
  if (value === 0 && part > 0) return '<1 %'
  return `${part < whole ? Math.min(99, value) : 100} %`
}

/** A bar that tells peers (`=`, green) from HTTP (`-`, blue) and from what was there before (`~`). */
export function drawBar(
  bytes: Readonly<BytesBySource>,
  sizeBytes: number,
  width: number,
  isColored: boolean,
): string {
  const columns = (count: number): number => (sizeBytes > 0 ? Math.floor((count / sizeBytes) * width) : width)
  const cache = columns(bytes.cache)
  const p2p = columns(bytes.cache + bytes.p2p) - cache
  const http = Math.min(width, columns(bytes.cache + bytes.p2p + bytes.http)) - cache - p2p
  const paint = (color: string, text: string): string =>
    isColored && text !== '' ? color + text + plain : text
  const filled = `${'~'.repeat(cache)}${paint(green, '='.repeat(p2p))}${paint(blue, '-'.repeat(http))}`
  return `[${filled}${' '.repeat(width - cache - p2p - http)}]`
}
