/** `npm run test:python`, as somebody uses it who has no library, an old one, or one that does something else. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { temporaryDirectory } from '../support/temp-dir.ts'

const script = fileURLToPath(new URL('../../scripts/test-python.mjs', import.meta.url))
const standIn = fileURLToPath(new URL('stand_in/huggingface_hub', import.meta.url))

async function run(...args: string[]): Promise<{ code: number; output: string }> {
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code: code as number, output: out + err }
}

/** A Python that has the stand-in, with one text of it replaced. */
async function pythonWith(folder: string, from = '', to = ''): Promise<string> {
  const library = join(folder, 'library')
  await mkdir(library)
  await cp(standIn, join(library, 'huggingface_hub'), { recursive: true })
  const path = join(library, 'huggingface_hub', '__init__.py')
  const source = await readFile(path, 'utf8')
  expect(source).toContain(from)
  await writeFile(path, source.replace(from, to))
  const python = join(folder, 'python')
  await writeFile(python, `#!/bin/sh\nPYTHONPATH='${library}' exec /usr/bin/python3 "$@"\n`)
  await chmod(python, 0o755)
  return python
}

test('without a Python it says how to get one with the library', async () => {
  const { code, output } = await run()
  expect([code, output]).toEqual([2, expect.stringContaining("-m pip install 'huggingface_hub>=1'")])
})

test('a Python that is not there is named', async () => {
  const { code, output } = await run('--python', '/nowhere/python')
  expect([code, output]).toEqual([2, expect.stringContaining('/nowhere/python')])
})

test('a Python without the library is named, with the command that installs it there', async () => {
  await using folder = await temporaryDirectory()
  const python = join(folder.path, 'python')
  // Without what anybody has installed.
  await writeFile(python, '#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n', { mode: 0o755 })
  const { code, output } = await run('--python', python)
  expect(code).toBe(2)
  expect(output).toContain(`${python} -m pip install`)
  expect(output).toContain('No module named')
})

test('a library from before the layout of today is refused', async () => {
  await using folder = await temporaryDirectory()
  const python = await pythonWith(folder.path, '1.0.0+stand.in', '0.36.0')
  const { code, output } = await run('--python', python)
  expect([code, output]).toEqual([2, expect.stringContaining('version 1 or newer')])
})

test('a library that looks for what we wrote elsewhere fails the tests that are about that, and no others', async () => {
  await using folder = await temporaryDirectory()
  const python = await pythonWith(
    folder.path,
    '(folder / "snapshots").iterdir()',
    '(folder / "blobs").iterdir()',
  )
  const only = 'its scan reports|it does not fetch again, online'
  const { code, output } = await run('--python', python, '-t', only)
  expect([code, output]).toEqual([1, expect.stringMatching(/1 failed.*1 passed/)])
  expect(output).toContain('huggingface_hub 1.0.0+stand.in of ')
}, 60_000)
