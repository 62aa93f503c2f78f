/** A program that downloads with `@huggingface/hub`, which compares nothing with the Hub's digest. */
import { downloadFileToCacheDir } from '@huggingface/hub'
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
  usage: () => ({ peakMemoryBytes: peakMemoryBytes() }),
})
tell('ready')
