/**
 * One place reads the environment. `getConfig` turns variables and options into a complete,
 * checked `Config`; nothing below it looks at `process.env`.
 */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { ConfigError } from './errors.ts'
import { type PeerAddress, parseRepoName } from './values.ts'

/** Everything a download, a seeder or a hook needs to know about its surroundings. */
export interface Config {
  /** Origin of the Hub, without a trailing slash. `HF_ENDPOINT`. */
  readonly endpoint: string
  /**
   * Base URLs of mirrors, in the order in which they are asked while the Hub is out of order. `HF_P2P_MIRRORS`, comma
   * separated. They must be as trustworthy as the Hub: meanwhile it is they who say what a file is. None gets the
   * token, nor hears of what not everybody may read.
   */
  readonly mirrors: readonly string[]
  /** Hub token, sent to `endpoint` and nowhere else. `HF_TOKEN`, `HF_TOKEN_PATH`, `$HF_HOME/token` (read by `hub/token`). */
  readonly token: string | undefined
  /** File the token is read from when none is given. */
  readonly tokenPath: string
  /** The standard Hub cache. `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`. */
  readonly cacheDir: string
  /** `HF_HUB_DISABLE_SYMLINKS=1`: files in snapshots instead of links to blobs. */
  readonly symlinks: boolean
  /** Our own state (torrents, resume data): never inside the cache. `$HF_HOME/llmpt`. */
  readonly stateDir: string
  /** `HF_HUB_OFFLINE`: answer from the cache or fail. */
  readonly offline: boolean
  /** `HF_USE_P2P`: `0` switches everything but plain HTTP off. */
  readonly p2p: boolean
  /** `HF_P2P_WEBSEED`: `0` means no HTTP for file content. */
  readonly http: boolean
  /** Base URLs of trackers. `HF_P2P_TRACKER`, comma separated. Without one there is no swarm. */
  readonly trackers: readonly string[]
  /** How long the swarm may hold a download up in all, when there is no HTTP to fall back on. `HF_P2P_TIMEOUT`, seconds. */
  readonly timeoutMs: number
  /**
   * How long HTTP waits for the first bytes of a swarm in which peers are known to be, and then leaves it alone unless
   * it is slow: spares the Hub, may cost time. `HF_P2P_HEAD_START`, seconds. 0: both at once.
   */
  readonly headStartMs: number
  /**
   * How long a hooked `fetch` may wait for trackers to say whether anybody has the file; then it goes on without them.
   * `HF_P2P_LOOKUP_TIMEOUT`, seconds.
   */
  readonly lookupTimeoutMs: number
  /** Interfaces to listen on, `host:port`; port 0 picks one. `HF_P2P_PORT` sets the port. */
  readonly listen: readonly string[]
  /** Peers to connect to besides those the tracker names. */
  readonly peers: readonly PeerAddress[]
  /** uTP besides TCP. Off by default: it is several times slower on fast links. `HF_P2P_DISABLE_UTP=0` turns it on. */
  readonly utp: boolean
  /** Who reads and writes the files of torrents: our own disk backend, or libtorrent's. `HF_P2P_DISK_BACKEND`. */
  readonly diskBackend: 'own' | 'posix'
  /** Files below this size go over HTTP first: a swarm needs longer to its first byte than they take. */
  readonly smallFileBytes: number
  /** 0 means no limit. */
  readonly maxDownloadBytesPerSecond: number
  /** 0 means no limit. */
  readonly maxUploadBytesPerSecond: number
  /** Whether the rates hold on the local network too: they do when somebody set them. */
  readonly limitLocalPeers: boolean
  /** Whether finished downloads are seeded while the process lives. Off under `CI=true` unless asked for. */
  readonly seed: boolean
  /** How long a finished download is seeded; `Infinity` while the process lives. */
  readonly seedForMs: number
  /**
   * Gated repositories that are shared all the same, each by its name: `org/name`, `datasets/org/name`,
   * `spaces/org/name`. Whoever finds their swarms gets the files without having accepted anything: see docs/security.md.
   * `HF_P2P_SHARE_GATED`, comma separated.
   */
  readonly shareGated: readonly string[]
  /** The same for private repositories. `HF_P2P_SHARE_PRIVATE`, comma separated. */
  readonly sharePrivate: readonly string[]
}

/** What a caller may set; the rest comes from the environment. */
export type ConfigOptions = {
  -readonly [K in keyof Config]?: Config[K] | undefined
} & { tracker?: string | readonly string[] | undefined }

/** `process.env`, or what stands in for it. */
export type Environment = Readonly<Record<string, string | undefined>>

export const defaultEndpoint = 'https://huggingface.co'
/** Upload cap while seeding: 10 MiB/s, so that giving back is not noticed. */
export const defaultMaxUploadBytesPerSecond: number = 10 * 1024 * 1024
const mebibyte = 1024 * 1024

/** The complete configuration: `options` first, then the environment, then the defaults. @throws {ConfigError} */
export function getConfig(options: ConfigOptions = {}, env: Environment = process.env): Config {
  const expand = (text: string): string => expandPath(text, env)
  const hfHome = env['HF_HOME'] ? expand(env['HF_HOME']) : join(cacheHome(env), 'huggingface')
  const cacheFromEnv = env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE']
  const asked = options.trackers ?? options.tracker
  const trackers = asked === undefined ? commaSeparated(env['HF_P2P_TRACKER']) : [asked].flat()
  const port = env['HF_P2P_PORT'] ? integer('HF_P2P_PORT', env['HF_P2P_PORT'], 0, 65535) : 0
  const endpoint = httpOrigin('endpoint', options.endpoint ?? env['HF_ENDPOINT'] ?? defaultEndpoint)
  const mirrors = (options.mirrors ?? commaSeparated(env['HF_P2P_MIRRORS'])).map((url) =>
    httpOrigin('mirror', url),
  )
  return {
    endpoint,
    mirrors: [...new Set(mirrors)].filter((mirror) => mirror !== endpoint),
    token: options.token ?? (env['HF_TOKEN']?.trim() || undefined),
    tokenPath:
      options.tokenPath ?? (env['HF_TOKEN_PATH'] ? expand(env['HF_TOKEN_PATH']) : join(hfHome, 'token')),
    cacheDir: resolve(options.cacheDir ?? (cacheFromEnv ? expand(cacheFromEnv) : join(hfHome, 'hub'))),
    symlinks: options.symlinks ?? !truth(env['HF_HUB_DISABLE_SYMLINKS'], false),
    stateDir: resolve(options.stateDir ?? join(hfHome, 'llmpt')),
    offline: options.offline ?? truth(env['HF_HUB_OFFLINE'], false),
    p2p: options.p2p ?? truth(env['HF_USE_P2P'], true),
    http: options.http ?? truth(env['HF_P2P_WEBSEED'], true),
    trackers: trackers.map((url) => httpOrigin('tracker', url)),
    timeoutMs: options.timeoutMs ?? seconds('HF_P2P_TIMEOUT', env['HF_P2P_TIMEOUT'], 300),
    headStartMs: options.headStartMs ?? seconds('HF_P2P_HEAD_START', env['HF_P2P_HEAD_START'], 0, true),
    lookupTimeoutMs:
      options.lookupTimeoutMs ?? seconds('HF_P2P_LOOKUP_TIMEOUT', env['HF_P2P_LOOKUP_TIMEOUT'], 1),
    listen: options.listen ?? [`0.0.0.0:${port}`, `[::]:${port}`],
    peers: (options.peers ?? []).map(checkedPeer),
    utp: options.utp ?? !truth(env['HF_P2P_DISABLE_UTP'], true),
    diskBackend: diskBackend(options.diskBackend ?? (env['HF_P2P_DISK_BACKEND'] || 'own')),
    smallFileBytes: options.smallFileBytes ?? mebibyte,
    maxDownloadBytesPerSecond: options.maxDownloadBytesPerSecond ?? 0,
    maxUploadBytesPerSecond: options.maxUploadBytesPerSecond ?? defaultMaxUploadBytesPerSecond,
    limitLocalPeers:
      options.limitLocalPeers ??
      (options.maxDownloadBytesPerSecond !== undefined || options.maxUploadBytesPerSecond !== undefined),
    seed: options.seed ?? !truth(env['CI'], false),
    seedForMs: options.seedForMs ?? Number.POSITIVE_INFINITY,
    shareGated: repoNames('shareGated', options.shareGated ?? commaSeparated(env['HF_P2P_SHARE_GATED'])),
    sharePrivate: repoNames(
      'sharePrivate',
      options.sharePrivate ?? commaSeparated(env['HF_P2P_SHARE_PRIVATE']),
    ),
  }
}

/** `host:port`, `[v6]:port`. @throws {ConfigError} */
export function parsePeerAddress(text: string): PeerAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  const host = match?.[1] ?? match?.[2]
  if (host === undefined || !(port <= 65535)) {
    throw new ConfigError(`"${text}" is not HOST:PORT, such as 192.0.2.7:6881 or [2001:db8::7]:6881`)
  }
  return { host, port }
}

/** libtorrent connects to addresses, not to names. */
function checkedPeer(peer: PeerAddress): PeerAddress {
  // Loaded when there are any: the hook reads its configuration in programs that may never use the network.
  if (process.getBuiltinModule('node:net').isIP(peer.host) === 0)
    throw new ConfigError(`peer "${peer.host}" is not an IP address`)
  return peer
}

/** Each repository by itself: nobody shares all that their token opens by one word. */
function repoNames(what: string, names: readonly string[]): readonly string[] {
  const wrong = names.find((name) => parseRepoName(name) === undefined)
  if (wrong === undefined) return [...new Set(names)].sort()
  throw new ConfigError(
    `${what}: "${wrong}" is not the name of a repository, such as org/name or datasets/org/name`,
  )
}

function diskBackend(text: string): Config['diskBackend'] {
  if (text === 'own' || text === 'posix') return text
  throw new ConfigError(`disk backend "${text}" (HF_P2P_DISK_BACKEND) is neither "own" nor "posix"`)
}

function httpOrigin(what: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    throw new ConfigError(`${what} "${text}" is not an http:// or https:// URL`)
  }
  if (url.username || url.password) throw new ConfigError(`${what} must not carry a user name or password`)
  return (url.origin + url.pathname).replace(/\/+$/, '')
}

function commaSeparated(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

/** As Python's client reads booleans: 1, true, yes, on in any case; anything else set is false. */
function truth(text: string | undefined, fallback: boolean): boolean {
  if (text === undefined || text === '') return fallback
  return ['1', 'true', 'yes', 'on'].includes(text.toLowerCase())
}

function seconds(name: string, text: string | undefined, fallback: number, mayBeZero = false): number {
  if (text === undefined || text === '') return fallback * 1000
  const value = Number(text)
  if (!(value > 0) && !(mayBeZero && value === 0))
    throw new ConfigError(`${name}="${text}" is not a number of seconds${mayBeZero ? '' : ' above 0'}`)
  return value * 1000
}

function integer(name: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new ConfigError(`${name}="${text}" is not a whole number from ${min} to ${max}`)
  }
  return value
}

/** Where programs of this user keep what they can get again. */
function cacheHome(env: Environment): string {
  const xdg = env['XDG_CACHE_HOME']
  return xdg ? expandPath(xdg, env) : join(homeOf(env), '.cache')
}

/** @throws {ConfigError} For a user without one, as services and containers may be. */
function homeOf(env: Environment): string {
  const home = env['HOME'] || homeOfUser()
  if (home) return home
  throw new ConfigError('this user has no home folder: set HF_HOME, or HOME, to a folder to keep files in')
}

function homeOfUser(): string | undefined {
  try {
    return homedir()
  } catch {
    return undefined
  }
}

/** Expands `~`, `$VAR` and `${VAR}` as Python does for the cache variables; JS clients leave them as they are. */
function expandPath(text: string, env: Environment): string {
  const vars = text.replace(/\$(?:\{(\w+)\}|(\w+))/g, (whole, braced, bare) => env[braced ?? bare] ?? whole)
  return vars === '~' || vars.startsWith('~/') ? homeOf(env) + vars.slice(1) : vars
}
