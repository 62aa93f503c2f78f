/**
 * Machines of our own: network namespaces, joined by an emulator (`swarm/emunet.cpp`) that gives each a rate up and
 * down and a delay. Nothing of the real network is touched; the addresses exist nowhere else.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { atEnd } from './child.mjs'
import { compile } from './needs.mjs'

const emulatorSource = fileURLToPath(new URL('../swarm/emunet.cpp', import.meta.url))
const prefix = 'llb'
const network = '10.77.0.'
const answerMs = 10_000
/** IPv4 and TCP headers with timestamps, of a packet of 1500 bytes. */
const wirePerPayload = 1500 / 1448

/** Addresses of the lab that are nobody's: what is sent there is lost, without an answer. */
export function deadAddress(index) {
  return `${network}${200 + index}`
}

/**
 * @param {Record<string, { up: number, down: number }>} machines Rates in Mbit/s, by name; they are numbered from
 * 10.77.0.1 on, in this order.
 * @param {{ rttMs: number, queueMs?: number }} links Round trip between any two, and the longest wait in a queue.
 */
export async function openLab(machines, links) {
  removeLeftovers()
  const lab = new Lab(machines, links)
  try {
    await lab.start()
    return lab
  } catch (error) {
    await lab.close()
    throw error
  }
}

class Lab {
  #machines
  #links
  #emulator
  #lines
  #namespaces = []
  #forget
  #closing

  constructor(machines, links) {
    this.#machines = Object.entries(machines).map(([name, rates], index) => ({
      name,
      ...rates,
      address: `${network}${index + 1}`,
      namespace: `${prefix}${process.pid}-${name}`,
    }))
    this.#links = { queueMs: 50, ...links }
    this.#forget = atEnd(() => this.close())
  }

  async start() {
    const program = compile(emulatorSource)
    for (const { namespace } of this.#machines) {
      ip('netns', 'add', namespace)
      this.#namespaces.push(namespace)
    }
    // It must not wait for a CPU behind those whose packets it carries.
    this.#emulator = spawn('chrt', ['--fifo', '5', program], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#emulator.stdin.on('error', () => {})
    this.#lines = createInterface({ input: this.#emulator.stdout })
    const delayUs = this.#links.rttMs * 250
    for (const { name, namespace, address, up, down } of this.#machines) {
      const rates = `${up * 1e6} ${down * 1e6}`
      this.#tell(`node ${name} /run/netns/${namespace} ${address} ${rates} ${delayUs} ${this.#links.queueMs}`)
    }
    await this.#ask('start')
    for (const { namespace, address } of this.#machines) {
      const inside = (...args) => ip('-n', namespace, ...args)
      inside('link', 'set', 'lo', 'up')
      inside('addr', 'add', `${address}/24`, 'dev', 'emu0')
      inside('link', 'set', 'emu0', 'mtu', '1500', 'gso_max_size', '16000', 'up')
      inside('route', 'change', `${network}0/24`, 'dev', 'emu0', 'src', address, 'congctl', 'cubic')
    }
  }

  address(name) {
    return this.#machine(name).address
  }

  /** The command line that runs `command` on one of the machines; the process keeps its pid. */
  on(name, command) {
    return ['ip', 'netns', 'exec', this.#machine(name).namespace, ...command]
  }

  /** Changes rates, in Mbit/s; 0 loses everything. */
  setRates(name, { up, down }) {
    if (up !== undefined) this.#tell(`up ${name} ${up * 1e6}`)
    if (down !== undefined) this.#tell(`down ${name} ${down * 1e6}`)
  }

  /** @returns A function that tells how many bytes, without IP and TCP headers, went from one machine to another. */
  async traffic() {
    const { names, matrix, late_over_2ms: late } = JSON.parse(await this.#ask('stat'))
    const between = (from, to) => matrix[names.indexOf(from)][names.indexOf(to)] / wirePerPayload
    return Object.assign(between, { latePackets: late })
  }

  close() {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    this.#forget()
    if (this.#emulator?.exitCode === null && this.#emulator.signalCode === null) {
      const exited = once(this.#emulator, 'exit')
      this.#emulator.kill('SIGKILL')
      await exited
    }
    for (const namespace of this.#namespaces) ip('netns', 'del', namespace)
  }

  #machine(name) {
    const found = this.#machines.find((machine) => machine.name === name)
    if (found === undefined) throw new TypeError(`the lab has no machine ${name}`)
    return found
  }

  #tell(line) {
    this.#emulator.stdin.write(`${line}\n`)
  }

  async #ask(line) {
    const answer = once(this.#lines, 'line', { signal: AbortSignal.timeout(answerMs) })
    this.#tell(line)
    try {
      return (await answer)[0]
    } catch (error) {
      throw new Error(`the network emulator does not answer "${line}"`, { cause: error })
    }
  }
}

/** Namespaces of benchmarks that were killed. */
function removeLeftovers() {
  if (!existsSync('/run/netns')) return
  for (const name of readdirSync('/run/netns')) {
    const [, pid] = new RegExp(`^${prefix}(\\d+)-`).exec(name) ?? []
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) ip('netns', 'del', name)
  }
}

function ip(...args) {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] })
}
