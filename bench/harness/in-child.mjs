/** The other end of `child.mjs`: what a process of ours uses to be told its task and to tell what happened. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { bytesRead, memoryOf } from './process.mjs'

/** How often the event loop is looked at: the histogram holds this much beside the delay. */
const resolutionMs = 1

/** The task, as the parent put it. */
export const options = JSON.parse(process.argv[2] ?? '{}')

export function tell(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
}

/** Resolves when the parent has no more use for this process, or is gone. Not together with `serve`. */
export function released() {
  return new Promise((resolve) => {
    process.stdin.on('end', resolve).on('error', resolve).resume()
  })
}

/** What `promise` brings; a process that is released before that has nobody to work for, and ends. */
export async function orReleased(promise) {
  let isSettled = false
  void released().then(() => isSettled || failOn('ended: the parent is gone'))
  const value = await promise
  isSettled = true
  return value
}

/**
 * Does what the parent asks, one command after the other: `handlers[command]` gets its fields and returns those of the
 * answer. Ends the process when the parent has no more use for it, or is gone.
 */
export function serve(handlers) {
  let last = Promise.resolve()
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const { id, command, ...fields } = JSON.parse(line)
      last = last.then(async () => {
        try {
          tell('answer', { id, ...(await handlers[command](fields)) })
        } catch (error) {
          tell('answer', { id, error: error?.stack ?? String(error) })
        }
      })
    })
    // Whatever is under way has nobody to report to.
    .on('close', () => process.exit(0))
}

/** CPU seconds of this process so far, user and system, all threads. */
export function cpuSeconds() {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/**
 * Does `work` and returns its `result` with what it took: `seconds`; `cpuSeconds` of all threads; `readBytes`, see
 * `bytesRead`; `anonymousBytesBefore`, what the process itself needs; and, for who `watchesLoop`, `loopDelayMs`, the 99th
 * percentile of how late the event loop was, looked at every millisecond. That looking is work too: not to be asked for
 * where the seconds count.
 */
export async function measured(work, { watchesLoop = false } = {}) {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  const anonymousBytesBefore = memoryOf('self').anonymous
  const [cpuBefore, readBefore] = [cpuSeconds(), bytesRead()]
  if (watchesLoop) delay.enable()
  const startedAt = performance.now()
  const result = await work()
  const seconds = (performance.now() - startedAt) / 1000
  delay.disable()
  return {
    result,
    seconds,
    cpuSeconds: cpuSeconds() - cpuBefore,
    ...(readBefore !== undefined && { readBytes: bytesRead() - readBefore }),
    anonymousBytesBefore,
    ...(watchesLoop && { loopDelayMs: Math.max(0, delay.percentile(99) / 1e6 - resolutionMs) }),
  }
}

/** Tells what the process has used, and ends it. `cpuSecondsBefore` are left out: those of its start, for one. */
export function tellUsageAndExit(cpuSecondsBefore = 0) {
  tell('usage', { cpuSeconds: cpuSeconds() - cpuSecondsBefore, peakMemoryBytes: peakMemoryBytes() })
  process.exit(0)
}

/** Without this, a failure inside somebody's event handler would leave a process that waits forever. */
export function failOn(error) {
  console.error(error)
  process.exit(1)
}

/** The largest resident set of this process so far. */
export function peakMemoryBytes() {
  // On Linux `maxRSS` begins with the parent's memory at the time of the fork; `VmHWM` is this program's own.
  return memoryOf('self').residentPeak ?? process.resourceUsage().maxRSS * 1024
}
