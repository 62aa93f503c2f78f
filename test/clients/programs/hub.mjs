/** An ordinary program that imports @huggingface/hub. */
import * as hub from '@huggingface/hub'
import { answer } from './lib/answer.mjs'
import { hubCalls } from './lib/hub-calls.mjs'

answer(hubCalls(hub))
