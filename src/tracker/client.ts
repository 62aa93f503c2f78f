/**
 * Who has what: asks a tracker for torrents of blobs, fetches them, publishes ours. A tracker is a hint. When it is
 * down, slow or wrong, a lookup finds nothing; only a publish, which somebody waits for, says what went wrong.
 */
import type { Dispatcher } from 'undici'
import * as v from 'valibot'
import { ConfigError, TorrentError, TrackerError } from '../errors.ts'
import { log, messageOf } from '../log.ts'
import { checkBlobTorrent, parseMetainfo } from '../torrent/metainfo.ts'
import type { BlobRef, Etag, InfoHash } from '../values.ts'
import { type BlobCandidate, type CandidatesByEtag, candidatesFrom } from './candidate.ts'
import {
  announceKeyOf,
  announceUrlOf,
  maxBlobsPerLookup,
  maxTorrentBytes,
  type PublishBlobBody,
  paths,
  type ReadBlobRow,
  readLookup,
  readPublishAnswer,
  restUrl,
  torrentMediaType,
} from './protocol.ts'
import { type TrackerAnswer, TrackerConnections, type TrackerRequest } from './request.ts'

export type { BlobCandidate, CandidatesByEtag } from './candidate.ts'

export interface TrackerClientOptions {
  /** Base URL of the tracker. REST goes to its origin, announces to the URL itself and `/announce`. */
  readonly url: string
  /** For one request, from the connection to the last byte of the answer. @defaultValue 5000 */
  readonly timeoutMs?: number | undefined
  /** How requests travel: a proxy, a test. The owner closes it. */
  readonly dispatcher?: Dispatcher | undefined
  /** Sent with `publish` only, to trackers that want one. Not the Hub's token. */
  readonly publishToken?: string | undefined
}

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined
}

/** A blob torrent of ours. */
export interface PublishRequest extends BlobRef {
  readonly infoHash: InfoHash
  /** The complete .torrent file. */
  readonly torrentFile: Uint8Array
}

export interface PublishResult {
  readonly infoHash: InfoHash
  readonly trackerUrl: string
  /** `pending`: kept, but hidden until somebody approves it. */
  readonly status: 'active' | 'pending'
  readonly message: string
}

const defaultTimeoutMs = 5000
/** 200 blobs with 8 torrents of 50 peers each are below 6 MB. */
const maxLookupBytes = 8_000_000
const maxPublishAnswerBytes = 100_000

/** One tracker, asked over HTTP. Holds no connection that keeps the process alive. */
export class TrackerClient {
  /** Base URL, as configured. */
  readonly url: string
  /** Where torrent clients announce. */
  readonly announceUrl: string
  readonly #options: TrackerClientOptions
  readonly #connections: TrackerConnections

  /** @throws {ConfigError} If `url` is not an http or https URL. */
  constructor(options: TrackerClientOptions) {
    if (!/^https?:\/\//i.test(options.url) || !URL.canParse(options.url)) {
      throw new ConfigError(`tracker "${options.url}" is not an http:// or https:// URL`)
    }
    this.url = options.url
    this.announceUrl = announceUrlOf(options.url)
    this.#options = options
    this.#connections = new TrackerConnections(options.dispatcher)
  }

  /**
   * Torrents of these blobs, those with most seeders first; at most 8 for one blob. Blobs without a torrent are not in
   * the map, and neither is anything when the tracker is of no help.
   *
   * @throws the signal's reason; nothing else.
   */
  async lookup(blobs: readonly BlobRef[], { signal }: RequestOptions = {}): Promise<CandidatesByEtag> {
    // An empty file has no torrent, so there is nothing to ask.
    const wanted = new Map(blobs.filter((blob) => blob.sizeBytes > 0).map((blob) => [blob.etag, blob]))
    const etags = [...wanted.keys()]
    const groups: Etag[][] = []
    for (let start = 0; start < etags.length; start += maxBlobsPerLookup) {
      groups.push(etags.slice(start, start + maxBlobsPerLookup))
    }
    const answers = await Promise.all(groups.map((group) => this.#lookupGroup(group, signal)))
    return candidatesFrom(answers.flat(), wanted, this)
  }

  /**
   * The .torrent file, found to be what it was asked for: its info hash is right, and if a candidate was given, it is a
   * blob torrent of that content. `undefined` if the tracker has none, or none that is.
   *
   * @throws the signal's reason; nothing else.
   */
  async fetchTorrent(
    candidate: BlobCandidate | InfoHash,
    { signal }: RequestOptions = {},
  ): Promise<Uint8Array | undefined> {
    const infoHash = typeof candidate === 'string' ? candidate : candidate.infoHash
    const url = restUrl(this.url, paths.torrentFile)
    url.searchParams.set('info_hash', infoHash)
    return this.#tolerating(`torrent ${infoHash}`, signal, async () => {
      const answer = await this.#ask({ method: 'GET', url, maxBytes: maxTorrentBytes, signal })
      if (answer.status === 404) return undefined
      this.#expect(answer, torrentMediaType)
      const metainfo = parseMetainfo(answer.body)
      if (metainfo.infoHash !== infoHash && metainfo.infoHashV1 !== infoHash) {
        throw new TrackerError(`sent the torrent ${metainfo.infoHash} for ${infoHash}`, this.url)
      }
      const reasons = typeof candidate === 'string' ? [] : checkBlobTorrent(metainfo, candidate)
      if (reasons.length > 0)
        throw new TrackerError(`sent a torrent that is not the blob: ${reasons.join('; ')}`, this.url)
      return answer.body
    })
  }

  /**
   * Tells the tracker about a blob torrent. Telling it again changes nothing.
   *
   * @throws {TrackerError} If the tracker did not take it, with its own words.
   * @throws the signal's reason, if the caller aborted.
   */
  async publish(blob: PublishRequest, { signal }: RequestOptions = {}): Promise<PublishResult> {
    const body: PublishBlobBody = {
      kind: 'blob',
      etag: blob.etag,
      size: blob.sizeBytes,
      info_hash: blob.infoHash,
      announce_key: announceKeyOf(blob.infoHash),
      torrent_data: Buffer.from(blob.torrentFile).toString('base64'),
    }
    const token = this.#options.publishToken
    const answer = await this.#ask({
      method: 'POST',
      url: restUrl(this.url, paths.publish),
      headers: {
        'content-type': 'application/json',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify(body),
      maxBytes: maxPublishAnswerBytes,
      signal,
    })
    const result = readPublishAnswer(this.#json(answer))
    if (result?.info_hash !== blob.infoHash)
      throw new TrackerError('answered a publish with something else', this.url)
    const status = result.status === 'pending' ? 'pending' : 'active'
    return { infoHash: blob.infoHash, trackerUrl: this.url, status, message: result.message }
  }

  async #lookupGroup(etags: readonly Etag[], signal: AbortSignal | undefined): Promise<ReadBlobRow[]> {
    const url = restUrl(this.url, paths.torrents)
    // Commas are safe in a query, and escaped they would not fit where request lines are limited.
    url.search = `?blob=${etags.join(',')}`
    const rows = await this.#tolerating(`lookup of ${etags.length} blobs`, signal, async () => {
      const answer = await this.#ask({ method: 'GET', url, maxBytes: maxLookupBytes, signal })
      const list = readLookup(this.#json(answer))
      if (list === undefined) throw new TrackerError('answered a lookup with something else', this.url)
      return list
    })
    return rows ?? []
  }

  #ask(request: Omit<TrackerRequest, 'timeoutMs'>): Promise<TrackerAnswer> {
    return this.#connections.ask({ ...request, timeoutMs: this.#options.timeoutMs ?? defaultTimeoutMs })
  }

  /** A proxy in front of a tracker answers unknown paths with 200 and a page: the content type tells. */
  #expect(answer: TrackerAnswer, mediaType: string): void {
    if (answer.status !== 200) throw new TrackerError(`answered ${answer.status}${errorIn(answer)}`, this.url)
    if (answer.mediaType !== mediaType) {
      throw new TrackerError(`answered with "${answer.mediaType}", not ${mediaType}`, this.url)
    }
  }

  #json(answer: TrackerAnswer): unknown {
    this.#expect(answer, 'application/json')
    try {
      return JSON.parse(answer.body.toString('utf8'))
    } catch (error) {
      throw new TrackerError('answered with broken JSON', this.url, { cause: error })
    }
  }

  /** Whatever goes wrong in here is the tracker's trouble, not the download's. */
  async #tolerating<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      if (signal?.aborted) throw signal.reason
      // Anything but these is a mistake of ours, and still no reason for a download to fail.
      const isTrouble = error instanceof TrackerError || error instanceof TorrentError
      log[isTrouble ? 'debug' : 'warn'](`tracker: ${what}: ${messageOf(error)}`)
      return undefined
    }
  }
}

const errorSchema = v.object({ error: v.string() })

function errorIn(answer: TrackerAnswer): string {
  if (answer.mediaType !== 'application/json') return ''
  try {
    const parsed = v.safeParse(errorSchema, JSON.parse(answer.body.toString('utf8')))
    return parsed.success ? `: ${parsed.output.error.slice(0, 500).replace(/\p{Cc}/gu, ' ')}` : ''
  } catch {
    return ''
  }
}
