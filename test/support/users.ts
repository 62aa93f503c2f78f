/** People with a client, a cache and a home of their own, on this machine's loopback. */
import { Client, type ClientOverrides } from '../../src/client.ts'
import { type ConfigOptions, getConfig } from '../../src/config.ts'
import { temporaryDirectory } from './temp-dir.ts'

export interface User extends AsyncDisposable {
  readonly client: Client
  readonly cacheDir: string
  readonly stateDir: string
}

/** A new user. Seeds what it downloads while it lives; every one has a loopback address of its own. */
export async function newUser(options: ConfigOptions, overrides: ClientOverrides = {}): Promise<User> {
  const home = await temporaryDirectory()
  const address = `127.0.0.${nextAddress()}`
  const config = getConfig(
    // A busy machine must not make HTTP lose patience with a peer that is there.
    { listen: [`${address}:0`], seed: true, headStartMs: 20_000, ...options },
    { HF_HOME: home.path },
  )
  const client = new Client(config, overrides)
  return {
    client,
    cacheDir: config.cacheDir,
    stateDir: config.stateDir,
    [Symbol.asyncDispose]: async () => {
      await client.close()
      await home[Symbol.asyncDispose]()
    },
  }
}

// libtorrent bans by address: a liar and an honest peer must not share one.
let last = 1
function nextAddress(): number {
  last += 1
  return last
}
