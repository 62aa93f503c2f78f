import { expect, test } from 'vitest'
import { packageVersion } from '../../src/version.ts'
import { runCli } from './support.ts'

test('--version prints the version of the package', async () => {
  const { exitCode, stdout } = await runCli(['--version'])
  expect([exitCode, stdout]).toEqual([0, `${packageVersion}\n`])
})

test('the command alone shows what there is, and is wrong use', async () => {
  const { exitCode, stdout, stderr } = await runCli([])
  expect([exitCode, stdout]).toEqual([2, ''])
  for (const name of ['download', 'seed', 'verify', 'tracker', 'torrent', 'doctor'])
    expect(stderr).toContain(name)
})

test.each([
  ['download'],
  ['seed'],
  ['verify'],
  ['tracker'],
  ['torrent create'],
  ['torrent get'],
  ['torrent seed'],
  ['doctor'],
])('%s --help explains itself with an example, without the addon', async (name) => {
  const env = { LLMPT_NATIVE_ADDON: '/nonexistent.node' }
  const { exitCode, stdout, stderr } = await runCli([...name.split(' '), '--help'], { env })
  expect([exitCode, stderr]).toEqual([0, ''])
  expect(stdout).toContain(`$ llmpt ${name}`)
})

test.each([
  ['download', 'missing', 'repo'],
  ['download org/name --bogus', '--bogus', '--bogus'],
  ['download org/name --seed-for soon', '--seed-for', 'soon'],
  ['download org/name --max-upload fast', '--max-upload', 'fast'],
  ['download org/name --listen nowhere', '--listen', 'nowhere'],
  ['download org/name --peer somebody', '--peer', 'somebody'],
  ['download org/name --tracker ftp://tracker.example', '--tracker', 'ftp'],
  ['download org/name --repo-type kernel', '--repo-type', 'kernel'],
  ['download org/name --seed-for 1h --no-seed', '--no-seed', '--seed-for'],
  ['download org/name --no-http', '--no-http', '--tracker'],
  ['download org/name --max-workers 0', '--max-workers', '1 to 256'],
  ['download org/name --max-workers many', '--max-workers', 'many'],
  ['download org/name config.json --max-workers 4', '--max-workers', 'config.json'],
  ['download org/name --force-download --local-files-only', '--force-download', '--local-files-only'],
  ['download org/name --dry-run --local-files-only', '--dry-run', '--local-files-only'],
  ['download org/name --dry-run --seed-for 1h', '--dry-run', '--seed-for'],
  ['download org/name --local-files-only --seed-for 1h', '--local-files-only', 'llmpt seed'],
  ['download org/name/more', 'org/name/more', 'org/name'],
  ['download org/model@v1', 'org/model --revision v1'],
  ['download datasets/org/x', 'org/x --repo-type dataset'],
  ['download https://huggingface.co/org/x/tree/main', 'did you mean org/x?'],
  ['download https://huggingface.co/datasets/org/x', 'org/x --repo-type dataset'],
  ['download org/name ../x', '"../x" is not a path inside a repository'],
  ['download org/name sub/', "--include 'sub/*'"],
  ['seed', 'repository', '--all'],
  ['seed org/name --all', 'repository', '--all'],
  ['verify --repo-type dataset', '--repo-type', 'name one'],
  ['seed org/name', '--tracker', 'HF_P2P_TRACKER'],
  ['tracker --port 99999', '--port', '99999'],
  ['torrent create file --piece-length 1000', '--piece-length', '1000'],
  ['torrent create file --format v3', '--format', 'v3'],
  ['torrent get file.torrent', '--out', 'required'],
  ['torrent seed file', '--torrent', 'required'],
  ['frobnicate', 'frobnicate', 'unknown'],
])('"%s" is wrong use: exit code 2, and a message that names what is wrong', async (line, ...words) => {
  const { exitCode, stdout, stderr } = await runCli(line.split(' '))
  expect([exitCode, stdout]).toEqual([2, ''])
  for (const word of words) expect(stderr).toContain(word)
})

test.each([['download org/name --seed-for soon'], ['download org/name --no-http']])(
  'with --json, "%s" is an event too',
  async (line) => {
    const cli = await runCli([...line.split(' '), '--json'])
    expect(cli.exitCode).toBe(2)
    expect(cli.events()).toEqual([{ event: 'error', code: 'ERR_LLMPT_CONFIG', message: expect.any(String) }])
  },
)

test('a variable that makes no sense is wrong use', async () => {
  const { exitCode, stderr } = await runCli(['download', 'org/name'], { env: { HF_P2P_PORT: 'many' } })
  expect(exitCode).toBe(2)
  expect(stderr).toContain('HF_P2P_PORT="many"')
})

test.each([['--force-download'], ['--dry-run']])('%s offline is wrong use', async (option) => {
  const { exitCode, stderr } = await runCli(['download', 'org/name', option], {
    env: { HF_HUB_OFFLINE: '1' },
  })
  expect(exitCode).toBe(2)
  expect(stderr).toContain(`${option} needs the network, and HF_HUB_OFFLINE is set`)
})
