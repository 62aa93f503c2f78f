/** docs/tracker-api.md against the tracker: examples have the fields that answers have, tables the limits that hold. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { pieceLengthFor } from '../../src/torrent/piece-length.ts'
import {
  maxBlobsPerLookup,
  maxCandidatesPerBlob,
  maxPeersPerAnswer,
  readPublishBody,
} from '../../src/tracker/protocol.ts'
import { defaultLimits } from '../../src/tracker/server/main.ts'
import { announce, lookup, publish, testBlob, testTracker } from './fixtures/test-tracker.ts'

const text = readFileSync(new URL('../../docs/tracker-api.md', import.meta.url), 'utf8')
const [lookupExample, publishExample, publishedExample] = [...text.matchAll(/```json\n(.*?)```/gs)].map(
  ([, json]) => JSON.parse(json ?? ''),
)

test('the examples have exactly the fields of real answers', async () => {
  await using tracker = await testTracker()
  const blob = testBlob()
  expect(Object.keys(publishedExample)).toEqual(Object.keys((await publish(tracker, blob)).json))
  await announce(tracker, { key: blob.infoHash.slice(0, 40) })
  const [row] = await lookup(tracker, blob.etag)
  const [documented] = lookupExample.data
  expect(Object.keys(documented)).toEqual(Object.keys(row))
  for (const key of ['stats', 'peers'] as const) {
    expect(Object.keys([documented[key]].flat()[0])).toEqual(Object.keys([row[key]].flat()[0]))
  }
  expect(readPublishBody(publishExample)).toEqual(publishExample)
})

test('the tables name every limit with its default', () => {
  expect(text).toContain(`up to ${maxBlobsPerLookup} etags`.replace('up', 'Up'))
  expect(text).toContain(`up to ${maxCandidatesPerBlob} rows`)
  expect(text).toContain(`up to ${maxPeersPerAnswer}, drawn`)
  const undocumented = Object.keys(defaultLimits).filter((name) => !text.includes(`limits.${name}`))
  expect(undocumented).toEqual(['maxPublishesAtOnce'])
  const { announceRate, publishRate, maxPeersPerSwarm, maxPeersPerAddress, maxTorrents, unseededTtlMs } =
    defaultLimits
  for (const number of [
    announceRate.count,
    publishRate.count,
    maxPeersPerSwarm,
    maxPeersPerAddress,
    maxTorrents,
  ]) {
    expect(text).toMatch(new RegExp(`\\b${number}\\b`))
  }
  expect(unseededTtlMs / 86_400_000).toBe(7)
  for (const [, below, length] of text.matchAll(/\| below (\d+) \(.*?\) \| (\d+) \|/g)) {
    expect(pieceLengthFor(Number(below) - 1)).toBe(Number(length))
    expect(pieceLengthFor(Number(below))).toBeGreaterThan(Number(length))
  }
})
