/**
 * A program whose work is done elsewhere, in a worker thread and in a fork: `elsewhere.mjs [ENTRY]`. With ENTRY, our
 * entry point, each of them switches the hook on by itself; without, they have what Node's arguments gave them.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { answer, digest } from './lib/answer.mjs'

const path = fileURLToPath(import.meta.url)
const [entry, job] = process.argv.slice(2)

async function work({ repo, hubUrl }, ourEntry) {
  if (ourEntry) (await import(ourEntry)).enableP2P()
  return digest(await (await fetch(`${hubUrl}/${repo}/resolve/main/weights.bin`)).arrayBuffer())
}

if (!isMainThread) {
  parentPort.postMessage(await work(workerData.target, workerData.entry))
} else if (job !== undefined) {
  process.send(await work(JSON.parse(job), entry))
} else {
  answer({
    inWorker: async (target) => {
      const worker = new Worker(path, { workerData: { target, entry } })
      // Its last message may come together with its end.
      const ended = once(worker, 'exit')
      const [sha256] = await once(worker, 'message')
      return [sha256, (await ended)[0]]
    },
    inFork: async (target) => {
      const child = fork(path, [entry ?? '', JSON.stringify(target)])
      const ended = once(child, 'exit')
      const [sha256] = await once(child, 'message')
      child.disconnect()
      return [sha256, (await ended)[0]]
    },
  })
}
