/**
 * Everything about the code that can be judged without running it: format, lint and the rules about who may
 * import whom (Biome), types (tsc), the C++ format (clang-format), and whether docs/api.md tells the truth.
 *
 * `node scripts/check.mjs [--fix]`; with --fix it mends what a machine can mend, and reports the rest.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const fix = process.argv.includes('--fix')

/** Runs one program with its output in plain sight, and tells whether it was content. */
function runs(command, ...args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (result.error) console.error(`${command}: ${result.error.message}`)
  return result.status === 0
}

const node = (script, ...args) => runs(process.execPath, join(root, script), ...args)

function clangFormat() {
  const files = ['native', 'test/native/programs'].flatMap(cppFiles)
  if (files.length === 0) return true
  const mode = fix ? ['-i'] : ['--dry-run', '-Werror']
  return runs('clang-format', '--style=file:native/.clang-format', ...mode, ...files)
}

function cppFiles(folder) {
  const path = join(root, folder)
  const names = existsSync(path) ? readdirSync(path) : []
  return names.filter((name) => /\.(h|cpp)$/.test(name)).map((name) => join(folder, name))
}

// It says what is missing; whatever comes next would only say so again, less clearly.
if (!node('scripts/setup.mjs', '--check')) {
  console.log('\nfailed  setup (see above); nothing was checked')
  process.exit(1)
}

const checks = [
  [
    'biome',
    () =>
      node(
        'node_modules/@biomejs/biome/bin/biome',
        ...(fix ? ['check', '--write'] : ['ci']),
        '--error-on-warnings',
        '--colors=off',
      ),
  ],
  ['tsc', () => node('node_modules/typescript/bin/tsc', '--noEmit')],
  ['clang-format', clangFormat],
  ['docs/api.md', () => node('scripts/api-docs.mjs', ...(fix ? [] : ['--check']))],
]
const results = checks.map(([name, check]) => ({ name, passed: check() }))

console.log()
for (const { name, passed } of results) console.log(`${passed ? 'ok    ' : 'failed'}  ${name}`)
if (results.some(({ passed }) => !passed)) process.exitCode = 1
