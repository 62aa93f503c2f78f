/**
 * The demo's plot: one user downloads a model from the Hub and seeds it; the Hub's storage goes away; another user
 * gets the model all the same. Every claim of the result is checked against something that did not make it.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { formatBytes } from '../cli/format.ts'
import { requireAddon } from '../native/load.ts'
import { TrackerClient } from '../tracker/client.ts'
import { startTracker } from '../tracker/server/main.ts'
import type { DownloadProgress } from '../transfer/progress.ts'
import type { BlobRef } from '../values.ts'
import { type HubServer, makeSafetensors, startHub } from './hub.ts'
import type { Narrator } from './narrator.ts'
import { type DoneEvent, User, type UserEvent } from './user.ts'

export interface StoryOptions {
  /** Everything the demo writes. */
  readonly folder: string
  readonly modelBytes: number
  readonly narrator: Narrator
  readonly signal: AbortSignal
}

/** What one user got, and from where. */
export interface UserResult {
  /** From other users. */
  readonly p2pBytes: number
  /** File content from the Hub's storage. */
  readonly httpBytes: number
  /** Small files, which git holds and the Hub itself serves. */
  readonly hubSmallBytes: number
  readonly elapsedMs: number
  readonly bytesPerSecond: number
  /** What the Hub's storage has sent meanwhile, as it counts itself. */
  readonly storageBytes: number
  /** Files whose content is not what the Hub has. */
  readonly wrongFiles: readonly string[]
}

export interface StoryResult {
  readonly repo: string
  readonly files: number
  readonly totalBytes: number
  readonly first: UserResult
  readonly second: UserResult
  /** Why the demo failed; empty when all is well. */
  readonly problems: readonly string[]
}

const repo = 'demo/llama-tiny'
const knownWithinMs = 20_000

export async function tellStory(options: StoryOptions): Promise<StoryResult> {
  const { folder, modelBytes, narrator, signal } = options
  requireAddon()
  narrator.step(
    `A Hub and a tracker start on this machine; the Hub has a model of ${formatBytes(modelBytes)}`,
  )
  await using hub = await startDemoHub(folder, modelBytes)
  await using tracker = await startTracker({ dataDir: join(folder, 'tracker') })
  narrator.line(`   the Hub      ${hub.url}, which keeps large files in its storage at ${hub.cdnUrl}`)
  narrator.line(`   the tracker  ${tracker.url}`)
  const files = [...(hub.repo().find('main')?.files.keys() ?? [])].map((path) => hub.file(path))
  const userOf = (name: string, more: readonly string[]): User =>
    new User({
      name,
      folder: join(folder, name),
      endpoint: hub.url,
      args: ['download', repo, '--tracker', tracker.url, '--listen', '127.0.0.1:0', ...more],
      onEvent: (event) => showEvent(narrator, name, event),
    })

  narrator.step('Ada downloads it. Nobody else has it, so all of it comes from the Hub')
  await using ada = userOf('Ada', ['--seed-for', 'forever'])
  const [firstDone] = await ada.events<DoneEvent>('done', 1, signal)
  narrator.step('Ada seeds it, and the tracker learns whom to ask')
  const first = await resultOf(firstDone as DoneEvent, hub)
  await ada.events('seeding', files.length, signal)
  await knownToTracker(tracker.url, files, signal)

  narrator.step("The Hub's storage breaks down: nobody gets a large file from it any more")
  await hub.setAvailability('cdn', 'refused')
  hub.resetStats()
  narrator.step('Ben downloads the same model')
  await using ben = userOf('Ben', [])
  const [secondDone] = await ben.events<DoneEvent>('done', 1, signal)
  const second = await resultOf(secondDone as DoneEvent, hub)
  narrator.step('Both copies are compared with the original, byte for byte by their SHA-256')
  await Promise.all([ada.stop(), ben.stop()])
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
  const problems = problemsOf(first, second, files)
  return { repo, files: files.length, totalBytes, first, second, problems }
}

async function startDemoHub(folder: string, modelBytes: number): Promise<HubServer> {
  const origin = join(folder, 'hub')
  await mkdir(origin, { recursive: true })
  const filePath = await makeSafetensors({
    path: join(origin, 'model.safetensors'),
    sizeBytes: modelBytes,
    seed: Date.now(),
  })
  const vocabulary = Object.fromEntries(Array.from({ length: 2000 }, (_, index) => [`token${index}`, index]))
  return await startHub({
    repo,
    files: {
      'README.md': '# A model for the demo\n',
      'config.json': `${JSON.stringify({ model_type: 'llama', hidden_size: 64 }, null, 2)}\n`,
      'model.safetensors': { content: { filePath }, storage: 'lfs' },
      'tokenizer.json': JSON.stringify({ version: '1.0', model: { type: 'BPE', vocab: vocabulary } }),
    },
  })
}

function showEvent(narrator: Narrator, name: string, event: UserEvent): void {
  if (event.event === 'progress') narrator.progress(name, event as unknown as DownloadProgress)
  else if (event.event === 'seeding') narrator.line(`   ${name} seeds ${event['label']}`)
  else if (event.event === 'error') narrator.line(`   ${name}: ${event['message']}`)
}

/** Waits until a stranger who asks the tracker finds a seeder of every file. */
async function knownToTracker(url: string, files: readonly BlobRef[], signal: AbortSignal): Promise<void> {
  const client = new TrackerClient({ url })
  const deadline = performance.now() + knownWithinMs
  for (;;) {
    const found = await client.lookup(files, { signal })
    const known = files.filter(({ etag }) => found.get(etag)?.some(({ seeders }) => seeders > 0))
    if (known.length === files.length) return
    if (performance.now() > deadline) {
      throw new Error(
        `after ${knownWithinMs / 1000} s the tracker knows seeders of ${known.length} of ${files.length} files only`,
      )
    }
    await delay(100, undefined, { signal })
  }
}

async function resultOf(done: DoneEvent, hub: HubServer): Promise<UserResult> {
  const isLarge = ({ etag }: { etag: string }): boolean => etag.length === 64
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)
  const wrongFiles: string[] = []
  for (const { path } of done.files) {
    const sha256 = await sha256Of(join(done.path, path))
    if (sha256 !== hub.file(path).sha256) wrongFiles.push(path)
  }
  const size = sum(done.files.map((file) => file.size))
  return {
    p2pBytes: sum(done.files.map(({ bytes }) => bytes.p2p)),
    httpBytes: sum(done.files.filter(isLarge).map(({ bytes }) => bytes.http)),
    hubSmallBytes: sum(done.files.filter((file) => !isLarge(file)).map(({ bytes }) => bytes.http)),
    elapsedMs: done.elapsedMs,
    bytesPerSecond: Math.round((size / Math.max(1, done.elapsedMs)) * 1000),
    storageBytes: hub.stats('cdn').bytesSent,
    wrongFiles,
  }
}

function problemsOf(first: UserResult, second: UserResult, files: readonly BlobRef[]): string[] {
  const problems: string[] = []
  const largeBytes = files
    .filter(({ etag }) => etag.length === 64)
    .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  for (const path of first.wrongFiles) problems.push(`Ada's ${path} is not the original`)
  for (const path of second.wrongFiles) problems.push(`Ben's ${path} is not the original`)
  if (first.storageBytes < largeBytes) problems.push("Ada got less from the Hub's storage than the model has")
  if (second.httpBytes > 0 || second.storageBytes > 0)
    problems.push("Ben got large files from the Hub's storage")
  if (second.p2pBytes < largeBytes) problems.push('Ben got less from Ada than the model has')
  return problems
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Uint8Array)
  return hash.digest('hex')
}
