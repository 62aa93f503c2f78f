/** Measuring in turns: A B C, A B C, ..., so that whatever the machine does meanwhile happens to all. */

/**
 * @typedef {object} Sample One run.
 * @property {number} seconds
 * @property {number} cpuSeconds User and system, of all processes.
 * @property {Record<string, number>} peakBytes Peak memory by process.
 *
 * @typedef {object} Participant
 * @property {string} name
 * @property {boolean} isOurs
 * @property {string} [unavailable] Why it cannot run here.
 * @property {() => Promise<Sample>} run
 */

/**
 * One round to warm up, which does not count, then `runs` rounds. Who fails once is not tried again.
 *
 * @param {readonly Participant[]} participants
 * @returns {Promise<{ name: string, isOurs: boolean, samples: Sample[], failure?: string }[]>} In the same order.
 */
export async function measureInTurns(participants, runs, { signal, onProgress }) {
  const results = participants.map(({ name, isOurs, unavailable }) => ({
    name,
    isOurs,
    samples: [],
    failure: unavailable,
  }))
  for (let round = 0; round <= runs; round++) {
    for (const [index, participant] of participants.entries()) {
      const result = results[index]
      if (result.failure !== undefined) continue
      signal.throwIfAborted()
      onProgress(round === 0 ? 'warm-up' : `run ${round} of ${runs}`, participant.name)
      try {
        const sample = await participant.run()
        if (round > 0) result.samples.push(sample)
      } catch (error) {
        signal.throwIfAborted()
        result.failure = error.message
      }
    }
  }
  return results
}

/** @returns {{ median: number, min: number, max: number }} */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  return { median, min: sorted[0], max: sorted[sorted.length - 1] }
}
