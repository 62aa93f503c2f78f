/** A running download in words, bars and events. Pure. */
import type { DownloadProgress } from '../transfer/progress.ts'
import type { BytesBySource } from '../values.ts'
import { countOf, formatBytes, formatRate, formatTime, printable } from './format.ts'

const green = '\x1b[32m'
const blue = '\x1b[34m'
const plain = '\x1b[0m'

/** Bytes there, whoever brought them. */
export function bytesDone(progress: Pick<DownloadProgress, 'bytes'>): number {
  return progress.bytes.p2p + progress.bytes.http + progress.bytes.cache
}

/** What a `progress` event holds besides its name. */
export function progressEvent(progress: DownloadProgress): object {
  return {
    files: progress.files,
    sizeBytes: progress.sizeBytes,
    bytes: progress.bytes,
    httpRate: Math.round(progress.httpRate),
    p2pRate: Math.round(progress.p2pRate),
    peers: progress.peers,
    active: progress.active.map(({ path, phase, progress: { sizeBytes, bytes } }) => ({
      path,
      phase,
      sizeBytes,
      bytes,
    })),
  }
}

/** A download in one line: how much, how long still, from where and how fast; the end may be cut off. */
export function progressLine(progress: DownloadProgress): string {
  const done = bytesDone(progress)
  const { sizeBytes, bytes, httpRate, p2pRate, peers, files, active } = progress
  const parts = [`${percent(done, sizeBytes)} of ${formatBytes(sizeBytes)}`]
  const rate = httpRate + p2pRate
  if (active.length > 0 && active.every(({ phase }) => phase === 'verifying')) parts.push('verifying')
  else if (active.length > 0 && active.every(({ phase }) => phase === 'waiting'))
    parts.push('waiting for another process')
  else if (rate > 0 && done < sizeBytes) parts.push(`${formatTime(((sizeBytes - done) / rate) * 1000)} left`)
  if (files.total > 1) parts.push(`${files.done} of ${files.total} files`)
  const fetched = bytes.p2p + bytes.http
  if (bytes.p2p > 0 || peers > 0) {
    const from = peers > 0 ? ` from ${countOf(peers, 'peer')}` : ''
    parts.push(`swarm ${percent(bytes.p2p, fetched)} ${formatRate(p2pRate)}${from}`)
  }
  if (bytes.http > 0 || httpRate > 0)
    parts.push(`HTTP ${percent(bytes.http, fetched)} ${formatRate(httpRate)}`)
  return parts.join(', ')
}

/** One file under way, in one line. */
export function fileLine(file: DownloadProgress['active'][number]): string {
  const { path, phase, progress } = file
  const done = bytesDone(progress)
  const what =
    phase === 'verifying'
      ? 'verifying'
      : phase === 'waiting'
        ? `another process has ${percent(done, progress.sizeBytes)} of ${formatBytes(progress.sizeBytes)}`
        : `${percent(done, progress.sizeBytes)} of ${formatBytes(progress.sizeBytes)}`
  return `${printable(path)}: ${what}`
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
