/** Tokens and signed URLs are in nothing that the command shows, however it ends, nor in process lists. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test, vi } from 'vitest'
import { main } from '../../src/cli/program.ts'
import { type HubOptions, type HubServer, startHub } from '../../src/demo/hub.ts'
import { lyingHub } from '../hub/fixtures.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { type CliOptions, runCli } from './support.ts'

const hubToken = `hf_${'QwErTyUiOpAsDfGhJkLzXcVbNm12345678'}`
/** How the tokens of a Hub of a company's own begin. */
const oddBeginning = 'Comp4ny'
let oddTokens = 0
/** A token of which this process cannot know from an earlier command that it is one. */
function newOddToken(): string {
  oddTokens += 1
  return `${oddBeginning}/own+form=x${oddTokens}`
}
// The small one comes in one piece, the other one so that an interruption keeps what there is.
const files = { 'config.json': '{}', 'model.bin': { seed: 'secret', sizeBytes: 1_500_000 } }

function expectNoSecret(text: string): void {
  for (const secret of [hubToken, oddBeginning]) expect(text).not.toContain(secret)
  expect(text).not.toMatch(/Signature=[^*]/)
}

interface Ended {
  readonly exitCode: number | string
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command in this process, which takes a tenth of the time of one of its own. */
async function runHere(line: readonly string[], { home, env = {} }: CliOptions = {}): Promise<Ended> {
  for (const [name, value] of Object.entries({ ...env, ...(home !== undefined && { HF_HOME: home }) }))
    vi.stubEnv(name, value)
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text
      return true
    })
  try {
    return { exitCode: await main(line), ...said }
  } finally {
    vi.restoreAllMocks()
  }
}
afterEach(() => {
  vi.unstubAllEnvs()
})

/** The first of a kind as other programs run it. */
const runs = (isFirst: boolean): typeof runHere => (isFirst ? runCli : runHere)

interface Stage {
  readonly spec?: { readonly isPrivate?: boolean; readonly isGated?: boolean }
  /** What the one who asks may read. @defaultValue the repository */
  readonly reads?: readonly string[]
  readonly isUnknown?: boolean
  readonly args?: readonly string[]
  readonly prepare?: (hub: HubServer, home: string) => unknown
  /** What must be said. */
  readonly says: string
}

const stages: Record<string, Stage> = {
  'the Hub does not know the token': { isUnknown: true, says: 'does not accept the token' },
  'the token may not read the repository': {
    spec: { isPrivate: true },
    reads: [],
    says: 'token may not read',
  },
  'the repository is gated': {
    spec: { isGated: true },
    reads: [],
    args: ['model.bin'],
    says: 'gated',
  },
  'there is no such revision': { args: ['--revision', 'nope'], says: 'nope' },
  'the Hub is down': { prepare: (hub) => hub.setAvailability('hub', 'refused'), says: 'connection refused' },
  'the Hub answers nonsense': {
    prepare: (hub) => hub.inject({ origin: 'hub', body: '<html>' }),
    says: 'makes no sense',
  },
  'storage refuses': { prepare: (hub) => hub.inject({ origin: 'cdn', status: 403 }), says: '403' },
  'storage sends other bytes': {
    prepare: (hub) => hub.inject({ origin: 'cdn', wrongByteAt: 7 }),
    says: 'etag',
  },
  'the cache cannot be written to': {
    prepare: (_hub, home) => writeFile(join(home, 'hub'), 'a file'),
    says: 'hub',
  },
}

test.each(Object.entries(stages))('no token is shown when %s', async (name, stage) => {
  const { spec = {}, reads = ['acme/tiny'], isUnknown = false, args = [], prepare, says } = stage
  const oddToken = newOddToken()
  const tokens: HubOptions['tokens'] = isUnknown ? {} : { [hubToken]: reads, [oddToken]: reads }
  await using home = await temporaryDirectory()
  await using hub = await startHub({ repo: 'acme/tiny', files, ...spec }, { tokens })
  await prepare?.(hub, home.path)
  const at = Object.keys(stages).indexOf(name)
  const isOption = at % 2 === 0
  const given = isOption ? ['--token', oddToken, '--json'] : []
  const env = { HF_ENDPOINT: hub.url, ...(!isOption && { HF_TOKEN: hubToken }) }
  const line = ['download', 'acme/tiny', ...args, ...given, '--debug']
  const { exitCode, stdout, stderr } = await runs(at === 0)(line, { home: home.path, env })
  expect(exitCode).not.toBe(0)
  expect(stdout + stderr).toContain(says)
  expectNoSecret(stdout + stderr)
})

test.each([403, 500, 302])('a Hub that repeats the token in a %i does not get it shown', async (status) => {
  await using home = await temporaryDirectory()
  await using hub = await lyingHub((req, res) => {
    const said = String(req.headers.authorization)
    const headers = {
      'x-error-message': `you sent ${said} and ${said.replace('Bearer ', '')}`,
      'x-error-code': said.replace('Bearer ', ''),
      location: `http://elsewhere.invalid/${said.replace('Bearer ', '')}/?token=${encodeURIComponent(said)}`,
    }
    res.writeHead(status, headers).end(said)
  })
  const env = { HF_ENDPOINT: hub.url }
  const line = ['download', 'acme/tiny', '--token', newOddToken(), '--json', '--debug']
  const { exitCode, stdout, stderr } = await runs(status === 403)(line, { home: home.path, env })
  expect(exitCode).toBe(1)
  expect(hub.seen.length).toBeGreaterThan(0)
  expectNoSecret(stdout + stderr)
})

test.each([
  ['an option that does not exist', ['download', 'acme/tiny', `--tokn=${hubToken}`]],
  ['a command that does not exist', [hubToken]],
  [
    'an address with a password',
    ['download', 'acme/tiny', '--endpoint', `https://me:${newOddToken()}@hub.example`],
  ],
  ['a repository that cannot be', ['download', `${hubToken}/a/b`]],
])('a token in the wrong place, in %s, is not repeated', async (_, line) => {
  const isFirst = line.some((each) => each.startsWith('--tokn'))
  const { exitCode, stdout, stderr } = await runs(isFirst)([...line, '--json'])
  expect(exitCode).toBe(2)
  expectNoSecret(stdout + stderr)
})

test('--debug says on stderr what happens, and leaves stdout to the result', async () => {
  await using home = await temporaryDirectory()
  await using hub = await startHub(files)
  const env = { HF_ENDPOINT: hub.url }
  const said: string[] = []
  for (const debug of [[], ['--debug']]) {
    hub.inject({ origin: 'cdn', cutAfterBytes: 1_000, times: 1 })
    const line = [...debug, 'download', 'acme/tiny', 'model.bin', '--local-dir', join(home.path, `${debug}`)]
    const { exitCode, lines, stderr } = await runCli(line, { home: home.path, env })
    expect([exitCode, lines.length]).toEqual([0, 1])
    said.push(stderr)
  }
  const [quiet, told] = said
  expect(quiet).not.toContain('llmpt:')
  expect(told).toMatch(/^llmpt: HTTP failed at byte \d+, trying again/m)
})

// There is no other way to see it as others do.
test.runIf(process.platform === 'linux').each([
  ['--token VALUE', ['--token', newOddToken()]],
  ['--token=VALUE', [`--token=${hubToken}`]],
])('%s is gone from the process list when the Hub is asked', async (_, given) => {
  await using home = await temporaryDirectory()
  await using hub = await startHub(files)
  await hub.setAvailability('hub', 'black-hole')
  const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
  const child = spawn(process.execPath, [main, 'download', 'acme/tiny', ...given, '--quiet'], {
    env: { ...process.env, HF_HOME: home.path, HF_ENDPOINT: hub.url },
    stdio: 'ignore',
  })
  const exited = once(child, 'exit')
  try {
    while (hub.requests().length === 0) {
      expect([child.exitCode, child.signalCode]).toEqual([null, null])
      await new Promise((resolve) => setImmediate(resolve))
    }
    const shown = await readFile(`/proc/${child.pid}/cmdline`, 'utf8')
    expectNoSecret(shown)
    expect(shown.replaceAll('\0', ' ').trim()).toMatch(
      /^llmpt download acme\/tiny --token[ =]\*\*\* --quiet$/,
    )
    expect(hub.requests()[0]?.authorization).toBe(true)
  } finally {
    child.kill('SIGKILL')
    await exited
  }
})
