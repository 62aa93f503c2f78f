/** The Hub's own JavaScript client, from the registry, on top of the hook. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  downloadFile,
  downloadFileToCacheDir,
  fileDownloadInfo,
  listFiles,
  snapshotDownload,
} from '@huggingface/hub'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type FileTree, type HubServer, noiseBytes, startHub } from '../../src/demo/hub.ts'
import { patchGlobalFetch } from '../../src/hook/patch-fetch.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import {
  describe as describeError,
  hookWith,
  type Offers,
  offerAllOf,
  offerNothing,
  realFetch,
  sha256,
} from './support.ts'

const accessToken = 'hf_member'
const repo = 'acme/tiny'
const xet = { content: noiseBytes('xet', 1_200_000), storage: 'xet' } as const
const files: FileTree = {
  'config.json': '{"a":1}',
  'nested/tokenizer.json': '{"b":2}',
  'weights.bin': noiseBytes('weights', 1_500_000),
  'model.safetensors': xet,
}
let hub: HubServer

beforeAll(async () => {
  hub = await startHub(
    [
      { repo, files },
      { repo: 'acme/plain', files: { 'config.json': '{}', 'weights.bin': noiseBytes('weights', 1_500_000) } },
      { repo: 'acme/gated', isGated: true, files: { 'weights.bin': noiseBytes('gated', 300_000) } },
    ],
    { tokens: { [accessToken]: ['acme/gated'] }, now: () => 1_700_000_000_000 },
  )
})
beforeEach(() => hub.resetStats())
afterAll(() => hub.close())

function counts(): { hub: number; cdn: number; cas: number } {
  return {
    hub: hub.stats('hub').requests,
    cdn: hub.stats('cdn').requests,
    cas: hub.stats('cas').requests,
  }
}

async function bytesOf(path: string, where = repo): Promise<Buffer> {
  return await hub.file(path, { repo: where }).bytes()
}

async function digestOfBlob(blob: Blob | null): Promise<string | undefined> {
  return blob === null ? undefined : sha256(await blob.arrayBuffer())
}

/** Name and digest of every file below `folder`. */
async function contentsOf(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const contents: Record<string, string> = {}
  for (const entry of entries) {
    if (entry.isDirectory()) continue
    const path = join(entry.parentPath, entry.name)
    contents[path.slice(folder.length + 1)] = sha256(await readFile(path))
  }
  return contents
}

async function withGlobal<T>(offers: Offers, call: () => Promise<T>): Promise<T> {
  const patched = patchGlobalFetch(offers.deps)
  try {
    return await call()
  } finally {
    patched.restore()
  }
}

describe('with everything offered', () => {
  test.each([
    // The second time without a range, so compressed, and a compressed answer does not say how large the file is.
    ['config.json', { hub: 4, cdn: 0, cas: 0 }],
    ['weights.bin', { hub: 2, cdn: 0, cas: 0 }],
    ['model.safetensors', { hub: 2, cdn: 0, cas: 0 }],
  ] as const)('downloadFile of %s takes %j requests', async (path, expected) => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const blob = await downloadFile({ repo, path, hubUrl: hub.url, fetch: hook.fetch })
    expect(blob?.size).toBe((await bytesOf(path)).length)
    // Asked for, but not read.
    expect(hook.opened).toEqual([])
    expect(await digestOfBlob(blob)).toBe(hub.file(path).sha256)
    expect(counts()).toEqual(expected)
  })

  test('fileDownloadInfo has the true digest of a large file', async () => {
    for (const path of ['weights.bin', 'model.safetensors']) {
      const { fetch } = hookWith([hub.url], offerAllOf(hub))
      const info = await fileDownloadInfo({ repo, path, hubUrl: hub.url, fetch })
      const { etag, sizeBytes } = hub.file(path)
      expect(info).toMatchObject({ etag: `"${etag}"`, size: sizeBytes })
      expect(info?.xet).toBeUndefined()
      expect(info?.url).toBe(`${hub.url}/acme/tiny/resolve/main/${path}`)
    }
  })

  test('slice and stream read ranges', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const blob = await downloadFile({ repo, path: 'model.safetensors', hubUrl: hub.url, fetch: hook.fetch })
    const part = await blob?.slice(1000, 500_000).arrayBuffer()
    expect(sha256(part ?? new Uint8Array())).toBe(sha256(xet.content.subarray(1000, 500_000)))
    const streamed: Uint8Array[] = []
    for await (const chunk of (blob?.stream() ?? []) as AsyncIterable<Uint8Array>) streamed.push(chunk)
    expect(sha256(Buffer.concat(streamed))).toBe(sha256(xet.content))
    expect(counts()).toMatchObject({ cdn: 0, cas: 0 })
    expect(hook.opened).toEqual([
      { start: 1000, end: 500_000 },
      { start: 0, end: 1_200_000 },
    ])
  })

  test('downloadFileToCacheDir writes the right blob, through the global fetch', async () => {
    await using cache = await temporaryDirectory()
    const hook = hookWith([hub.url], offerAllOf(hub))
    const path = await withGlobal(hook, () =>
      downloadFileToCacheDir({ repo, path: 'weights.bin', hubUrl: hub.url, cacheDir: cache.path }),
    )
    expect(sha256(await readFile(path))).toBe(hub.file('weights.bin').sha256)
    expect(counts()).toEqual({ hub: 3, cdn: 0, cas: 0 })
  })

  test('snapshotDownload of a repository with LFS and Xet files never asks storage', async () => {
    await using cache = await temporaryDirectory()
    const hook = hookWith([hub.url], offerAllOf(hub))
    const folder = await withGlobal(hook, () =>
      snapshotDownload({ repo, hubUrl: hub.url, cacheDir: cache.path }),
    )
    expect(await contentsOf(folder)).toEqual(
      Object.fromEntries(Object.keys(files).map((path) => [path, hub.file(path).sha256])),
    )
    expect(hub.stats('cdn')).toMatchObject({ requests: 0, bytesSent: 0 })
    expect(hub.stats('cas')).toMatchObject({ requests: 0, bytesSent: 0 })
  })

  test('a gated file is asked for with the token that opened it', async () => {
    const hook = hookWith([hub.url], offerAllOf(hub))
    const options = {
      repo: 'acme/gated',
      path: 'weights.bin',
      hubUrl: hub.url,
      accessToken,
      fetch: hook.fetch,
    }
    const blob = await downloadFile(options)
    expect(await digestOfBlob(blob)).toBe(hub.file('weights.bin', { repo: 'acme/gated' }).sha256)
    expect(hook.asked.map(({ context }) => context.token)).toEqual([accessToken, accessToken])
    expect(counts()).toMatchObject({ cdn: 0 })
  })
})

describe('with nothing offered, everything is as without the hook:', () => {
  const plain = 'acme/plain'
  type Client = (fetch: typeof globalThis.fetch) => Promise<unknown>
  const options = (): { repo: string; hubUrl: string } => ({ repo: plain, hubUrl: hub.url })

  test.each<{ name: string; call: Client }>([
    {
      name: 'fileDownloadInfo',
      call: (fetch) => fileDownloadInfo({ ...options(), path: 'weights.bin', fetch }),
    },
    {
      name: 'fileDownloadInfo of a Xet file',
      call: (fetch) => fileDownloadInfo({ ...options(), repo, path: 'model.safetensors', fetch }),
    },
    {
      name: 'downloadFile of a git file',
      call: async (fetch) => digestOfBlob(await downloadFile({ ...options(), path: 'config.json', fetch })),
    },
    {
      name: 'downloadFile of an LFS file',
      call: async (fetch) => digestOfBlob(await downloadFile({ ...options(), path: 'weights.bin', fetch })),
    },
    {
      name: 'downloadFile of an LFS file with a token',
      call: async (fetch) =>
        digestOfBlob(
          await downloadFile({ ...options(), repo: 'acme/gated', path: 'weights.bin', accessToken, fetch }),
        ),
    },
    {
      name: 'downloadFile of a Xet file from its own storage',
      call: async (fetch) =>
        digestOfBlob(await downloadFile({ ...options(), repo, path: 'model.safetensors', fetch })),
    },
    {
      name: 'downloadFile of a Xet file over HTTP',
      call: async (fetch) =>
        digestOfBlob(
          await downloadFile({ ...options(), repo, path: 'model.safetensors', xet: false, fetch }),
        ),
    },
    {
      name: 'a slice',
      call: async (fetch) => {
        const blob = await downloadFile({ ...options(), path: 'weights.bin', fetch })
        return digestOfBlob(blob?.slice(5, 70_000) ?? null)
      },
    },
    {
      name: 'a file that is not there',
      call: (fetch) => downloadFile({ ...options(), path: 'none.bin', fetch }),
    },
    {
      name: 'a revision that is not there',
      call: (fetch) => downloadFile({ ...options(), path: 'weights.bin', revision: 'none', fetch }),
    },
    {
      name: 'a repository that is not there',
      call: (fetch) => downloadFile({ ...options(), repo: 'acme/none', path: 'weights.bin', fetch }),
    },
    {
      name: 'a gated file without a token',
      call: (fetch) => downloadFile({ ...options(), repo: 'acme/gated', path: 'weights.bin', fetch }),
    },
    {
      name: 'a wrong token',
      call: (fetch) => downloadFile({ ...options(), path: 'weights.bin', accessToken: 'hf_wrong', fetch }),
    },
    {
      name: 'a list',
      call: async (fetch) => {
        const paths: string[] = []
        for await (const { path } of listFiles({ ...options(), fetch })) paths.push(path)
        return paths
      },
    },
  ])('$name', async ({ call }) => {
    const run = async (fetch: typeof globalThis.fetch): Promise<unknown> => {
      hub.resetStats()
      const result = await call(fetch).catch((error: unknown) => withoutIds(error))
      const requests = hub
        .requests()
        .map(({ origin, method, url, range, authorization, status }) =>
          [origin, method, url, range, authorization, status].join(' '),
        )
      return { result, requests }
    }
    // The client keeps the token of the Xet service for later calls.
    await run(realFetch)
    const unhooked = await run(realFetch)
    const hooked = await run(hookWith([hub.url], offerNothing).fetch)
    expect(hooked).toEqual(unhooked)
  })

  test('snapshotDownload', async () => {
    await using cache = await temporaryDirectory()
    const hook = hookWith([hub.url], offerNothing)
    const run = async (cacheDir: string): Promise<unknown> => {
      hub.resetStats()
      const folder = await snapshotDownload({ repo: plain, hubUrl: hub.url, cacheDir })
      return {
        contents: await contentsOf(folder),
        counts: counts(),
        requests: hub.requests().map(({ url }) => url),
      }
    }
    const unhooked = await run(join(cache.path, 'one'))
    const hooked = await withGlobal(hook, () => run(join(cache.path, 'two')))
    expect(hooked).toEqual(unhooked)
    expect(hook.asked.length).toBeGreaterThan(0)
  })
})

/** The client gives each request an id of its own. */
function withoutIds(error: unknown): string {
  return describeError(error).replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'id')
}
