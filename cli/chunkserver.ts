import { resolve } from 'node:path';
import { Command } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../common/logger.js';
import { addCommand, drainCommand, removeCommand } from './chunkserver-manage.js';
import { SERVERS_MAX } from './cluster-file.js';
import {
  addClusterOptions,
  type ClusterSelection,
  DEFAULT_RECOVERY_MBPS,
  parseAddress,
  parseChoice,
  parseInteger,
  recoveryOption,
  selectCluster,
} from './cluster-options.js';
import { CliError } from './output.js';
import { processDeps, serveUntilStopped, startError } from './serve.js';
import { startTracing, traceOption } from './tracing.js';

interface ChunkserverFlags extends ClusterSelection {
  id: number;
  listen: string;
  dataDir: string;
  domain?: string;
  capacity?: number;
  recoveryMbps?: number;
  scrubInterval: number;
  scrubMbps: number;
  trace?: string;
  logLevel: LogLevel;
}

const MIB = 1024 * 1024;
const MS_PER_HOUR = 3_600_000;

/** Subcommands do without them, so that they are no required options for commander. @throws CliError */
function requireFlags(flags: Partial<ChunkserverFlags>): ChunkserverFlags {
  const missing = (['id', 'listen', 'dataDir'] as const).find((flag) => flags[flag] === undefined);
  if (missing === undefined) return flags as ChunkserverFlags;
  const option = missing === 'dataDir' ? 'data-dir' : missing;
  throw new CliError(
    `required option '--${option}' is missing: it takes --id, --listen and --data-dir to run a chunkserver (see 'holdfast chunkserver --help')`,
  );
}

/** `holdfast chunkserver`: one chunkserver in the foreground; its subcommands manage those of a running cluster. */
export function chunkserverCommand(): Command {
  const command = new Command('chunkserver')
    .description('run one chunkserver in the foreground, or manage those of a running cluster')
    // Options behind a subcommand are the subcommand's.
    .enablePositionalOptions()
    .addCommand(addCommand())
    .addCommand(drainCommand())
    .addCommand(removeCommand())
    .option(
      '--id <n>',
      'number of this server, unique among the chunkservers',
      parseInteger('--id', 1, SERVERS_MAX),
    )
    .option('--listen <host:port>', 'address to listen on, as clients and other servers reach it')
    .option('--data-dir <dir>', 'directory for this server alone; made when missing')
    .option('--domain <name>', 'failure domain; copies are spread over different ones (default: its own)')
    .option('--capacity <MiB>', 'use at most this much of the disk', parseInteger('--capacity', 16, 2 ** 40))
    .addOption(recoveryOption())
    .option(
      '--scrub-interval <hours>',
      'read and verify everything this often; 0: never',
      parseInteger('--scrub-interval', 0, 500),
      168,
    )
    .option('--scrub-mbps <n>', 'what a scrub reads, MB/s', parseInteger('--scrub-mbps', 1, 100_000), 20)
    .addOption(traceOption())
    .option(
      '--log-level <level>',
      LOG_LEVELS.join(', '),
      parseChoice('--log-level', LOG_LEVELS),
      'info' as LogLevel,
    );
  return addClusterOptions(command).action(async (given: Partial<ChunkserverFlags>) => {
    const flags = requireFlags(given);
    const { host, port } = parseAddress(flags.listen, '--listen');
    const { addresses, file } = await selectCluster(flags);
    const { runChunkserver } = await import('../chunkserver/main.js');
    const deps = processDeps({ part: 'chunkserver', id: flags.id }, flags.logLevel);
    const tracing = await startTracing(flags.trace, `chunkserver-${flags.id}`, deps);
    const server = await runChunkserver(
      {
        id: flags.id,
        host,
        port,
        dataDir: resolve(flags.dataDir),
        metaservers: addresses,
        scrubIntervalMs: flags.scrubInterval * MS_PER_HOUR,
        scrubMbps: flags.scrubMbps,
        recoveryMbps: flags.recoveryMbps ?? DEFAULT_RECOVERY_MBPS,
        ...(file && { clusterId: file.clusterId }),
        ...(flags.domain !== undefined && { domain: flags.domain }),
        ...(flags.capacity !== undefined && { capacityLimitBytes: flags.capacity * MIB }),
      },
      { ...deps, tracer: tracing.tracer },
    ).catch((error: unknown) => {
      throw startError(`chunkserver ${flags.id} on ${flags.listen}`, error);
    });
    const close = () => server.close().finally(() => tracing.close());
    process.exitCode = await serveUntilStopped({ close, ended: server.fatal }, deps);
  });
}
