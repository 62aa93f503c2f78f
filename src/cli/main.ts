#!/usr/bin/env node
/** The `llmpt` command. */
import { main } from './program.ts'

// Whoever reads our output may go away first, as `head` does; then there is nobody left to tell.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

process.exitCode = await main(process.argv.slice(2))
// Commands close what they open. A connection that has not noticed must not hold up the prompt.
setTimeout(() => process.exit(), 2_000).unref()
