/** `node --import llmpt-native/register app.mjs`: the hook for programs that know nothing of it. */
import { enableP2P } from './global-hook.ts'
import { log, messageOf } from './log.ts'

try {
  enableP2P()
} catch (error) {
  // A wrong variable must not keep somebody else's program from starting.
  log.warn(`P2P stays off: ${messageOf(error)}`)
}
