/** A program that downloads models with ipull, as node-llama-cpp does: `ipull.mjs PACKAGE`. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { answer, digest } from './lib/answer.mjs'

const { downloadFile, downloadSequence } = await import(process.argv[2])
const directory = join(process.env.HF_HOME, 'models')
const urlOf = ({ repo, hubUrl }, path) => `${hubUrl}/${repo}/resolve/main/${path}?download=true`

async function finish(downloader) {
  let events = 0
  downloader.on('progress', () => events++)
  await downloader.download()
  const statuses = downloader.downloadStatues ?? [downloader.status]
  return {
    heard: events > 0,
    statuses: statuses.map(({ fileName, totalBytes, transferredBytes, downloadStatus }) => {
      return { fileName, totalBytes, transferredBytes, downloadStatus }
    }),
  }
}

async function withFiles(seen) {
  const names = (await readdir(directory)).sort()
  const files = await Promise.all(
    names.map(async (name) => [name, digest(await readFile(join(directory, name)))]),
  )
  return { ...seen, files: Object.fromEntries(files) }
}

answer({
  model: async (target) => {
    const url = urlOf(target, 'model.gguf')
    const downloader = await downloadFile({ url, directory, cliProgress: false, headers: {} })
    return await withFiles(await finish(downloader))
  },
  moreStreams: async (target) => {
    const options = { parallelStreams: 6, programType: 'chunks' }
    const url = urlOf(target, 'model.gguf')
    return await withFiles(
      await finish(await downloadFile({ url, directory, fileName: 'chunks.gguf', ...options })),
    )
  },
  parts: async (target) => {
    const names = ['split-00001-of-00002.gguf', 'split-00002-of-00002.gguf']
    const downloads = names.map((name) => downloadFile({ url: urlOf(target, name), directory, headers: {} }))
    return await withFiles(await finish(await downloadSequence({ cliProgress: false }, ...downloads)))
  },
  missing: async (target) => {
    await downloadFile({ url: urlOf(target, 'nothing.gguf'), directory, retry: { retries: 0 } })
  },
})
