import { expect, test } from 'vitest'
import { getConfig } from '../src/config.ts'

test('the disk backend is our own unless the variable, or before it the option, names the other', () => {
  expect(getConfig({}, {}).diskBackend).toBe('own')
  expect(getConfig({}, { HF_P2P_DISK_BACKEND: '' }).diskBackend).toBe('own')
  expect(getConfig({}, { HF_P2P_DISK_BACKEND: 'posix' }).diskBackend).toBe('posix')
  expect(getConfig({ diskBackend: 'own' }, { HF_P2P_DISK_BACKEND: 'posix' }).diskBackend).toBe('own')
})

test('a disk backend nobody knows is a ConfigError that names the variable', () => {
  expect(() => getConfig({}, { HF_P2P_DISK_BACKEND: 'mmap' })).toThrow(
    expect.objectContaining({
      code: 'ERR_LLMPT_CONFIG',
      message: expect.stringContaining('HF_P2P_DISK_BACKEND'),
    }),
  )
})

test('mirrors come from the option, else from the variable, each once and without the Hub itself', () => {
  const env = {
    HF_ENDPOINT: 'https://hub.example/',
    HF_P2P_MIRRORS: ' https://m.example/x/, ,https://n.example ',
  }
  expect(getConfig({}, {}).mirrors).toEqual([])
  expect(getConfig({}, env).mirrors).toEqual(['https://m.example/x', 'https://n.example'])
  const mirrors = ['https://hub.example', 'https://o.example/', 'https://o.example']
  expect(getConfig({ mirrors }, env).mirrors).toEqual(['https://o.example'])
})

test.each(['ftp://m.example', 'm.example', 'https://name:password@m.example'])(
  'the mirror %s is a ConfigError that does not show a password',
  (mirror) => {
    const error = ((): Error => {
      try {
        getConfig({ mirrors: [mirror] }, {})
      } catch (thrown) {
        return thrown as Error
      }
      throw new Error('expected an error')
    })()
    expect(error).toMatchObject({ code: 'ERR_LLMPT_CONFIG', message: expect.stringContaining('mirror') })
    expect(error.message).not.toContain('password@')
  },
)

test('repositories that are shared on request are named one by one, by option or variable', () => {
  expect(getConfig({}, {})).toMatchObject({ shareGated: [], sharePrivate: [] })
  const env = {
    HF_P2P_SHARE_GATED: ' acme/gated, datasets/acme/rows ,,acme/gated',
    HF_P2P_SHARE_PRIVATE: 'spaces/acme/app',
  }
  expect(getConfig({}, env)).toMatchObject({
    shareGated: ['acme/gated', 'datasets/acme/rows'],
    sharePrivate: ['spaces/acme/app'],
  })
  const named = getConfig({ shareGated: ['gpt2'], sharePrivate: [] }, env)
  expect(named).toMatchObject({ shareGated: ['gpt2'], sharePrivate: [] })
})

test.each(['*', 'acme/*', 'acme', 'https://hf.co/acme/x', 'datasets/', '../x', 'a/b/c', 'true', '1'])(
  'no word shares all that a token opens: %s',
  (name) => {
    const isName = /^\w+$/.test(name)
    for (const option of ['shareGated', 'sharePrivate'] as const) {
      const make = () => getConfig({ [option]: ['acme/fine', name] }, {})
      // A name without an organisation is that of one repository.
      if (isName) expect(make()[option]).toContain(name)
      else expect(make).toThrow(expect.objectContaining({ code: 'ERR_LLMPT_CONFIG' }))
    }
  },
)

test('a look-up may hold up a fetch for a second, or for as long as the variable or the option says', () => {
  expect(getConfig({}, {}).lookupTimeoutMs).toBe(1_000)
  expect(getConfig({}, { HF_P2P_LOOKUP_TIMEOUT: '2.5' }).lookupTimeoutMs).toBe(2_500)
  expect(getConfig({ lookupTimeoutMs: 50 }, { HF_P2P_LOOKUP_TIMEOUT: '2.5' }).lookupTimeoutMs).toBe(50)
  for (const text of ['0', '-1', 'soon']) {
    expect(() => getConfig({}, { HF_P2P_LOOKUP_TIMEOUT: text })).toThrow(/HF_P2P_LOOKUP_TIMEOUT/)
  }
})
