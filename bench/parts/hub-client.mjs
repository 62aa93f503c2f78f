/** A program that downloads with `@huggingface/hub`, which compares nothing with the Hub's digest. */
import { join } from 'node:path'
import { downloadFileToCacheDir, snapshotDownload } from '@huggingface/hub'
import { cpuSeconds, peakMemoryBytes, serve, tell } from '../harness/in-child.mjs'

serve({
  download: async ({ home, endpoint, path }) => {
    const cpuSecondsBefore = cpuSeconds()
    const startedAt = performance.now()
    const file = await downloadFileToCacheDir({
      repo: { type: 'model', name: 'acme/bench' },
      path,
      hubUrl: endpoint,
      cacheDir: home,
    })
    const seconds = (performance.now() - startedAt) / 1000
    return { seconds, cpuSeconds: cpuSeconds() - cpuSecondsBefore, path: file }
  },
  snapshot: async ({ home, endpoint, revision }) => {
    const cpuSecondsBefore = cpuSeconds()
    const startedAt = performance.now()
    const path = await snapshotDownload({
      repo: { type: 'model', name: 'acme/bench' },
      revision,
      hubUrl: endpoint,
      cacheDir: join(home, 'hub'),
    })
    const seconds = (performance.now() - startedAt) / 1000
    return { seconds, cpuSeconds: cpuSeconds() - cpuSecondsBefore, path }
  },
  usage: () => ({ peakMemoryBytes: peakMemoryBytes() }),
})
tell('ready')
