/** What the demo Hub answers: resolve URLs, the repository API, and refusals, as the real one words them. */
import { createHash } from 'node:crypto'
import type { RepoType } from '../values.ts'
import {
  collect,
  type Exchange,
  type Headers,
  type Origin,
  reply,
  replyFault,
  withFaults,
} from './hub-origin.ts'
import type { DemoCommit, DemoFile, DemoRepo } from './hub-repos.ts'
import { casToken, xetHash } from './hub-xet.ts'

/** What the Hub's own origin knows. */
export interface HubWorld {
  readonly repos: readonly DemoRepo[]
  /** Token -> ids of the private and gated repositories it may read. */
  readonly tokens: Readonly<Record<string, readonly string[]>>
  readonly pageSize: number
  /** In front of every path of the Hub, such as `/mirror`, or empty. */
  readonly pathPrefix: string
  readonly hub: () => Origin
  readonly casUrl: () => string
  /** A signed, expiring storage URL for a file. */
  readonly sign: (file: DemoFile) => string
}

const plural: Record<string, RepoType> = { models: 'model', datasets: 'dataset', spaces: 'space' }
const filePath = /^\/(?:(datasets|spaces)\/)?([^/]+(?:\/[^/]+)?)\/(resolve|raw)\/([^/]+)\/(.+)$/
const cachePath =
  /^\/api\/resolve-cache\/(models|datasets|spaces)\/([^/]+(?:\/[^/]+)?)\/([0-9a-f]{40})\/(.+)$/
const apiPath = /^\/api\/(models|datasets|spaces)\/(.+)$/

/** Answers one request to the Hub's own origin. */
export async function answerHub(world: HubWorld, exchange: Exchange): Promise<void> {
  const { url } = exchange
  if (!url.pathname.startsWith(`${world.pathPrefix}/`)) return refuse(exchange, 404, undefined, 'Not here')
  const path = url.pathname.slice(world.pathPrefix.length)
  const cached = cachePath.exec(path)
  if (cached) {
    const repo = findRepo(world, plural[cached[1] ?? ''] ?? 'model', cached[2] ?? '')
    return await answerCached(world, exchange, repo, cached[3] ?? '', decode(cached[4]))
  }
  const api = apiPath.exec(path)
  if (api) return await answerApi(world, exchange, plural[api[1] ?? ''] ?? 'model', api[2] ?? '')
  if (path === '/api/whoami-v2') return whoami(world, exchange)
  const file = filePath.exec(path)
  if (!file) return refuse(exchange, 404, undefined, 'Not found')
  const repoType = plural[file[1] ?? 'models'] ?? 'model'
  if (redirectRenamed(world, exchange, repoType, file[2] ?? '')) return
  const repo = findRepo(world, repoType, file[2] ?? '')
  await answerFile(world, exchange, repo, decode(file[4]), decode(file[5]), file[3] === 'raw')
}

async function answerFile(
  world: HubWorld,
  exchange: Exchange,
  repo: DemoRepo | undefined,
  revision: string,
  path: string,
  isRaw: boolean,
): Promise<void> {
  exchange.record.file = path
  const fault = world.hub().faultsFor(exchange, [path])
  if (await replyFault(exchange, fault)) return
  if (!admit(world, exchange, repo, 'content')) return
  const commit = repo.find(revision)
  if (!commit) return refuse(exchange, 404, 'RevisionNotFound', `Invalid rev id: ${revision}`)
  const file = commit.files.get(path)
  const headers = { 'x-repo-commit': commit.id, 'accept-ranges': 'bytes' }
  if (!file) return refuse(exchange, 404, 'EntryNotFound', 'Entry not found', headers)
  if (isRaw)
    return reply(
      exchange,
      200,
      headers,
      file.blob.storage === 'git' ? await text(file) : file.blob.pointer,
      fault,
    )
  if (file.blob.storage === 'git') {
    const encoded = path.split('/').map(encodeURIComponent).join('/')
    const query = `?${encodeURIComponent(exchange.url.pathname)}=&etag=${encodeURIComponent(`"${file.blob.etag}"`)}`
    const location = `${world.pathPrefix}/api/resolve-cache/${repo.repoType}s/${repo.repo}/${commit.id}/${encoded}${query}`
    return reply(exchange, 307, withFaults({ ...headers, location }, fault), 'Temporary Redirect', fault)
  }
  answerLarge(world, exchange, repo, commit, file, headers, fault)
}

/** LFS and Xet: a redirect to storage, or for who asks for it, where the Xet service has the file. */
function answerLarge(
  world: HubWorld,
  exchange: Exchange,
  repo: DemoRepo,
  commit: DemoCommit,
  file: DemoFile,
  base: Headers,
  fault: ReturnType<Origin['faultsFor']>,
): void {
  const { req } = exchange
  const headers: Headers = {
    ...base,
    'x-linked-size': String(file.blob.sizeBytes),
    'x-linked-etag': `"${file.blob.etag}"`,
  }
  if (file.blob.storage === 'xet') {
    const hash = xetHash(file.blob.sha256)
    const api = `${world.hub().url}${world.pathPrefix}/api/${repo.repoType}s/${repo.repo}`
    headers['x-xet-hash'] = hash
    headers['link'] =
      `<${api}/xet-read-token/${commit.id}>; rel="xet-auth", <${world.casUrl()}/v1/reconstructions/${hash}>; rel="xet-reconstruction-info"`
    if (req.method === 'GET' && req.headers.accept?.includes('application/vnd.xet-fileinfo+json')) {
      const info = { 'content-type': 'application/vnd.xet-fileinfo+json', ...headers }
      reply(exchange, 200, info, JSON.stringify({ hash }), fault)
      return
    }
  }
  reply(exchange, 302, withFaults({ ...headers, location: world.sign(file) }, fault), 'Found', fault)
}

async function answerCached(
  world: HubWorld,
  exchange: Exchange,
  repo: DemoRepo | undefined,
  commitId: string,
  path: string,
): Promise<void> {
  exchange.record.file = path
  if (!admit(world, exchange, repo, 'content')) return
  const file = repo.commits.get(commitId)?.files.get(path)
  if (!file) return refuse(exchange, 404, 'EntryNotFound', 'Entry not found', { 'x-repo-commit': commitId })
  const fault = world.hub().faultsFor(exchange, [path], true)
  if (await replyFault(exchange, fault)) return
  const headers = { etag: `"${file.blob.etag}"`, 'x-repo-commit': commitId, 'x-cache': 'Hit from cloudfront' }
  await world.hub().sendBlob(exchange, file.blob, headers, fault, true)
}

async function answerApi(
  world: HubWorld,
  exchange: Exchange,
  repoType: RepoType,
  rest: string,
): Promise<void> {
  const match = /^([^/]+(?:\/[^/]+)??)(?:\/(revision|tree|paths-info|xet-read-token)\/(.+))?$/.exec(rest)
  const [, name = '', what, tail = ''] = match ?? []
  if (redirectRenamed(world, exchange, repoType, name)) return
  const repo = findRepo(world, repoType, name)
  const fault = world.hub().faultsFor(exchange, [])
  if (await replyFault(exchange, fault)) return
  if (!admit(world, exchange, repo, what === 'xet-read-token' ? 'content' : 'api')) return
  if (what === 'tree') return answerTree(world, exchange, repo, tail)
  const commit = repo.find(what === undefined ? 'main' : decode(tail))
  if (!commit) return refuse(exchange, 404, 'RevisionNotFound', `Invalid rev id: ${decode(tail)}`)
  if (what === 'paths-info') return await answerPaths(exchange, commit)
  if (what === 'xet-read-token') {
    const exp = Math.floor(Date.now() / 1000) + 3600
    return json(exchange, { accessToken: casToken, casUrl: world.casUrl(), exp })
  }
  json(exchange, {
    _id: createHash('sha1').update(repo.repo).digest('hex').slice(0, 24),
    id: repo.repo,
    modelId: repo.repo,
    sha: commit.id,
    private: repo.access === 'private',
    gated: repo.access === 'gated' ? 'auto' : false,
    disabled: repo.spec.isDisabled ?? false,
    downloads: 0,
    likes: 0,
    tags: [],
    lastModified: '2026-01-01T00:00:00.000Z',
    siblings: [...commit.files.keys()].map((rfilename) => ({ rfilename })),
  })
}

/** The clients do not encode the revision here, so a folder after it is told apart by what exists. */
function answerTree(world: HubWorld, exchange: Exchange, repo: DemoRepo, tail: string): void {
  const parts = tail.split('/').map(decode)
  let commit: DemoCommit | undefined
  let used = parts.length
  for (; used > 0 && !commit; used--) commit = repo.find(parts.slice(0, used).join('/'))
  if (!commit) {
    refuse(exchange, 404, 'RevisionNotFound', `Invalid rev id: ${tail}`)
    return
  }
  const folder = parts.slice(used + 1).join('/')
  const { searchParams } = exchange.url
  const isTrue = (name: string): boolean => /^(?:true|1)$/i.test(searchParams.get(name) ?? '')
  const entries = treeEntries(commit, folder, isTrue('recursive'), isTrue('expand'))
  const from = Number(searchParams.get('cursor') ?? 0)
  const headers: Headers = {}
  if (from + world.pageSize < entries.length) {
    const next = new URL(exchange.url)
    next.searchParams.set('cursor', String(from + world.pageSize))
    headers['link'] = `<${next.href}>; rel="next"`
  }
  json(exchange, entries.slice(from, from + world.pageSize), headers)
}

function treeEntries(commit: DemoCommit, folder: string, recursive: boolean, expand: boolean): object[] {
  const prefix = folder === '' ? '' : `${folder}/`
  const folders = new Set<string>()
  const files: object[] = []
  for (const [path, file] of commit.files) {
    if (!path.startsWith(prefix)) continue
    const below = path.slice(prefix.length).split('/')
    for (let depth = 1; depth < (recursive ? below.length : Math.min(2, below.length)); depth++) {
      folders.add(prefix + below.slice(0, depth).join('/'))
    }
    if (recursive || below.length === 1) files.push(entryOf(file, expand))
  }
  const folderEntries = [...folders].map((path) => ({ type: 'directory', path, size: 0, oid: sha1(path) }))
  return [...folderEntries, ...files]
}

function entryOf(file: DemoFile, expand: boolean): object {
  const { blob, path } = file
  const isLarge = blob.storage !== 'git'
  return {
    type: 'file',
    path,
    oid: blob.oid,
    size: blob.sizeBytes,
    ...(isLarge && { lfs: { oid: blob.sha256, size: blob.sizeBytes, pointerSize: blob.pointer.length } }),
    ...(blob.storage === 'xet' && { xetHash: xetHash(file.blob.sha256) }),
    ...(expand && { lastCommit: { id: file.lastCommit, title: 'Demo', date: '2026-01-01T00:00:00.000Z' } }),
  }
}

async function answerPaths(exchange: Exchange, commit: DemoCommit): Promise<void> {
  const body = (await collect(exchange.req)).toString('utf8')
  const isJson = exchange.req.headers['content-type']?.includes('json')
  const form = new URLSearchParams(body)
  const asked = isJson
    ? (JSON.parse(body) as { paths: string[]; expand?: boolean })
    : { paths: form.getAll('paths'), expand: /^true$/i.test(form.get('expand') ?? '') }
  const found = asked.paths.flatMap((path) => {
    const file = commit.files.get(path)
    return file ? [entryOf(file, asked.expand ?? false)] : []
  })
  json(exchange, found)
}

function whoami(world: HubWorld, exchange: Exchange): void {
  const token = tokenOf(exchange)
  const isKnown = token !== undefined && token in world.tokens
  if (isKnown) json(exchange, { type: 'user', name: 'demo', auth: { accessToken: { role: 'read' } } })
  else refuse(exchange, 401, undefined, 'Invalid username or password.')
}

function redirectRenamed(world: HubWorld, exchange: Exchange, repoType: RepoType, name: string): boolean {
  const target = world.repos.find(
    (repo) => repo.repoType === repoType && repo.spec.renamedFrom?.includes(name),
  )
  if (!target) return false
  const { pathname, search } = exchange.url
  reply(
    exchange,
    307,
    { location: pathname.replace(`/${name}`, `/${target.repo}`) + search },
    'Temporary Redirect',
  )
  return true
}

function findRepo(world: HubWorld, repoType: RepoType, name: string): DemoRepo | undefined {
  return world.repos.find((repo) => repo.repoType === repoType && repo.repo === name)
}

/** Whether the request may see `repo`; otherwise it has been refused as the Hub does it. */
function admit(
  world: HubWorld,
  exchange: Exchange,
  repo: DemoRepo | undefined,
  what: 'api' | 'content',
): repo is DemoRepo {
  const token = tokenOf(exchange)
  const isAnonymous = token === undefined
  if (!isAnonymous && !(token in world.tokens)) {
    refuse(exchange, 401, undefined, 'Invalid credentials in Authorization header')
    return false
  }
  const isMember = !isAnonymous && repo !== undefined && world.tokens[token]?.includes(repo.repo) === true
  if (!repo || repo.access === 'deleted' || (repo.access === 'private' && !isMember)) {
    if (isAnonymous) refuse(exchange, 401, 'RepoNotFound', 'Invalid username or password.')
    else refuse(exchange, 404, 'RepoNotFound', 'Repository not found')
    return false
  }
  if (repo.spec.isDisabled) {
    refuse(exchange, 403, undefined, 'Access to this resource is disabled.')
    return false
  }
  const isOpen = exchange.record.file !== undefined && repo.spec.openFiles?.includes(exchange.record.file)
  if (what === 'content' && repo.access === 'gated' && !isMember && !isOpen) {
    refuse(exchange, isAnonymous ? 401 : 403, 'GatedRepo', `Access to model ${repo.repo} is restricted.`)
    return false
  }
  return true
}

function tokenOf(exchange: Exchange): string | undefined {
  return exchange.req.headers.authorization?.replace(/^Bearer\s+/i, '')
}

function refuse(
  exchange: Exchange,
  status: number,
  code: string | undefined,
  message: string,
  extra: Headers = {},
): void {
  const headers: Headers = {
    ...extra,
    'content-type': 'application/json; charset=utf-8',
    'x-error-message': message,
  }
  if (code !== undefined) headers['x-error-code'] = code
  reply(exchange, status, headers, JSON.stringify({ error: message }))
}

function json(exchange: Exchange, value: unknown, headers: Headers = {}): void {
  reply(
    exchange,
    200,
    { 'content-type': 'application/json; charset=utf-8', ...headers },
    JSON.stringify(value),
  )
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex')
}

async function text(file: DemoFile): Promise<string> {
  return (await collect(file.blob.read())).toString('latin1')
}

function decode(part: string | undefined): string {
  try {
    return decodeURIComponent(part ?? '')
  } catch {
    return part ?? ''
  }
}
