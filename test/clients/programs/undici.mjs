/**
 * A program that uses undici's own fetch: `undici.mjs PACKAGE [ENTRY]`, where ENTRY is that of our package, for programs
 * that wrap it with `createFetch`.
 */
import { answer } from './lib/answer.mjs'
import { fetchCalls } from './lib/fetch-calls.mjs'

const [name, entry] = process.argv.slice(2)
const undici = await import(name)
const seen = entry === undefined ? undici.fetch : (await import(entry)).createFetch({ fetch: undici.fetch })

const calls = fetchCalls(() => seen)

answer({ ...calls, ownRequest: (target) => calls.request(target, undici.Request) })
