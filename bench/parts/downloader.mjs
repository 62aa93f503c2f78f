/**
 * A program that downloads with this package, through its public functions. It does one download after the other, as it
 * is told, each with an empty cache and a new swarm session, and tells what the call took.
 */

import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createTorrent, p2pDownload, shutdown, snapshotDownload, TrackerClient } from '../../dist/index.js'
import { cpuSeconds, peakMemoryBytes, serve, tell } from '../harness/in-child.mjs'

/** How often the event loop is looked at: the histogram holds this much beside the delay. */
const resolutionMs = 1
/** Not more often than this is progress told to the parent. */
const progressMs = 50

serve({ download, interrupt, publish, snapshot, usage })
tell('ready')

/** @param options.config For `p2pDownload`, besides where things are. @param options.tellsProgress As events. */
async function download({ home, endpoint, path, config, tellsProgress = false }) {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  const gaps = new Gaps(tellsProgress)
  const cpuSecondsBefore = cpuSeconds()
  delay.enable()
  try {
    const startedAt = performance.now()
    gaps.start(startedAt)
    const file = await p2pDownload({
      repo: 'acme/bench',
      path,
      ...placesIn(home, endpoint),
      onProgress: (progress) => gaps.note(progress),
      ...config,
    })
    const seconds = (performance.now() - startedAt) / 1000
    delay.disable()
    return {
      seconds,
      cpuSeconds: cpuSeconds() - cpuSecondsBefore,
      loopDelayMs: Math.max(0, delay.percentile(99) / 1e6 - resolutionMs),
      longestGapSeconds: gaps.longestSeconds,
      bytes: file.bytes,
      path: file.path,
      infoHash: file.infoHash,
    }
  } finally {
    delay.disable()
    await shutdown()
  }
}

/** The whole repository, into a cache in which some of it may be. */
async function snapshot({ home, endpoint, revision, config }) {
  try {
    const cpuSecondsBefore = cpuSeconds()
    const startedAt = performance.now()
    const path = await snapshotDownload({
      repo: 'acme/bench',
      revision,
      ...placesIn(home, endpoint),
      ...config,
    })
    const seconds = (performance.now() - startedAt) / 1000
    return { seconds, cpuSeconds: cpuSeconds() - cpuSecondsBefore, path }
  } finally {
    await shutdown()
  }
}

/** A download that is cancelled when this `share` of the file is there. */
async function interrupt({ home, endpoint, path, share, config }) {
  const controller = new AbortController()
  const onProgress = ({ bytes, sizeBytes }) => {
    if (bytes.http + bytes.p2p + bytes.cache >= share * sizeBytes) controller.abort()
  }
  try {
    const places = placesIn(home, endpoint)
    const { signal } = controller
    await p2pDownload({ repo: 'acme/bench', path, ...places, ...config, signal, onProgress })
    throw new Error(`${path} was there before it could be interrupted`)
  } catch (error) {
    if (!controller.signal.aborted) throw error
    return {}
  } finally {
    await shutdown()
  }
}

function placesIn(home, endpoint) {
  return { endpoint, cacheDir: join(home, 'hub'), stateDir: join(home, 'llmpt'), seed: false }
}

/** Registers the torrent of a file with trackers; nobody seeds it. */
async function publish({ path, etag, sizeBytes, trackers }) {
  const { torrentFile, infoHash } = await createTorrent(path, { name: etag })
  for (const url of trackers)
    await new TrackerClient({ url }).publish({ etag, sizeBytes, infoHash, torrentFile })
  return { infoHash }
}

function usage() {
  return { peakMemoryBytes: peakMemoryBytes() }
}

/** The longest time in which no byte was added to what is there, until the last one was. */
class Gaps {
  longestSeconds = 0
  #tellsProgress
  #bytes = 0
  #grewAt = 0
  #toldAt = 0

  constructor(tellsProgress) {
    this.#tellsProgress = tellsProgress
  }

  start(now) {
    this.#grewAt = now
  }

  note({ bytes, sizeBytes }) {
    const now = performance.now()
    const sum = bytes.p2p + bytes.http + bytes.cache
    if (sum > this.#bytes) {
      this.longestSeconds = Math.max(this.longestSeconds, (now - this.#grewAt) / 1000)
      this.#bytes = sum
      this.#grewAt = now
    }
    if (!this.#tellsProgress || now - this.#toldAt < progressMs) return
    this.#toldAt = now
    tell('progress', { share: sum / sizeBytes, bytes })
  }
}
