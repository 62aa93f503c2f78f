/** A program that has no client and uses the global fetch. */
import { answer } from './lib/answer.mjs'
import { fetchCalls } from './lib/fetch-calls.mjs'

answer(fetchCalls(() => fetch))
