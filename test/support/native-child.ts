/** Programs in test/native/fixtures and test/native/programs, run to their end. */
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** A program that takes longer is killed, and the promise rejects. */
  readonly capMs?: number
}

export interface FixtureOptions extends RunOptions {
  /** Node's own options. */
  readonly nodeArgs?: readonly string[]
}

/** Runs test/native/fixtures/`name` in a Node process of its own. */
export function runFixture(name: string, options: FixtureOptions = {}): Promise<Ended> {
  const path = fileURLToPath(new URL(`../native/fixtures/${name}`, import.meta.url))
  const args = [...(options.nodeArgs ?? []), path, ...(options.args ?? [])]
  return run(process.execPath, name, { ...options, args })
}

/** Runs what was compiled from test/native/programs/`name`.cpp, in the same way as the addon that is tested. */
export function runProgram(name: string, options: RunOptions = {}): Promise<Ended> {
  const beside = process.env['LLMPT_NATIVE_ADDON']
  const built = fileURLToPath(new URL(`../../build/Release/${name}`, import.meta.url))
  const path = beside === undefined ? built : join(dirname(beside), name)
  return run(path, name, options)
}

function run(command: string, name: string, options: RunOptions): Promise<Ended> {
  const child = spawn(command, options.args ?? [], {
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return new Promise((resolve, reject) => {
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    const capMs = options.capMs ?? 25_000
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${name} did not end within ${capMs} ms; it said: ${stdout}${stderr}`))
    }, capMs)
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, stdout, stderr })
    })
  })
}
