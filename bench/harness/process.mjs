/** What processes use, from the kernel's tables. */
import { readFileSync } from 'node:fs'

/** Seldom enough to cost the measured process nothing, often enough for buffers that live as long as the work. */
const memoryEveryMs = 10
/** Linux counts in these, whatever its own clock does. */
const ticksPerSecond = 100

/**
 * Looks at the memory of a process until `stop`, which returns the most that was seen: `peakMemoryBytes` (the resident
 * set, by the kernel's own high-water mark) and `peakAnonymousBytes` (of it, what is no file's).
 *
 * @param {number} pid
 * @returns {{ stop(): { peakMemoryBytes?: number, peakAnonymousBytes?: number } }} Without figures where there is no /proc.
 */
export function watchMemory(pid) {
  const seen = {}
  const look = () => {
    const { residentPeak, anonymous } = memoryOf(pid)
    // All zero in a process that has ended and was not waited for yet.
    if (residentPeak > 0) seen.peakMemoryBytes = residentPeak
    if (anonymous > (seen.peakAnonymousBytes ?? 0)) seen.peakAnonymousBytes = anonymous
  }
  look()
  const timer = setInterval(look, memoryEveryMs)
  return {
    stop: () => {
      clearInterval(timer)
      look()
      return seen
    },
  }
}

/** Bytes; `undefined` where the kernel does not tell. @param pid Or `self`. */
export function memoryOf(pid) {
  const status = read(`/proc/${pid}/status`)
  const bytes = (name) => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]
    return kib === undefined ? undefined : Number(kib) * 1024
  }
  return { residentPeak: bytes('VmHWM'), anonymous: bytes('RssAnon') }
}

/**
 * Bytes that this process and its children that have ended got from system calls that read, out of the page cache too;
 * what a process maps into its memory is not among them. `undefined` where the kernel does not count.
 */
export function bytesRead() {
  const bytes = /^rchar: (\d+)$/m.exec(read('/proc/self/io'))?.[1]
  return bytes === undefined ? undefined : Number(bytes)
}

/** User and system time of all children that have ended and were waited for. */
export function childrenCpuSeconds() {
  const fields = read('/proc/self/stat')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[13]) + Number(fields[14])) / ticksPerSecond
}

function read(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
