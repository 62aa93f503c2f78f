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
