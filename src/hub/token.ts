/** The user's Hub token, from where the other clients keep it. */
import { readFile } from 'node:fs/promises'
import type { Config } from '../config.ts'
import { ConfigError } from '../errors.ts'
import { log, messageOf } from '../log.ts'

/**
 * The token of `config`, else the content of its token file, trimmed; `undefined` when there is none.
 *
 * @throws {ConfigError} when it cannot be a token. The message does not show it.
 */
export async function readToken(config: Pick<Config, 'token' | 'tokenPath'>): Promise<string | undefined> {
  const token = (config.token ?? (await readTokenFile(config.tokenPath)))?.trim()
  if (!token) return undefined
  // Anything else would be refused by the HTTP client, with the token in its message.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new ConfigError(`the Hub token has characters no token has: check HF_TOKEN and ${config.tokenPath}`)
  }
  return token
}

async function readTokenFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code !== 'ENOENT' && code !== 'ENOTDIR') {
      log.warnOnce(
        `token ${path}`,
        `the token file cannot be read, going on without a token: ${messageOf(error)}`,
      )
    }
    return undefined
  }
}
