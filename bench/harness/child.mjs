/**
 * Processes that a benchmark measures. Each is started, spoken to and ended by its own pid, and none outlives
 * us: they end when their standard input does, so even after a SIGKILL here nothing stays behind.
 *
 * A child prints one JSON object per line, told apart by `event` (see `in-child.mjs`).
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

const graceMs = 2_000
const stderrLimit = 4_000

const alive = new Set()

/** Ends every child that is still there; resolves when they are gone. */
export async function endAllChildren() {
  await Promise.all([...alive].map((child) => child.end()))
}

export class Child {
  #process
  #exited
  #stderr = ''
  #events = new Map()
  #timer

  /**
   * @param {string} script Path of the module to run.
   * @param {object} options Reaches the module as JSON.
   * @param {{ node?: string, nodeFlags?: string[], timeoutMs: number }} how It is killed after `timeoutMs`.
   */
  constructor(script, options, { node = process.execPath, nodeFlags = [], timeoutMs }) {
    this.#process = spawn(node, [...nodeFlags, script, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'pipe'],
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
      alive.delete(this)
      clearTimeout(this.#timer)
      this.#failPending(how)
      return how
    })
    this.#timer = setTimeout(() => {
      this.#stderr += `\nnot finished after ${Math.round(timeoutMs / 1000)} s`
      this.#process.kill('SIGKILL')
    }, timeoutMs)
  }

  /** The fields of the first event of this name. @throws {Error} With what the child wrote last, if it ended before. */
  event(name) {
    return this.#slot(name).promise
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
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), graceMs)
    await this.#exited
    clearTimeout(timer)
  }

  // What a library prints by itself is not for us.
  #hear(line) {
    if (!line.startsWith('{"event":')) return
    const { event, ...fields } = JSON.parse(line)
    this.#slot(event).resolve(fields)
  }

  #slot(name) {
    let slot = this.#events.get(name)
    if (slot === undefined) {
      slot = {}
      slot.promise = new Promise((resolve, reject) => Object.assign(slot, { resolve, reject }))
      // Whoever asks gets the failure; nobody need ask.
      slot.promise.catch(() => {})
      this.#events.set(name, slot)
      if (!alive.has(this)) slot.reject(this.#failure('ended early'))
    }
    return slot
  }

  #failPending(how) {
    const error = this.#failure(`ended (${how})`)
    for (const slot of this.#events.values()) slot.reject(error)
  }

  #failure(what) {
    return new Error([what, this.#stderr.trim()].filter(Boolean).join(': '))
  }
}

/** Runs `work` with a child that is ended when `work` is done or has failed. */
export async function withChild(script, options, how, work) {
  const child = new Child(script, options, how)
  try {
    return await work(child)
  } finally {
    await child.end()
  }
}
