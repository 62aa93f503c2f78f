/** A program that switches the hook on after transformers.js took `fetch`: `late-transformers.mjs ENTRY`. */
import * as transformers from '@huggingface/transformers'
import { answer } from '../lib/answer.mjs'
import { transformersCalls } from './calls.mjs'

const p2p = await import(process.argv[2])
p2p.enableP2P()
const { model } = transformersCalls(transformers)

answer({
  bound: model,
  given: async (target) => {
    transformers.env.fetch = p2p.createFetch()
    return await model(target)
  },
})
