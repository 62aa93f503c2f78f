/**
 * What sockets read into. Node makes a buffer of 64 KiB for every read: at hundreds of megabytes per second making and
 * collecting them takes longer than parsing the answers, and small reads mean many turns of the event loop. Here a
 * socket reads as much as there is into a large buffer (`onread` of `net.connect`), which is used again when the bytes
 * in it have been written.
 *
 * A slab is in the hands of one socket until it is nearly full (retired), and free when every read in it was given
 * back. What is never given back, such as the body of an answer that somebody keeps, is the garbage collector's.
 */
import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'

/** Twice what a fast connection has ready per turn; more does not make it faster. */
const slabBytes = 512 * 1024
/** A shorter rest is not read into. */
const minReadBytes = 64 * 1024
/** Kept for the next sockets; four connections use about twelve. */
const maxFree = 16

interface Slab {
  readonly memory: ArrayBuffer
  /** Byte after the last one read into it. */
  filledBytes: number
  /** Where the reads end that were not given back. */
  readonly readEnds: Set<number>
  isRetired: boolean
}

export class ReadSlabs {
  readonly #free: Slab[] = []
  readonly #slabs = new WeakMap<ArrayBufferLike, Slab>()
  /** The latest TLS session of each host, which saves the next connection a part of its handshake. */
  readonly #sessions = new Map<string, Buffer>()

  /** Makes undici's connections; `build` is its `buildConnector`, of which each connection has its own. */
  connector(build: typeof buildConnector, options: buildConnector.BuildOptions): buildConnector.connector {
    return (target, callback) => {
      const reader = new SlabReader(this)
      const host = `${target.servername ?? target.hostname}:${target.port}`
      const own = { onread: reader, session: this.#sessions.get(host) }
      build({ ...options, ...own } as buildConnector.BuildOptions)(target, (...outcome) => {
        const [error, socket] = outcome
        if (error === null) {
          reader.attach(socket)
          socket.on('session', (session: Buffer) => this.#sessions.set(host, session))
        } else reader.end()
        callback(...outcome)
      })
    }
  }

  /**
   * Nobody reads `bytes` any more, nor what came before them in the same answer: their memory is read into again. Bytes
   * that came another way are left alone.
   */
  giveBack(bytes: Uint8Array): void {
    const slab = this.#slabs.get(bytes.buffer)
    if (slab?.readEnds.delete(bytes.byteOffset + bytes.length)) this.#keepIfUnused(slab)
  }

  /** An empty slab. */
  take(): Slab {
    const slab = this.#free.pop() ?? this.#make()
    slab.filledBytes = 0
    slab.isRetired = false
    return slab
  }

  /** Nothing will be read into the slab before it is taken again. */
  retire(slab: Slab): void {
    slab.isRetired = true
    this.#keepIfUnused(slab)
  }

  #make(): Slab {
    const memory = Buffer.allocUnsafeSlow(slabBytes).buffer
    const slab = { memory, filledBytes: 0, readEnds: new Set<number>(), isRetired: false }
    this.#slabs.set(memory, slab)
    return slab
  }

  #keepIfUnused(slab: Slab): void {
    if (slab.isRetired && slab.readEnds.size === 0 && this.#free.length < maxFree) this.#free.push(slab)
  }
}

/** One socket's `onread`: what comes goes on through the socket's stream, as without. */
class SlabReader {
  readonly #slabs: ReadSlabs
  #slab: Slab | undefined
  #socket: Socket | undefined

  constructor(slabs: ReadSlabs) {
    this.#slabs = slabs
  }

  attach(socket: Socket): void {
    this.#socket = socket
    socket.once('close', () => this.end())
  }

  /** The socket reads no more. */
  end(): void {
    if (this.#slab !== undefined) this.#slabs.retire(this.#slab)
    this.#slab = undefined
  }

  /** Where the next read goes. */
  readonly buffer = (): Uint8Array => {
    if (this.#slab !== undefined && slabBytes - this.#slab.filledBytes < minReadBytes) this.end()
    this.#slab ??= this.#slabs.take()
    return new Uint8Array(this.#slab.memory, this.#slab.filledBytes)
  }

  /** That many bytes were read. Returns whether the socket is to read on. */
  readonly callback = (bytes: number): boolean => {
    const slab = this.#slab
    if (slab === undefined || this.#socket === undefined) return false
    const read = Buffer.from(slab.memory, slab.filledBytes, bytes)
    slab.filledBytes += bytes
    slab.readEnds.add(slab.filledBytes)
    return this.#socket.push(read)
  }
}
