import { expect, test } from 'vitest'
import { runFixture } from '../support/native-child.ts'
import { diskBackends } from '../support/native-rig.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

test.each(diskBackends)(
  'a WebAssembly out-of-bounds access stays a RuntimeError before, during and after transfers (%s) and creation',
  async (diskBackend) => {
    await using folder = await temporaryDirectory()
    const { code, signal, stdout } = await runFixture('wasm-trap.mjs', { args: [folder.path, diskBackend] })
    const lines = ['before', 'during', 'after', 'closed', 'created'].map((when) => `${when} RuntimeError`)
    expect({ code, signal, lines: stdout.trim().split('\n') }).toEqual({ code: 0, signal: null, lines })
  },
)
