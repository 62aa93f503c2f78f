/** `llmpt doctor`: what works on this machine, and what to do about what does not. */

import { access, constants, mkdtemp, open, rm, stat, statfs, symlink } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { type Config, getConfig } from '../../config.ts'
import { HubHttp } from '../../hub/http.ts'
import { readToken } from '../../hub/token.ts'
import { messageOf } from '../../log.ts'
import type { NativeAddon } from '../../native/binding.ts'
import { requireAddon } from '../../native/load.ts'
import { Swarm } from '../../swarm/swarm.ts'
import { restUrl } from '../../tracker/protocol.ts'
import { packageVersion } from '../../version.ts'
import { type CommandContext, exitCodes } from '../command.ts'
import { formatBytes } from '../format.ts'
import { movedPort } from '../listen-check.ts'
import { hasColor } from '../output.ts'
import { showAddress } from '../peers.ts'

export interface DoctorArguments {
  readonly cacheDir?: string
  readonly tracker?: readonly string[]
  readonly endpoint?: string
  readonly listen?: readonly string[]
}

/** One finding. `fail` is for what nothing works without. */
interface Finding {
  readonly check: string
  readonly state: 'ok' | 'warn' | 'fail'
  readonly detail: string
  /** What to do. */
  readonly advice?: string
}

type Verdict = Omit<Finding, 'check'>

const ok = (detail: string): Verdict => ({ state: 'ok', detail })
const warn = (detail: string, advice: string): Verdict => ({ state: 'warn', detail, advice })
const fail = (detail: string, advice: string): Verdict => ({ state: 'fail', detail, advice })

const lowSpaceBytes = 10 * 1024 ** 3

export async function doctor(args: DoctorArguments, { out, signal }: CommandContext): Promise<number> {
  const config = getConfig({
    cacheDir: args.cacheDir,
    trackers: args.tracker,
    endpoint: args.endpoint,
    listen: args.listen,
  })
  const loaded = load()
  const addon = 'addon' in loaded ? loaded.addon : undefined
  await using http = new HubHttp({ connectTimeoutMs: 4_000, headersTimeoutMs: 4_000, retries: 0 })
  const checks: [string, () => Promise<Verdict> | Verdict][] = [
    ['Node', checkNode],
    ['addon', () => checkAddon(loaded)],
    ['cache', () => checkCache(config)],
    ['links', () => checkLinks(config)],
    ['locks', () => checkLocks(config, addon)],
    ['listen', () => checkListen(config, addon)],
    ['token', () => checkToken(config)],
    ['Hub', () => checkHub(config, http, signal)],
    ...trackerChecks(config, http, signal),
  ]
  const findings: Finding[] = []
  for (const [check, look] of checks) {
    signal.throwIfAborted()
    findings.push({
      check,
      ...(await Promise.resolve(look()).catch((error) => warn(messageOf(error), 'see the message'))),
    })
  }
  const isUsable = findings.every(({ state }) => state !== 'fail')
  out.event('doctor', { ok: isUsable, version: packageVersion, checks: findings })
  if (!out.json) for (const line of findings.flatMap(linesOf)) out.line(line)
  return isUsable ? exitCodes.ok : exitCodes.failed
}

type Loaded = { readonly addon: NativeAddon } | { readonly reason: string }

/** Not `loadAddon`: its warning would say the same as the finding. */
function load(): Loaded {
  try {
    return { addon: requireAddon() }
  } catch (error) {
    return { reason: messageOf(error) }
  }
}

function checkNode(): Verdict {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const text = `${process.versions.node} on ${process.platform}-${process.arch}, ${availableParallelism()} cores`
  if (major > 20 || (major === 20 && minor >= 19)) return ok(text)
  return warn(text, 'use Node 20.19 or newer')
}

function checkAddon(loaded: Loaded): Verdict {
  if ('reason' in loaded) {
    return warn(loaded.reason, 'until then downloads use HTTP only')
  }
  const { libtorrent, openssl } = loaded.addon.versions
  return ok(`libtorrent ${libtorrent}, ${openssl}`)
}

async function checkCache({ cacheDir }: Config): Promise<Verdict> {
  const folder = await nearestFolder(cacheDir)
  const advice = 'set HF_HUB_CACHE, or use --cache-dir, to name a folder you can write to'
  try {
    await access(folder, constants.W_OK | constants.X_OK)
    // `access` believes the mode bits; file systems that are full or read-only speak only when asked to write.
    await rm(await mkdtemp(join(folder, '.llmpt-probe-')), { recursive: true })
  } catch (error) {
    return fail(`${cacheDir} cannot be written to: ${messageOf(error)}`, advice)
  }
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  const text = `${cacheDir}, ${formatBytes(free)} free`
  return free < lowSpaceBytes
    ? warn(text, 'models are large: free some space, or set HF_HUB_CACHE to a larger disk')
    : ok(text)
}

async function checkLinks({ cacheDir }: Config): Promise<Verdict> {
  return await inProbeFolder(cacheDir, async (folder) => {
    try {
      await symlink('blob', join(folder, 'entry'))
      return ok('symbolic links work: contents are stored once')
    } catch {
      return warn(
        'symbolic links do not work',
        'files that appear in several revisions are stored several times; on Windows, switch on developer mode',
      )
    }
  })
}

async function checkLocks({ cacheDir }: Config, addon: NativeAddon | undefined): Promise<Verdict> {
  if (addon === undefined)
    return warn('no locks without the addon', 'interrupted downloads start anew, and two at once fetch twice')
  return await inProbeFolder(cacheDir, async (folder) => {
    await using first = await open(join(folder, 'lock'), 'w')
    await using second = await open(join(folder, 'lock'), 'w')
    const works = addon.tryLock(first.fd) && !addon.tryLock(second.fd)
    return works
      ? ok('work')
      : warn(
          'this file system does not keep locks',
          'two downloads of one file at once may fetch it twice; a local disk does better',
        )
  })
}

async function checkListen(config: Config, addon: NativeAddon | undefined): Promise<Verdict> {
  if (addon === undefined) return warn('not tried without the addon', 'see "addon"')
  await using swarm = new Swarm(addon, config)
  try {
    const addresses = await swarm.session.listening()
    const moved = movedPort(config.listen, addresses)
    if (moved !== undefined) return warn(moved, 'choose a free port with --listen or HF_P2P_PORT')
    return ok(addresses.map(showAddress).join(', '))
  } catch (error) {
    return warn(
      messageOf(error),
      'peers cannot connect to this machine: choose another port with --listen or HF_P2P_PORT',
    )
  }
}

async function checkToken(config: Config): Promise<Verdict> {
  const token = await readToken(config)
  return ok(
    token === undefined
      ? 'none: public repositories only'
      : 'there is one; it goes to the Hub and nowhere else',
  )
}

async function checkHub({ endpoint, offline }: Config, http: HubHttp, signal: AbortSignal): Promise<Verdict> {
  if (offline)
    return warn(`${endpoint} was not asked: HF_HUB_OFFLINE is set`, 'only what is in the cache can be used')
  try {
    const response = await http.request({ method: 'HEAD', url: endpoint, signal })
    response.discard()
    if (response.status < 500) return ok(`${endpoint} answers`)
    return warn(`${endpoint} answers ${response.status}`, 'it may be down for the moment; try again later')
  } catch (error) {
    return warn(
      messageOf(error),
      'check the network, HTTPS_PROXY and HF_ENDPOINT; what is cached can be used all the same',
    )
  }
}

function trackerChecks(
  config: Config,
  http: HubHttp,
  signal: AbortSignal,
): [string, () => Promise<Verdict> | Verdict][] {
  if (config.trackers.length === 0) {
    return [
      [
        'tracker',
        () =>
          warn(
            'none configured: downloads use HTTP only',
            'set HF_P2P_TRACKER, or use --tracker; "llmpt tracker" runs one',
          ),
      ],
    ]
  }
  return config.trackers.map((url) => ['tracker', () => checkTracker(url, http, signal)])
}

async function checkTracker(url: string, http: HubHttp, signal: AbortSignal): Promise<Verdict> {
  try {
    const response = await http.request({ method: 'GET', url: restUrl(url, '/health').href, signal })
    response.discard()
    return response.status === 200
      ? ok(`${url} answers`)
      : warn(`${url} answers ${response.status}`, 'is it a tracker of this kind?')
  } catch (error) {
    return warn(`${url}: ${messageOf(error)}`, 'downloads use HTTP only while it is away; is the URL right?')
  }
}

/** The folder itself, or the closest one above it that exists. */
async function nearestFolder(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const found = await stat(at).catch(() => undefined)
    if (found?.isDirectory() || at === dirname(at)) return at
    // Something is there that is no folder: what is above it does not help.
    if (found !== undefined) return at
  }
}

async function inProbeFolder(path: string, look: (folder: string) => Promise<Verdict>): Promise<Verdict> {
  const folder = await mkdtemp(join(await nearestFolder(path), '.llmpt-probe-')).catch(() => undefined)
  if (folder === undefined) return warn('not tried: the cache cannot be written to', 'see "cache"')
  try {
    return await look(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const colors = { ok: '\x1b[32m', warn: '\x1b[33m', fail: '\x1b[31m' } as const

function linesOf({ check, state, detail, advice }: Finding): string[] {
  const word = hasColor(process.stdout) ? `${colors[state]}${state.padEnd(4)}\x1b[0m` : state.padEnd(4)
  const line = `${word}  ${check.padEnd(8)} ${detail}`
  return advice === undefined ? [line] : [line, `${' '.repeat(15)}-> ${advice}`]
}
