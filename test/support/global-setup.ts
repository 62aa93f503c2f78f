import { existsSync } from 'node:fs'

/**
 * Tests start programs from dist/ and load the addon, and vitest builds neither. At the desk that is a
 * warning, because the rooms above the addon can be tested without it.
 */
export default function setup(): void {
  const missing = ['dist', 'build/Release/llmpt_native.node', 'build/Release/sha256_kernels'].filter(
    (file) => !existsSync(new URL(`../../${file}`, import.meta.url)),
  )
  if (missing.length === 0) return
  const message = `Not built: ${missing.join(', ')}. Use \`npm test\`, or run \`npm run setup\` first.`
  if (process.env['CI'] !== undefined) throw new Error(message)
  console.warn(`${message} Tests that need it will fail.`)
}
