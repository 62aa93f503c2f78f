/** What a benchmark needs of the machine, and what to do about what is missing. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where things compiled for the benchmarks are kept; git ignores it. */
const buildDirectory = fileURLToPath(new URL('../build/', import.meta.url))

/** Debian's packages. */
const packageOf = {
  nginx: 'nginx-light',
  ip: 'iproute2',
  chrt: 'util-linux',
  'g++': 'g++',
  'pkg-config': 'pkg-config',
  python3: 'python3',
  curl: 'curl',
  openssl: 'openssl',
  cmp: 'diffutils',
  mktorrent: 'mktorrent',
  'transmission-create': 'transmission-cli',
}

/** The machine has not what a benchmark needs; the message says what to do. */
export class MissingNeed extends Error {}

/**
 * @param {{ programs?: readonly string[], root?: boolean }} needs
 * @throws {MissingNeed}
 */
export function checkNeeds({ programs = [], root = false }) {
  const missing = programs.filter((name) => findProgram(name) === undefined)
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((name) => packageOf[name] ?? name))].join(' ')
    throw new MissingNeed(`${missing.join(', ')} is not installed: apt-get install ${packages}`)
  }
  if (root && process.getuid?.() !== 0)
    throw new MissingNeed('it makes network namespaces, so it must run as root')
  if (root && !existsSync('/dev/net/tun'))
    throw new MissingNeed('there is no /dev/net/tun, which the emulated links are made with')
}

/** Path of a program; `sbin`, where nginx is, is not on everybody's PATH. */
export function findProgram(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** Compiles one C++ file, once. @param {readonly string[]} packages For pkg-config. @returns Path of the program. */
export function compile(source, packages = []) {
  const program = join(buildDirectory, source.replace(/^.*\/|\.cpp$/g, ''))
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program
  mkdirSync(buildDirectory, { recursive: true })
  const flags =
    packages.length === 0
      ? []
      : run('pkg-config', ['--cflags', '--libs', ...packages])
          .trim()
          .split(/\s+/)
  run(process.env.CXX ?? 'g++', ['-O2', '-std=c++17', '-o', program, source, ...flags])
  return program
}

function run(program, args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status === 0) return stdout
  throw new MissingNeed(`${program} ${args.join(' ')} failed: ${error?.message ?? stderr.trim()}`)
}
