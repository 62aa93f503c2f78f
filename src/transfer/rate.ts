/** A rate over a short window: bytes per second between the oldest and the newest sample. */
export class RateWindow {
  readonly #windowMs: number
  #samples: { atMs: number; bytes: number }[] = []

  constructor(windowMs: number) {
    this.#windowMs = windowMs
  }

  /** @param bytes A running total. A total below the last one (bytes taken back) starts the window anew. */
  add(atMs: number, bytes: number): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && bytes < last.bytes) this.#samples = []
    this.#samples.push({ atMs, bytes })
    while (this.#samples.length > 2 && atMs - (this.#samples[1]?.atMs ?? atMs) >= this.#windowMs)
      this.#samples.shift()
  }

  reset(): void {
    this.#samples = []
  }

  get bytesPerSecond(): number {
    const first = this.#samples[0]
    const last = this.#samples.at(-1)
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0
    return ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs)
  }
}
