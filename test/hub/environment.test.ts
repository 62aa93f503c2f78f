/** Proxies and certificates, set by environment variables as Node's users set them. */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TemporaryDirectory, temporaryDirectory } from '../support/temp-dir.ts'

const run = promisify(execFile)
const program = fileURLToPath(new URL('../fakes/asker.mjs', import.meta.url))

let folder: TemporaryDirectory
let plain: Server
let secure: Server
let proxy: Server
/** What the proxy was asked to connect to, and with which credentials. */
const tunnels: string[] = []
const sockets = new Set<Socket>()
let requiredAuth: string | undefined
/** Started with NODE_EXTRA_CA_CERTS, and without. */
let trusting: Asker
let wary: Asker

beforeAll(async () => {
  folder = await temporaryDirectory()
  await makeCertificates(folder.path)
  const [key, cert] = await Promise.all(
    ['server.key', 'server.pem'].map((name) => readFile(join(folder.path, name))),
  )
  plain = createServer((_req, res) => void res.end('plain'))
  secure = createTlsServer({ key, cert }, (_req, res) => void res.end('secure'))
  proxy = createServer((_req, res) => void res.writeHead(501).end())
  proxy.on('connect', (req, socket, head) => {
    tunnels.push(req.url ?? '')
    const auth = req.headers['proxy-authorization']
    if (requiredAuth !== undefined && auth !== requiredAuth) {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n')
      return
    }
    const [host, port] = (req.url ?? '').split(':')
    const target = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      target.write(head)
      target.pipe(socket).pipe(target)
    })
    sockets.add(target).add(socket as Socket)
    socket.on('error', () => target.destroy()).on('close', () => target.destroy())
    target.on('error', () => socket.destroy()).on('close', () => socket.destroy())
  })
  for (const server of [plain, secure, proxy]) {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  }
  trusting = new Asker({ NODE_EXTRA_CA_CERTS: join(folder.path, 'ca.pem') })
  wary = new Asker({})
})

afterAll(async () => {
  await Promise.all([trusting.end(), wary.end()])
  for (const socket of sockets) socket.destroy()
  for (const server of [plain, secure, proxy]) {
    server.closeAllConnections()
    server.close()
  }
  await folder[Symbol.asyncDispose]()
})

/** An authority, and a certificate of it for 127.0.0.1. */
async function makeCertificates(at: string): Promise<void> {
  const openssl = (...args: string[]): Promise<unknown> => run('openssl', args, { cwd: at })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
    '-subj',
    '/CN=Test authority',
  )
  await openssl('req', ...key, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=127.0.0.1')
  await writeFile(join(at, 'extensions'), 'subjectAltName=IP:127.0.0.1\n')
  const signing = [
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    'extensions',
  ]
  await openssl('x509', '-req', '-in', 'server.csr', '-out', 'server.pem', ...signing)
}

function urlOf(server: Server, scheme = 'http', login = ''): string {
  return `${scheme}://${login}127.0.0.1:${(server.address() as AddressInfo).port}`
}

interface Outcome {
  readonly status?: number
  readonly body?: string
  readonly code?: string
  readonly message?: string
}

/** A process that knows these variables, and no others about proxies or certificates, when it starts. */
class Asker {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: Interface
  readonly #exit: Promise<unknown>

  constructor(variables: Record<string, string>) {
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/proxy|^NODE_|^SSL_/i.test(name)),
    )
    this.#child = spawn(process.execPath, ['--no-warnings', program], {
      env: { ...env, ...variables },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#lines = createInterface(this.#child.stdout)
    this.#exit = once(this.#child, 'exit')
  }

  async ask(url: string, variables: Record<string, string>): Promise<Outcome> {
    tunnels.length = 0
    this.#child.stdin.write(`${JSON.stringify({ url, variables })}\n`)
    const [line] = (await once(this.#lines, 'line')) as [string]
    return JSON.parse(line) as Outcome
  }

  async end(): Promise<void> {
    this.#child.stdin.end()
    await this.#exit
  }
}

test.each(['HTTPS_PROXY', 'https_proxy'])(
  '%s and NODE_EXTRA_CA_CERTS lead to a TLS server behind a proxy',
  async (name) => {
    const outcome = await trusting.ask(urlOf(secure, 'https'), { [name]: urlOf(proxy) })
    expect(outcome).toEqual({ status: 200, body: 'secure' })
    expect(tunnels).toEqual([new URL(urlOf(secure)).host])
  },
)

test.each(['HTTP_PROXY', 'http_proxy'])('%s leads to a plain server behind a proxy', async (name) => {
  expect(await wary.ask(urlOf(plain), { [name]: urlOf(proxy) })).toEqual({ status: 200, body: 'plain' })
  expect(tunnels).toEqual([new URL(urlOf(plain)).host])
})

test.each([
  ['NO_PROXY', '127.0.0.1'],
  ['no_proxy', 'localhost,127.0.0.1'],
  ['NO_PROXY', '*'],
])('%s=%s keeps a host out of the proxy', async (name, value) => {
  const proxies = { HTTPS_PROXY: urlOf(proxy), http_proxy: urlOf(proxy), [name]: value }
  const outcome = await trusting.ask(urlOf(secure, 'https'), proxies)
  expect(outcome).toEqual({ status: 200, body: 'secure' })
  expect(tunnels).toEqual([])
})

test('a certificate of an unknown authority is refused, directly and behind a proxy, and the message helps', async () => {
  for (const variables of [{}, { HTTPS_PROXY: urlOf(proxy) }]) {
    const { code, message } = await wary.ask(urlOf(secure, 'https'), variables)
    expect(code).toBe('ERR_LLMPT_HUB')
    expect(message).toContain('NODE_EXTRA_CA_CERTS')
  }
})

test.each([{}, { proxy: true }])('NODE_TLS_REJECT_UNAUTHORIZED=0 is obeyed (%o)', async (how) => {
  const variables = {
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
    ...('proxy' in how && { https_proxy: urlOf(proxy) }),
  }
  expect(await wary.ask(urlOf(secure, 'https'), variables)).toEqual({ status: 200, body: 'secure' })
  expect(tunnels).toHaveLength('proxy' in how ? 1 : 0)
})

test('the name and password of a proxy are sent to it, and never shown when it refuses them', async () => {
  requiredAuth = `Basic ${Buffer.from('user:secret').toString('base64')}`
  try {
    const right = { HTTP_PROXY: urlOf(proxy, 'http', 'user:secret@') }
    expect(await wary.ask(urlOf(plain), right)).toEqual({ status: 200, body: 'plain' })
    const wrong = await wary.ask(urlOf(plain), { HTTP_PROXY: urlOf(proxy, 'http', 'user:hunter2@') })
    expect(wrong.code).toBe('ERR_LLMPT_HUB')
    expect(wrong.message).toMatch(/proxy/i)
    expect(wrong.message).not.toContain('hunter2')
  } finally {
    requiredAuth = undefined
  }
})

test('a proxy that is not there is an error without a status', async () => {
  const outcome = await wary.ask(urlOf(plain), { HTTP_PROXY: 'http://127.0.0.1:9' })
  expect(outcome).toEqual({ code: 'ERR_LLMPT_HUB', message: expect.stringContaining('connection refused') })
})
