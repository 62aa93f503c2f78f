/**
 * Runs the tests of a shared cache against the real `huggingface_hub` of a Python of yours:
 *
 *     npm run test:python -- --python PATH [vitest arguments]
 *
 * The library is not among the packages that the set-up installs, so `npm test` runs the same tests against a
 * stand-in (test/python/stand_in).
 */
import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const [flag, named, ...rest] = process.argv.slice(2)
// npm runs this in the package's folder, wherever it was called.
const python = named?.includes('/') ? resolve(process.env.INIT_CWD ?? '.', named) : named

if (flag !== '--python' || python === undefined) {
  fail(
    'which Python has huggingface_hub? Use: npm run test:python -- --python PATH\n\n' +
      'If none has it yet:\n\n' +
      '  python3 -m venv /tmp/hub-python\n' +
      `  ${installCommand('/tmp/hub-python/bin/python')}\n` +
      '  npm run test:python -- --python /tmp/hub-python/bin/python',
  )
}

const show = 'import huggingface_hub as hub; print(hub.__version__, hub.__file__)'
const found = spawnSync(python, ['-c', show], { encoding: 'utf8' })
if (found.error) fail(`cannot run ${python}: ${found.error.message}`)
if (found.status !== 0) {
  const reason = found.stderr.trim().split('\n').at(-1)
  fail(
    `${python} cannot import huggingface_hub (${reason}). Install it there:\n\n  ${installCommand(python)}`,
  )
}
const [version = '', ...path] = found.stdout.trim().split(' ')
console.error(`huggingface_hub ${version} of ${path.join(' ')}`)
if (Number.parseInt(version, 10) < 1) {
  fail(
    `version 1 or newer is needed, older ones wrote their caches differently:\n\n  ${installCommand(python)}`,
  )
}

const { status, signal } = spawnSync(
  process.execPath,
  [join(root, 'node_modules/vitest/vitest.mjs'), 'run', 'test/python/python.test.ts', ...rest],
  { cwd: root, stdio: 'inherit', env: { ...process.env, LLMPT_TEST_PYTHON: python } },
)
process.exit(signal !== null ? 1 : status)

function installCommand(interpreter) {
  return `${interpreter} -m pip install 'huggingface_hub>=1'`
}

function fail(message) {
  console.error(`test:python: ${message}`)
  process.exit(2)
}
