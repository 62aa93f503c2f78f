import { expect, test } from 'vitest'
import type { SharingVerdict } from '../../src/hub/sharing.ts'
import { Permission } from '../../src/seeding/permission.ts'

const dayMs = 24 * 3_600_000
const { signal } = new AbortController()

/** A permission whose files are judged as `verdicts` say at that moment. */
function permissionOf(verdicts: Record<string, SharingVerdict>): Permission {
  const permission = new Permission()
  for (const label of Object.keys(verdicts)) permission.add(label, async () => verdicts[label] ?? 'private')
  return permission
}

test.each([
  [['public'], 'yes'],
  [['on-request'], 'yes'],
  [['gated'], 'no'],
  [['private'], 'no'],
  [['unknown'], 'later'],
  [['private', 'public'], 'yes'],
  [['unknown', 'on-request'], 'yes'],
  [['gated', 'private'], 'no'],
  [['gated', 'unknown'], 'later'],
  [['gated', 'not-asked'], 'later'],
] as const)('%j: %s', async (verdicts, says) => {
  const permission = permissionOf(Object.fromEntries(verdicts.map((verdict, n) => [`file ${n}`, verdict])))
  expect((await permission.ask(0, signal)).says).toBe(says)
})

test('is due before the first yes, and a day after the last one', async () => {
  const verdicts: Record<string, SharingVerdict> = { a: 'public' }
  const permission = permissionOf(verdicts)
  expect(permission.isDue(1000)).toBe(true)
  await permission.ask(1000, signal)
  expect([permission.isDue(1000 + dayMs - 1), permission.isDue(1000 + dayMs)]).toEqual([false, true])
  verdicts['a'] = 'unknown'
  await permission.ask(1000 + dayMs, signal)
  expect(permission.isDue(1000 + dayMs)).toBe(true)
})

test('silence is a no when the last yes is a week old, and says for how long', async () => {
  const verdicts: Record<string, SharingVerdict> = { a: 'public' }
  const permission = permissionOf(verdicts)
  await permission.ask(0, signal)
  verdicts['a'] = 'unknown'
  expect((await permission.ask(7 * dayMs - 1, signal)).says).toBe('later')
  expect(await permission.ask(7 * dayMs, signal)).toEqual({
    says: 'no',
    reason: 'the Hub does not answer whether everybody may see it, for 7 days',
  })
})

test('a file under the same name takes the place of the earlier one, and there are eight at most', async () => {
  const asked: number[] = []
  const permission = new Permission()
  const question = (n: number) => async (): Promise<SharingVerdict> => {
    asked.push(n)
    return 'private'
  }
  for (let n = 0; n < 12; n++) permission.add(`file ${n}`, question(n))
  permission.add('file 3', question(33))
  await permission.ask(0, signal)
  expect(asked).toEqual([0, 1, 2, 4, 5, 6, 7, 33])
})
