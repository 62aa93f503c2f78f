import { expect, test } from 'vitest'
import { temporaryDirectory } from '../support/temp-dir.ts'
import { Cli, runCli } from './support.ts'

test.each(['SIGINT', 'SIGTERM'] as const)(
  'the tracker prints its URL when it answers, and %s ends it well',
  async (signal) => {
    await using temp = await temporaryDirectory()
    await using cli = new Cli(['tracker', '--port', '0', '--data', temp.path])
    await cli.until(() => cli.lines.length > 0, 'a URL')
    expect(cli.stderr).toContain('Only this machine can reach it; use --host 0.0.0.0')
    expect(cli.lines).toEqual([expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/)])
    const response = await fetch(`${cli.lines[0]}/health`)
    expect([response.status, await response.text()]).toEqual([200, 'OK'])
    cli.kill(signal)
    expect(await cli.ended()).toBe(0)
  },
)

test('with --json the URL comes in an event', async () => {
  await using temp = await temporaryDirectory()
  await using cli = new Cli(['tracker', '--port', '0', '--json'], { home: temp.path })
  const { url } = await cli.event('listening')
  expect((await fetch(`${url as string}/health`)).status).toBe(200)
  expect(cli.stderr).toBe('')
})

test('a port that is taken is wrong use', async () => {
  await using temp = await temporaryDirectory()
  await using first = new Cli(['tracker', '--port', '0', '--data', `${temp.path}/a`, '--json'])
  const { port } = new URL((await first.event('listening'))['url'] as string)
  const second = await runCli(['tracker', '--port', port, '--data', `${temp.path}/b`])
  expect(second.exitCode).toBe(2)
  expect(second.stderr).toContain(port)
})
