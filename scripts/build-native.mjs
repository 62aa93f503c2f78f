/**
 * Builds the addon with CMake, through cmake-js, unless what is there was made from the same sources.
 *
 *     node scripts/build-native.mjs [--asan] [--debug] [--tests] [--jobs N] [--force] [--out FOLDER] [--copy-to FOLDER]
 *
 * The result is build/Release/llmpt_native.node (build-asan/Release/… with --asan, …/Debug/… with --debug). The address and
 * undefined behaviour sanitizers come with --asan; scripts/test-asan.mjs runs the tests under them. With --tests, the programs
 * in test/native/programs are beside it.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join, parse, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('../', import.meta.url))
const { values: options } = parseArgs({
  options: {
    asan: { type: 'boolean', default: false },
    debug: { type: 'boolean', default: false },
    force: { type: 'boolean', default: false },
    tests: { type: 'boolean', default: false },
    jobs: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string' },
    'copy-to': { type: 'string' },
  },
})

const out = resolve(root, options.out ?? (options.asan ? 'build-asan' : 'build'))
const configuration = options.debug ? 'Debug' : 'Release'
const binary = join(out, configuration, 'llmpt_native.node')
// Two, so that a build without the tests leaves nothing to do for one with them, and the other way round.
const addon = {
  files: ['llmpt_native.node'],
  stamp: join(out, configuration, 'llmpt_native.stamp'),
  print: fingerprint('native'),
}
const tests = {
  files: namesIn('test/native/programs', /\.cpp$/).map((name) => parse(name).name),
  stamp: join(out, configuration, 'tests.stamp'),
  print: fingerprint('native', 'test/native/programs'),
}

const results = options.tests ? [addon, tests] : [addon]
if (!options.force && results.every(isUpToDate)) {
  console.error(`llmpt: ${relative(root, binary)} is up to date`)
} else {
  build()
  for (const { stamp, print } of results) writeFileSync(stamp, print)
  console.error(`llmpt: built ${relative(root, binary)}`)
}
if (options['copy-to']) {
  mkdirSync(options['copy-to'], { recursive: true })
  copyFileSync(binary, join(options['copy-to'], 'llmpt_native.node'))
}

function isUpToDate({ files, stamp, print }) {
  const areThere = [...files.map((file) => join(out, configuration, file)), stamp].every(existsSync)
  return areThere && readFileSync(stamp, 'utf8') === print
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
    `--CDLLMPT_NATIVE_TESTS=${options.tests ? 'ON' : 'OFF'}`,
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

/** Everything that binaries from these folders depend on, as one digest. */
function fingerprint(...folders) {
  const hash = createHash('sha256')
  const sources = folders.flatMap((folder) =>
    namesIn(folder, /\.(?:cpp|h|in)$/).map((name) => join(folder, name)),
  )
  for (const name of ['CMakeLists.txt', ...sources]) {
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

/** Sorted. None where there is no such folder: the package comes without the tests. */
function namesIn(folder, pattern) {
  const path = join(root, folder)
  return existsSync(path)
    ? readdirSync(path)
        .filter((name) => pattern.test(name))
        .sort()
    : []
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
