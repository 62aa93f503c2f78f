/** Samples in, medians and ratios out: as plain data, and as text for people. */
import { summary } from './rounds.mjs'

const gib = 2 ** 30
const mib = 2 ** 20

/**
 * Medians of every participant, and their ratio to the median of the reference.
 *
 * @param {string} reference Name of the participant that the others are compared with.
 */
export function evaluate(results, { sizeBytes, reference }) {
  const rows = results.map((result) => evaluateOne(result, sizeBytes))
  const base = rows.find((row) => row.name === reference)
  for (const row of rows) {
    if (row.failure !== undefined || base === undefined || base.failure !== undefined) continue
    row.speedRatio = row.megabytesPerSecond.median / base.megabytesPerSecond.median
    row.cpuRatio = row.cpuSecondsPerGib.median / base.cpuSecondsPerGib.median
  }
  return rows
}

function evaluateOne({ name, isOurs, samples, failure }, sizeBytes) {
  if (failure !== undefined) return { name, isOurs, failure }
  const processes = Object.keys(samples[0].peakBytes)
  const over = (figure) => summary(samples.map(figure))
  return {
    name,
    isOurs,
    megabytesPerSecond: over(({ seconds }) => sizeBytes / 1e6 / seconds),
    cpuSecondsPerGib: over(({ cpuSeconds }) => cpuSeconds / (sizeBytes / gib)),
    peakBytes: Object.fromEntries(processes.map((key) => [key, over(({ peakBytes }) => peakBytes[key])])),
    samples,
  }
}

/** The block of text for one benchmark. */
export function asText({ title, question, reference, settings, notes, rows, warning }) {
  const processes = Object.keys(rows.find((row) => row.peakBytes !== undefined)?.peakBytes ?? {})
  const header = [
    '',
    'MB/s',
    'min–max',
    'ratio',
    'CPU s/GiB',
    'min–max',
    'ratio',
    ...processes.map((name) => `${name} MiB`),
  ]
  const table = [
    header,
    ...rows.filter((row) => row.failure === undefined).map((row) => cells(row, processes)),
  ]
  const failures = rows.filter((row) => row.failure !== undefined)
  return [
    `${title}: ${question}`,
    '',
    ...Object.entries(settings).map(([name, value]) => `  ${name}: ${value}`),
    '',
    ...(table.length > 1 ? aligned(table).map((line) => `  ${line}`) : []),
    ...failures.map((row) => `  ${row.name}: could not run: ${row.failure}`),
    '',
    `  Medians. Ratios of medians are to ${reference}. MB is 10^6 bytes.`,
    ...notes.map((note) => `  ${note}`),
    ...(warning === undefined ? [] : ['', `  CAUTION: ${warning}`]),
    '',
  ].join('\n')
}

function cells(row, processes) {
  const { megabytesPerSecond: speed, cpuSecondsPerGib: cpu } = row
  return [
    row.name,
    speed.median.toFixed(0),
    `${speed.min.toFixed(0)}–${speed.max.toFixed(0)}`,
    times(row.speedRatio),
    cpu.median.toFixed(2),
    `${cpu.min.toFixed(2)}–${cpu.max.toFixed(2)}`,
    times(row.cpuRatio),
    ...processes.map((name) => (row.peakBytes[name].median / mib).toFixed(0)),
  ]
}

function times(ratio) {
  return ratio === undefined ? '' : `${ratio.toFixed(2)}×`
}

/** Names to the left, figures to the right. */
function aligned(table) {
  const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)))
  return table.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  )
}
