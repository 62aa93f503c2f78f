/**
 * Compiles src/ to dist/, unless nothing changed since the last time. Beside `tsc` it does three things
 * that `tsc` does not: files that are not TypeScript (pages, styles) are copied as they are, files whose
 * source is gone are removed, and the command line gets its executable bit.
 *
 * `node scripts/build-ts.mjs [--force]`, or `buildTs()` from another script.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const srcDir = join(root, 'src')
const distDir = join(root, 'dist')
// Outside dist/, which is published.
const stampFile = join(root, 'node_modules', '.cache', 'llmpt', 'build-ts')
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')

/** Paths relative to `dir`, sorted; empty when there is no such folder. */
function filesBelow(dir) {
  if (!fs.existsSync(dir)) return []
  return fs
    .readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dir, join(entry.parentPath ?? entry.path, entry.name)))
    .sort()
}

/** Source file -> what it becomes in dist/. A hand-written `.d.ts` is for the compiler only and becomes nothing. */
function outputsOf(source) {
  if (source.endsWith('.d.ts')) return []
  if (!source.endsWith('.ts')) return [source]
  const base = source.slice(0, -'.ts'.length)
  return [`${base}.js`, `${base}.js.map`, `${base}.d.ts`]
}

function hashOfInputs(sources) {
  const hash = createHash('sha256')
  const inputs = [
    ...sources.map((source) => join('src', source)),
    'tsconfig.json',
    'tsconfig.build.json',
    'node_modules/typescript/package.json',
  ]
  for (const input of inputs)
    hash
      .update(`${input}\0`)
      .update(fs.readFileSync(join(root, input)))
      .update('\0')
  return hash.digest('hex')
}

/** @returns {'built' | 'unchanged'} @throws {Error} With the compiler's output, if it has complaints. */
export function buildTs({ force = false } = {}) {
  const sources = filesBelow(srcDir)
  const outputs = new Set(sources.flatMap(outputsOf))
  const hash = hashOfInputs(sources)
  const built = new Set(filesBelow(distDir))
  const stale = [...built].filter((file) => !outputs.has(file))
  const complete = [...outputs].every((file) => built.has(file))
  const lastHash = fs.existsSync(stampFile) ? fs.readFileSync(stampFile, 'utf8') : undefined
  if (!force && complete && stale.length === 0 && hash === lastHash) return 'unchanged'

  fs.rmSync(stampFile, { force: true })
  for (const file of stale) fs.rmSync(join(distDir, file))
  const run = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--pretty', 'false'], {
    cwd: root,
    encoding: 'utf8',
  })
  if (run.status !== 0)
    throw new Error(`tsc has complaints:\n${run.stdout ?? ''}${run.stderr ?? ''}`.trimEnd())
  for (const source of sources) {
    if (source.endsWith('.ts')) continue
    fs.mkdirSync(join(distDir, dirname(source)), { recursive: true })
    fs.copyFileSync(join(srcDir, source), join(distDir, source))
  }
  const commandLine = join(distDir, 'cli', 'main.js')
  if (fs.existsSync(commandLine)) fs.chmodSync(commandLine, 0o755)
  fs.mkdirSync(dirname(stampFile), { recursive: true })
  fs.writeFileSync(stampFile, hash)
  return 'built'
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    buildTs({ force: process.argv.includes('--force') })
  } catch (error) {
    console.error(error.message)
    process.exit(1)
  }
}
