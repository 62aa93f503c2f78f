import { configDefaults, defineConfig, type ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // transformers.js is half a gigabyte: scripts/setup.mjs installs it for the full tests only.
    exclude: [
      ...configDefaults.exclude,
      ...(process.env['LLMPT_TEST_FULL'] ? [] : ['test/clients/transformers.test.ts']),
    ],
    globalSetup: 'test/support/global-setup.ts',
    setupFiles: 'test/support/setup-env.ts',
    // A process per test file: a crash in the addon then costs one file, and what a file leaves behind is
    // seen (setup-env.ts) instead of being inherited by the next one.
    pool: 'forks',
    isolate: true,
    // Each file may run several libtorrent sessions and servers. More files at once make timings worthless.
    maxWorkers: 2,
    // Tests of what happens at garbage collection need to cause one.
    execArgv: ['--expose-gc'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    reporters: ['default', './test/support/summary-reporter.ts'],
  },
})

export default config
