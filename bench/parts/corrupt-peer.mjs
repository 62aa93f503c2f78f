/**
 * A peer that claims to have everything and sends rubbish: enough of BEP 3 and 52 to be believed, until the hash of a
 * piece tells.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { options, serve, tell } from '../harness/in-child.mjs'

const { host, infoHash, pieces } = options
const message = { unchoke: 1, interested: 2, bitfield: 5, request: 6, piece: 7 }
const handshakeBytes = 68
let bytesSent = 0

const server = createServer((socket) => {
  let buffer = Buffer.alloc(0)
  let isGreeted = false
  socket.on('error', () => {})
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data])
    if (!isGreeted && buffer.length >= handshakeBytes) {
      isGreeted = true
      buffer = buffer.subarray(handshakeBytes)
      socket.write(greeting())
    }
    while (isGreeted && buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
      const body = buffer.subarray(4, 4 + buffer.readUInt32BE(0))
      buffer = buffer.subarray(4 + body.length)
      if (body[0] === message.interested) socket.write(frame(message.unchoke))
      if (body[0] !== message.request) continue
      const rubbish = Buffer.alloc(body.readUInt32BE(9), 0xbd)
      bytesSent += rubbish.length
      socket.write(frame(message.piece, body.subarray(1, 9), rubbish))
    }
  })
}).listen(0, host)
await once(server, 'listening')
serve({ bytesSent: () => ({ bytesSent }) })
tell('listening', { port: server.address().port })

/** The handshake of a v2 swarm carries the first 20 bytes of its info hash (BEP 52). */
function greeting() {
  const reserved = Buffer.alloc(8)
  // BEP 52: bit 4 of the last byte says that this peer speaks v2.
  reserved[7] = 0x10
  const bits = Buffer.alloc(Math.ceil(pieces / 8))
  for (let piece = 0; piece < pieces; piece++) bits[piece >> 3] |= 0x80 >> (piece & 7)
  return Buffer.concat([
    Buffer.from('\x13BitTorrent protocol'),
    reserved,
    Buffer.from(infoHash.slice(0, 40), 'hex'),
    Buffer.from('-XX0000-rubbish00000'),
    frame(message.bitfield, bits),
  ])
}

function frame(id, ...parts) {
  const body = Buffer.concat([Buffer.from([id]), ...parts])
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([length, body])
}
