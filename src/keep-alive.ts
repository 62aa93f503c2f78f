/**
 * Runs `work` and keeps the process alive until it has ended. libtorrent's answers and idle connections do not hold
 * a process by themselves; a call that somebody awaits must.
 */
export async function keepingProcessAlive<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, 2 ** 30)
  try {
    return await work()
  } finally {
    clearInterval(timer)
  }
}
