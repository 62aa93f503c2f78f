/** What the `torrent` commands have in common: a session without the Hub. */
import { type Config, getConfig } from '../config.ts'
import type { NativeAddon } from '../native/binding.ts'
import { Swarm } from '../swarm/swarm.ts'

/** A session for plain torrents: nothing is limited, since it runs only because somebody asked for just this. */
export function openSwarm(
  addon: NativeAddon,
  options: { readonly listen?: Config['listen'] | undefined },
): Swarm {
  const config = getConfig({ listen: options.listen, maxUploadBytesPerSecond: 0, limitLocalPeers: false })
  return new Swarm(addon, config)
}
