/** Measuring in turns: A B C, A B C, ..., so that whatever the machine does meanwhile happens to all. */

/**
 * @typedef {object} Participant
 * @property {string} name
 * @property {boolean} [isOurs] A failure of ours is a failure of the benchmark.
 * @property {string} [unavailable] Why it cannot run here.
 * @property {() => Promise<object>} run One run; returns its sample, figures by name.
 */

/**
 * Rounds to warm up, which do not count, then `runs` rounds. Who fails once is not tried again.
 *
 * @param {readonly Participant[]} participants
 * @returns {Promise<{ name: string, isOurs: boolean, samples: object[], failure?: string }[]>} In the same order.
 */
export async function measureInTurns(participants, runs, { signal, say, warmups = 1 }) {
  const results = participants.map(({ name, isOurs = false, unavailable }) => ({
    name,
    isOurs,
    samples: [],
    failure: unavailable,
  }))
  for (let round = 1 - warmups; round <= runs; round++) {
    for (const [index, participant] of participants.entries()) {
      const result = results[index]
      if (result.failure !== undefined) continue
      signal.throwIfAborted()
      say(`${round < 1 ? 'warm-up' : `run ${round} of ${runs}`}: ${participant.name}`)
      try {
        const sample = await participant.run()
        if (round > 0) result.samples.push(sample)
      } catch (error) {
        signal.throwIfAborted()
        result.failure = error.message
        say(`${participant.name}: ${error.message}`)
      }
    }
  }
  return results
}

/** @returns {{ median: number, q1: number, q3: number, min: number, max: number }} Quartiles by linear interpolation. */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share) => {
    const place = (sorted.length - 1) * share
    const low = Math.floor(place)
    return sorted[low] + (sorted[Math.ceil(place)] - sorted[low]) * (place - low)
  }
  return { median: at(0.5), q1: at(0.25), q3: at(0.75), min: sorted[0], max: sorted[sorted.length - 1] }
}

/** `summary` of one figure of all samples. */
export function over(samples, figure) {
  return summary(samples.map((sample) => sample[figure]))
}
