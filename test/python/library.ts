/** Python's `huggingface_hub` in a process of its own, called from here. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('library.py', import.meta.url))
const standIn = fileURLToPath(new URL('stand_in', import.meta.url))

/** The interpreter that has the real library; without one, a stand-in runs in the system's. */
export const realPython: string | undefined = process.env['LLMPT_TEST_PYTHON']

export interface ScannedRepo {
  readonly id: string
  readonly type: string
  readonly refs: readonly string[]
  readonly revisions: readonly string[]
  readonly files: number
}

/** What `library.py` answers to. */
interface Calls {
  hf_hub_download: string
  snapshot_download: string
  try_to_load_from_cache: string | null
  scan_cache_dir: { readonly repos: readonly ScannedRepo[]; readonly warnings: readonly string[] }
}

export class PythonLibrary implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: AsyncIterator<string>
  readonly #ended: Promise<unknown>
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child
    this.#lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    this.#ended = once(child, 'close')
  }

  /** Starts a process that downloads from `endpoint`. */
  static async start(endpoint: string, env: Readonly<Record<string, string>> = {}): Promise<PythonLibrary> {
    const inherited = Object.entries(process.env).filter(([name]) => !/proxy/i.test(name))
    const child = spawn(realPython ?? '/usr/bin/python3', [program], {
      env: {
        ...Object.fromEntries(inherited),
        ...(realPython === undefined && { PYTHONPATH: standIn, PYTHONDONTWRITEBYTECODE: '1' }),
        HF_ENDPOINT: endpoint,
        // The Hub of the tests speaks Xet as the JS client does.
        HF_HUB_DISABLE_XET: '1',
        HF_HUB_DISABLE_TELEMETRY: '1',
        HF_HUB_DISABLE_PROGRESS_BARS: '1',
        ...env,
      },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const library = new PythonLibrary(child)
    await library.#answer()
    return library
  }

  /** @throws {Error} With the name of Python's exception as its name. */
  async call<K extends keyof Calls>(name: K, args: Readonly<Record<string, unknown>>): Promise<Calls[K]> {
    const before = this.#turn
    const answer = (async () => {
      await before.catch(() => undefined)
      this.#child.stdin.write(`${JSON.stringify([name, args])}\n`)
      return await this.#answer()
    })()
    this.#turn = answer
    const { result, error, message } = await answer
    if (error !== undefined) throw Object.assign(new Error(message), { name: error })
    return result as Calls[K]
  }

  async #answer(): Promise<{ result?: unknown; error?: string; message?: string }> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('Python has ended; see above')
    return JSON.parse(value) as object
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end()
    await this.#ended
  }
}
