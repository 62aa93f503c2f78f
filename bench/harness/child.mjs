/**
 * Processes that a benchmark is made of. Each is started, spoken to and ended by its own pid. Those of ours end when
 * their standard input does, so that even after a SIGKILL here they do not stay behind.
 *
 * A child prints one JSON object per line, told apart by `event` (see `in-child.mjs`); `llmpt … --json` does too.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const usualGraceMs = 2_000
const usualAnswerMs = 60_000
const stderrLimit = 4_000

const alive = new Set()
const cleanups = new Set()

/** The command line of this package, as it is built. */
export const llmpt = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** Ends every child that is still there and removes what was set up for them; resolves when all is gone. */
export async function endAllChildren() {
  await Promise.all([...alive].map((child) => child.end()))
  await Promise.all([...cleanups].map((cleanup) => cleanup()))
}

/** Has `endAllChildren` call `cleanup` too, until the returned function is called. */
export function atEnd(cleanup) {
  cleanups.add(cleanup)
  return () => cleanups.delete(cleanup)
}

/** The command line that runs one of our modules with Node. @param options Reach the module as JSON. */
export function nodeCommand(script, options = {}, { node = process.execPath, nodeFlags = [] } = {}) {
  return [node, ...nodeFlags, script, JSON.stringify(options)]
}

export class Child {
  #process
  #exited
  #hasExited = false
  #stderr = ''
  #slots = new Map()
  #listeners = new Map()
  #answers = new Map()
  #timer
  #graceMs

  /**
   * @param {readonly string[]} command Program and arguments.
   * @param {{ timeoutMs?: number, env?: Record<string, string>, graceMs?: number }} how It is killed after `timeoutMs`, and
   * `graceMs` after it was told to end; `env` is put over the environment of this process, of which the variables that
   * clients of the Hub read are left out.
   */
  constructor([program, ...args], { timeoutMs, env, graceMs = usualGraceMs } = {}) {
    this.#graceMs = graceMs
    this.#process = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...neutralEnvironment(), ...env },
    })
    alive.add(this)
    this.#process.stdin.on('error', () => {})
    this.#process.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-stderrLimit)
    })
    createInterface({ input: this.#process.stdout }).on('line', (line) => this.#hear(line))
    this.#exited = new Promise((resolve) => {
      this.#process.once('error', (error) => resolve(error.message))
      // Not `exit`: the last lines may still be in the pipe then.
      this.#process.once('close', (code, signal) => resolve(signal ?? code))
    }).then((how) => {
      this.#hasExited = true
      alive.delete(this)
      clearTimeout(this.#timer)
      this.#failPending(how)
      return how
    })
    if (timeoutMs === undefined) return
    this.#timer = setTimeout(() => {
      this.#stderr += `\nnot finished after ${Math.round(timeoutMs / 1000)} s`
      this.#process.kill('SIGKILL')
    }, timeoutMs)
  }

  get pid() {
    return this.#process.pid
  }

  /** What it has written there last. */
  get stderr() {
    return this.#stderr.trim()
  }

  /** The exit code, or the name of the signal, when it has ended. */
  get exited() {
    return this.#exited
  }

  /** The fields of the first event of this name. @throws {Error} With what the child wrote last, if it ended before. */
  event(name) {
    return this.#slot(name).promise
  }

  /** Calls `listener` with the fields of every event of this name; the returned function ends that. */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners.add(listener))
    return () => listeners.delete(listener)
  }

  /**
   * Has a child that serves commands (`in-child.mjs`) do something, and returns what that brought.
   *
   * @throws {Error} What it failed with there, or with what the child wrote last. A child that does not answer within
   * `timeoutMs` is killed.
   */
  async ask(command, fields = {}, timeoutMs = usualAnswerMs) {
    const id = this.#answers.size
    const timer = setTimeout(() => {
      this.#stderr += `\nno answer to "${command}" after ${Math.round(timeoutMs / 1000)} s`
      this.#process.kill('SIGKILL')
    }, timeoutMs)
    try {
      return await new Promise((resolve, reject) => {
        this.#answers.set(id, { resolve, reject })
        if (this.#hasExited) reject(this.#failure('ended early'))
        this.#process.stdin.write(`${JSON.stringify({ id, command, ...fields })}\n`)
      })
    } finally {
      clearTimeout(timer)
    }
  }

  signal(name) {
    this.#process.kill(name)
  }

  /** Lets the child finish in its own time. @returns What it used: `cpuSeconds`, `peakMemoryBytes`. */
  async finish() {
    this.#process.stdin.end()
    const usage = await this.event('usage')
    await this.#exited
    return usage
  }

  /** Ends the child whatever it is doing; resolves when it is gone. */
  async end() {
    this.#process.kill('SIGTERM')
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), this.#graceMs)
    await this.#exited
    clearTimeout(timer)
  }

  // What a library prints by itself is not for us.
  #hear(line) {
    if (!line.startsWith('{"event":')) return
    const { event, ...fields } = JSON.parse(line)
    if (event === 'answer') return this.#settle(fields)
    this.#slot(event).resolve(fields)
    for (const listener of this.#listeners.get(event) ?? []) listener(fields)
  }

  #settle({ id, error, ...result }) {
    const { resolve, reject } = this.#answers.get(id)
    if (error === undefined) resolve(result)
    else reject(new Error(error))
  }

  #slot(name) {
    let slot = this.#slots.get(name)
    if (slot === undefined) {
      slot = {}
      slot.promise = new Promise((resolve, reject) => Object.assign(slot, { resolve, reject }))
      // Whoever asks gets the failure; nobody need ask.
      slot.promise.catch(() => {})
      this.#slots.set(name, slot)
      if (this.#hasExited) slot.reject(this.#failure('ended early'))
    }
    return slot
  }

  #failPending(how) {
    const error = this.#failure(`ended (${how})`)
    for (const slot of [...this.#slots.values(), ...this.#answers.values()]) slot.reject(error)
  }

  #failure(what) {
    return new Error([what, this.stderr].filter(Boolean).join(': '))
  }
}

/** Runs `work` with a child that is ended when `work` is done or has failed. */
export async function withChild(command, how, work) {
  const child = new Child(command, how)
  try {
    return await work(child)
  } finally {
    await child.end()
  }
}

/** A user's own Hub, token, cache or proxy has no say in what is measured. */
export function neutralEnvironment() {
  const isOurs = (name) => !/^(HF_|HUGGING|XDG_CACHE_HOME$|CI$)|_proxy$/i.test(name)
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => isOurs(name)))
}
