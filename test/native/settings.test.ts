import { expect, test } from 'vitest'
import type { SessionSettings } from '../../src/native/binding.ts'
import { requireAddon } from '../../src/native/load.ts'
import { baseSettings, Session } from '../../src/native/session.ts'
import { addressOf, nextAlert, openSession } from '../support/native-rig.ts'

const misuse: [string, unknown, typeof TypeError | typeof RangeError][] = [
  ['an unknown name', { no_such_setting: 1 }, TypeError],
  ['text for a number', { connections_limit: '200' }, TypeError],
  ['a number for a boolean', { enable_dht: 1 }, TypeError],
  ['a number for a text', { user_agent: 7 }, TypeError],
  ['null', { connections_limit: null }, TypeError],
  ['a text with NUL', { user_agent: 'a\0b' }, TypeError],
  ['a fraction', { connections_limit: 1.5 }, RangeError],
  ['NaN', { connections_limit: Number.NaN }, RangeError],
  ['infinity', { connections_limit: Number.POSITIVE_INFINITY }, RangeError],
  ['more than 32 bits', { connections_limit: 2 ** 31 }, RangeError],
  ['less than 32 bits', { connections_limit: -(2 ** 31) - 1 }, RangeError],
  ['no object at all', undefined, TypeError],
]

test.each(misuse)('settings with %s are refused at construction and later', async (_, settings, kind) => {
  const addon = requireAddon()
  expect(() => new Session(addon, settings as SessionSettings)).toThrow(kind)
  await using session = openSession()
  expect(() => session.applySettings(settings as SessionSettings)).toThrow(kind)
})

test('a session without a function for its alerts is refused', () => {
  const { Session: Native } = requireAddon()
  expect(() => Reflect.construct(Native, [{}])).toThrow(TypeError)
  expect(() => Reflect.construct(Native, [{}, {}])).toThrow(TypeError)
})

test('negative numbers, which libtorrent gives a meaning, are accepted', async () => {
  await using session = openSession({ active_seeds: -1 })
  session.applySettings({ active_downloads: -1 })
})

test('listening tells the address that port 0 became', async () => {
  await using session = openSession()
  const addresses = await session.listening()
  expect(addresses).toEqual([{ host: '127.0.0.1', port: expect.any(Number) }])
  expect(addresses[0]?.port).toBeGreaterThan(0)
  expect(await session.listening()).toEqual(addresses)
})

test('a session that listens nowhere says so with an empty list', async () => {
  await using session = openSession({ listen_interfaces: '' })
  expect(await session.listening()).toEqual([])
})

test('a port that is taken is a NativeError that names the address', async () => {
  await using first = openSession()
  const { port } = await addressOf(first)
  await using second = openSession({
    listen_interfaces: `127.0.0.1:${port}`,
    listen_system_port_fallback: false,
    max_retry_port_bind: 0,
  })
  await expect(second.listening()).rejects.toMatchObject({
    code: 'ERR_LLMPT_NATIVE',
    operation: 'listen',
    message: expect.stringContaining('127.0.0.1'),
  })
})

test('new listen interfaces replace the old ones', async () => {
  await using session = openSession({ listen_interfaces: '' })
  await session.listening()
  session.applySettings({ listen_interfaces: '127.0.0.1:0' })
  expect(await session.listening()).toHaveLength(1)
})

test('statistics are libtorrent counters by name', async () => {
  await using session = openSession()
  const counters = await session.statistics()
  expect(counters).toMatchObject({ 'net.sent_bytes': expect.any(Number), 'ses.num_seeding_torrents': 0 })
})

test('an overflowing alert queue is told, and fails what it may have swallowed', async () => {
  await using session = openSession({ alert_queue_size: 1 })
  await session.listening().catch(() => {})
  const dropped = nextAlert(session, 'alerts_dropped')
  const asked = Promise.allSettled(Array.from({ length: 2000 }, () => session.statistics()))
  expect((await dropped).names).toContain('session_stats')
  // Each settles, one way or the other.
  const outcomes = (await asked).map(({ status }) => status)
  expect(outcomes).toContain('rejected')
})

test('the base settings switch off everything that speaks to strangers or takes UDP', () => {
  expect(baseSettings).toMatchObject({
    enable_dht: false,
    enable_lsd: false,
    enable_upnp: false,
    enable_natpmp: false,
    enable_outgoing_utp: false,
    enable_incoming_utp: false,
  })
})

test('a disk backend nobody knows is a TypeError', () => {
  for (const diskBackend of ['mmap', '', 1, null]) {
    expect(() => openSession({}, { diskBackend } as object)).toThrow(TypeError)
  }
})
