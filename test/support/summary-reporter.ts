/**
 * Writes `N passed, N failed[, N skipped]` to the file that LLMPT_TEST_SUMMARY names; `.ci/run` prints it as
 * its last line. Failed counts more than tests: a file that cannot be loaded, a hook of a file or a suite, an
 * error outside of any test. Otherwise a red run could say "0 failed".
 */
import { writeFileSync } from 'node:fs'
import type { Reporter, SerializedError, TestModule } from 'vitest/node'

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const file = process.env['LLMPT_TEST_SUMMARY']
    if (file === undefined || file === '') return
    // Nothing was started, because the run failed before: no line is better than one that says 0.
    if (modules.length === 0) return
    const states = modules.flatMap((module) =>
      [...module.children.allTests()].map((test) => test.result().state),
    )
    const count = (state: (typeof states)[number]): number => states.filter((each) => each === state).length
    const brokenFiles = modules.filter((module) => module.errors().length > 0)
    const brokenSuites = modules
      .flatMap((module) => [...module.children.allSuites()])
      .filter((suite) => suite.errors().length > 0)
    // A test that is still pending now was not run, because its process died.
    const failed =
      count('failed') + count('pending') + brokenFiles.length + brokenSuites.length + unhandledErrors.length
    const skipped = count('skipped')
    writeFileSync(
      file,
      `${count('passed')} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`,
    )
  }
}
