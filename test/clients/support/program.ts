/** Programs in `test/clients/programs`, each in a process of its own, on the Node that is to be tried. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

/** The Node that clients run on: this one, unless `npm run test:nodes` names another. */
export const clientNode: string = process.env['LLMPT_TEST_NODE'] ?? process.execPath

/** Our package's entry points, as a user's programs know them. */
export const indexUrl: string = new URL('../../../dist/index.js', import.meta.url).href
export const registerUrl: string = new URL('../../../dist/register.js', import.meta.url).href

/** What a program saw of one of its calls: what it returned, or how it failed. */
export type Seen = { readonly result: unknown } | { readonly error: unknown }

export interface ProgramOptions {
  /** Beside those of this process. */
  readonly env?: Readonly<Record<string, string>>
  /** Node's own arguments. */
  readonly nodeArguments?: readonly string[]
  readonly args?: readonly string[]
}

/** How a program ended. */
export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** All that it wrote to stderr. */
  readonly stderr: string
}

/** A program that waits for calls. End it, or it stays. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #stderr: Promise<string>
  readonly #ended: Promise<unknown[]>

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#stderr = text(child.stderr as NodeJS.ReadableStream)
    // Not `close`, which does not come after a `disconnect`.
    this.#ended = once(child, 'exit')
    // Clients narrate there.
    child.stdout?.resume()
  }

  static async start(name: string, options: ProgramOptions = {}): Promise<Program> {
    const { env, nodeArguments = [], args = [] } = options
    const path = fileURLToPath(new URL(`../programs/${name}`, import.meta.url))
    const child = spawn(clientNode, [...nodeArguments, path, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    })
    const program = new Program(child)
    await program.#message()
    return program
  }

  /** Calls one of the program's functions; one at a time. */
  async call(name: string, args: object = {}): Promise<Seen> {
    this.#child.send({ name, args })
    return (await this.#message()) as Seen
  }

  /** Asks nothing more of it, and waits until it has ended by itself. */
  async end(): Promise<Ending> {
    this.#child.disconnect()
    const [code, signal] = (await this.#ended) as [number | null, NodeJS.Signals | null]
    return { code, signal, stderr: await this.#stderr }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  async #message(): Promise<unknown> {
    const ended = this.#ended.then(async () => {
      throw new Error(`the program ended without an answer: ${await this.#stderr}`)
    })
    // Whichever comes second is of no interest.
    ended.catch(() => undefined)
    const [message] = (await Promise.race([once(this.#child, 'message'), ended])) as [unknown]
    return message
  }
}
