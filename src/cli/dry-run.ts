/** `llmpt download --dry-run`: what it would fetch. */
import type { DryRunFile } from '../snapshot/dry-run.ts'
import { countOf, formatBytes, printable } from './format.ts'
import type { Output } from './output.ts'

/** Tells of each file, one to a line, and of all together. */
export function tellPlan(files: readonly DryRunFile[], elapsedMs: number, out: Output): void {
  for (const file of files) out.event('file', fileEvent(file))
  for (const line of planTable(files)) out.result(line)
  const toFetch = files.filter(({ willDownload }) => willDownload)
  out.event('done', {
    dryRun: true,
    commit: files[0]?.commit ?? null,
    files: { total: files.length, toDownload: toFetch.length },
    sizeBytes: bytesOf(files),
    downloadBytes: bytesOf(toFetch),
    elapsedMs,
  })
  out.say(planSummary(files))
}

/** What a `file` event of a dry run holds besides its name. */
function fileEvent({ name, commit, sizeBytes, path, isCached, willDownload }: DryRunFile): object {
  return { path: name, size: sizeBytes, commit, localPath: path, isCached, willDownload }
}

/** Size, what is to be done, and name: names are of any length. */
export function planTable(files: readonly DryRunFile[]): string[] {
  const rows = files.map(
    (file) => [formatBytes(file.sizeBytes), stateOf(file), printable(file.name)] as const,
  )
  const [sizes, states] = [0, 1].map((column) =>
    Math.max(0, ...rows.map((row) => (row[column] ?? '').length)),
  )
  return rows.map(
    ([size, state, name]) => `${size.padStart(sizes ?? 0)}  ${state.padEnd(states ?? 0)}  ${name}`,
  )
}

function stateOf({ isCached, willDownload }: DryRunFile): string {
  if (!willDownload) return 'cached'
  return isCached ? 'to download again' : 'to download'
}

export function planSummary(files: readonly DryRunFile[]): string {
  const toFetch = files.filter(({ willDownload }) => willDownload)
  const all = `${countOf(files.length, 'file')}, ${formatBytes(bytesOf(files))}`
  if (toFetch.length === 0) return `${all}: everything is there already.`
  return `${all}: ${countOf(toFetch.length, 'file')} to download, ${formatBytes(bytesOf(toFetch))}.`
}

function bytesOf(files: readonly DryRunFile[]): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0)
}
