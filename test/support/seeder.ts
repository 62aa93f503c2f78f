/** Seeds in processes of their own: see test/fakes/seeder.mjs. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { PeerAddress } from '../../src/values.ts'

export interface SeederOptions {
  /** A .torrent file, and the file it is of. */
  readonly torrentPath: string
  readonly content: string
  readonly host: string
  /** 0 is no limit. @defaultValue 0 */
  readonly bytesPerSecond?: number
  readonly announceUrl?: string
}

export class SeederProcess implements AsyncDisposable {
  readonly address: PeerAddress
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>

  private constructor(child: ChildProcess, address: PeerAddress) {
    this.#child = child
    this.address = address
    this.#ended = once(child, 'close')
  }

  static async start(options: SeederOptions): Promise<SeederProcess> {
    const { torrentPath, content, host, bytesPerSecond = 0, announceUrl = '' } = options
    const path = fileURLToPath(new URL('../fakes/seeder.mjs', import.meta.url))
    const child = spawn(
      process.execPath,
      [path, torrentPath, content, host, String(bytesPerSecond), announceUrl],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
    const [port] = (await Promise.race([
      once(lines, 'line'),
      once(child, 'close').then(() => {
        throw new Error('the seeder ended before it listened')
      }),
    ])) as [string]
    return new SeederProcess(child, { host, port: Number(port) })
  }

  /** Its connections stay open, and nothing comes through them. */
  freeze(): void {
    this.#child.kill('SIGSTOP')
  }

  thaw(): void {
    this.#child.kill('SIGCONT')
  }

  setRate(bytesPerSecond: number): void {
    this.#child.stdin?.write(`${bytesPerSecond}\n`)
  }

  /** Gone without a word; its connections are closed by the kernel. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }
}
