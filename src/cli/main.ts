#!/usr/bin/env node
/** The `llmpt` command. */
import { takeArguments } from './take-arguments.ts'

// Before anything else is loaded: a token is not to stand in process lists longer than it must.
const args = takeArguments(process)
const { main } = await import('./program.ts')

// Whoever reads our output may go away first, as `head` does; then there is nobody left to tell.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

process.exitCode = await main(args)
// Commands close what they open. A connection that has not noticed must not hold up the prompt.
setTimeout(() => process.exit(), 2_000).unref()
