/** nginx as the storage behind a Hub: whole files and ranges, one process, a log of the bytes it sent. */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Child } from './child.mjs'
import { findProgram } from './needs.mjs'

const startMs = 10_000
/** A connection that its client has closed is logged much sooner. */
const quietMs = 300

/**
 * @param {{ directory: string, host: string, port?: number, files: Record<string, string>,
 * on?: (command: string[]) => string[] }} options `directory` is nginx's own; `files` are paths by name; `on` puts
 * the command on a machine of a lab. Without a port, one that is free here.
 */
export async function startNginx({ directory, host, port, files, on = (command) => command }) {
  const chosen = port ?? (await freePort(host))
  mkdirSync(join(directory, 'www'), { recursive: true })
  for (const [name, path] of Object.entries(files)) symlinkSync(path, join(directory, 'www', name))
  const configuration = join(directory, 'nginx.conf')
  writeFileSync(configuration, configure(directory, host, chosen))
  const program = findProgram('nginx') ?? 'nginx'
  const errorLog = join(directory, 'error.log')
  const child = new Child(on([program, '-e', errorLog, '-c', configuration, '-p', directory]))
  const pidFile = join(directory, 'nginx.pid')
  const deadline = performance.now() + startMs
  // Written once it listens.
  while (!existsSync(pidFile)) {
    const how = await Promise.race([child.exited, delay(20)])
    if (how === undefined && performance.now() < deadline) continue
    await child.end()
    throw new Error(`nginx does not start: ${existsSync(errorLog) ? readFileSync(errorLog, 'utf8') : how}`)
  }
  const log = join(directory, 'access.log')
  return {
    child,
    url: (name) => `http://${host}:${chosen}/${name}`,
    /** Requests that have ended. */
    requests: () => entriesOf(log).length,
    /** Bytes of bodies it has given to the kernel, of every request that has ended. */
    bytesSent: () => sum(log),
    /** When the last request that has ended did so: ms of the clock on the wall. */
    lastSentAt: () => Math.max(...entriesOf(log).map(([, seconds]) => seconds * 1000)),
    /** The same, when no request has ended for a while. */
    settledBytesSent: async () => {
      for (let last = -1; ; await delay(quietMs)) {
        const now = sum(log)
        if (now === last) return now
        last = now
      }
    },
  }
}

function sum(log) {
  return entriesOf(log).reduce((total, [bytes]) => total + bytes, 0)
}

/** Bytes, and the seconds of the clock on the wall when they were with the kernel. */
function entriesOf(log) {
  const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : []
  return lines.filter((line) => line !== '').map((line) => line.split(' ').map(Number))
}

function configure(directory, host, port) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `
daemon off; master_process off; pid ${directory}/nginx.pid; error_log ${directory}/error.log;
events { worker_connections 1024; }
http {
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;
  default_type application/octet-stream;
  log_format bytes '$body_bytes_sent $msec'; access_log ${directory}/access.log bytes;
  ${temporary.map((what) => `${what}_temp_path ${directory}/${what};`).join(' ')}
  server { listen ${host}:${port}; root ${directory}/www; max_ranges 1; }
}
`
}

async function freePort(host) {
  const server = createServer().listen(0, host)
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}
