/** A program that switches the hook on before it imports its client: `early.mjs ENTRY`. */
import { answer } from './lib/answer.mjs'
import { hubCalls } from './lib/hub-calls.mjs'

const { enableP2P } = await import(process.argv[2])
enableP2P()

answer(hubCalls(await import('@huggingface/hub')))
