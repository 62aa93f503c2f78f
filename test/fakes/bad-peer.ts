/**
 * A peer that claims to have everything and sends rubbish: enough of BEP 3 to be believed by a v2 client, which finds
 * out by the hash of a piece. It listens on an address of its own, because libtorrent bans by address.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { InfoHash, PeerAddress } from '../../src/values.ts'

export interface BadPeer extends AsyncDisposable {
  readonly address: PeerAddress
  /** Blocks of rubbish sent so far. */
  blocksSent(): number
}

const protocol = 'BitTorrent protocol'
const handshakeBytes = 68
const message = { choke: 0, unchoke: 1, interested: 2, bitfield: 5, request: 6, piece: 7 } as const

/**
 * @param pieces Of the torrent, for the bitfield.
 * @param maxBlocks After so many blocks it chokes its peer: another one is then asked for the rest of the piece.
 */
export async function startBadPeer(
  host: string,
  infoHash: InfoHash,
  pieces: number,
  maxBlocks: number = Number.POSITIVE_INFINITY,
): Promise<BadPeer> {
  let blocksSent = 0
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    let buffer: Buffer = Buffer.alloc(0)
    let isGreeted = false
    socket.on('data', (data) => {
      buffer = Buffer.concat([buffer, data])
      if (!isGreeted && buffer.length >= handshakeBytes) {
        isGreeted = true
        buffer = buffer.subarray(handshakeBytes)
        socket.write(greeting(infoHash, pieces))
      }
      while (isGreeted && buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
        const body = buffer.subarray(4, 4 + buffer.readUInt32BE(0))
        buffer = buffer.subarray(4 + body.length)
        if (body[0] === message.interested) socket.write(frame(message.unchoke))
        if (body[0] !== message.request || blocksSent >= maxBlocks) continue
        blocksSent += 1
        socket.write(frame(message.piece, body.subarray(1, 9), Buffer.alloc(body.readUInt32BE(9), 0xbd)))
        if (blocksSent === maxBlocks) socket.write(frame(message.choke))
      }
    })
  })
  server.listen(0, host)
  await once(server, 'listening')
  return {
    address: { host, port: (server.address() as AddressInfo).port },
    blocksSent: () => blocksSent,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The handshake of a v2 swarm carries the first 20 bytes of its info hash (BEP 52). */
function greeting(infoHash: InfoHash, pieces: number): Buffer {
  const reserved = Buffer.alloc(8)
  // BEP 52: bit 4 of the last byte says that this peer speaks v2.
  reserved[7] = 0x10
  const bits = Buffer.alloc(Math.ceil(pieces / 8))
  for (let piece = 0; piece < pieces; piece++)
    bits[piece >> 3] = (bits[piece >> 3] ?? 0) | (0x80 >> (piece & 7))
  return Buffer.concat([
    Buffer.from([protocol.length]),
    Buffer.from(protocol),
    reserved,
    Buffer.from(infoHash.slice(0, 40), 'hex'),
    // Two peers of one id are one to libtorrent.
    Buffer.from('-XX0000-'),
    randomBytes(12),
    frame(message.bitfield, bits),
  ])
}

function frame(id: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat([Buffer.from([id]), ...parts])
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([length, body])
}
