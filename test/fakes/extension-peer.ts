/**
 * A peer that has no pieces at first, speaks the extension protocol (BEP 10), and sends whatever a test wants to see
 * survived: the handshake is right, all else is the test's.
 */
import { once } from 'node:events'
import { createConnection } from 'node:net'
import type { InfoHash, PeerAddress } from '../../src/values.ts'

export interface ExtensionPeer extends AsyncDisposable {
  /** Its end of the connection. */
  readonly address: PeerAddress
  /** The payload of the client's extension handshake: one bencoded dictionary. */
  readonly theirHandshake: Promise<Buffer>
  /** Resolves when the connection has ended. */
  readonly closed: Promise<void>
  /** Sends a payload as extension handshake. */
  sendHandshake(payload: Uint8Array): void
  /** Says that it has a piece: what was sent before has been read by when the client knows. */
  sendHave(piece: number): void
}

const protocol = 'BitTorrent protocol'
const handshakeBytes = 68
const have = 4
const extended = 20

/** Connects to `client` from the address `host`. */
export async function connectExtensionPeer(
  host: string,
  client: PeerAddress,
  infoHash: InfoHash,
): Promise<ExtensionPeer> {
  const socket = createConnection({ host: client.host, port: client.port, localAddress: host })
  await once(socket, 'connect')
  const port = socket.localPort as number
  socket.on('error', () => {})
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  const theirHandshake = new Promise<Buffer>((resolve) => {
    let buffer: Buffer = Buffer.alloc(0)
    let isGreeted = false
    socket.on('data', (data) => {
      buffer = Buffer.concat([buffer, data])
      if (!isGreeted && buffer.length >= handshakeBytes) {
        isGreeted = true
        buffer = buffer.subarray(handshakeBytes)
      }
      while (isGreeted && buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
        const body = buffer.subarray(4, 4 + buffer.readUInt32BE(0))
        buffer = buffer.subarray(4 + body.length)
        if (body[0] === extended && body[1] === 0) resolve(body.subarray(2))
      }
    })
  })
  socket.write(greeting(infoHash))
  return {
    address: { host, port },
    theirHandshake,
    closed,
    sendHandshake: (payload) => {
      socket.write(frame(extended, Buffer.of(0), payload))
    },
    sendHave: (piece) => {
      const index = Buffer.alloc(4)
      index.writeUInt32BE(piece)
      socket.write(frame(have, index))
    },
    [Symbol.asyncDispose]: async () => {
      socket.destroy()
      await closed
    },
  }
}

/** The handshake of a v2 swarm carries the first 20 bytes of its info hash (BEP 52). */
function greeting(infoHash: InfoHash): Buffer {
  const reserved = Buffer.alloc(8)
  // BEP 10: bit 20 from the right.
  reserved[5] = 0x10
  // BEP 52: bit 4 of the last byte says that this peer speaks v2.
  reserved[7] = 0x10
  return Buffer.concat([
    Buffer.from([protocol.length]),
    Buffer.from(protocol),
    reserved,
    Buffer.from(infoHash.slice(0, 40), 'hex'),
    Buffer.from('-XX0000-extension000'),
  ])
}

function frame(id: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat([Buffer.of(id), ...parts])
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([length, body])
}
