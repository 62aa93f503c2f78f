/** What the figures were measured on. Nothing here names the machine or its owner. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, machine, release, totalmem, type } from 'node:os'

/** Beyond this, somebody else is using the machine. */
const quietLoadPerCore = 0.25

/** @returns {Record<string, string>} In the order to print. */
export function describeMachine(addon, packageVersion) {
  return {
    CPU: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} cores${shaExtensions()}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${distribution() ?? type()}, kernel ${release()}, ${machine()}`,
    Node: process.versions.node,
    'llmpt-native': `${packageVersion}, libtorrent ${addon.versions.libtorrent}, ${addon.versions.openssl}`,
  }
}

/** @returns {string | undefined} A warning, when the figures will not mean much. */
export function unrest() {
  const load = loadavg()[0]
  if (load <= quietLoadPerCore * availableParallelism()) return undefined
  return `the machine is not quiet: load average ${load.toFixed(2)} before the first run`
}

/** SHA in hardware decides how fast a torrent can be made. */
function shaExtensions() {
  const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(read('/proc/cpuinfo'))?.[1]
  if (flags === undefined) return ''
  return /\bsha_ni\b|\bsha2\b/.test(flags) ? ', SHA extensions' : ', no SHA extensions'
}

function distribution() {
  return /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(read('/etc/os-release'))?.[1]
}

function read(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
