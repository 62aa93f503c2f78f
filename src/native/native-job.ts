/** Long native work as one promise, with an `AbortSignal` and progress. */
import type { NativeJob } from './binding.ts'
import { asNativeError, callSite } from './native-error.ts'

export interface JobOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * Starts a job and waits until it has ended, cancelled or not: afterwards nothing reads the file any more.
 *
 * @throws The signal's reason; what `onProgress` throws, which also ends the job; else the job's `NativeError`.
 */
export async function runJob<T>(
  start: (onProgress: ((done: number, total: number) => void) | undefined) => NativeJob<T>,
  options: JobOptions,
): Promise<T> {
  const site = callSite(runJob)
  const { signal, onProgress } = options
  signal?.throwIfAborted()
  let bug: { error: unknown } | undefined
  let cancel = (): void => {}
  const report =
    onProgress &&
    ((done: number, total: number): void => {
      if (signal?.aborted || bug) return
      try {
        onProgress(done, total)
      } catch (error) {
        bug = { error }
        cancel()
      }
    })
  try {
    const job = start(report)
    cancel = () => job.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    const result = await job.promise
    if (bug) throw bug.error
    return result
  } catch (error) {
    if (bug) throw bug.error
    signal?.throwIfAborted()
    throw asNativeError(error, site)
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}
