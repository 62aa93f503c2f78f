/** How scripts/test-asan.mjs runs this room's tests: as always, but with time for a build that is several times slower. */
import { fileURLToPath } from 'node:url'
import { defineConfig, type ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = defineConfig({
  root: fileURLToPath(new URL('../../', import.meta.url)),
  test: {
    include: ['test/native/*.test.ts'],
    // No setup files: they take LLMPT_NATIVE_ADDON, which names the sanitizer build, out of the environment.
    pool: 'forks',
    maxWorkers: 1,
    execArgv: ['--expose-gc'],
    testTimeout: 120_000,
  },
})

export default config
