/** The command line: which commands and options there are. What they do is loaded only when it is asked for. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { parsePeerAddress } from '../config.ts'
import { ConfigError } from '../errors.ts'
import { beVerbose, messageOf } from '../log.ts'
import { redact } from '../redact.ts'
import { repoTypes } from '../values.ts'
import { packageVersion } from '../version.ts'
import { type CommandContext, exitCodes, runCommand } from './command.ts'
import {
  parseDuration,
  parseHttpUrl,
  parseListen,
  parsePieceLength,
  parsePort,
  parseRate,
  parseRepoAtRevision,
  parseTrackerUrl,
  parseWorkers,
} from './parse.ts'

/** Runs one command line, without `node` and the script. @returns The exit code. */
export async function main(args: readonly string[]): Promise<number> {
  let exitCode: number = exitCodes.ok
  const program = makeProgram((code) => {
    exitCode = code
  })
  try {
    await program.parseAsync(args, { from: 'user' })
    return exitCode
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return exitCodes.ok // --help and --version
    if (args.includes('--json')) {
      const message = redact(error.message.replace(/^error: /, ''))
      process.stdout.write(`${JSON.stringify({ event: 'error', code: 'ERR_LLMPT_CONFIG', message })}\n`)
    }
    return exitCodes.wrongUse
  }
}

type Done = (exitCode: number) => void

function makeProgram(done: Done): Command {
  const program = new Command('llmpt')
    .description('Hugging Face Hub downloads from a BitTorrent swarm, over HTTP, or from both at once.')
    .version(packageVersion, '-V, --version', 'print the version')
    .option('--debug', 'say on stderr what happens, in detail (HF_P2P_VERBOSE); with any command')
    .on('option:debug', beVerbose)
    // What somebody mistyped may be a token.
    .configureOutput({ outputError: (text, write) => write(redact(text)) })
    .exitOverride()
    .showHelpAfterError('Try --help.')
    .configureHelp({ showGlobalOptions: false })
    .addHelpText('after', examples('llmpt download org/model', 'llmpt doctor'))
  addDownload(program, done)
  addSeed(program, done)
  addVerify(program, done)
  addTracker(program, done)
  addTorrent(program, done)
  addDoctor(program, done)
  return program
}

function addDownload(program: Command, done: Done): void {
  const command = program
    .command('download')
    .description('Download a repository, or some of its files, into the Hub cache. Prints where it is.')
    .argument('<repo>', 'org/name on the Hub')
    .argument('[path...]', 'files to download, besides those that match --include; all by default')
    .addOption(repoTypeOption())
    .option('--revision <revision>', 'branch, tag, refs/pr/N or commit', 'main')
    .option('--include <glob>', 'files that match; can be repeated', collect(asIs))
    .option('--exclude <glob>', 'not the files that match; can be repeated', collect(asIs))
    .option('--cache-dir <dir>', 'the Hub cache (HF_HUB_CACHE)')
    .option('--local-dir <dir>', 'put the files here instead of into the cache')
    .addOption(trackerOption())
    .option('--endpoint <url>', 'the Hub (HF_ENDPOINT)', use(parseHttpUrl))
    .addOption(mirrorOption())
    .option('--token <token>', 'for private repositories; HF_TOKEN does not show in process lists')
    .option('--no-p2p', 'HTTP only')
    .option('--no-http', 'peers only')
    .option('--force-download', 'fetch also what is there already')
    .option('--local-files-only', 'take what is there already, and ask nobody')
    .option('--dry-run', 'show what would be downloaded, and download nothing')
    .option('--max-workers <n>', 'files at a time (8)', use(parseWorkers))
    .option(
      '--seed-for <duration>',
      'then give it to others for so long: 90s, 10m, 2h, 1d, forever; a bare number is seconds',
      use(parseDuration),
    )
    .option('--no-seed', 'do not give it to others (the default)')
    .addOption(listenOption())
    .addOption(peerOption())
    .option('--max-download <rate>', 'bytes per second: 500k, 10MB, 2.5MiB/s; 0 is no limit', use(parseRate))
    .option('--max-upload <rate>', 'bytes per second; 0 is no limit', use(parseRate))
    .addOption(jsonOption())
    .option('--quiet', 'errors only')
  const texts = [
    'llmpt download org/model',
    'llmpt download org/model config.json',
    'llmpt download org/model --include "*.safetensors" --seed-for 2h',
    'llmpt download org/model --dry-run',
  ]
  finish(command, texts, done, async ({ args, options }, context) => {
    const [repo, paths] = args as [string, string[]]
    if (options['seedFor'] !== undefined && options['seed'] === false) {
      throw new ConfigError('--seed-for and --no-seed contradict each other')
    }
    const { download } = await import('./commands/download.ts')
    return await download({ repo, paths, ...options } as unknown as Parameters<typeof download>[0], context)
  })
}

function addSeed(program: Command, done: Done): void {
  const command = program
    .command('seed')
    .description(
      'Give what is in the Hub cache to others, until Ctrl-C. Only what everybody may see is given.',
    )
    .argument('[repo@revision]', 'org/name; every cached revision by default', use(parseRepoAtRevision))
    .option('--all', 'everything in the cache')
    .addOption(repoTypeOption())
    .option('--cache-dir <dir>', 'the Hub cache (HF_HUB_CACHE)')
    .addOption(trackerOption())
    .option('--endpoint <url>', 'the Hub (HF_ENDPOINT)', use(parseHttpUrl))
    .addOption(listenOption())
    .option(
      '--for <duration>',
      'stop after so long: 90s, 10m, 2h, 1d, forever; a bare number is seconds',
      use(parseDuration),
    )
    .option('--max-upload <rate>', 'bytes per second: 500k, 10MB, 2.5MiB/s; 0 is no limit', use(parseRate))
    .addOption(jsonOption())
  finish(
    command,
    ['llmpt seed org/model', 'llmpt seed --all --for 8h'],
    done,
    async ({ args, options }, context) => {
      const [target] = args as [{ repo: string; revision: string | undefined } | undefined]
      if ((target === undefined) === (options['all'] === undefined)) {
        throw new ConfigError('name one repository, or use --all')
      }
      const { seed } = await import('./commands/seed.ts')
      return await seed({ target, ...options } as unknown as Parameters<typeof seed>[0], context)
    },
  )
}

function addVerify(program: Command, done: Done): void {
  const command = program
    .command('verify')
    .description(
      'Compare the files of the Hub cache with their digests. What is wrong is moved away, so that no client gets it. ' +
        'Ends with 0 when all is right, else with 1, and prints the paths of what is wrong or missing.',
    )
    .argument('[repo]', 'org/name; everything in the cache by default')
    .option(
      '--repair',
      'fetch what is wrong or missing again: only the pieces that are wrong, if a torrent is known',
    )
    .addOption(repoTypeOption())
    .option('--cache-dir <dir>', 'the Hub cache (HF_HUB_CACHE)')
    .addOption(trackerOption())
    .option('--endpoint <url>', 'the Hub (HF_ENDPOINT)', use(parseHttpUrl))
    .addOption(mirrorOption())
    .option('--token <token>', 'for private repositories; HF_TOKEN does not show in process lists')
    .option('--no-p2p', 'HTTP only')
    .addOption(jsonOption())
    .option('--quiet', 'errors only')
  const texts = ['llmpt verify', 'llmpt verify org/model --repair', 'llmpt verify --json']
  finish(command, texts, done, async ({ args, options }, context) => {
    if (args[0] === undefined && command.getOptionValueSource('repoType') === 'cli') {
      throw new ConfigError('--repo-type is about the repository that is named: name one, or leave it out')
    }
    const { verify } = await import('./commands/verify.ts')
    return await verify({ repo: args[0], ...options } as unknown as Parameters<typeof verify>[0], context)
  })
}

function addTracker(program: Command, done: Done): void {
  const command = program
    .command('tracker')
    .description('Run a tracker, until Ctrl-C. Prints its URL when it accepts requests.')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 picks one', use(parsePort), 6969)
    .option('--data <dir>', 'where it keeps its database ($HF_HOME/llmpt/tracker)')
    .option('--public-url <url>', 'how it is called from outside', use(parseHttpUrl))
    .option('--trust-proxy', 'all requests come through a proxy that sets X-Forwarded-For')
    .addOption(jsonOption())
  const texts = ['llmpt tracker', 'llmpt tracker --host 0.0.0.0 --port 8080 --data ./tracker']
  finish(command, texts, done, async ({ options }, context) => {
    const { tracker } = await import('./commands/tracker.ts')
    return await tracker(options as unknown as Parameters<typeof tracker>[0], context)
  })
}

function addTorrent(program: Command, done: Done): void {
  const torrent = program
    .command('torrent')
    .description('Make, fetch and seed plain torrents, without the Hub.')
  const create = torrent
    .command('create')
    .description(
      'Make a torrent of a file. The same content under the same name gives the same info hash everywhere.',
    )
    .argument('<file>')
    .option('--out <file>', 'where to write it (<name>.torrent in this folder)')
    .addOption(
      new Option('--format <format>', 'v1 clients understand hybrid and v1 only')
        .choices(['v2', 'hybrid', 'v1'])
        .default('v2'),
    )
    .addOption(
      new Option('--piece-length <bytes>', 'auto, or a power of two such as 1MiB')
        .argParser(use(parsePieceLength))
        .default(undefined, 'auto'),
    )
    .option('--tracker <url>', 'announce URL; can be repeated', collect(parseTrackerUrl))
    .addOption(jsonOption())
  finish(
    create,
    ['llmpt torrent create model.gguf --tracker https://tracker.example/announce'],
    done,
    async ({ args, options }, context) => {
      const { torrentCreate } = await import('./commands/torrent-create.ts')
      return await torrentCreate(
        { file: args[0], ...options } as unknown as Parameters<typeof torrentCreate>[0],
        context,
      )
    },
  )
  const get = torrent
    .command('get')
    .description('Fetch what a torrent describes. It has its name only when every piece is there and right.')
    .argument('<torrent-file|magnet>')
    .requiredOption('--out <dir>', 'where to put it')
    .option('--gate', 'print RIG READY when set up, and start at the first line on stdin')
    .addOption(listenOption())
    .addOption(peerOption())
    .option(
      '--url <url>',
      'complete URL of the file, for HTTP beside the swarm; can be repeated',
      collect(parseHttpUrl),
    )
    .option('--seed', 'print "done" when complete, then give it to others until Ctrl-C')
    .addOption(jsonOption())
  finish(
    get,
    ['llmpt torrent get model.torrent --out .', 'llmpt torrent get "magnet:?xt=..." --out . --seed'],
    done,
    async ({ args, options }, context) => {
      const { torrentGet } = await import('./commands/torrent-get.ts')
      return await torrentGet(
        { source: args[0], ...options } as unknown as Parameters<typeof torrentGet>[0],
        context,
      )
    },
  )
  const seed = torrent
    .command('seed')
    .description('Give a file to others, until Ctrl-C. It is compared with the torrent first.')
    .argument('<file>')
    .requiredOption('--torrent <file>', 'the torrent of the file')
    .addOption(listenOption())
    .addOption(jsonOption())
  finish(
    seed,
    ['llmpt torrent seed model.gguf --torrent model.gguf.torrent'],
    done,
    async ({ args, options }, context) => {
      const { torrentSeed } = await import('./commands/torrent-seed.ts')
      return await torrentSeed(
        { file: args[0], ...options } as unknown as Parameters<typeof torrentSeed>[0],
        context,
      )
    },
  )
}

function addDoctor(program: Command, done: Done): void {
  const command = program
    .command('doctor')
    .description('Show what works on this machine, and what to do about what does not.')
    .option('--cache-dir <dir>', 'the Hub cache (HF_HUB_CACHE)')
    .addOption(trackerOption())
    .option('--endpoint <url>', 'the Hub (HF_ENDPOINT)', use(parseHttpUrl))
    .addOption(listenOption())
    .addOption(jsonOption())
  finish(command, ['llmpt doctor'], done, async ({ options }, context) => {
    const { doctor } = await import('./commands/doctor.ts')
    return await doctor(options as unknown as Parameters<typeof doctor>[0], context)
  })
}

interface Parsed {
  readonly args: readonly unknown[]
  readonly options: Readonly<Record<string, unknown>>
}

function finish(
  command: Command,
  texts: readonly string[],
  done: Done,
  work: (parsed: Parsed, context: CommandContext) => Promise<void> | Promise<number>,
): void {
  command.addHelpText('after', examples(...texts)).action(async (...all: unknown[]) => {
    const args = all.slice(0, -2)
    const options = command.opts<Record<string, unknown> & { json?: boolean; quiet?: boolean }>()
    done(await runCommand(options, (context) => work({ args, options }, context)))
  })
}

function examples(...texts: readonly string[]): string {
  return `\nExample${texts.length === 1 ? '' : 's'}:\n${texts.map((text) => `  $ ${text}`).join('\n')}`
}

function repoTypeOption(): Option {
  return new Option('--repo-type <type>', 'what kind of repository it is').choices(repoTypes).default('model')
}

function trackerOption(): Option {
  return new Option('--tracker <url>', 'who knows the peers; can be repeated (HF_P2P_TRACKER)').argParser(
    collect(parseHttpUrl),
  )
}

function mirrorOption(): Option {
  const meaning = 'who is asked while the Hub is out of order; can be repeated (HF_P2P_MIRRORS)'
  return new Option('--mirror <url>', meaning).argParser(collect(parseHttpUrl))
}

function listenOption(): Option {
  return new Option('--listen <host:port>', 'where peers can connect; port 0 picks one').argParser(
    use(parseListen),
  )
}

function peerOption(): Option {
  return new Option('--peer <host:port>', 'a peer to connect to; can be repeated').argParser(
    collect(parsePeerAddress),
  )
}

function jsonOption(): Option {
  return new Option('--json', 'one JSON object per line on stdout')
}

const asIs = (text: string): string => text

/** A value parser whose complaint names the option. */
function use<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text)
    } catch (error) {
      throw new InvalidArgumentError(messageOf(error))
    }
  }
}

/** The same for an option that can be repeated. */
function collect<T>(
  parse: (text: string) => T,
): (text: string, previous: readonly T[] | undefined) => readonly T[] {
  return (text, previous) => [...(previous ?? []), use(parse)(text)]
}
