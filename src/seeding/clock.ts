/** Time as seeding needs it, and a test may stop it. */
export interface SeederClock {
  /** Ms since 1970. */
  now(): number
  /** Does `work` again and again, without keeping the process alive; the returned function ends it. */
  every(ms: number, work: () => void): () => void
}

/** The computer's. */
export const systemClock: SeederClock = {
  now: () => Date.now(),
  every(ms, work) {
    const timer = setInterval(work, ms).unref()
    return () => clearInterval(timer)
  },
}
