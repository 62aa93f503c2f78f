/**
 * Runs the native room's tests with the addon's sanitizer build (`node scripts/build-native.mjs --asan`):
 * AddressSanitizer and UndefinedBehaviorSanitizer, in every process and worker thread that the tests start.
 *
 *     node scripts/test-asan.mjs [vitest arguments]
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const addon = join(root, 'build-asan/Release/llmpt_native.node')
if (!existsSync(addon)) {
  console.error('llmpt: there is no sanitizer build; run `npm run build:asan` first.')
  process.exit(1)
}

/** Node itself has no sanitizer in it, so its runtime must be loaded before everything else. */
const runtime = execFileSync(process.env.CXX ?? 'c++', ['-print-file-name=libasan.so'], {
  encoding: 'utf8',
}).trim()

const asanOptions = {
  // V8 turns the SIGSEGV of a WebAssembly trap into an exception; the sanitizer's own handler would end the process first.
  handle_segv: 0,
  handle_sigbus: 0,
  // libstdc++ containers cross from libtorrent, which is built without the annotations, into the addon, which has them.
  detect_container_overflow: 0,
  // libtorrent's exceptions and type information come from another library than ours.
  detect_odr_violation: 0,
  // V8, Node and OpenSSL keep what they have until the process ends, and we cannot tell theirs from ours. Growth has a
  // test of its own (test/native/lifetime.test.ts).
  detect_leaks: 0,
  // V8 takes its stacks from mmap and switches them: use after return would need shadow memory it does not know of.
  detect_stack_use_after_return: 0,
  // The allocator's quarantine looks like growth to the test that counts it.
  quarantine_size_mb: 16,
  abort_on_error: 0,
  // Not 1: that is how Node ends after an uncaught error, which some of the tests expect.
  exitcode: 99,
}

const reports = mkdtempSync(join(tmpdir(), 'llmpt-asan-'))
const toText = (options) =>
  Object.entries(options)
    .map(([name, value]) => `${name}=${value}`)
    .join(':')
const { status, signal } = spawnSync(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--config',
    'test/native/asan.config.ts',
    ...process.argv.slice(2),
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      LD_PRELOAD: runtime,
      LLMPT_NATIVE_ADDON: addon,
      // Into files: the tests read what their child processes print.
      ASAN_OPTIONS: toText({ ...asanOptions, log_path: join(reports, 'asan') }),
      UBSAN_OPTIONS: toText({ print_stacktrace: 1, log_path: join(reports, 'ubsan') }),
    },
  },
)

const found = readdirSync(reports).map((name) => readFileSync(join(reports, name), 'utf8'))
for (const report of found) console.error(report)
rmSync(reports, { recursive: true })
if (found.length > 0) console.error(`llmpt: the sanitizers reported ${found.length} times; see above.`)
process.exit(signal !== null || found.length > 0 ? 1 : status)
