/** The embedded Hub in a process of its own: one repository, whose storage may be somewhere else. */
import { startHub } from '../../dist/demo/hub.js'
import { options, serve, tell } from '../harness/in-child.mjs'

const { host, files, storageUrls } = options
const hub = await startHub(
  {
    repo: 'acme/bench',
    files: Object.fromEntries(Object.entries(files).map(([name, filePath]) => [name, { filePath }])),
  },
  { host },
)
for (const [path, location] of Object.entries(storageUrls)) {
  hub.inject({ origin: 'hub', path, headers: { location } })
}
const identities = Object.keys(files).map((path) => {
  const { etag, sizeBytes } = hub.file(path)
  return [path, { etag, sizeBytes }]
})
const [anyFile] = Object.keys(files)
serve({ requests })
tell('listening', {
  url: hub.url,
  commit: hub.file(anyFile).commit,
  files: Object.fromEntries(identities),
})

/** What the Hub was asked since this was last asked: about the repository, where a file is, and for small files. */
function requests() {
  const urls = hub.requests('hub').map(({ url }) => url)
  hub.resetStats()
  const small = urls.filter((url) => url.startsWith('/api/resolve-cache/')).length
  const api = urls.filter((url) => url.startsWith('/api/')).length - small
  return { api, small, resolve: urls.length - api - small }
}
