/** Text in a terminal, where a character takes one column or two. Pure. */

const graphemes = new Intl.Segmenter()
const plain = /^[\x20-\x7e]*$/
const ellipsis = '…'
/** What East Asian Width calls wide or full width, and what is shown as an emoji. @see Unicode, UAX #11 and UTS #51 */
const wide =
  /\p{Emoji_Presentation}|\uFE0F|[\u1100-\u115F\u2E80-\u303E\u3041-\uA4CF\uA960-\uA97F\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6\u{16FE0}-\u{18DFF}\u{1AFF0}-\u{1B2FF}\u{20000}-\u{3FFFD}]/u

/** How many columns `text`, which holds no control characters, takes at most. */
export function columnsOf(text: string): number {
  if (plain.test(text)) return text.length
  let columns = 0
  for (const { segment } of graphemes.segment(text)) columns += columnsOfOne(segment)
  return columns
}

/** The beginning of `text` in at most `columns`, with an ellipsis where something is left out. */
export function cutEnd(text: string, columns: number): string {
  return columnsOf(text) <= columns
    ? text
    : `${take(characters(text), columns - 1).join('')}${closing(columns)}`
}

/** The end of `text`: what tells the names of files apart. */
export function cutStart(text: string, columns: number): string {
  if (columnsOf(text) <= columns) return text
  return `${closing(columns)}${take(characters(text).reverse(), columns - 1)
    .reverse()
    .join('')}`
}

/** As many of `parts`, from the first one on and with commas between them, as fit into `columns`. */
export function joinFitting(parts: readonly string[], columns: number): string {
  let text = ''
  for (const part of parts) {
    const longer = text === '' ? part : `${text}, ${part}`
    if (columnsOf(longer) > columns) break
    text = longer
  }
  return text
}

function characters(text: string): string[] {
  return Array.from(graphemes.segment(text), ({ segment }) => segment)
}

function columnsOfOne(character: string): number {
  return wide.test(character) ? 2 : 1
}

function take(all: readonly string[], columns: number): string[] {
  let left = columns
  const end = all.findIndex((character) => {
    left -= columnsOfOne(character)
    return left < 0
  })
  return all.slice(0, end === -1 ? all.length : end)
}

function closing(columns: number): string {
  return columns > 0 ? ellipsis : ''
}
