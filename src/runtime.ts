/**
 * What one process shares: a client per configuration, and the hook's switch. The client's code is loaded on
 * first use, so that importing the package costs nothing.
 */
import type { Client } from './client.ts'
import { type Config, type ConfigOptions, getConfig } from './config.ts'
import type { FetchDeps } from './hook/patch-fetch.ts'

const clients = new Map<string, Promise<Client>>()

/** The client for this configuration; calls that agree on it share connections, session and seeds. */
export function clientFor(config: Config): Promise<Client> {
  const key = JSON.stringify(config)
  const existing = clients.get(key)
  if (existing !== undefined) return existing
  const made = import('./client.ts').then(({ Client }) => new Client(config))
  clients.set(key, made)
  return made
}

/** Every client made so far. */
export function allClients(): Promise<readonly Client[]> {
  return Promise.all(clients.values())
}

/** Closes every client: seeding stops, trackers are told. The next call starts afresh. */
export async function closeClients(): Promise<void> {
  const open = await allClients()
  clients.clear()
  await Promise.all(open.map((client) => client.close()))
}

export interface HookOptions extends ConfigOptions {
  /** More Hub origins to watch besides huggingface.co, hf.co, the configured endpoint and its mirrors. */
  readonly endpoints?: readonly string[] | undefined
}

const publicEndpoints = ['https://huggingface.co', 'https://hf.co']

/** What the fetch wrapper needs to answer from the swarm. @throws {ConfigError} */
export function fetchDeps(options: HookOptions): FetchDeps {
  const { endpoints = [], ...rest } = options
  const config = getConfig(rest)
  const watched = [...new Set([config.endpoint, ...config.mirrors, ...publicEndpoints, ...endpoints])]
  return {
    endpoints: () => watched,
    isActive: () => config.p2p,
    offer: async (file, { token, endpoint, range }) => {
      const client = await clientFor(config)
      return await client.offer(file, { token, endpoint, range, deadlineMs: config.lookupTimeoutMs })
    },
  }
}
