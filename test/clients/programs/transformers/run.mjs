/** An ordinary program that imports transformers.js. */
import * as transformers from '@huggingface/transformers'
import { answer } from '../lib/answer.mjs'
import { transformersCalls } from './calls.mjs'

answer(transformersCalls(transformers))
