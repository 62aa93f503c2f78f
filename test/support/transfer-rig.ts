/** What a test of a single transfer needs: connections, a cache, the request, and the parts it may replace. */
import { FileSource } from '../../src/hub/file-source.ts'
import { HubHttp, type HubHttpOptions } from '../../src/hub/http.ts'
import type { CacheDeps } from '../../src/hub/partial-file.ts'
import { cachePlace } from '../../src/hub/place.ts'
import { CondemnedTorrents } from '../../src/transfer/condemned.ts'
import {
  type DownloadDeps,
  type FetchedFile,
  type FileDownload,
  fetchFile,
} from '../../src/transfer/download.ts'
import { defaultRacePolicy } from '../../src/transfer/plan.ts'
import type { HubFile } from '../../src/values.ts'
import { temporaryDirectory } from './temp-dir.ts'

export interface TransferRig extends AsyncDisposable {
  readonly cacheDir: string
  readonly stateDir: string
  readonly deps: DownloadDeps
  fetch(file: HubFile, change?: Partial<FileDownload>, deps?: Partial<DownloadDeps>): Promise<FetchedFile>
}

/** A lock everybody gets; tests of contention use the real one. */
export const openLocks: NonNullable<CacheDeps['locks']> = { tryLock: () => true, unlock: () => {} }

export async function transferRig(
  endpoint: string,
  options: {
    http?: HubHttpOptions
    locks?: CacheDeps['locks']
    deps?: Partial<DownloadDeps>
    folder?: string
    /** Whose folders to work in. */
    in?: Pick<TransferRig, 'cacheDir' | 'stateDir'>
  } = {},
): Promise<TransferRig> {
  const folder = await temporaryDirectory()
  const http = new HubHttp(options.http)
  const home = options.folder ?? folder.path
  const cacheDir = options.in?.cacheDir ?? `${home}/hub`
  const stateDir = options.in?.stateDir ?? `${home}/llmpt`
  const deps: DownloadDeps = {
    addon: undefined,
    swarm: undefined,
    finder: undefined,
    condemned: new CondemnedTorrents(stateDir),
    stateDir,
    policy: defaultRacePolicy,
    smallFileBytes: 1024 * 1024,
    timeoutMs: 10_000,
    canUseHttp: true,
    offline: false,
    ...options.deps,
  }
  return {
    cacheDir,
    stateDir,
    deps,
    fetch: (file, change = {}, moreDeps = {}) =>
      fetchFile(
        {
          file,
          place: cachePlace(cacheDir, { locks: 'locks' in options ? options.locks : openLocks }),
          source: new FileSource({ http, endpoint }, file),
          mayShare: async () => true,
          signal: new AbortController().signal,
          ...change,
        },
        { ...deps, ...moreDeps },
      ),
    [Symbol.asyncDispose]: async () => {
      await http.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}
