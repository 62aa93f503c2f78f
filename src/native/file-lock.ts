/** `flock(2)` on a descriptor of ours: the lock that Python's `huggingface_hub` takes. */
import type { NativeAddon } from './binding.ts'
import { callNative } from './native-error.ts'

/**
 * Whether the exclusive lock of an open file is now ours; `false` when another descriptor has it. Never waits.
 * Unlocking or closing the descriptor gives it back, and so does the end of the process.
 *
 * @throws {NativeError} When the file system has no locks, or `fd` is not open.
 */
export function tryLock(addon: NativeAddon, fd: number): boolean {
  return callNative(() => addon.tryLock(fd))
}

/** Gives the lock back. @throws {NativeError} When `fd` is not open. */
export function unlock(addon: NativeAddon, fd: number): void {
  callNative(() => addon.unlock(fd))
}
