/**
 * Runs the Hub clients of test/clients on several versions of Node. The versions are those of test/clients/nodes, which
 * come from npm with their checksums. Only the clients run on them, with our package and its addon in the same process;
 * the tests themselves run on the Node at hand.
 *
 * `node scripts/node-versions.mjs [MAJOR ...]`, after scripts/setup.mjs --test --full.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installPackages, packagesAreUpToDate } from './npm-packages.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const folder = join(root, 'test', 'clients', 'nodes')

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error(
    `The versions of Node come as npm packages for linux-x64, and this is ${process.platform}-${process.arch}.`,
  )
  process.exit(1)
}
install()
const results = chosen(process.argv.slice(2)).map(testOn)
console.log()
for (const { version, seconds, passed } of results) {
  console.log(`${passed ? 'ok    ' : 'failed'}  Node ${version} (${seconds} s)`)
}
if (results.some(({ passed }) => !passed)) process.exitCode = 1

function install() {
  if (packagesAreUpToDate(folder)) return
  console.error('node-versions: installing versions of Node …')
  const failure = installPackages(folder)
  if (failure === undefined) return
  console.error(`npm ci in test/clients/nodes failed:\n\n${failure}`)
  process.exit(1)
}

/** Names of the packages, `node20` and so on: those that were asked for, or all. */
function chosen(majors) {
  const names = Object.keys(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).dependencies)
  const unknown = majors.filter((major) => !names.includes(`node${major}`))
  if (unknown.length > 0) {
    console.error(
      `There is no Node ${unknown.join(', ')} here, only ${names.join(', ').replaceAll('node', '')}.`,
    )
    process.exit(2)
  }
  return majors.length === 0 ? names : names.filter((name) => majors.includes(name.replace('node', '')))
}

function testOn(name) {
  const node = join(folder, 'node_modules', name, 'bin', 'node')
  const version = spawnSync(node, ['-p', 'process.versions.node'], { encoding: 'utf8' }).stdout?.trim()
  if (!version) return { version: `${name}, which does not start`, seconds: 0, passed: false }
  console.log(`\nNode ${version}`)
  const startedAt = Date.now()
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const { status } = spawnSync(process.execPath, [vitest, 'run', 'test/clients'], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, LLMPT_TEST_FULL: '1', LLMPT_TEST_NODE: node },
  })
  return { version, seconds: Math.round((Date.now() - startedAt) / 1000), passed: status === 0 }
}
