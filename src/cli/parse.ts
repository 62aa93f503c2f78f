/** Values as people write them on a command line. Pure functions; a value that makes no sense is a ConfigError. */
import ms, { type StringValue } from 'ms'
import { parsePeerAddress } from '../config.ts'
import { ConfigError } from '../errors.ts'

/** `90s`, `10m`, `2h`, `1d`, bare seconds, or `forever`, in ms; `Infinity` for `forever`. @throws {ConfigError} */
export function parseDuration(text: string): number {
  const trimmed = text.trim().toLowerCase()
  if (trimmed === 'forever') return Number.POSITIVE_INFINITY
  const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?$/.exec(trimmed) ?? []
  const value = amount === undefined ? undefined : ms(`${amount}${unit ?? 's'}` as StringValue)
  if (value === undefined || !(value > 0)) {
    throw new ConfigError(`"${text}" is not a duration above 0, such as 90s, 10m, 2h, 1d or forever`)
  }
  return value
}

// Not the `bytes` package: it reads 500k as 500, and kB as 1024.
const unitBytes: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 1024,
  mi: 1024 ** 2,
  gi: 1024 ** 3,
  ti: 1024 ** 4,
}

function amountOf(text: string): number | undefined {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?$/i.exec(text.trim()) ?? []
  const factor = unitBytes[unit.toLowerCase()]
  const value =
    amount === undefined || factor === undefined ? Number.NaN : Math.round(Number(amount) * factor)
  return Number.isSafeInteger(value) ? value : undefined
}

/** `200MB`, `1MiB`, `262144`, in bytes: k, M, G are powers of 1000, Ki, Mi, Gi of 1024. @throws {ConfigError} */
export function parseSize(text: string): number {
  const value = amountOf(text)
  if (value === undefined) throw new ConfigError(`"${text}" is not a size, such as 262144, 200MB or 1MiB`)
  return value
}

/** `500k`, `10MB`, `2.5MiB/s`, in bytes per second; 0 is no limit. @throws {ConfigError} */
export function parseRate(text: string): number {
  const value = amountOf(text.trim().replace(/\/s$/i, ''))
  // libtorrent keeps rates in 32 bits.
  if (value === undefined || value > 2 ** 31 - 1) {
    throw new ConfigError(
      `"${text}" is not a rate in bytes per second below 2 GiB/s, such as 500k, 10MB or 2.5MiB/s`,
    )
  }
  return value
}

/** A piece length in bytes; `undefined` for `auto`. @throws {ConfigError} unless it is a power of two from 16 KiB to 256 MiB. */
export function parsePieceLength(text: string): number | undefined {
  if (text === 'auto') return undefined
  const value = amountOf(text)
  if (value === undefined || value < 2 ** 14 || value > 2 ** 28 || !Number.isInteger(Math.log2(value))) {
    throw new ConfigError(`"${text}" is not auto or a power of two from 16KiB to 256MiB, such as 1MiB`)
  }
  return value
}

/** `HOST:PORT` to listen on; `:PORT` alone means every interface. @throws {ConfigError} */
export function parseListen(text: string): readonly string[] {
  const port = /^:(\d{1,5})$/.exec(text)?.[1]
  const wanted = port === undefined ? [text] : [`0.0.0.0:${port}`, `[::]:${port}`]
  for (const each of wanted) parsePeerAddress(each)
  return wanted
}

/** A TCP port; 0 picks one. @throws {ConfigError} */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (!(port <= 65535)) throw new ConfigError(`"${text}" is not a port from 0 to 65535`)
  return port
}

/** How many files at a time. @throws {ConfigError} */
export function parseWorkers(text: string): number {
  const workers = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  if (!(workers >= 1 && workers <= 256)) throw new ConfigError(`"${text}" is not a number from 1 to 256`)
  return workers
}

/** An `http://` or `https://` URL. @throws {ConfigError} */
export function parseHttpUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    throw new ConfigError(`"${text}" is not an http:// or https:// URL`)
  }
  return url.href
}

/** A URL where torrent clients announce: `udp://` too. @throws {ConfigError} */
export function parseTrackerUrl(text: string): string {
  const protocol = URL.canParse(text) ? new URL(text).protocol : ''
  if (!['http:', 'https:', 'udp:'].includes(protocol)) {
    throw new ConfigError(`"${text}" is not a tracker's URL, such as https://tracker.example/announce`)
  }
  return text
}

/** `org/name@revision`; the revision is whatever follows the first `@`, which no repository's name contains. */
export function parseRepoAtRevision(text: string): { repo: string; revision: string | undefined } {
  const at = text.indexOf('@')
  if (at === -1) return { repo: text, revision: undefined }
  if (at === text.length - 1) throw new ConfigError(`"${text}" ends where a revision should follow`)
  return { repo: text.slice(0, at), revision: text.slice(at + 1) }
}
