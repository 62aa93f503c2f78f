import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { runProgram } from '../support/native-child.ts'
import { rounds } from '../support/rounds.ts'

const cases = rounds(20_000, 1_000_000)
const fallbackCases = rounds(20_000, 100_000)
const capMs = rounds(25_000, 280_000)
/** What Linux says, for a second opinion. */
const best = /\bsha_ni\b/.test(readFileSync('/proc/cpuinfo', 'utf8')) ? 'sha-ni' : 'openssl'

async function compareWithOpenSsl(count: number, env: Readonly<Record<string, string>> = {}) {
  const args = ['--cases', String(count)]
  const { code, stdout, stderr } = await runProgram('sha256_kernels', { args, env, capMs })
  return { code, said: `${stdout}${stderr}`.trim() }
}

test('digests and leaves are those of OpenSSL, for all lengths, addresses and portions, by the best code for this processor', {
  timeout: capMs + 5_000,
}, async () => {
  expect(await compareWithOpenSsl(cases)).toEqual({ code: 0, said: `${best}: ${cases} cases agree` })
})

test('with HF_P2P_SHA256=openssl OpenSSL computes, and portions and leaves beside a digest change nothing', {
  timeout: capMs + 5_000,
}, async () => {
  const ended = await compareWithOpenSsl(fallbackCases, { HF_P2P_SHA256: 'openssl' })
  expect(ended).toEqual({ code: 0, said: `openssl: ${fallbackCases} cases agree` })
})
