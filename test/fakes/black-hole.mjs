// A port where connections are never made: listens with the shortest queue, and then never runs again, so that the
// kernel drops whoever comes once the queue is full. Prints the port. To be killed.
import { createServer } from 'node:net'

const server = createServer()
server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
  process.stdout.write(`${server.address().port}\n`, () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })
})
