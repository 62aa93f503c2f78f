/** What a benchmark found, as text for people. */

/**
 * @typedef {object} Table
 * @property {string} [title]
 * @property {readonly string[]} header
 * @property {readonly (readonly string[])[]} rows
 *
 * @typedef {object} Report
 * @property {Record<string, string>} settings
 * @property {readonly Table[]} tables
 * @property {readonly string[]} [claims] What the figures say, one sentence each, with the figures.
 * @property {readonly { isMet: boolean, text: string }[]} [goals] Compared within this run.
 * @property {readonly string[]} [notes] How to read it.
 * @property {readonly string[]} [failures] What could not run, of others.
 * @property {readonly string[]} [errors] Why the run is void, or which download was wrong: the benchmark has failed.
 * @property {object} [data] Every sample.
 */

/** The block of text for one benchmark. @param {Report} report */
export function asText({ title, question, report, warning }) {
  const { settings, tables, claims = [], goals = [], notes = [], failures = [], errors = [] } = report
  const blocks = [
    [`${title}: ${question}`],
    Object.entries(settings).map(([name, value]) => `  ${name}: ${value}`),
    ...tables.map((table) => [
      ...(table.title === undefined ? [] : [`  ${table.title}`]),
      ...aligned([table.header, ...table.rows]).map((line) => `  ${line}`),
    ]),
    failures.map((text) => `  could not run: ${text}`),
    claims.map((text) => `  claim: ${text}`),
    goals.map(({ isMet, text }) => `  ${isMet ? 'met   ' : 'MISSED'}  ${text}`),
    notes.map((note) => `  ${note}`),
    warning === undefined ? [] : [`  CAUTION: ${warning}`],
    errors.map((text) => `  ERROR: ${text}`),
  ]
  return blocks
    .filter((lines) => lines.length > 0)
    .map((lines) => `${lines.join('\n')}\n`)
    .join('\n')
}

/** A median with its quartiles: `1.23 [1.20 to 1.26]`. */
export function withQuartiles({ median, q1, q3 }, digits, scale = 1) {
  const [middle, low, high] = [median, q1, q3].map((value) => (value / scale).toFixed(digits))
  return `${middle} [${low} to ${high}]`
}

export function times(ratio) {
  return ratio === undefined ? '' : ratio.toFixed(ratio < 10 ? 3 : 1)
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
