/**
 * Runs in each worker process before its test file, and once more after it.
 *
 * Before: hides the user's own configuration from the tests, and gives the file a Hugging Face home of its
 * own, so that nobody's real cache is read or written. Programs that a test starts inherit both.
 *
 * After: fails the file if it left a program running or a socket open. vitest would not notice: it ends its
 * workers without waiting for them.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll } from 'vitest'

/** How long things that are already on their way out may take. */
const graceMs = 3000
const marker = `LLMPT_TEST_WORKER=${process.pid}`

for (const name of Object.keys(process.env)) {
  const isOurs =
    /^(HF|HUGGINGFACE|HUGGING_FACE|LLMPT)_/.test(name) &&
    !['LLMPT_TEST_FULL', 'LLMPT_TEST_NODE', 'LLMPT_TEST_PYTHON', 'LLMPT_NATIVE_ADDON'].includes(name)
  // Under CI we do not seed, and the tests are about seeding.
  if (isOurs || name === 'CI') delete process.env[name]
}
const home = mkdtempSync(join(tmpdir(), 'llmpt-test-home-'))
process.env['HF_HOME'] = home
process.env['LLMPT_TEST_WORKER'] = String(process.pid)

const socketsBefore = countSockets()

// vitest runs these hooks last in, first out: registered first, this one comes after the file's own.
afterAll(async () => {
  const deadline = Date.now() + graceMs
  let left = whatIsLeft()
  while (left.length > 0 && Date.now() < deadline) {
    await sleep(50)
    left = whatIsLeft()
  }
  for (const { pid } of programsLeft()) process.kill(pid, 'SIGKILL')
  rmSync(home, { recursive: true, force: true, maxRetries: 3 })
  if (left.length > 0) throw new Error(`This file left behind: ${left.join('; ')}. Close what you open.`)
})

function whatIsLeft(): string[] {
  const programs = programsLeft().map(({ pid, command }) => `process ${pid} (${command})`)
  const sockets = countSockets()
  const kinds = [...sockets].filter(([kind, count]) => count > (socketsBefore.get(kind) ?? 0))
  return [...programs, ...kinds.map(([kind, count]) => `${count} ${kind}`)]
}

/** Servers and sockets that keep this process alive. Not pipes: vitest talks to its workers through one. */
function countSockets(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo()) {
    if (!/^(TCP|UDP|Pipe)Server|^TCPSocket|^UDP/.test(kind)) continue
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  return counts
}

/** Everything that was started from here, and by what was started from here: they inherit our environment. */
function programsLeft(): { pid: number; command: string }[] {
  if (process.platform !== 'linux') return []
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const environment = readProc(name, 'environ')
      if (!environment.split('\0').includes(marker)) return []
      return [{ pid: Number(name), command: readProc(name, 'cmdline').replaceAll('\0', ' ').trim() }]
    })
}

/** Empty for a process that is gone by now, or belongs to someone else. */
function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}
