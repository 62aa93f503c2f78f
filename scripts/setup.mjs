/**
 * Brings a fresh clone to the point where the demo and the tests can run: system packages, npm packages, the
 * native addon, the compiled TypeScript. Each step looks first and is silent when there is nothing to do.
 *
 * `node scripts/setup.mjs [--test] [--full] [--check] [--quiet]`
 *
 *   --test    also the other BitTorrent clients that the tests talk to, the Hub clients in test/clients, and the
 *             programs in test/native/programs
 *   --full    also what only the full tests need: transformers.js, which is large
 *   --check   only what `npm run check` needs: nothing is compiled
 *   --quiet   print failures only
 *
 * It runs before there is a node_modules, so it uses nothing but Node itself. All it prints goes to stderr:
 * stdout belongs to the command that comes after it.
 */
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildTs } from './build-ts.mjs'
import { installPackages, packagesAreUpToDate } from './npm-packages.mjs'

const oldestNode = [20, 19]
const oldestLibtorrent = '2.0.8'

/**
 * The system packages, by their Debian name. Debian's libtorrent brings Boost's and OpenSSL's headers along.
 * `works` asks for the thing itself, for machines where it came from elsewhere (another distribution,
 * Homebrew, /usr/local).
 */
const systemPackages = [
  { name: 'libtorrent-rasterbar-dev', usedBy: ['build'], works: libtorrentIsNewEnough },
  { name: 'pkg-config', usedBy: ['build'], works: () => runs('pkg-config', '--version') },
  { name: 'g++', usedBy: ['build'], works: () => runs(process.env.CXX || 'c++', '--version') },
  { name: 'cmake', usedBy: ['build'], works: () => runs('cmake', '--version') },
  { name: 'make', usedBy: ['build'], works: () => runs('make', '--version') },
  { name: 'aria2', usedBy: ['test'], works: () => runs('aria2c', '--version') },
  { name: 'rtorrent', usedBy: ['test'], works: () => runs('rtorrent', '-h') },
  { name: 'python3-libtorrent', usedBy: ['test'], works: () => runs('python3', '-c', 'import libtorrent') },
  { name: 'openssl', usedBy: ['test'], works: () => runs('openssl', 'version') },
  {
    name: 'python3-filelock',
    usedBy: ['test'],
    works: () => runs('/usr/bin/python3', '-c', 'import filelock'),
  },
  // A real file system without links and without case, where we may mount one; elsewhere the tests imitate it.
  {
    name: 'exfatprogs',
    usedBy: ['test'],
    isOptional: true,
    works: () => !mayMountFuse() || runs('sh', '-c', 'command -v mkfs.exfat'),
  },
  {
    name: 'exfat-fuse',
    usedBy: ['test'],
    isOptional: true,
    works: () => !mayMountFuse() || runs('sh', '-c', 'command -v mount.exfat-fuse'),
  },
  { name: 'clang-format', usedBy: ['check'], works: () => runs('clang-format', '--version') },
]

/** Hints for people on other systems. We install on Debian and Ubuntu only. */
const elsewhere = [
  ['Fedora', 'sudo dnf install rb_libtorrent-devel boost-devel openssl-devel pkgconf gcc-c++ cmake make'],
  ['Arch', 'sudo pacman -S libtorrent-rasterbar boost openssl pkgconf gcc cmake make'],
  ['macOS', 'brew install libtorrent-rasterbar boost openssl pkg-config cmake'],
]

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const addon = join(root, 'build', 'Release', 'llmpt_native.node')
const flags = parseFlags(process.argv.slice(2))

/** A failure whose message is all that a person needs. */
class SetupError extends Error {}

try {
  checkNode()
  withLock(() => {
    installSystemPackages()
    installNpmPackages()
    if (flags.check) return
    buildNative()
    buildTypeScript()
  })
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  console.error(`\nSet-up stopped: ${error.message}`)
  process.exitCode = 1
}

function parseFlags(args) {
  const parsed = { test: false, full: false, check: false, quiet: false }
  for (const arg of args) {
    const name = arg.replace(/^--/, '')
    if (!Object.hasOwn(parsed, name)) {
      console.error(`setup.mjs does not know ${arg}. It takes --test, --full, --check and --quiet.`)
      process.exit(2)
    }
    parsed[name] = true
  }
  return parsed
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])) return
  throw new SetupError(
    `this is Node ${process.versions.node}, and ${oldestNode.join('.')} or newer is needed.`,
  )
}

// --- System packages -------------------------------------------------------------------------------------

function installSystemPackages() {
  const purposes = flags.check ? ['check'] : ['build', flags.test && 'test']
  const wanted = systemPackages.filter((each) => each.usedBy.some((purpose) => purposes.includes(purpose)))
  const installed = namesKnownToDpkg(wanted)
  const missing = wanted.filter((each) => !installed.has(each.name) && !each.works())
  if (missing.length > 0) {
    if (fs.existsSync('/usr/bin/apt-get')) aptInstallAll(missing)
    else explainOtherSystem(missing)
  }
  if (!flags.check && !libtorrentIsNewEnough()) {
    const found =
      output('pkg-config', '--modversion', 'libtorrent-rasterbar') || 'none that pkg-config can find'
    throw new SetupError(
      `libtorrent-rasterbar ${oldestLibtorrent} or newer is needed, and there is ${found}. ` +
        'Debian 12 and Ubuntu 24.04 have it; elsewhere see https://libtorrent.org/building.html',
    )
  }
}

/** One process for all names, so that a machine that has everything waits for nothing. */
function namesKnownToDpkg(packages) {
  const lines = output(
    'dpkg-query',
    '-W',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg has the same syntax.
    '-f=${Package} ${db:Status-Status}\\n',
    ...packages.map((p) => p.name),
  )
  const installed = lines.split('\n').filter((line) => line.endsWith(' installed'))
  return new Set(installed.map((line) => line.split(' ')[0]))
}

function aptInstallAll(missing) {
  const namesOf = (packages) => packages.map((each) => each.name)
  const needed = missing.filter((each) => !each.isOptional)
  if (needed.length > 0) aptInstall(namesOf(needed))
  const optional = namesOf(missing.filter((each) => each.isOptional))
  if (optional.length === 0) return
  try {
    aptInstall(optional)
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    say(`going on without ${optional.join(', ')}, which cannot be installed`)
  }
}

function aptInstall(names) {
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive']
  const become =
    process.getuid() === 0
      ? environment
      : runs('sudo', '-n', 'true')
        ? ['sudo', '-n', ...environment]
        : undefined
  if (become === undefined) {
    throw new SetupError(
      `system packages are missing, and installing them needs root (or sudo without a password). Run:\n\n` +
        `  sudo apt-get update\n  sudo apt-get install -y --no-install-recommends ${names.join(' ')}\n`,
    )
  }
  step(`system packages: ${names.join(', ')}`, () => {
    // Unattended upgrades may hold the lock for a while on a fresh machine.
    const apt = [...become, 'apt-get', '-qq', '-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3']
    // One broken source among several makes `update` fail although the rest will do: let `install` decide.
    const update = run([...apt, 'update'])
    const install = run([...apt, 'install', '-y', '--no-install-recommends', ...names])
    if (!install.ok) throw new SetupError(`apt-get failed:\n\n${excerpt(update.text + install.text)}`)
  })
}

function explainOtherSystem(missing) {
  const names = missing.map((each) => each.name).join(', ')
  if (missing.every((each) => !each.usedBy.includes('build'))) {
    say(`not found, and installed by this script on Debian and Ubuntu only: ${names}. Going on without.`)
    return
  }
  throw new SetupError(
    `these are missing, and this script can install them on Debian and Ubuntu only (Debian's names): ${names}.\n\n` +
      elsewhere.map(([system, command]) => `  ${system}: ${command}`).join('\n'),
  )
}

function mayMountFuse() {
  return process.getuid?.() === 0 && fs.existsSync('/dev/fuse')
}

function libtorrentIsNewEnough() {
  return runs('pkg-config', `--atleast-version=${oldestLibtorrent}`, 'libtorrent-rasterbar')
}

// --- npm packages ----------------------------------------------------------------------------------------

function installNpmPackages() {
  installFrom(root, 'npm packages')
  const clients = join(root, 'test', 'clients')
  if (flags.test) installFrom(clients, 'the Hub clients of the tests')
  if (flags.full) installFrom(join(clients, 'programs', 'transformers'), 'transformers.js, for the tests')
}

function installFrom(folder, what) {
  if (packagesAreUpToDate(folder)) return
  step(what, () => {
    const failure = installPackages(folder)
    if (failure !== undefined) throw new SetupError(`npm ci failed:\n\n${excerpt(failure)}`)
  })
}

// --- Our own code ----------------------------------------------------------------------------------------

function buildNative() {
  const before = modifiedAt(addon)
  const startedAt = Date.now()
  const build = run([
    process.execPath,
    join(root, 'scripts', 'build-native.mjs'),
    ...(flags.test ? ['--tests'] : []),
  ])
  if (!build.ok) throw new SetupError(`the native addon did not build:\n\n${excerpt(build.text)}`)
  if (modifiedAt(addon) !== before) say(`native addon (${secondsSince(startedAt)})`)
}

function modifiedAt(path) {
  return fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs
}

function buildTypeScript() {
  const startedAt = Date.now()
  try {
    if (buildTs() === 'built') say(`TypeScript (${secondsSince(startedAt)})`)
  } catch (error) {
    throw new SetupError(`the TypeScript did not build: ${error.message}`)
  }
}

// --- Small things ----------------------------------------------------------------------------------------

/** Two set-ups at once would remove each other's node_modules. Whoever comes second waits. */
function withLock(work) {
  const lock = join(root, 'build', 'setup.lock')
  try {
    fs.mkdirSync(dirname(lock), { recursive: true })
  } catch (error) {
    throw new SetupError(`cannot write in ${root} (${error.code}).`)
  }
  let announced = false
  while (!takeLock(lock)) {
    if (!announced) console.error(`setup: another one is at work here; waiting. If not, remove ${lock}`)
    announced = true
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 250)
  }
  try {
    work()
  } finally {
    fs.rmSync(lock, { force: true })
  }
}

function takeLock(lock) {
  try {
    fs.writeFileSync(lock, String(process.pid), { flag: 'wx' })
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') throw new SetupError(`cannot write ${lock} (${error.code}).`)
  }
  if (isAlive(ownerOf(lock))) return false
  // Left by one that was killed.
  fs.rmSync(lock, { force: true })
  return takeLock(lock)
}

/** `undefined` when it was released since we looked. */
function ownerOf(lock) {
  try {
    return Number(fs.readFileSync(lock, 'utf8'))
  } catch {
    return undefined
  }
}

function isAlive(pid) {
  if (pid === undefined) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** Says what it does before it does it: some steps take a minute. */
function step(what, work) {
  say(`${what} …`)
  const startedAt = Date.now()
  work()
  say(`${what.split(':')[0]} done (${secondsSince(startedAt)})`)
}

function say(line) {
  if (!flags.quiet) console.error(`setup: ${line}`)
}

function secondsSince(startedAt) {
  return `${((Date.now() - startedAt) / 1000).toFixed(1)} s`
}

function run([command, ...args]) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  })
  const text = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ? `${result.error.message}\n` : ''}`
  return { ok: result.status === 0, stdout: result.stdout ?? '', text }
}

function runs(...command) {
  return run(command).ok
}

function output(...command) {
  return run(command).stdout.trim()
}

/** npm says what is wrong first, compilers and apt say it last. */
function excerpt(text, { head = 20, tail = 40 } = {}) {
  const lines = text.trimEnd().split('\n')
  if (lines.length <= head + tail) return lines.join('\n')
  return [...lines.slice(0, head), '  …', ...lines.slice(-tail)].join('\n')
}
