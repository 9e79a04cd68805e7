import { resolve } from 'node:path';
import { Command } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../common/logger.js';
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
import { processDeps, serveUntilStopped, startError } from './serve.js';

interface ChunkserverFlags extends ClusterSelection {
  id: number;
  listen: string;
  dataDir: string;
  domain?: string;
  capacity?: number;
  recoveryMbps?: number;
  scrubInterval: number;
  scrubMbps: number;
  logLevel: LogLevel;
}

const MIB = 1024 * 1024;
const MS_PER_HOUR = 3_600_000;

/** `holdfast chunkserver`: one chunkserver in the foreground. */
export function chunkserverCommand(): Command {
  const command = new Command('chunkserver')
    .description('run one chunkserver in the foreground')
    .requiredOption(
      '--id <n>',
      'number of this server, unique among the chunkservers',
      parseInteger('--id', 1, SERVERS_MAX),
    )
    .requiredOption('--listen <host:port>', 'address to listen on, as clients and other servers reach it')
    .requiredOption('--data-dir <dir>', 'directory for this server alone; made when missing')
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
    .option(
      '--log-level <level>',
      LOG_LEVELS.join(', '),
      parseChoice('--log-level', LOG_LEVELS),
      'info' as LogLevel,
    );
  return addClusterOptions(command).action(async (flags: ChunkserverFlags) => {
    const { host, port } = parseAddress(flags.listen, '--listen');
    const { addresses, file } = await selectCluster(flags);
    const { runChunkserver } = await import('../chunkserver/main.js');
    const deps = processDeps({ part: 'chunkserver', id: flags.id }, flags.logLevel);
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
      deps,
    ).catch((error: unknown) => {
      throw startError(`chunkserver ${flags.id} on ${flags.listen}`, error);
    });
    process.exitCode = await serveUntilStopped({ close: () => server.close(), ended: server.fatal }, deps);
  });
}
