/** The temporary folder of a run, and the file everybody works on. */
import { createCipheriv } from 'node:crypto'
import * as fs from 'node:fs'
import { open } from 'node:fs/promises'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'

const tmpfsMagic = 0x01021994
const bufferBytes = 8 * 2 ** 20
const streamOptions = { highWaterMark: bufferBytes }
/** What the processes themselves may need while files are kept in memory. */
const memoryReserveBytes = 2 * 2 ** 30

/**
 * A new folder with room for `bytes`: in TMPDIR if that is set, else in memory (/dev/shm) if there is room, else
 * where the system keeps temporary files.
 *
 * @returns {{ path: string, description: string, remove(): void }}
 * @throws {Error} When there is no room.
 */
export function makeWorkspace(bytes) {
  const base = process.env.TMPDIR || (hasRoom('/dev/shm', bytes) ? '/dev/shm' : tmpdir())
  if (!hasRoom(base, bytes)) {
    throw new Error(
      `no room in ${base} for ${Math.ceil(bytes / 2 ** 20)} MiB; set TMPDIR, or take smaller --sizes`,
    )
  }
  const path = fs.mkdtempSync(join(base, 'llmpt-bench-'))
  return {
    path,
    description: isInMemory(base) ? 'in memory (tmpfs)' : 'on disk, in the page cache',
    remove: () => fs.rmSync(path, { recursive: true, force: true, maxRetries: 3 }),
  }
}

/** Writes a file that does not compress and is the same in every run. */
export async function writePayload(path, sizeBytes) {
  const zeros = Buffer.alloc(Math.min(bufferBytes, sizeBytes))
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16))
  const file = await open(path, 'w')
  try {
    for (let left = sizeBytes; left > 0; left -= Math.min(left, zeros.length)) {
      await file.writeFile(noise.update(zeros.subarray(0, Math.min(left, zeros.length))))
    }
    // Else the disk is busy with it during the first runs.
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Whether two files have the same content. */
export async function haveSameContent(pathA, pathB) {
  const [a, b] = [fs.createReadStream(pathA, streamOptions), fs.createReadStream(pathB, streamOptions)]
  const others = b[Symbol.asyncIterator]()
  try {
    for await (const part of a) {
      const { value: other } = await others.next()
      if (other === undefined || !part.equals(other)) return false
    }
    return (await others.next()).done === true
  } finally {
    b.destroy()
  }
}

function hasRoom(path, bytes) {
  try {
    fs.accessSync(path, fs.constants.W_OK)
    const { bavail, bsize } = fs.statfsSync(path)
    if (bavail * bsize < bytes) return false
    return !isInMemory(path) || freemem() >= bytes + memoryReserveBytes
  } catch {
    return false
  }
}

function isInMemory(path) {
  return fs.statfsSync(path).type === tmpfsMagic
}
