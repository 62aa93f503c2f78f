import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readToken } from '../../src/hub/token.ts'
import { divertLog } from '../../src/log.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { errorOf } from './fixtures.ts'

test('the configured token comes before the file, and both are trimmed', async () => {
  await using folder = await temporaryDirectory()
  const tokenPath = join(folder.path, 'token')
  await writeFile(tokenPath, '  hf_fromFile\n')
  expect(await readToken({ token: ' hf_given ', tokenPath })).toBe('hf_given')
  expect(await readToken({ token: undefined, tokenPath })).toBe('hf_fromFile')
})

test('without a file, with an empty one, or with one that is a folder there is no token', async () => {
  await using folder = await temporaryDirectory()
  const empty = join(folder.path, 'token')
  await writeFile(empty, '\n')
  await chmod(empty, 0o600)
  const said: string[] = []
  const restore = divertLog((_level, message) => said.push(message))
  for (const tokenPath of [empty, join(folder.path, 'missing'), folder.path]) {
    expect(await readToken({ token: undefined, tokenPath })).toBeUndefined()
  }
  restore()
  expect(said).toEqual([expect.stringContaining('cannot be read')])
})

test('a token with a line break in it is refused without being shown', async () => {
  const error = await errorOf(readToken({ token: 'hf_secret\nx: y', tokenPath: '/nowhere' }))
  expect(error).toMatchObject({ code: 'ERR_LLMPT_CONFIG' })
  expect(error.message).not.toContain('secret')
})
