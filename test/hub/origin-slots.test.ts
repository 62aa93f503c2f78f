import { expect, test } from 'vitest'
import { type HubServer, startHub } from '../../src/demo/hub.ts'
import { FileSource } from '../../src/hub/file-source.ts'
import { fileMetadata } from '../../src/hub/metadata.ts'
import { OriginSlots } from '../../src/hub/origin-slots.ts'
import type { RangeBody } from '../../src/hub/range-body.ts'
import { access, errorOf, hubFile, lyingHub, readAll, type TestAccess } from './fixtures.ts'

const files = { 'a.bin': { seed: 1, sizeBytes: 400_000 }, 'b.bin': { seed: 2, sizeBytes: 400_000 } }

async function open(hub: HubServer, our: TestAccess, path = 'a.bin'): Promise<FileSource> {
  const file = await fileMetadata(our, hub.ref(path))
  return new FileSource(our, file, { location: file.location })
}

/** Four ranges whose bodies stall, two of each file: all slots of the storage. */
async function takeAllSlots(hub: HubServer, sources: readonly FileSource[]): Promise<RangeBody[]> {
  const restore = hub.inject({ origin: 'cdn', stallAfterBytes: 1000 })
  const bodies: RangeBody[] = []
  for (const source of [...sources, ...sources]) bodies.push(await source.openRange({ start: 0 }))
  restore()
  return bodies
}

test('those who wait for a slot get one in the order in which they came', async () => {
  const slots = new OriginSlots(2)
  const [first, second] = [await slots.acquire('o'), await slots.acquire('o')]
  const order: number[] = []
  const waiting = [1, 2, 3].map(async (n) => {
    const release = await slots.acquire('o')
    order.push(n)
    release()
  })
  expect(slots.free('o')).toBe(0)
  second()
  await Promise.all(waiting)
  expect(order).toEqual([1, 2, 3])
  first()
  expect(slots.free('o')).toBe(2)
})

test('a slot that is given back twice frees one', async () => {
  const slots = new OriginSlots(2)
  const [first] = [await slots.acquire('o'), await slots.acquire('o')]
  first?.()
  first?.()
  expect(slots.free('o')).toBe(1)
})

test('whoever gives up waiting is gone from the line', async () => {
  const slots = new OriginSlots(1)
  const release = await slots.acquire('o')
  const controller = new AbortController()
  const leaving = slots.acquire('o', controller.signal)
  const staying = slots.acquire('o')
  const reason = new Error('enough')
  controller.abort(reason)
  expect(await errorOf(leaving)).toBe(reason)
  release()
  const last = await staying
  expect(slots.free('o')).toBe(0)
  last()
  expect(slots.free('o')).toBe(1)
})

test('no slot is lost when an abort and a free slot come at the same time', async () => {
  const slots = new OriginSlots(1)
  const release = await slots.acquire('o')
  const controller = new AbortController()
  const lucky = slots.acquire('o', controller.signal)
  const next = slots.acquire('o')
  release()
  controller.abort(new Error('too late'))
  const late = await lucky
  late()
  const last = await next
  last()
  expect(slots.free('o')).toBe(1)
})

test('origins do not share slots', async () => {
  const slots = new OriginSlots(1)
  await slots.acquire('o')
  expect([slots.free('o'), slots.free('p')]).toEqual([0, 1])
})

test('four requests at a time go to one origin, for all files together', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const sources = [await open(hub, our), await open(hub, our, 'b.bin')] as const
  expect(sources[0].freeSlots()).toBe(4)
  const bodies = await takeAllSlots(hub, sources)
  expect(sources[1].freeSlots()).toBe(0)
  const fifth = sources[0].openRange({ start: 5, end: 15 })
  // The Hub's answer is proof that the fifth request had its chance to arrive.
  await fileMetadata(our, hub.ref('a.bin'))
  expect(hub.stats('cdn').requests).toBe(4)
  bodies[0]?.cancel()
  expect(await readAll((await fifth).batches)).toHaveLength(10)
  for (const body of bodies) body.cancel()
  expect(sources[1].freeSlots()).toBe(4)
})

test('a whole small file does not stand in line with ranges, and takes no slot from them', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { wholeFilesPerOrigin: 1 })
  const sources = [await open(hub, our), await open(hub, our, 'b.bin')] as const
  const bodies = await takeAllSlots(hub, sources)
  const whole = await sources[1].openRange({ start: 0, isWhole: true })
  expect(await readAll(whole.batches)).toHaveLength(400_000)
  for (const body of bodies) body.cancel()
  const held = await sources[1].openRange({ start: 0, isWhole: true })
  expect(sources[1].freeSlots()).toBe(4)
  // Of whole files there are no more at a time than their own limit.
  const said: string[] = []
  const second = sources[0].openRange({ start: 0, isWhole: true, onWait: () => said.push('wait') })
  await fileMetadata(our, hub.ref('a.bin'))
  expect(said).toEqual(['wait'])
  held.cancel()
  expect(await readAll((await second).batches)).toHaveLength(400_000)
})

test('a range that waits for a slot says so, and says when it starts', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  const said: string[] = []
  const hooks = { onWait: () => said.push('wait'), onStart: () => said.push('start') }
  const bodies = await takeAllSlots(hub, [source, source])
  const waiting = source.openRange({ start: 0, end: 10, ...hooks })
  await fileMetadata(our, hub.ref('a.bin'))
  expect(said).toEqual(['wait'])
  for (const body of bodies) body.cancel()
  await readAll((await waiting).batches)
  expect(said).toEqual(['wait', 'start'])
  said.length = 0
  await readAll((await source.openRange({ start: 0, end: 10, ...hooks })).batches)
  expect(said).toEqual(['start'])
})

test('a range that waits for a slot can be given up within milliseconds, without having been sent', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = await open(hub, our)
  const bodies = await takeAllSlots(hub, [source, source])
  const controller = new AbortController()
  const reason = new Error('enough')
  const waiting = errorOf(source.openRange({ start: 0, end: 10, signal: controller.signal }))
  await fileMetadata(our, hub.ref('a.bin'))
  const abortedAt = performance.now()
  controller.abort(reason)
  expect(await waiting).toBe(reason)
  expect(performance.now() - abortedAt).toBeLessThan(50)
  for (const body of bodies) body.cancel()
  expect(await readAll((await source.openRange({ start: 0, end: 10 })).batches)).toHaveLength(10)
  expect(hub.stats('cdn').requests).toBe(5)
})

test.each<[string, (our: TestAccess, source: FileSource, hub: HubServer) => Promise<void>]>([
  [
    'read to its end',
    async (_our, source) => void (await readAll((await source.openRange({ start: 0 })).batches)),
  ],
  [
    'left early',
    async (_our, source) => {
      for await (const _ of (await source.openRange({ start: 0 })).batches) break
    },
  ],
  ['cancelled', async (_our, source) => (await source.openRange({ start: 0 })).cancel()],
  [
    'cut',
    async (_our, source, hub) => {
      hub.inject({ origin: 'cdn', cutAfterBytes: 1000, times: 1 })
      await errorOf(readAll((await source.openRange({ start: 0 })).batches))
    },
  ],
  [
    'aborted and never read',
    async (_our, source) => {
      const controller = new AbortController()
      await source.openRange({ start: 0, signal: controller.signal })
      controller.abort()
    },
  ],
  [
    'refused',
    async (_our, source, hub) => {
      hub.inject({ origin: 'cdn', status: 418, times: 1 })
      await errorOf(source.openRange({ start: 0 }))
    },
  ],
  [
    'of the wrong length',
    async (_our, source, hub) => {
      hub.inject({ origin: 'cdn', headers: { 'content-range': 'bytes 1-2/3' }, ignoreRange: false, times: 1 })
      await errorOf(source.openRange({ start: 0 }))
    },
  ],
  [
    'never answered',
    async (our, source, hub) => {
      await hub.setAvailability('cdn', 'refused')
      await errorOf(source.openRange({ start: 0 }))
      await hub.setAvailability('cdn', 'up')
      expect(our.http.freeSlots(hub.cdnUrl)).toBe(1)
    },
  ],
])('the slot of a body that was %s is free again', async (_, use) => {
  await using hub = await startHub(files)
  await using our = access(hub.url, { connectionsPerOrigin: 1 })
  const source = await open(hub, our)
  await use(our, source, hub)
  const next = await source.openRange({ start: 5, end: 15, signal: AbortSignal.timeout(5000) })
  expect(await readAll(next.batches)).toHaveLength(10)
})

test('a redirect costs no slot, and the origin it leads to is the one that counts', async () => {
  await using hub = await startHub(files)
  await using our = access(hub.url)
  const source = new FileSource(our, hub.file('a.bin'))
  const body = await source.openRange({ start: 0 })
  expect([our.http.freeSlots(hub.url), our.http.freeSlots(hub.cdnUrl), source.freeSlots()]).toEqual([4, 3, 3])
  body.cancel()
})

test('closing sends those home who wait for a slot', async () => {
  await using server = await lyingHub((_req, res) => {
    res.writeHead(200).flushHeaders()
  })
  const our = access(server.url, { connectionsPerOrigin: 1 })
  const source = new FileSource(our, hubFile('f', 'x'.repeat(100)))
  const body = await source.openRange({ start: 0 })
  const reading = errorOf(readAll(body.batches))
  const waiting = errorOf(source.openRange({ start: 1 }))
  await our.http.close()
  expect(await waiting).toMatchObject({ code: 'ERR_LLMPT_HUB' })
  await reading
})
