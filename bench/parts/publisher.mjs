/**
 * A program that downloads with this package and seeds: it stays until the tracker knows the torrent, and tells when what
 * was there. Times are of the clock on the wall, in ms, which all processes of a machine share.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { p2pDownload, shutdown, TrackerClient } from '../../dist/index.js'
import { serve, tell } from '../harness/in-child.mjs'

const publishedWithinMs = 60_000
const askAgainMs = 20

serve({ download })
tell('ready')

/** @param options.tracker Without one, only the file is fetched, and nothing is seeded. */
async function download({ home, endpoint, path, tracker }) {
  const stateDir = join(home, 'llmpt')
  const willSeed = tracker !== undefined
  let allAt
  try {
    const startedAt = Date.now()
    const file = await p2pDownload({
      repo: 'acme/bench',
      path,
      endpoint,
      cacheDir: join(home, 'hub'),
      stateDir,
      trackers: willSeed ? [tracker] : [],
      p2p: willSeed,
      seed: willSeed,
      listen: ['127.0.0.1:0'],
      onProgress: ({ bytes, sizeBytes }) => {
        if (bytes.http === sizeBytes) allAt ??= Date.now()
      },
    })
    const resolvedAt = Date.now()
    const times = { seconds: (resolvedAt - startedAt) / 1000, resolvedAt, allAt }
    if (!willSeed) return { path: file.path, ...times }
    const candidate = await published(tracker, file)
    // The last change of its inode is that it got its name.
    const { ctimeMs } = statSync(join(stateDir, 'torrents', `${file.etag}.torrent`))
    return {
      path: file.path,
      ...times,
      torrentAt: ctimeMs,
      infoHash: candidate.infoHash,
      bytes: file.bytes,
    }
  } finally {
    await shutdown()
  }
}

async function published(url, { etag, sizeBytes }) {
  const tracker = new TrackerClient({ url })
  for (const endsAt = Date.now() + publishedWithinMs; Date.now() < endsAt; await delay(askAgainMs)) {
    const [candidate] = (await tracker.lookup([{ etag, sizeBytes }])).get(etag) ?? []
    if (candidate !== undefined) return candidate
  }
  throw new Error('the torrent was not registered')
}
