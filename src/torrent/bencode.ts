/**
 * Bencode from strangers. The `bencode` package decodes leniently (leading zeros, `+5`, floats, trailing bytes,
 * keys in any order, strings that run past the end), recurses as deep as the input asks, sets prototypes through
 * `__proto__`, loses digits above 2^53 and rewrites keys that are not UTF-8. So nothing reaches it before `scanBencode`
 * has walked the bytes once, without recursion, and found them canonical and within limits. Canonical means: one
 * reading only, so that no two programs can see different torrents in the same bytes.
 */
import bencode from 'bencode'
import { TorrentError } from '../errors.ts'

/** How much input is looked at before it is refused. */
export interface BencodeLimits {
  readonly maxBytes: number
  readonly maxDepth: number
  /** Keys, strings, integers, lists and dictionaries, all counted. */
  readonly maxTokens: number
}

/** A value's place in the bytes, end exclusive. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** A decoded value: only strings (as bytes), safe integers, arrays and dictionaries. */
export type BencodeValue = Uint8Array | number | BencodeValue[] | BencodeDictionary
/** Keys sorted as bytes, as they stand in the input. */
export type BencodeDictionary = Map<string, BencodeValue>

const zero = 0x30
const nine = 0x39
const colon = 0x3a
const minus = 0x2d
const letterD = 0x64
const letterE = 0x65
const letterI = 0x69
const letterL = 0x6c
/** More digits than the largest safe integer has. */
const maxDigits = 16

interface Frame {
  readonly isDictionary: boolean
  key: Span | undefined
  expectsKey: boolean
  valueStart: number
}

/**
 * Checks that `bytes` are exactly one canonical dictionary within the limits.
 *
 * @param textKeys Whether every key must be proper text, as `decodeBencode` needs it.
 * @returns The outermost dictionary: key (each byte one character, latin1) -> where its value lies.
 * @throws {TorrentError}
 */
export function scanBencode(bytes: Uint8Array, limits: BencodeLimits, textKeys: boolean): Map<string, Span> {
  if (bytes.length > limits.maxBytes) fail(`${bytes.length} bytes, more than ${limits.maxBytes}`)
  if (bytes[0] !== letterD) fail('not a bencoded dictionary')
  const outermost = new Map<string, Span>()
  const stack: Frame[] = []
  let position = 0
  for (let tokens = 1; ; tokens++) {
    if (tokens > limits.maxTokens) fail(`more than ${limits.maxTokens} values`)
    const frame = stack.at(-1)
    const byte = bytes[position]
    if (byte === letterE && frame !== undefined) {
      if (frame.key !== undefined && !frame.expectsKey) fail(`a key without a value at ${position}`)
      stack.pop()
      position++
    } else if (frame?.expectsKey) {
      position = takeKey(bytes, position, frame, textKeys)
      continue
    } else if (byte === letterD || byte === letterL) {
      if (stack.length >= limits.maxDepth) fail(`nested deeper than ${limits.maxDepth}`)
      const isDictionary = byte === letterD
      stack.push({ isDictionary, key: undefined, expectsKey: isDictionary, valueStart: 0 })
      position++
      continue
    } else {
      position = byte === letterI ? skipInteger(bytes, position) : stringSpan(bytes, position).end
    }
    const parent = stack.at(-1)
    if (parent === undefined) break
    closeValue(bytes, stack, parent, position, outermost)
  }
  if (position !== bytes.length) fail(`${bytes.length - position} bytes after the end`)
  return outermost
}

/**
 * Decodes one value that `scanBencode` has passed with `textKeys`.
 *
 * @throws {TorrentError} If the package cannot read what the scan let through: a bug, but not the caller's.
 */
export function decodeBencode(bytes: Uint8Array): BencodeValue {
  try {
    return toMaps(bencode.decode(bytes))
  } catch (error) {
    throw new TorrentError('bencode: unreadable', { cause: error })
  }
}

/** The bytes of the string that `span` encloses. @throws {TorrentError} If another type stands there. */
export function stringAt(bytes: Uint8Array, span: Span): Uint8Array {
  const first = bytes[span.start]
  if (first === undefined || first < zero || first > nine) fail('expected a string')
  const text = stringSpan(bytes, span.start)
  return bytes.subarray(text.start, text.end)
}

function closeValue(
  bytes: Uint8Array,
  stack: readonly Frame[],
  parent: Frame,
  end: number,
  outermost: Map<string, Span>,
): void {
  if (!parent.isDictionary) return
  if (stack.length === 1 && parent.key !== undefined) {
    const key = Buffer.from(bytes.subarray(parent.key.start, parent.key.end)).toString('latin1')
    outermost.set(key, { start: parent.valueStart, end })
  }
  parent.expectsKey = true
}

function takeKey(bytes: Uint8Array, position: number, frame: Frame, textKeys: boolean): number {
  const key = stringSpan(bytes, position)
  if (frame.key !== undefined && compareSpans(bytes, frame.key, key) >= 0) {
    fail(`keys at ${position} that are not in ascending order, or twice the same`)
  }
  if (textKeys) checkTextKey(bytes.subarray(key.start, key.end))
  frame.key = key
  frame.expectsKey = false
  frame.valueStart = key.end
  return key.end
}

/** The package turns keys it cannot read into hex, and `__proto__` into a prototype: neither gets that far. */
function checkTextKey(key: Uint8Array): void {
  const text = utf8(key)
  if (text === undefined) fail('a name that is not UTF-8')
  if (text.includes('\u{FFFD}') || text.startsWith('\u{FEFF}'))
    fail('a name with U+FFFD, or with U+FEFF in front')
  if (text === '__proto__') fail('a key named __proto__')
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text, or `undefined` if the bytes are not UTF-8. */
export function utf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}

function compareSpans(bytes: Uint8Array, a: Span, b: Span): number {
  const left = bytes.subarray(a.start, a.end)
  return Buffer.compare(left, bytes.subarray(b.start, b.end))
}

function stringSpan(bytes: Uint8Array, position: number): Span {
  const { value, end } = takeDigits(bytes, position)
  if (bytes[end] !== colon) fail(`no string at ${position}`)
  const start = end + 1
  if (value > bytes.length - start) fail(`a string at ${position} that runs past the end`)
  return { start, end: start + value }
}

function skipInteger(bytes: Uint8Array, position: number): number {
  const isNegative = bytes[position + 1] === minus
  const { value, end } = takeDigits(bytes, position + (isNegative ? 2 : 1))
  if (bytes[end] !== letterE) fail(`a broken integer at ${position}`)
  if (isNegative && value === 0) fail(`minus zero at ${position}`)
  return end + 1
}

function takeDigits(bytes: Uint8Array, start: number): { value: number; end: number } {
  let value = 0
  let end = start
  for (; end - start <= maxDigits; end++) {
    const byte = bytes[end]
    if (byte === undefined || byte < zero || byte > nine) break
    value = value * 10 + (byte - zero)
  }
  if (end === start) fail(`no number at ${start}`)
  if (end - start > 1 && bytes[start] === zero) fail(`a number with a leading zero at ${start}`)
  if (!Number.isSafeInteger(value)) fail(`a number too large at ${start}`)
  return { value, end }
}

/** JavaScript objects list keys that look like integers first, so the order of the input has to be put back. */
function toMaps(value: unknown): BencodeValue {
  if (typeof value === 'number') return value
  if (value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(toMaps)
  const entries = Object.entries(value as object).map(([key, inner]) => ({
    key,
    bytes: Buffer.from(key),
    inner,
  }))
  entries.sort((a, b) => Buffer.compare(a.bytes, b.bytes))
  return new Map(entries.map(({ key, inner }) => [key, toMaps(inner)]))
}

function fail(what: string): never {
  throw new TorrentError(`bencode: ${what}`)
}
