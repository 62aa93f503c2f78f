/**
 * Asks for URLs with the package's own connections: one JSON line `{url, variables}` in, one `{status, body}` or
 * `{code, message}` out. A process of its own, because Node reads the variable for certificates when it starts; those
 * for proxies are set for each line.
 */
import { createInterface } from 'node:readline'
import { HubHttp } from '../../dist/hub/http.js'

for await (const line of createInterface({ input: process.stdin })) {
  const { url, variables } = JSON.parse(line)
  Object.assign(process.env, variables)
  console.log(JSON.stringify(await ask(url)))
  for (const name of Object.keys(variables)) delete process.env[name]
}

async function ask(url) {
  const http = new HubHttp({ connectTimeoutMs: 5000, headersTimeoutMs: 5000, retries: 0 })
  try {
    const answer = await http.request({ method: 'GET', url, content: 'range' })
    const parts = []
    for await (const batch of answer.batches) parts.push(...batch)
    return { status: answer.status, body: String(Buffer.concat(parts)) }
  } catch (error) {
    return { code: error.code, message: error.message }
  } finally {
    await http.close()
  }
}
