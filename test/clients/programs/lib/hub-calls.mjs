/** What programs do with @huggingface/hub, whichever way they loaded it. */
import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { digest } from './answer.mjs'

const lfs = 'weights.bin'
const xet = 'model.safetensors'
const git = 'config.json'

/** @param {typeof import('@huggingface/hub')} hub */
export function hubCalls(hub) {
  const info = async (target, path) => {
    const found = await hub.fileDownloadInfo({ ...target, path })
    return found && { ...found, xet: found.xet && { ...found.xet } }
  }
  const whole = async (target, path, options = {}) =>
    seenOf(await hub.downloadFile({ ...target, path, ...options }))
  const part = async (target, path, start, end) => {
    const blob = await hub.downloadFile({ ...target, path })
    return await seenOf(blob.slice(start, end))
  }
  const cacheDir = join(process.env.HF_HOME, 'hub')
  return {
    infoGit: (target) => info(target, git),
    infoLfs: (target) => info(target, lfs),
    infoXet: (target) => info(target, xet),
    git: (target) => whole(target, git),
    lfs: (target) => whole(target, lfs),
    xet: (target) => whole(target, xet),
    xetSerial: (target) => whole(target, xet, { parallelDownloads: false }),
    xetParallel: (target) => whole(target, xet, { parallelDownloads: { maxConcurrency: 4 } }),
    xetOverHttp: (target) => whole(target, xet, { xet: false }),
    sliceLfs: (target) => part(target, lfs, 1000, 1_100_000),
    sliceXet: (target) => part(target, xet, 1000, 1_100_000),
    smallSlice: (target) => part(target, lfs, 1000, 1016),
    stream: async (target) => {
      const blob = await hub.downloadFile({ ...target, path: lfs })
      const chunks = []
      for await (const chunk of blob.stream()) chunks.push(chunk)
      return digest(Buffer.concat(chunks))
    },
    cancelledStream: async (target) => {
      const blob = await hub.downloadFile({ ...target, path: lfs })
      const reader = blob.stream().getReader()
      const { value } = await reader.read()
      await reader.cancel('enough')
      return value.length > 0
    },
    aborted: async (target) => {
      const controller = new AbortController()
      const withSignal = (url, init) => fetch(url, { ...init, signal: controller.signal })
      const blob = await hub.downloadFile({ ...target, path: lfs, fetch: withSignal })
      const reader = blob.stream().getReader()
      await reader.read()
      controller.abort()
      for (;;) await reader.read()
    },
    toCache: async (target) => {
      const path = await hub.downloadFileToCacheDir({ ...target, path: lfs })
      return { path: relative(cacheDir, path), sha256: digest(await readFile(path)) }
    },
    snapshot: async (target) => {
      const folder = await hub.snapshotDownload(target)
      return { folder: relative(cacheDir, folder), files: await filesOf(folder) }
    },
    list: async (target) => {
      const files = []
      for await (const { path, size, oid } of hub.listFiles({ ...target, recursive: true }))
        files.push({ path, size, oid })
      return files
    },
    missing: (target) => whole(target, 'nothing.bin'),
    missingRepo: (target) => whole({ ...target, repo: 'acme/none' }, lfs),
    missingRevision: (target) => whole(target, lfs, { revision: 'nothing' }),
    renamed: (target) => whole(target, lfs),
    gated: (target) => whole(target, lfs),
    wrongToken: (target) => whole(target, lfs, { accessToken: 'hf_wrong' }),
    withToken: (target) => whole(target, lfs, { accessToken: 'hf_member' }),
  }
}

async function seenOf(blob) {
  return blob && { size: blob.size, type: blob.type, sha256: digest(await blob.arrayBuffer()) }
}

async function filesOf(folder) {
  const entries = await readdir(folder, { recursive: true })
  const contents = entries.sort().map(async (name) => [name, digest(await readFile(join(folder, name)))])
  return Object.fromEntries(
    (await Promise.all(contents.map((each) => each.catch(() => undefined)))).filter(Boolean),
  )
}
