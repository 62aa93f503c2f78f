/** A program that switches the hook on before it imports transformers.js: `early.mjs ENTRY`. */
import { answer } from '../lib/answer.mjs'
import { transformersCalls } from './calls.mjs'

const { enableP2P } = await import(process.argv[2])
enableP2P()

answer(transformersCalls(await import('@huggingface/transformers')))
