/** The other programs and packages that make torrents: what of them is here, and which version. */
import { spawnSync } from 'node:child_process'
import { installDependencies, versionOf } from '../harness/dependencies.mjs'
import { findProgram } from '../harness/needs.mjs'

export const notInstalled = 'not installed'

/** @returns Paths; `undefined` for what is not there. `npm`: why the packages from npm are not there. */
export function findTools() {
  const npm = installDependencies()
  const [mktorrent, transmission, openssl] = ['mktorrent', 'transmission-create', 'openssl'].map(findProgram)
  const libtorrentOf = (python) => firstLine(python, '-c', 'import libtorrent; print(libtorrent.__version__)')
  // Debian's package is for Debian's Python, which need not be the first on the PATH.
  const python = ['python3', '/usr/bin/python3'].find((each) => libtorrentOf(each) !== undefined)
  return {
    npm,
    mktorrent,
    transmission,
    python,
    versions: {
      'create-torrent': versionOf('create-torrent') ?? notInstalled,
      mktorrent: (mktorrent && firstLine(mktorrent, '-h')?.split(' ')[1]) ?? notInstalled,
      'transmission-create': (transmission && firstLine(transmission, '-V')?.split(' ')[1]) ?? notInstalled,
      'python3-libtorrent': (python && libtorrentOf(python)) ?? notInstalled,
      openssl: (openssl && firstLine(openssl, 'version')) ?? notInstalled,
    },
  }
}

/** What a program says first, on whichever stream; `undefined` when it says nothing or is not there. */
function firstLine(program, ...args) {
  const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) return undefined
  return (stdout || stderr).trim().split('\n', 1)[0] || undefined
}
