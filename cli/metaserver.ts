import { resolve } from 'node:path';
import { Command } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../common/logger.js';
import {
  DEFAULT_CHUNK_SIZE_BYTES,
  DEFAULT_MIN_IN_SYNC,
  DEFAULT_PG_COUNT,
  DEFAULT_REPLICAS,
} from '../proto/types.js';
import { SERVERS_MAX } from './cluster-file.js';
import { parseAddress, parseChoice, parseInteger } from './cluster-options.js';
import { CliError } from './output.js';
import { processDeps, serveUntilStopped, startError } from './serve.js';

interface MetaserverFlags {
  id: number;
  listen: string;
  dataDir: string;
  clusterId: string;
  peers: string;
  replicas: number;
  minInSync: number;
  chunkSize: number;
  pgs: number;
  chunkservers: number;
  logLevel: LogLevel;
}

/** `holdfast metaserver`: one metaserver in the foreground. */
export function metaserverCommand(): Command {
  return new Command('metaserver')
    .description('run one metaserver in the foreground')
    .requiredOption(
      '--id <n>',
      'number of this server, unique among the metaservers',
      parseInteger('--id', 1, SERVERS_MAX),
    )
    .requiredOption('--listen <host:port>', 'address to listen on')
    .requiredOption('--data-dir <dir>', 'directory for this server alone; made when missing')
    .requiredOption('--cluster-id <uuid>', 'the cluster it belongs to')
    .requiredOption('--peers <id=host:port,..>', 'all metaservers, this one included')
    .option(
      '--replicas <n>',
      'copies of each chunk (new clusters)',
      parseInteger('--replicas', 1, 16),
      DEFAULT_REPLICAS,
    )
    .option(
      '--min-in-sync <n>',
      'writes wait below this many in-sync copies (new clusters)',
      parseInteger('--min-in-sync', 1, 16),
      DEFAULT_MIN_IN_SYNC,
    )
    .option(
      '--chunk-size <bytes>',
      'chunk size (new clusters)',
      parseInteger('--chunk-size', 65_536, 4_194_304),
      DEFAULT_CHUNK_SIZE_BYTES,
    )
    .option('--pgs <n>', 'placement groups (new clusters)', parseInteger('--pgs', 1, 4096), DEFAULT_PG_COUNT)
    .option(
      '--chunkservers <n>',
      'place data once this many have registered (new clusters)',
      parseInteger('--chunkservers', 1, SERVERS_MAX),
      3,
    )
    .option(
      '--log-level <level>',
      LOG_LEVELS.join(', '),
      parseChoice('--log-level', LOG_LEVELS),
      'info' as LogLevel,
    )
    .action(async (flags: MetaserverFlags) => {
      const { host, port } = parseAddress(flags.listen, '--listen');
      const { runMetaserver } = await import('../metaserver/main.js');
      const deps = processDeps({ part: 'metaserver', id: flags.id }, flags.logLevel);
      const server = await runMetaserver(
        {
          id: flags.id,
          host,
          port,
          dataDir: resolve(flags.dataDir),
          clusterId: flags.clusterId,
          peers: parsePeers(flags.peers),
          init: {
            clusterId: flags.clusterId,
            replicas: flags.replicas,
            minInSync: flags.minInSync,
            chunkSize: flags.chunkSize,
            pgCount: flags.pgs,
            chunkservers: flags.chunkservers,
            rootUid: process.getuid?.() ?? 0,
            rootGid: process.getgid?.() ?? 0,
          },
        },
        deps,
      ).catch((error: unknown) => {
        throw startError(`metaserver ${flags.id} on ${flags.listen}`, error);
      });
      process.exitCode = await serveUntilStopped({ close: () => server.close(), ended: server.fatal }, deps);
    });
}

function parsePeers(text: string): { id: number; address: string }[] {
  return text.split(',').map((one) => {
    const match = /^(\d+)=(.+)$/.exec(one.trim());
    if (!match) throw new CliError(`--peers: '${one}' is not id=host:port`);
    parseAddress(match[2] as string, '--peers');
    return { id: Number(match[1]), address: match[2] as string };
  });
}
