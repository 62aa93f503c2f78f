import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { expect, test } from 'vitest'
import { claimPartial, claimPathOf } from '../../src/hub/partial-claim.ts'
import { temporaryDirectory } from '../support/temp-dir.ts'

const minuteAgo = new Date(Date.now() - 60_000)
const elsewhere = 'another-machine\n1\n0000\n'

test.each<[string, string, Date | undefined, boolean, boolean]>([
  ['of another machine', elsewhere, undefined, false, false],
  ['of another machine that has not been refreshed for a minute', elsewhere, minuteAgo, false, true],
  ['of another machine, under a lock that is known to work', elsewhere, undefined, true, true],
  ['that is being written', '', undefined, false, false],
  ['of this process before a restart', `${hostname()}\n${process.pid}\n0000\n`, minuteAgo, false, true],
  ['of a living process', `${hostname()}\n${process.ppid}\n0000\n`, undefined, false, false],
  ['of a process that never was', `${hostname()}\n999999999\n0000\n`, undefined, false, true],
])('a claim %s is respected or replaced', async (_, text, mtime, isCertain, isOurs) => {
  await using folder = await temporaryDirectory()
  const lock = `${folder.path}/x.lock`
  await writeFile(claimPathOf(lock), text)
  if (mtime) await utimes(claimPathOf(lock), mtime, mtime)
  const giveUp = await claimPartial(lock, { isCertain })
  expect(giveUp !== undefined).toBe(isOurs)
  expect((await readFile(claimPathOf(lock), 'utf8')) === text).toBe(!isOurs)
  await giveUp?.()
  await giveUp?.()
  expect(await readdir(folder.path)).toHaveLength(isOurs ? 0 : 1)
})

test('giving up leaves the claim of whoever has replaced ours', async () => {
  await using folder = await temporaryDirectory()
  const lock = `${folder.path}/x.lock`
  const giveUp = await claimPartial(lock, { isCertain: false })
  await writeFile(claimPathOf(lock), elsewhere)
  await giveUp?.()
  expect(await readFile(claimPathOf(lock), 'utf8')).toBe(elsewhere)
})
