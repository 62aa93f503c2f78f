import { expect, test } from 'vitest'
import { getConfig } from '../src/config.ts'
import { Parts } from '../src/parts.ts'
import { temporaryDirectory } from './support/temp-dir.ts'

test('who asked with a token is known for a while, and not for ever', async () => {
  await using home = await temporaryDirectory()
  const parts = new Parts(getConfig({ trackers: [] }, { HF_HOME: home.path }))
  const first = parts.access('https://hub.example', 'hf_first')
  for (let n = 0; n < 100; n++) parts.access('https://hub.example', `hf_other${n}`)
  expect(parts.access('https://hub.example', 'hf_first')).toBe(first)
  for (let n = 100; n < 1000; n++) parts.access('https://hub.example', `hf_other${n}`)
  expect(parts.access('https://hub.example', 'hf_first')).not.toBe(first)
  await parts.close()
})
