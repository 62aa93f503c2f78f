/** `llmpt tracker` */
import { isIP } from 'node:net'
import { join, resolve } from 'node:path'
import { getConfig } from '../../config.ts'
import { startTracker } from '../../tracker/server/main.ts'
import type { CommandContext } from '../command.ts'
import { untilAborted } from '../interrupt.ts'

export interface TrackerArguments {
  readonly host: string
  readonly port: number
  readonly data?: string
  readonly publicUrl?: string
  readonly trustProxy?: boolean
}

export async function tracker(args: TrackerArguments, { out, signal }: CommandContext): Promise<void> {
  const dataDir = args.data === undefined ? join(getConfig().stateDir, 'tracker') : resolve(args.data)
  await using running = await startTracker({
    dataDir,
    host: args.host,
    port: args.port,
    publicUrl: args.publicUrl,
    trustProxy: args.trustProxy,
  })
  out.event('listening', { url: running.url, announceUrl: running.announceUrl, dataDir })
  out.say(`The tracker keeps its data in ${dataDir}. Ctrl-C stops it.`)
  if (args.publicUrl === undefined && isLoopback(args.host))
    out.say('Only this machine can reach it; use --host 0.0.0.0 for others.')
  out.result(running.url)
  await untilAborted(signal)
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}
