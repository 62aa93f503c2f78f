/** What is not shown, in whatever it turns up. */
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { getConfig } from '../src/config.ts'
import { ConfigError, HubError, LlmptError, TrackerError } from '../src/errors.ts'
import { divertLog, log, messageOf } from '../src/log.ts'
import { Parts } from '../src/parts.ts'
import { keepSecret, redact, withoutSecrets } from '../src/redact.ts'

const realToken = `hf_${'AbCdEfGhIjKlMnOpQrStUvWxYz01234567'}`
/** Of a Hub that is not Hugging Face's. */
const oddToken = 'S3cr3t/with+odd"chars\\and=more'
keepSecret(oddToken)

test.each([
  // The text, what must not be left of it, what must.
  [`token ${realToken}.`, [realToken], 'token hf_***'],
  ['hf_oauth_eyJhbGciOi.eyJzdWIi.sig-nature', ['eyJ', 'sig-nature'], 'hf_***'],
  [`key_${realToken}`, [realToken], 'key_'],
  [`in a path /x/${realToken}/y`, [realToken], '/y'],
  [`${realToken}${realToken}`, [realToken.slice(3)], 'hf_***'],
  [`token=${realToken}&x=1`, [realToken], '&x=1'],
  [`plain ${oddToken}!`, ['S3cr3t', 'more'], 'plain ***!'],
  [`?x=${encodeURIComponent(oddToken)}`, ['S3cr3t'], '?x='],
  [JSON.stringify({ message: oddToken }), ['S3cr3t'], '"message"'],
  ['authorization: Bearer abc', ['abc'], 'authorization'],
  ['Authorization:Basic dXNlcjpwYXNz', ['dXNlcjpwYXNz'], 'Authorization'],
  ['{"authorization":"Bearer abc","x":1}', ['abc'], '"x":1'],
  ["[ 'authorization', 'Bearer abc' ]", ['abc'], 'authorization'],
  ["headers: { authorization: 'abc' }", ['abc'], 'headers'],
  ['proxy-authorization: Digest abc', ['abc'], 'proxy'],
  ['AUTHORIZATION=Token abc', ['abc'], 'AUTHORIZATION'],
  ['sent BEARER   abcdefgh', ['abcdefgh'], 'sent'],
  ['cookie: token=abc; session=def\nnext line', ['abc', 'def'], 'next line'],
  ['set-cookie: token=abc', ['abc'], 'set-cookie'],
  [
    'https://cdn.example/repos/x?Expires=1&Signature=abc&Key-Pair-Id=K',
    ['abc', '=K'],
    'https://cdn.example/repos/x',
  ],
  ['HTTPS://CDN.example/x?sig=abc', ['abc'], 'CDN'],
  ['(https://cdn.example/x?X-Amz-Signature=abc) and more', ['abc'], 'and more'],
  ['path: /x?X-Amz-Credential=AKIA%2Fus&X-Amz-Signature=abc', ['AKIA', 'abc'], '/x?'],
  ['GET /x?X-Goog-Signature=abc HTTP/1.1', ['abc'], 'HTTP/1.1'],
  ['redirect%3Fsig%3Dabc', ['Dabc'], 'redirect'],
  ['https://name:pass@host.example/x', ['name', 'pass'], 'host.example/x'],
  [`https://${realToken}@host.example/x`, [realToken], 'host.example'],
  ['https://name:pa/ss@host.example/x', ['pa/', 'ss@'], 'host.example/x'],
  ['https://name:p@ss@host.example/x', ['p@ss', 'ss@'], 'host.example'],
  ['{"accessToken":"abc","exp":1}', ['abc'], '"exp":1'],
  ["{ access_token: 'abc' }", ['abc'], 'access_token'],
  ['HF_TOKEN=abc node app.mjs', ['abc'], 'node app.mjs'],
])('of %j nothing secret is left', (text, secrets, kept) => {
  const clean = redact(text)
  for (const secret of secrets) expect(clean).not.toContain(secret)
  expect(clean).toContain(kept)
  expect(redact(clean)).toBe(clean)
})

test.each([
  'the cache /data/hf_cache/hub cannot be written to: EACCES',
  'C:\\Users\\me\\hf_home is full',
  'hf_quant_config.json of acme/hf_internal_testing_tiny is missing',
  'hf_internal_testing_of_something_with_a_long_name.safetensors',
  'hf_oauth_expiration_minutes: 480',
  'set HF_TOKEN to a token of that account',
  'Invalid credentials in Authorization header',
  'see https://huggingface.co/acme/tiny: is it a Hub?',
  'http://127.0.0.1:1234/@scope/x and http://[::1]:80/@scope/x',
  'http://127.0.0.1:1234: connection refused (ECONNREFUSED)',
  'file:///app/node_modules/@huggingface/hub/dist/index.js:3:4',
  'the etag "5d97f8ad" of @scope/name is not right',
  'HF_ENDPOINT="x" is not an http:// or https:// URL',
])('%j is shown as it is', (text) => {
  expect(redact(text)).toBe(text)
})

test('a JSON document stays one', () => {
  const document = {
    authorization: `Bearer ${realToken}`,
    url: 'https://x.example/?sig=abc',
    n: [1, oddToken],
  }
  expect(JSON.parse(redact(JSON.stringify(document)))).toEqual({
    authorization: '***',
    url: 'https://x.example/?***',
    n: [1, '***'],
  })
})

test.each([
  ['scheme', '//'.repeat(50_000)],
  ['addresses', 'https://a'.repeat(3_000)],
  ['addresses with @', 'https://a@'.repeat(3_000)],
  ['authorization', 'authorization: '.repeat(10_000)],
  ['spaces', `authorization${' '.repeat(100_000)}`],
  ['bearer', `bearer${' '.repeat(100_000)}`],
  ['passwords', '//a:b'.repeat(20_000)],
  ['hf_', 'hf_'.repeat(50_000)],
  ['sig=', 'sig='.repeat(50_000)],
])('a hostile text of many %s takes no time', (_, text) => {
  const startedMs = performance.now()
  redact(text)
  expect(performance.now() - startedMs).toBeLessThan(2_000)
})

// Errors

function hostileCauses(): [string, unknown][] {
  const url = 'https://cdn.example/x?Signature=sigsig'
  const withProperties = Object.assign(new Error('fetch failed'), {
    code: 'ECONNRESET',
    url,
    headers: { authorization: `Bearer ${realToken}` },
    request: ['authorization', `Bearer ${realToken}`],
  })
  const deep = new Error('outer', { cause: new TypeError('inner', { cause: new Error(`x ${oddToken}`) }) })
  const many = new AggregateError([new Error(`one ${realToken}`), new Error('two')], 'all failed')
  const circular = new Error(`round and round ${realToken}`)
  circular.cause = circular
  const changed = new Error('made with another message')
  changed.message = oddToken
  const named = Object.assign(new Error('x'), { name: `Error of ${realToken}` })
  const resisting = Object.assign(new Error(realToken), {
    [inspect.custom]() {
      throw new Error('no')
    },
  })
  return [
    ['a message', new Error(`no ${realToken}`)],
    ['properties', withProperties],
    ['a chain of causes', deep],
    ['several errors', many],
    ['a circle', circular],
    ['a message that was changed', changed],
    ['a name', named],
    ['something that cannot be shown', resisting],
    ['a text', `thrown ${realToken}`],
    ['an object', { status: 500, token: oddToken, url }],
    ['a hidden property', Object.defineProperty(new Error('x'), 'secret', { value: realToken })],
  ]
}

/** Everything somebody could print of it. */
function allOf(error: unknown): string {
  const shown = [inspect(error, { depth: 20, showHidden: true }), String(error), JSON.stringify(error)]
  for (let at = error; at instanceof Error && shown.length < 50; at = at.cause) {
    shown.push(String(at.message), String(at.stack), JSON.stringify(Object.entries(at)))
  }
  return shown.join('\n')
}

test.each(hostileCauses())('an error of ours that is caused by %s with a secret shows none', (_, cause) => {
  const error = new LlmptError('ERR_LLMPT_HUB', 'the Hub cannot be asked', { cause })
  const text = allOf(error)
  for (const secret of [realToken, oddToken, JSON.stringify(oddToken).slice(1, -1), 'sigsig'])
    expect(text).not.toContain(secret)
  expect(error.cause).toBeDefined()
})

test('what tells causes apart stays: name, code, and the errors they hold', () => {
  const reset = Object.assign(new Error(`reset ${realToken}`), { name: 'SocketError', code: 'ECONNRESET' })
  const error = new LlmptError('ERR_LLMPT_HUB', 'x', { cause: new AggregateError([reset], 'all failed') })
  expect(error.cause).toMatchObject({
    name: 'AggregateError',
    errors: [{ name: 'SocketError', code: 'ECONNRESET', message: 'reset hf_***' }],
  })
})

test('a cause that shows nothing is the very same object', () => {
  const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED', port: 1 })
  expect(new LlmptError('ERR_LLMPT_HUB', 'x', { cause }).cause).toBe(cause)
  expect(withoutSecrets(cause)).toBe(cause)
  expect('cause' in new ConfigError('x')).toBe(false)
})

test('messages, stacks and addresses of our errors show no secret', () => {
  const url = `https://name:${realToken}@hub.example/x?sig=sigsig`
  const errors = [
    new HubError(`no answer from ${url}`, { url, status: 500, hubCode: 'X' }),
    new TrackerError(`no ${oddToken}`, url),
    new ConfigError(`"${url}" is not right`),
  ]
  for (const error of errors) {
    const text = allOf(error)
    for (const secret of [realToken, oddToken, 'sigsig']) expect(text).not.toContain(secret)
  }
})

test('log lines and messages of errors show no secret, wherever the log goes', () => {
  const said: string[] = []
  const restore = divertLog((_level, message) => said.push(message))
  try {
    for (const level of ['debug', 'info', 'warn'] as const) log[level](`${level} ${realToken} ${oddToken}`)
    log.warnOnce('redact', `once ${realToken}`)
  } finally {
    restore()
  }
  expect(said).toEqual(['debug hf_*** ***', 'info hf_*** ***', 'warn hf_*** ***', 'once hf_***'])
  expect(messageOf(new Error(`x ${realToken}`))).toBe('x hf_***')
})

test('the tokens of many do not make it slower and slower: the latest are known', () => {
  for (let i = 0; i < 1_000; i++) keepSecret(`someone-elses-token-${i}-end`)
  expect(redact('someone-elses-token-999-end')).toBe('***')
  keepSecret(oddToken)
  expect(redact(oddToken)).toBe('***')
})

test('a token that is used again and again stays known, however many others come between', async () => {
  const token = 'the-token-of-a-regular'
  const parts = new Parts(getConfig({ token }))
  for (let i = 0; i < 200; i++) {
    parts.access('https://hub.example', token)
    keepSecret(`a-strangers-token-${i}-end`)
    expect(redact(token)).toBe('***')
  }
  await parts.close()
})

test('what is too short to guard anything is not hidden from every word', () => {
  keepSecret('the')
  expect(redact('the end')).toBe('the end')
})
