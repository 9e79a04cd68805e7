import { Command, CommanderError } from 'commander';
import { MountError } from '../client/fuse/mount-point.js';
import { benchCommand } from './bench.js';
import { chunkserverCommand } from './chunkserver.js';
import { fsckCommand } from './fsck.js';
import { metaserverCommand } from './metaserver.js';
import { mountCommand } from './mount.js';
import { CliError, EXIT_FAILED, EXIT_USAGE, oneLine, printLine } from './output.js';
import { pgCommand } from './pg.js';
import { quotaCommand } from './quota.js';
import { scrubCommand } from './scrub.js';
import { snapshotCommand } from './snapshot.js';
import { startCommand, stopCommand } from './start-stop.js';
import { statusCommand } from './status.js';
import { traceCommand } from './trace.js';
import { umountCommand } from './umount.js';
import { upCommand } from './up.js';
import { VERSION } from './version.js';

// A command loads what it runs when it runs: `--help` of one must not wait for the parts of all.
function buildProgram(): Command {
  const program = new Command('holdfast')
    .description('A network file system that survives the loss of machines and disks')
    .version(VERSION)
    // What stands behind a command is the command's: `chunkserver` and its subcommands have options of the same names.
    .enablePositionalOptions()
    .addCommand(upCommand())
    .addCommand(statusCommand())
    .addCommand(fsckCommand())
    .addCommand(scrubCommand())
    .addCommand(snapshotCommand())
    .addCommand(pgCommand())
    .addCommand(quotaCommand())
    .addCommand(mountCommand())
    .addCommand(umountCommand())
    .addCommand(startCommand())
    .addCommand(stopCommand())
    .addCommand(metaserverCommand())
    .addCommand(chunkserverCommand())
    .addCommand(benchCommand())
    .addCommand(traceCommand());
  for (const command of withSubcommands(program)) {
    command.exitOverride();
    // One line for a person; commander's own prefix and usage dump add nothing.
    command.configureOutput({ writeErr: () => {} });
    command.showHelpAfterError(false);
  }
  return program;
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

/** The words of `args` that name a command which exists, behind the program's own. */
function commandNamed(args: readonly string[]): string[] {
  const words = ['holdfast'];
  let command: Command | undefined = buildProgram();
  for (const word of args) {
    command = command.commands.find((one) => one.name() === word);
    if (!command) break;
    words.push(word);
  }
  return words;
}

function reportAndExitCode(error: unknown, args: string[]): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0; // --help, --version
  if (error instanceof CommanderError && error.code === 'commander.help') {
    process.stderr.write(buildProgram().helpInformation());
    return EXIT_USAGE;
  }
  const { text, exitCode } = explain(error, args);
  process.stderr.write(`holdfast: ${text}\n`);
  if (asksForJson(args)) {
    const fields = error instanceof CliError ? error.fields : {};
    printLine(JSON.stringify({ error: text, exitCode, ...fields }));
  }
  const known = error instanceof CliError || error instanceof CommanderError || error instanceof MountError;
  if (!known && process.env.HOLDFAST_DEBUG && error instanceof Error)
    process.stderr.write(`${error.stack}\n`);
  return exitCode;
}

function explain(error: unknown, args: string[]): { text: string; exitCode: number } {
  const text = oneLine(error);
  if (error instanceof CommanderError) {
    const help = `${commandNamed(args).join(' ')} --help`;
    return { text: `${text.replace(/^error: /, '')} (see '${help}')`, exitCode: EXIT_USAGE };
  }
  if (error instanceof CliError) return { text, exitCode: error.exitCode };
  return { text, exitCode: error instanceof MountError ? EXIT_USAGE : EXIT_FAILED };
}

/** Who reads JSON is told in JSON why there is nothing else. */
function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return args.slice(0, end < 0 ? undefined : end).includes('--json');
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  // A reader that has gone (`| head`, a terminal that was closed) ends no command: what is done is done in order.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  try {
    await buildProgram().parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = reportAndExitCode(error, args);
  }
  // What is still open (a parked read of /dev/fuse, a socket that closes) must not keep an ended command alive.
  const code = process.exitCode ?? 0;
  process.stdout.write('', () => process.exit(code));
}

void main();
