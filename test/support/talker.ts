/** Programs beside a test that say how far they are, and wait to be told to go on. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'

/** A program that says in words how far it is, and goes on at a line from us. */
export class Talker implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown[]>
  #output = ''
  #complaints = ''
  /** How it ended: its exit code, or the signal. */
  #end: string | undefined

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env })
    // Not `exit`: its last words may come after that.
    this.#exit = once(this.#child, 'close')
    this.#child.on('close', (code, signal) => (this.#end = String(code ?? signal)))
    this.#child.stdout?.on('data', (chunk) => (this.#output += chunk))
    this.#child.stderr?.on('data', (chunk) => (this.#complaints += chunk))
    // Who has ended does not listen; `says` tells that better.
    this.#child.stdin?.on('error', () => undefined)
  }

  /** Resolves when it has said `word`. @throws What it said instead, when it has ended. */
  async says(word: string): Promise<void> {
    while (!this.#output.includes(word)) {
      if (this.#end !== undefined)
        throw new Error(`ended (${this.#end}) without saying ${word}: ${this.#output}${this.#complaints}`)
      await Promise.race([once(this.#child.stdout ?? this.#child, 'data'), this.#exit])
    }
  }

  goOn(): void {
    this.#child.stdin?.write('go\n')
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  async end(): Promise<number | null> {
    const [code] = await this.#exit
    return code as number | null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill()
    await this.#exit
  }

  get output(): string {
    return this.#output.trim().replaceAll('\n', ' ')
  }
}

/** Holds a lock with the library, and in the way, of Python's `huggingface_hub`. */
const pythonProgram = `
import sys
from filelock import FileLock, Timeout
lock = FileLock(sys.argv[1])
try:
    lock.acquire(timeout=0)
except Timeout:
    print('waiting', flush=True)
    lock.acquire()
print('held', flush=True)
sys.stdin.readline()
lock.release()
`

/** Says `held` when it has the lock, after `waiting` if it had to; lets go when it is told to go on. */
export async function holdLock(path: string): Promise<Talker> {
  await mkdir(dirname(path), { recursive: true })
  return new Talker('/usr/bin/python3', ['-c', pythonProgram, path])
}
