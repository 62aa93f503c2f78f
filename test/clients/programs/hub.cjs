/** An ordinary program that requires @huggingface/hub. */
const hub = require('@huggingface/hub')

void Promise.all([import('./lib/answer.mjs'), import('./lib/hub-calls.mjs')]).then(
  ([{ answer }, { hubCalls }]) => answer(hubCalls(hub)),
)
