import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer as createProxy } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { HubHttp } from '../../src/hub/http.ts'
import { errorOf, lyingHub, readAll } from './fixtures.ts'

test('requests go through HTTP_PROXY, except to the hosts of NO_PROXY', async () => {
  await using origin = await lyingHub((_req, res) => res.end('hello'))
  const tunnels: string[] = []
  const proxy = createProxy((req, res) => res.writeHead(502).end(req.url))
  proxy.on('connect', (req, socket, head) => {
    tunnels.push(req.url ?? '')
    const target = connect(Number(new URL(origin.url).port), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      target.write(head)
      target.pipe(socket).pipe(target)
    })
    socket.on('error', () => target.destroy())
    target.on('error', () => socket.destroy())
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const before = { ...process.env }
  process.env['http_proxy'] = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
  process.env['no_proxy'] = 'direct.invalid'
  try {
    await using http = new HubHttp()
    const answer = await http.request({ method: 'GET', url: origin.url })
    expect(String(await readAll(answer.batches))).toBe('hello')
    expect(tunnels).toEqual([new URL(origin.url).host])
    process.env['no_proxy'] = '127.0.0.1'
    const direct = await http.request({ method: 'GET', url: origin.url })
    expect(String(await readAll(direct.batches))).toBe('hello')
    expect(tunnels).toHaveLength(1)
  } finally {
    process.env = before
    proxy.closeAllConnections()
    proxy.close()
  }
})

test('closing ends bodies that are being read, and what comes after', async () => {
  await using origin = await lyingHub((_req, res) => {
    res.writeHead(200)
    res.write('x')
  })
  const http = new HubHttp()
  const answer = await http.request({ method: 'GET', url: origin.url })
  const reading = errorOf(readAll(answer.batches))
  await http.close()
  await http.close()
  expect(await reading).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  expect(await errorOf(http.request({ method: 'GET', url: origin.url }))).toMatchObject({
    code: 'ERR_LLMPT_HUB',
  })
})

test('an error names the host and never the query, where signatures are', async () => {
  await using http = new HubHttp()
  const error = await errorOf(http.request({ method: 'GET', url: 'http://127.0.0.1:9/x?Signature=secret' }))
  expect(error.message).toContain('127.0.0.1:9')
  expect(JSON.stringify([error.message, error['url']])).not.toContain('secret')
})

test('an abort is heard while no connection is made', async () => {
  const hole = spawn(process.execPath, [fileURLToPath(new URL('../fakes/black-hole.mjs', import.meta.url))])
  const fillers: Socket[] = []
  try {
    const [port] = await once(hole.stdout, 'data')
    for (let n = 0; n < 8; n++) fillers.push(connect(Number(port), '127.0.0.1').on('error', () => {}))
    await once(fillers[0] as Socket, 'connect')
    await using http = new HubHttp()
    const controller = new AbortController()
    const asking = http.request({
      method: 'GET',
      url: `http://127.0.0.1:${Number(port)}/`,
      signal: controller.signal,
      content: 'range',
    })
    setImmediate(() => controller.abort(new Error('enough')))
    // Left alone, the connection attempt goes on for 10 s; the test's own limit would not notice 2 of them.
    await expect(asking).rejects.toThrow('enough')
  } finally {
    for (const socket of fillers) socket.destroy()
    hole.kill('SIGKILL')
  }
}, 5_000)
