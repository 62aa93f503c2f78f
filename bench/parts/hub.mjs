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
serve({})
tell('listening', { url: hub.url, files: Object.fromEntries(identities) })
