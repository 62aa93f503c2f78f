import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { hasPythonLibtorrent } from '../torrent/fixtures/python-libtorrent.ts'
import { lookup, publish, testBlob, testTracker } from './fixtures/test-tracker.ts'

/** What `two_sessions.py` prints. */
interface Outcome {
  readonly seeding: boolean
  readonly announced: boolean
  readonly complete: boolean
  readonly scraped: boolean
  readonly sha256: string
  readonly alerts: { readonly seeder: string[][]; readonly leecher: string[][] }
}

test.skipIf(!hasPythonLibtorrent).each(['v2', 'hybrid'] as const)(
  'two libtorrent sessions find each other through the tracker, %s',
  async (format) => {
    await using directory = await temporaryDirectory()
    await using tracker = await testTracker()
    const content = randomBytes(1_000_000)
    const blob = testBlob(content, undefined, { format })
    for (const name of ['seeder', 'leecher']) await mkdir(join(directory.path, name))
    await writeFile(join(directory.path, 'seeder', blob.etag), content)
    await publish(tracker, blob)

    const script = fileURLToPath(new URL('fixtures/two_sessions.py', import.meta.url))
    const child = spawn('/usr/bin/python3', [script, directory.path, tracker.announceUrl])
    const output = Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
    child.stdin.end(blob.torrentFile.toString('base64'))
    const [printed, errors] = await output
    expect(errors).toBe('')
    const outcome = JSON.parse(printed) as Outcome
    expect(outcome, printed).toMatchObject({ seeding: true, announced: true, complete: true, scraped: true })
    expect(outcome.sha256).toBe(createHash('sha256').update(content).digest('hex'))

    // Both said goodbye, and the one that finished was counted.
    const [row] = await lookup(tracker, blob.etag)
    expect(row.stats).toMatchObject({ seeders: 0, leechers: 0 })
    expect(row.stats.completed).toBeGreaterThanOrEqual(1)
  },
)
