import { resolve } from 'node:path';
import { Command } from 'commander';
import { DEFAULT_DATA_DIR } from './cluster-options.js';
import { type ControlRequest, sendControl } from './control.js';
import { CliError, printJson, printLine } from './output.js';

interface StartStopFlags {
  data: string;
  kill?: boolean;
  json?: boolean;
}

/** `holdfast start NAME`: starts one server of a running `up`. */
export function startCommand(): Command {
  return new Command('start')
    .description('start one server of a running `holdfast up`')
    .argument('<name>', 'metaserver-1, chunkserver-2, .. or mount')
    .option('--data <dir>', 'data directory of the cluster', DEFAULT_DATA_DIR)
    .option('--json', 'print one JSON object')
    .action((name: string, flags: StartStopFlags) => send({ command: 'start', name }, flags));
}

/** `holdfast stop NAME`: stops one server of a running `up`; it stays stopped until it is started again. */
export function stopCommand(): Command {
  return new Command('stop')
    .description('stop one server of a running `holdfast up`; it stays down until `holdfast start`')
    .argument('<name>', 'metaserver-1, chunkserver-2, .. or mount')
    .option('--data <dir>', 'data directory of the cluster', DEFAULT_DATA_DIR)
    .option('--kill', 'kill it at once (SIGKILL), as a crash would')
    .option('--json', 'print one JSON object')
    .action((name: string, flags: StartStopFlags) =>
      send({ command: 'stop', name, kill: flags.kill ?? false }, flags),
    );
}

async function send(request: ControlRequest, flags: StartStopFlags): Promise<void> {
  const data = resolve(flags.data);
  const reply = await sendControl(data, request).catch(() => {
    throw new CliError(
      `no \`holdfast up\` is running on ${data}: start it, or name its data directory with --data`,
    );
  });
  if (!reply.ok) throw new CliError(`cannot ${request.command} ${request.name}: ${reply.error}`);
  const done = request.command === 'start' ? 'started' : 'stopped';
  if (flags.json) printJson({ [done]: request.name });
  else printLine(`${done}: ${request.name}`);
}
