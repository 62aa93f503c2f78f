/**
 * What nobody may read in a message, a log line or an error: tokens, credentials, and the queries of signed URLs, which
 * open a file to whoever has them. Here it is decided what that looks like; errors and logs apply it to all they are given.
 */
import { inspect } from 'node:util'

/** Tokens in use, of any form, the latest last: those of `hf_…` are recognised without. */
const secrets: string[] = []
/** A process that passes on the tokens of many others must not grow with them. */
const mostSecrets = 64
/** What is shorter is found in ordinary words, and guards nothing. */
const shortestSecret = 6
let secretPattern: RegExp | undefined

/** From now on `secret` is hidden wherever it turns up, also percent-encoded or inside of JSON. */
export function keepSecret(secret: string): void {
  if (secret.length < shortestSecret) return
  const known = secrets.indexOf(secret)
  if (known >= 0) secrets.splice(known, 1)
  secrets.push(secret)
  if (known >= 0) return
  if (secrets.length > mostSecrets) secrets.shift()
  const forms = secrets.flatMap(formsOf).toSorted((one, other) => other.length - one.length)
  secretPattern = new RegExp(forms.map(escapeForPattern).join('|'), 'g')
}

function formsOf(secret: string): string[] {
  const inUrl = /\p{Surrogate}/u.test(secret) ? secret : encodeURIComponent(secret)
  const asShownByNode = secret.replaceAll('\\', '\\\\')
  return [...new Set([secret, inUrl, JSON.stringify(secret).slice(1, -1), asShownByNode])]
}

function escapeForPattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
}

// Repetitions are bounded where a hostile text could make them start again and again.
const rules: readonly (readonly [RegExp, string])[] = [
  // https://name:password@host; what follows a name and a colon, and is no port, is a password whatever is in it.
  [/(\/\/[^\s/?#"'<>:@[]{0,256}:)(?!\d{1,5}(?:[/?#]|$))[^\s"'<>]{1,1024}@/g, '$1***@'],
  [/(\/\/)[^\s/?#"'<>]{1,1024}@/g, '$1***@'],
  // Any query of a web address: nobody needs it to find a mistake.
  [/(https?:\/\/[^\s?#"'<>]{0,2048}\?)[^\s"'<>]+/gi, '$1***'],
  // authorization: Bearer x; "authorization":"Bearer x"; ['authorization', 'Bearer x']
  [
    /(authorization(?:["']\s{0,9},|["']?\s{0,9}[:=])[\s"'[]{0,9})(?:[\w-]{1,20}\s{1,9})?[^\s"'\]}]+/gi,
    '$1***',
  ],
  [/(cookie["']?\s{0,9}[:=]\s{0,9})[^\r\n]+/gi, '$1***'],
  [/\b(bearer\s{1,9})[\w.~+/=:%-]{8,}/gi, '$1***'],
  // Parameters of a URL that lost its beginning, or of a form.
  [
    /(?:(?<![a-z0-9])|(?<=%3f|%26))((?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|policy|key-pair-id|(?:access_?|refresh_?|id_)?token|password|passkey|api_?key)(?:=|%3d))[^&\s"'<>]+/gi,
    '$1***',
  ],
  // The same as JSON, or as Node shows objects.
  [
    /(?<![a-z0-9])((?:(?:access_?|refresh_?|id_)?token|password|passkey|api_?key)["']?\s{0,9}:\s{0,9}["'])[^"'\r\n]+/gi,
    '$1***',
  ],
  // Only what is as long as a token: files and repositories may be called hf_quant_config.json or hf_internal_testing_tiny.
  [/hf_(?:oauth_[\w.-]{29,}[\w-]|[A-Za-z0-9]{30,}[\w-]*)/g, 'hf_***'],
]

/** `text` without tokens, credentials and signatures, wherever it came from. Applied twice it changes nothing more. */
export function redact(text: string): string {
  const known = secretPattern === undefined ? text : text.replace(secretPattern, '***')
  return rules.reduce((clean, [pattern, replacement]) => clean.replace(pattern, replacement), known)
}

/**
 * What was thrown, as others may see it: itself when all that it shows is harmless, else an `Error` that has its
 * name, message, stack, plain properties and causes without secrets.
 */
export function withoutSecrets(thrown: unknown): unknown {
  return cleaned(thrown, new Set())
}

function cleaned(thrown: unknown, seen: Set<unknown>): unknown {
  if (typeof thrown === 'string') return redact(thrown)
  if (typeof thrown !== 'object' || thrown === null || isHarmless(thrown)) return thrown
  if (seen.has(thrown)) return undefined
  seen.add(thrown)
  if (!(thrown instanceof Error)) return new Error(redact(shown(thrown) ?? 'an object that cannot be shown'))
  const copy = new Error(redact(String(thrown.message)))
  const { name, stack, cause } = thrown
  Object.defineProperties(copy, {
    name: { value: redact(String(name)), configurable: true, writable: true },
    stack: { value: redact(String(stack)), configurable: true, writable: true },
    ...(cause !== undefined && {
      cause: { value: cleaned(cause, seen), configurable: true, writable: true },
    }),
  })
  for (const key of Object.getOwnPropertyNames(thrown)) {
    if (Object.hasOwn(copy, key)) continue
    const value: unknown = (thrown as unknown as Record<string, unknown>)[key]
    const kept = Array.isArray(value)
      ? value.map((each) => cleaned(each, seen))
      : typeof value === 'object'
        ? undefined
        : cleaned(value, seen)
    if (kept !== undefined && typeof kept !== 'function')
      Object.defineProperty(copy, key, { value: kept, enumerable: true })
  }
  return copy
}

function isHarmless(thrown: object): boolean {
  const text = shown(thrown)
  return text !== undefined && redact(text) === text
}

/** All that somebody could print of it, and more; `undefined` when it resists. */
function shown(thrown: object): string | undefined {
  const everything = { depth: 5, showHidden: true, maxArrayLength: null, maxStringLength: null }
  try {
    return inspect(thrown, { ...everything, breakLength: Number.POSITIVE_INFINITY })
  } catch {
    return undefined
  }
}
