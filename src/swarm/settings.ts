/** The swarm's policy in libtorrent's own settings; what each one is for stands beside it. */
import type { DiskBackend, SessionSettings } from '../native/binding.ts'
import { baseSettings } from '../native/session.ts'
import { packageVersion } from '../version.ts'

export interface SwarmOptions {
  /** `host:port` each; port 0 picks one. */
  readonly listen: readonly string[]
  readonly utp: boolean
  /** Bytes per second; 0 is no limit. */
  readonly maxDownloadBytesPerSecond: number
  readonly maxUploadBytesPerSecond: number
  /** Whether the limits hold for peers on the local network too (libtorrent exempts them by itself). */
  readonly limitLocalPeers: boolean
  /** Who reads and writes the files. @defaultValue `own` */
  readonly diskBackend?: DiskBackend
}

/** Settings of a session for these options. Measurements behind the figures: docs/notes/0003-swarm-settings.md. */
export function sessionSettings(options: SwarmOptions): SessionSettings {
  return {
    ...baseSettings,
    user_agent: `llmpt-native/${packageVersion}`,
    peer_fingerprint: '-LN0100-',
    listen_interfaces: options.listen.join(','),
    enable_outgoing_utp: options.utp,
    enable_incoming_utp: options.utp,
    download_rate_limit: options.maxDownloadBytesPerSecond,
    upload_rate_limit: options.maxUploadBytesPerSecond,
    // Peers of a model arrive together and want all of it: unchoke more of them, and sooner.
    unchoke_slots_limit: 16,
    unchoke_interval: 2,
    optimistic_unchoke_interval: 4,
    // Whole pieces from one peer make many peers wait for the same one.
    whole_pieces_threshold: 0,
    // The first pieces too are chosen by priority: peers that arrive together begin with different ones.
    initial_picker_threshold: 0,
    // Many homes and offices are behind one address.
    allow_multiple_connections_per_ip: true,
    // What is queued at a slow peer when a faster one turns up comes late or twice.
    request_queue_time: 1,
    smooth_connects: false,
    // A seed whose connection breaks must be back before the download gives it up.
    min_reconnect_time: 2,
    // A small torrent takes five ticks from add to finish; the default tick is 500 ms.
    tick_interval: 100,
    // HTTP may hand pieces back near the end; the seeds must still be there then.
    close_redundant_connections: false,
    announce_to_all_trackers: true,
    announce_to_all_tiers: true,
    // Closing must not wait for a tracker that does not answer.
    stop_tracker_timeout: 1,
    tracker_completion_timeout: 15,
    tracker_receive_timeout: 10,
    connections_limit: 500,
    active_limit: -1,
    active_seeds: -1,
    active_downloads: -1,
  }
}
