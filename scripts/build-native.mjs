/**
 * Builds the addon with CMake, through cmake-js, unless what is there was made from the same sources.
 *
 *     node scripts/build-native.mjs [--asan] [--debug] [--jobs N] [--force] [--out FOLDER] [--copy-to FOLDER]
 *
 * The result is build/Release/llmpt_native.node (build-asan/Release/… with --asan, …/Debug/… with --debug). The address and
 * undefined behaviour sanitizers come with --asan; scripts/test-asan.mjs runs the tests under them.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('../', import.meta.url))
const { values: options } = parseArgs({
  options: {
    asan: { type: 'boolean', default: false },
    debug: { type: 'boolean', default: false },
    force: { type: 'boolean', default: false },
    jobs: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string' },
    'copy-to': { type: 'string' },
  },
})

const out = resolve(root, options.out ?? (options.asan ? 'build-asan' : 'build'))
const configuration = options.debug ? 'Debug' : 'Release'
const binary = join(out, configuration, 'llmpt_native.node')
const stamp = join(out, configuration, 'llmpt_native.stamp')

const print = fingerprint()
if (!options.force && existsSync(binary) && existsSync(stamp) && readFileSync(stamp, 'utf8') === print) {
  console.error(`llmpt: ${relative(root, binary)} is up to date`)
} else {
  build()
  writeFileSync(stamp, print)
  console.error(`llmpt: built ${relative(root, binary)}`)
}
if (options['copy-to']) {
  mkdirSync(options['copy-to'], { recursive: true })
  copyFileSync(binary, join(options['copy-to'], 'llmpt_native.node'))
}

function build() {
  const require = createRequire(import.meta.url)
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js')
  const args = [
    cmakeJs,
    // Configures anew: cmake-js does that by itself only when there is no cache, and so would keep old options.
    'configure',
    '--out',
    out,
    ...(options.debug ? ['--debug'] : []),
    `--CDLLMPT_SANITIZE=${options.asan ? 'ON' : 'OFF'}`,
  ]
  run(args)
  run([cmakeJs, 'build', '--out', out, '--parallel', options.jobs, ...(options.debug ? ['--debug'] : [])])
}

/** Runs a Node program and shows what it says only when it fails: CMake talks much when all is well. */
function run(args) {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  })
  if (status === 0) return
  process.stderr.write(`${stdout}${stderr}${error ?? ''}\n`)
  console.error(
    'llmpt: the addon could not be built. It needs cmake, a C++17 compiler, pkg-config and libtorrent-rasterbar with its ' +
      'headers (Debian: apt install cmake g++ pkg-config libtorrent-rasterbar-dev).',
  )
  process.exit(1)
}

/** Everything the binary depends on, as one digest. */
function fingerprint() {
  const hash = createHash('sha256')
  const sources = readdirSync(join(root, 'native'))
    .filter((name) => /\.(?:cpp|h|in)$/.test(name))
    .sort()
  for (const name of ['CMakeLists.txt', ...sources.map((source) => join('native', source))]) {
    hash
      .update(`${name}\0`)
      .update(readFileSync(join(root, name)))
      .update('\0')
  }
  const facts = {
    napi: process.versions.napi,
    platform: process.platform,
    arch: process.arch,
    asan: options.asan,
    ...packages(),
  }
  return hash.update(JSON.stringify(facts)).digest('hex')
}

function packages() {
  try {
    const ask = (option) =>
      execFileSync('pkg-config', [option, 'libtorrent-rasterbar'], { encoding: 'utf8' }).trim()
    return { libtorrent: ask('--modversion'), flags: ask('--cflags') }
  } catch {
    // CMake says better than we could what is missing.
    return {}
  }
}
