import { describe, expect, test } from 'vitest'
import {
  parseDuration,
  parseListen,
  parsePieceLength,
  parsePort,
  parseRate,
  parseRepoAtRevision,
  parseSize,
  parseTrackerUrl,
  parseWorkers,
} from '../../src/cli/parse.ts'
import { ConfigError } from '../../src/errors.ts'

type Table = readonly (readonly [text: string, value: unknown])[]

function accepts(parse: (text: string) => unknown, table: Table): void {
  test.each(table)('%s is understood', (text, value) => {
    expect(parse(text)).toEqual(value)
  })
}

function refuses(parse: (text: string) => unknown, texts: readonly string[]): void {
  test.each(texts)('"%s" is refused, and the message shows it', (text) => {
    expect(() => parse(text)).toThrow(ConfigError)
    expect(() => parse(text)).toThrow(`"${text}"`)
  })
}

describe('a duration', () => {
  accepts(parseDuration, [
    ['90s', 90_000],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
    ['1w', 604_800_000],
    ['90', 90_000],
    ['1.5h', 5_400_000],
    ['500ms', 500],
    [' 2 h ', 7_200_000],
    ['forever', Number.POSITIVE_INFINITY],
  ])
  refuses(parseDuration, ['', 'soon', '0', '0s', '-5m', '5 fortnights', '1h30m', '1e3', 'Infinity'])
})

describe('a rate', () => {
  accepts(parseRate, [
    ['0', 0],
    ['1000', 1000],
    ['500k', 500_000],
    ['500kB', 500_000],
    ['10MB', 10_000_000],
    ['10mb/s', 10_000_000],
    ['2.5MiB/s', 2_621_440],
    ['1Gi', 1_073_741_824],
  ])
  refuses(parseRate, ['', 'fast', '-1', '10MB/h', '5 potatoes', '3GB', '1,5MB'])
})

describe('a size', () => {
  accepts(parseSize, [
    ['200MB', 200_000_000],
    ['1TiB', 1_099_511_627_776],
    ['1.5k', 1500],
  ])
  refuses(parseSize, ['big', '99999999TB', '10MB/s'])
})

describe('a piece length', () => {
  accepts(parsePieceLength, [
    ['auto', undefined],
    ['262144', 262_144],
    ['1MiB', 1_048_576],
    ['16KiB', 16_384],
  ])
  refuses(parsePieceLength, ['1MB', '8KiB', '512MiB', '0', 'large'])
})

describe('where to listen', () => {
  accepts(parseListen, [
    ['127.0.0.1:0', ['127.0.0.1:0']],
    ['[::1]:6881', ['[::1]:6881']],
    [':6881', ['0.0.0.0:6881', '[::]:6881']],
  ])
  refuses(parseListen, ['127.0.0.1', '6881', '127.0.0.1:70000', '::1:6881'])
})

describe('a port', () => {
  accepts(parsePort, [
    ['0', 0],
    ['65535', 65_535],
  ])
  refuses(parsePort, ['65536', '-1', '80.5', 'http'])
})

describe('a number of workers', () => {
  accepts(parseWorkers, [
    ['1', 1],
    ['256', 256],
  ])
  refuses(parseWorkers, ['0', '257', '-1', '1.5', 'many', '', '99999'])
})

describe('an announce URL', () => {
  accepts(parseTrackerUrl, [['udp://tracker.example:6969', 'udp://tracker.example:6969']])
  refuses(parseTrackerUrl, ['tracker.example', 'ftp://tracker.example', 'file:///etc/passwd'])
})

describe('a repository with a revision', () => {
  accepts(parseRepoAtRevision, [
    ['org/name', { repo: 'org/name', revision: undefined }],
    ['org/name@v1.0', { repo: 'org/name', revision: 'v1.0' }],
    ['org/name@refs/pr/3', { repo: 'org/name', revision: 'refs/pr/3' }],
  ])
  refuses(parseRepoAtRevision, ['org/name@'])
})
