import { describe, expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { whyNotShared } from '../../src/hub/sharing.ts'
import { Visibility } from '../../src/hub/visibility.ts'
import { VisibilityMemory } from '../../src/hub/visibility-memory.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { access, errorOf, sha256 } from './fixtures.ts'

const hourMs = 3_600_000
const files = { 'README.md': '# read me', 'config.json': '{}', 'w.bin': 'weights', 'v.bin': 'more weights' }
const repos = [
  { repo: 'acme/tiny', files },
  { repo: 'acme/gated', files, isGated: true, openFiles: ['README.md'] },
  { repo: 'acme/private', files, isPrivate: true },
  { repo: 'acme/notes', files: { 'README.md': '# notes', 'notes.txt': 'a', 'own.bin': 'its own' } },
  { repo: 'acme/rows', repoType: 'dataset', files: { 'rows.bin': 'rows' }, isGated: true },
  { repo: 'acme/app', repoType: 'space', files: { 'app.bin': 'app' }, isPrivate: true },
] as const

interface Rules {
  readonly shareGated?: readonly string[]
  readonly sharePrivate?: readonly string[]
}

interface Scene extends AsyncDisposable {
  readonly hub: HubServer
  /** What one process knows; all of a scene share the disk and the clock. */
  newProcess(rules?: Rules): Visibility
  advance(ms: number): void
  now(): number
  questions(): number
}

async function scene(): Promise<Scene> {
  const folder = await temporaryDirectory()
  const hub = await startHub(repos)
  const our = access(hub.url, { token: 'hf_member' })
  return {
    hub,
    newProcess: ({ shareGated = [], sharePrivate = [] } = {}) =>
      new Visibility({
        hub: our,
        memory: new VisibilityMemory(folder.path),
        rules: { shareGated, sharePrivate },
      }),
    advance: (ms) => our.advance(ms),
    now: () => our.http.now(),
    questions: () => hub.requests().filter(({ url }) => url.includes('/resolve/')).length,
    [Symbol.asyncDispose]: async () => {
      await our[Symbol.asyncDispose]()
      await hub.close()
      await folder[Symbol.asyncDispose]()
    },
  }
}

const fetching = { for: 'fetch' } as const
const seeding = { for: 'seed' } as const

describe('what the Hub is asked', () => {
  test('a file that was shown to somebody without a token costs no question', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    await visibility.shown(s.hub.file('w.bin'))
    expect(await visibility.verdict(s.hub.file('w.bin'), seeding)).toBe('public')
    expect(await visibility.verdict(s.hub.file('v.bin'), seeding)).toBe('public')
    expect(s.hub.requests()).toHaveLength(0)
  })

  test('a repository that is only known by its list of files is asked about, also without a token', async () => {
    await using s = await scene()
    expect(await s.newProcess().verdict(s.hub.file('w.bin', { repo: 'acme/gated' }), fetching)).toBe('gated')
  })

  test('a public repository costs one question for all its files, and none carries a token', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    for (const path of ['w.bin', 'v.bin', 'config.json', 'w.bin']) {
      expect(await visibility.verdict(s.hub.file(path), fetching)).toBe('public')
      expect(await visibility.verdict(s.hub.file(path), seeding)).toBe('public')
    }
    expect(s.hub.requests().map(({ method }) => method)).toEqual(['HEAD'])
    expect(s.hub.stats().authorized).toBe(0)
  })

  test('many files at the same moment cost one question', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    const asked = ['w.bin', 'v.bin', 'w.bin', 'config.json'].map((path) => s.hub.file(path))
    const verdicts = await Promise.all(asked.map((file) => visibility.verdict(file, fetching)))
    expect(verdicts).toEqual(['public', 'public', 'public', 'public'])
    expect(s.questions()).toBe(1)
  })

  test.each([
    ['acme/gated', 'model', 'w.bin', 'gated'],
    ['acme/private', 'model', 'w.bin', 'private'],
    ['acme/rows', 'dataset', 'rows.bin', 'gated'],
    ['acme/app', 'space', 'app.bin', 'private'],
  ] as const)('%s (%s) costs one question, and is %s: %s', async (repo, repoType, path, verdict) => {
    await using s = await scene()
    const visibility = s.newProcess()
    for (const options of [fetching, seeding, fetching]) {
      expect(await visibility.verdict(s.hub.file(path, { repo, repoType }), options)).toBe(verdict)
    }
    expect(s.questions()).toBe(1)
  })

  test('where a public file lies is told once, which saves its download a request', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    await visibility.verdict(s.hub.file('w.bin'), fetching)
    expect(visibility.takeLocation(s.hub.file('v.bin'))).toBeUndefined()
    const location = visibility.takeLocation(s.hub.file('w.bin')) ?? ''
    expect(await (await fetch(location)).text()).toBe('weights')
    expect(visibility.takeLocation(s.hub.file('w.bin'))).toBeUndefined()
  })

  test('small files speak for themselves, and only so many of a repository are asked about', async () => {
    await using s = await scene()
    const many = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`${n}.txt`, `small ${n}`]))
    await s.hub.commit(many)
    const visibility = s.newProcess()
    const verdicts: string[] = []
    for (const path of Object.keys(many)) verdicts.push(await visibility.verdict(s.hub.file(path), seeding))
    expect(verdicts).toEqual([...Array(16).fill('public'), ...Array(4).fill('not-asked')])
    const heads = s.hub.requests().filter(({ url }) => url.includes('/resolve/'))
    expect(heads).toHaveLength(16)
    s.advance(hourMs)
    expect(await visibility.verdict(s.hub.file('19.txt'), seeding)).toBe('public')
    s.advance(2 * hourMs)
    await s.hub.setAvailability('hub', 'refused')
    expect(await visibility.verdict(s.hub.file('18.txt'), seeding)).toBe('unknown')
  })

  test('one caller that gives up does not take the answer from another', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    const controller = new AbortController()
    const { signal } = controller
    const impatient = errorOf(visibility.mayShare(s.hub.file('w.bin'), { for: 'fetch', signal }))
    const patient = visibility.mayShare(s.hub.file('w.bin'), fetching)
    controller.abort(new Error('enough'))
    expect((await impatient).message).toBe('enough')
    expect(await patient).toBe(true)
    expect(s.questions()).toBe(1)
  })
})

describe('what an answer means', () => {
  test('that everybody sees the README says nothing about the weights', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    const where = { repo: 'acme/gated' }
    expect(await visibility.verdict(s.hub.file('README.md', where), fetching)).toBe('public')
    expect(await visibility.verdict(s.hub.file('w.bin', where), fetching)).toBe('gated')
  })

  test('a README that was shown says nothing about the weights either', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    await visibility.shown(s.hub.file('README.md', { repo: 'acme/gated' }))
    expect(await visibility.verdict(s.hub.file('w.bin', { repo: 'acme/gated' }), fetching)).toBe('gated')
  })

  test('another content for everybody is not the same file', async () => {
    await using s = await scene()
    const file = { ...s.hub.file('w.bin'), etag: s.hub.file('v.bin').etag }
    expect(await s.newProcess().verdict(file, fetching)).toBe('private')
  })

  test.each([
    [404, 'RepoNotFound', 'private'],
    [404, undefined, 'private'],
    [401, 'RepoNotFound', 'private'],
    [401, 'GatedRepo', 'gated'],
    [403, 'GatedRepo', 'gated'],
    [403, undefined, 'private'],
    [429, undefined, 'unknown'],
    [500, undefined, 'unknown'],
    [503, undefined, 'unknown'],
  ] as const)('%s %s means %s', async (status, code, verdict) => {
    await using s = await scene()
    s.hub.inject({ origin: 'hub', status, headers: code === undefined ? {} : { 'x-error-code': code } })
    expect(await s.newProcess().verdict(s.hub.file('w.bin'), fetching)).toBe(verdict)
  })

  test('a file that its repository has lost is private, and the rest of it stays public', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    const lost = { ...s.hub.file('w.bin'), path: 'lost.bin', etag: sha256('lost') }
    expect(await visibility.verdict(lost, fetching)).toBe('private')
    expect(await visibility.verdict(s.hub.file('v.bin'), fetching)).toBe('public')
  })

  test('a Hub that does not answer allows nothing, and is asked again after a minute', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    await s.hub.setAvailability('hub', 'unavailable')
    expect(await visibility.verdict(s.hub.file('w.bin'), fetching)).toBe('unknown')
    await s.hub.setAvailability('hub', 'up')
    expect(await visibility.verdict(s.hub.file('v.bin'), fetching)).toBe('unknown')
    s.advance(60_000)
    expect(await visibility.verdict(s.hub.file('w.bin'), fetching)).toBe('public')
    expect(s.questions()).toBe(2)
  })

  test('every reason for a person says who may not see it, or who does not answer', () => {
    expect(whyNotShared('gated')).toMatch(/gated: not everybody may see it/)
    expect(whyNotShared('private')).toMatch(/private or gone: not everybody may see it/)
    expect(whyNotShared('unknown')).toMatch(/does not answer/)
    expect(whyNotShared('not-asked')).toMatch(/too many small files/)
  })
})

describe('repositories that are shared on request', () => {
  test.each([
    ['acme/gated', 'model', 'w.bin', { shareGated: ['acme/gated'] }],
    ['acme/private', 'model', 'w.bin', { sharePrivate: ['acme/private'] }],
    ['acme/rows', 'dataset', 'rows.bin', { shareGated: ['datasets/acme/rows'] }],
    ['acme/app', 'space', 'app.bin', { sharePrivate: ['spaces/acme/app'] }],
  ] as const)('%s (%s)', async (repo, repoType, path, rules) => {
    await using s = await scene()
    const visibility = s.newProcess(rules)
    for (const options of [fetching, seeding]) {
      expect(await visibility.verdict(s.hub.file(path, { repo, repoType }), options)).toBe('on-request')
    }
  })

  test.each([
    ['acme/gated', 'model', 'w.bin', { sharePrivate: ['acme/gated'] }, 'gated'],
    ['acme/private', 'model', 'w.bin', { shareGated: ['acme/private'] }, 'private'],
    ['acme/private', 'model', 'w.bin', { sharePrivate: ['acme/gated'] }, 'private'],
    ['acme/rows', 'dataset', 'rows.bin', { shareGated: ['acme/rows'] }, 'gated'],
  ] as const)('%s is not, when %s %s was named as %o', async (repo, repoType, path, rules, verdict) => {
    await using s = await scene()
    const file = s.hub.file(path, { repo, repoType })
    expect(await s.newProcess(rules).verdict(file, fetching)).toBe(verdict)
  })
})

describe('what is remembered', () => {
  test('an answer is enough for an hour to seed, in the process that heard it', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    await visibility.verdict(s.hub.file('w.bin'), fetching)
    s.advance(hourMs)
    expect(await visibility.verdict(s.hub.file('v.bin'), seeding)).toBe('public')
    expect(s.questions()).toBe(1)
    expect(await s.newProcess().verdict(s.hub.file('v.bin'), seeding)).toBe('public')
    expect(s.questions()).toBe(2)
    await s.hub.setAvailability('hub', 'refused')
    s.advance(1)
    expect(await visibility.verdict(s.hub.file('v.bin'), seeding)).toBe('unknown')
    expect(await s.newProcess().verdict(s.hub.file('v.bin'), seeding)).toBe('unknown')
  })

  test('an answer is enough for a day to fetch, in all processes', async () => {
    await using s = await scene()
    await s.newProcess().verdict(s.hub.file('w.bin'), fetching)
    s.advance(24 * hourMs)
    await s.hub.setAvailability('hub', 'refused')
    expect(await s.newProcess().verdict(s.hub.file('v.bin'), fetching)).toBe('public')
    s.advance(1)
    expect(await s.newProcess().verdict(s.hub.file('v.bin'), fetching)).toBe('unknown')
  })

  test('a repository that turned private is so at the next question, also for other processes', async () => {
    await using s = await scene()
    const [one, other, early] = [s.newProcess(), s.newProcess(), s.newProcess()]
    await early.shown(s.hub.file('w.bin'))
    expect(await one.verdict(s.hub.file('w.bin'), fetching)).toBe('public')
    s.hub.setAccess('private', { repo: 'acme/tiny' })
    s.advance(2 * hourMs)
    expect(await one.verdict(s.hub.file('w.bin'), seeding)).toBe('private')
    expect(await one.verdict(s.hub.file('w.bin'), fetching)).toBe('private')
    expect(await other.verdict(s.hub.file('w.bin'), fetching)).toBe('private')
    expect(await early.verdict(s.hub.file('w.bin'), fetching)).toBe('private')
    expect(s.questions()).toBe(1)
  })

  test('a content that everybody may have from one repository is shared though it came from a private one', async () => {
    await using s = await scene()
    const fromPrivate = s.hub.file('w.bin', { repo: 'acme/private' })
    expect(await s.newProcess().verdict(fromPrivate, seeding)).toBe('private')
    await s.newProcess().verdict(s.hub.file('w.bin'), seeding)
    expect(await s.newProcess().verdict(fromPrivate, seeding)).toBe('public')
    expect(await s.newProcess().verdict(s.hub.file('v.bin', { repo: 'acme/private' }), seeding)).toBe(
      'private',
    )
    expect(await s.newProcess().isShown(fromPrivate)).toBe(false)
    expect(await s.newProcess().isShown(s.hub.file('w.bin'))).toBe(true)
  })

  test('it stays shared as long as one of its repositories is public, and no longer', async () => {
    await using s = await scene()
    s.hub.setAccess('public', { repo: 'acme/private' })
    const [a, b] = ['acme/tiny', 'acme/private'].map((repo) => s.hub.file('w.bin', { repo }))
    if (a === undefined || b === undefined) throw new Error('no files')
    for (const file of [a, b]) await s.newProcess().verdict(file, seeding)
    s.hub.setAccess('private', { repo: 'acme/private' })
    s.advance(25 * hourMs)
    expect(await s.newProcess().verdict(b, seeding)).toBe('public')
    s.hub.setAccess('deleted', { repo: 'acme/tiny' })
    s.advance(25 * hourMs)
    expect(await s.newProcess().verdict(a, seeding)).toBe('private')
    expect(await s.newProcess().verdict(b, seeding)).toBe('private')
  })

  test('a README that is public elsewhere does not open a gate for the weights', async () => {
    await using s = await scene()
    const visibility = s.newProcess()
    const where = { repo: 'acme/gated' }
    await visibility.verdict(s.hub.file('README.md', where), seeding)
    expect(await s.newProcess().verdict(s.hub.file('v.bin', where), seeding)).toBe('gated')
  })

  test('wasPublic tells when the Hub last showed a file to everybody, and asks nothing', async () => {
    await using s = await scene()
    expect(await s.newProcess().wasPublic(s.hub.file('w.bin'))).toBeUndefined()
    const atMs = s.now()
    await s.newProcess().verdict(s.hub.file('w.bin'), fetching)
    s.advance(72 * hourMs)
    expect(await s.newProcess().wasPublic(s.hub.file('v.bin'))).toEqual({ atMs })
    expect(s.questions()).toBe(1)
  })

  test('wasPublic knows of other repositories with the same content, and not of one that has said no since', async () => {
    await using s = await scene()
    const fromPrivate = s.hub.file('w.bin', { repo: 'acme/private' })
    await s.newProcess().verdict(s.hub.file('w.bin'), seeding)
    expect(await s.newProcess().wasPublic(fromPrivate)).toBeDefined()
    s.hub.setAccess('gated', { repo: 'acme/tiny' })
    s.advance(2 * hourMs)
    await s.newProcess().verdict(s.hub.file('w.bin'), seeding)
    expect(await s.newProcess().wasPublic(s.hub.file('w.bin'))).toBeUndefined()
    expect(await s.newProcess().wasPublic(fromPrivate)).toBeUndefined()
  })

  test('what was said at one Hub counts for no other', async () => {
    await using s = await scene()
    await using folder = await temporaryDirectory()
    await using mirror = await startHub(repos)
    const rules = { shareGated: [], sharePrivate: [] }
    const memory = new VisibilityMemory(folder.path)
    await using there = access(mirror.url)
    await using here = access(s.hub.url)
    mirror.setAccess('public', { repo: 'acme/private' })
    const file = s.hub.file('w.bin', { repo: 'acme/private' })
    expect(await new Visibility({ hub: there, memory, rules }).verdict(file, seeding)).toBe('public')
    expect(await new Visibility({ hub: here, memory, rules }).verdict(file, seeding)).toBe('private')
  })

  test('an answer from the future is no answer', async () => {
    await using s = await scene()
    s.advance(48 * hourMs)
    await s.newProcess().verdict(s.hub.file('w.bin'), fetching)
    s.advance(-48 * hourMs)
    s.hub.setAccess('private', { repo: 'acme/tiny' })
    expect(await s.newProcess().verdict(s.hub.file('w.bin'), fetching)).toBe('private')
    expect(s.questions()).toBe(2)
  })
})
