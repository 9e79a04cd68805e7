import { resolve } from 'node:path';
import { Command } from 'commander';
import { addCommand, drainCommand, removeCommand } from './chunkserver-manage.js';
import { SERVERS_MAX } from './cluster-file.js';
import {
  addClusterOptions,
  type ClusterSelection,
  DEFAULT_RECOVERY_MBPS,
  parseInteger,
  recoveryOption,
  selectCluster,
} from './cluster-options.js';
import { requireFlags, runServer, type ServerFlags } from './run-server.js';
import { logLevelOption } from './serve.js';
import { traceOption } from './tracing.js';

interface ChunkserverFlags extends ClusterSelection, ServerFlags {
  domain?: string;
  capacity?: number;
  recoveryMbps?: number;
  scrubInterval: number;
  scrubMbps: number;
}

const MIB = 1024 * 1024;
const MS_PER_HOUR = 3_600_000;

const REQUIRED = { id: 'id', listen: 'listen', dataDir: 'data-dir' };

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
    .addOption(logLevelOption());
  return addClusterOptions(command).action(async (given: Partial<ChunkserverFlags>) => {
    const flags = requireFlags<ChunkserverFlags>('chunkserver', REQUIRED, given);
    await runServer('chunkserver', flags, async (address, deps) => {
      const { addresses, file } = await selectCluster(flags);
      const { runChunkserver } = await import('../chunkserver/main.js');
      return runChunkserver(
        {
          id: flags.id,
          ...address,
          dataDir: resolve(flags.dataDir),
          metaservers: addresses,
          scrubIntervalMs: flags.scrubInterval * MS_PER_HOUR,
          scrubMbps: flags.scrubMbps,
          recoveryMbps: flags.recoveryMbps ?? DEFAULT_RECOVERY_MBPS,
          ...(file && { clusterId: file.clusterId }),
          ...(flags.domain !== undefined && { domain: flags.domain }),
          ...(flags.capacity !== undefined && { capacityLimitBytes: flags.capacity * MIB }),
        },
        deps,
      );
    });
  });
}
