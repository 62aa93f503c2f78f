/**
 * Lets a test call the functions of a program, one at a time, and hear everything the program sees of each: what it
 * returns, or what it throws.
 */
import { createHash } from 'node:crypto'

/** @param {Record<string, (args: any) => Promise<unknown>>} calls What they return has to be JSON. */
export function answer(calls) {
  process.on('message', async ({ name, args }) => {
    let seen
    try {
      seen = { result: (await calls[name](args)) ?? null }
    } catch (error) {
      seen = { error: describe(error) }
    }
    process.send(seen)
  })
  process.send('ready')
}

/** What a program can tell an error by, of its causes too. */
export function describe(error) {
  if (!(error instanceof Error)) return String(error)
  const { name, code, statusCode, message, cause } = error
  const text = `${error.constructor.name} ${name}: ${message}`
  return {
    text,
    ...(code && { code }),
    ...(statusCode && { statusCode }),
    ...(cause && { cause: describe(cause) }),
  }
}

/** @param {ArrayBuffer | ArrayBufferView} bytes */
export function digest(bytes) {
  const view = ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(bytes)
  return createHash('sha256').update(view).digest('hex')
}
