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
import { addCommand, removeCommand } from './metaserver-manage.js';
import { recoverCommand } from './metaserver-recover.js';
import { CliError } from './output.js';
import { processDeps, serveUntilStopped, startError } from './serve.js';
import { startTracing, traceOption } from './tracing.js';

interface MetaserverFlags {
  id: number;
  listen: string;
  dataDir: string;
  clusterId: string;
  peers: string;
  existing?: boolean;
  replicas: number;
  minInSync: number;
  chunkSize: number;
  pgs: number;
  chunkservers: number;
  awaitRestore?: boolean;
  trace?: string;
  logLevel: LogLevel;
}

const REQUIRED = { id: 'id', listen: 'listen', dataDir: 'data-dir', clusterId: 'cluster-id', peers: 'peers' };

/** Subcommands do without them, so that they are no required options for commander. @throws CliError */
function requireFlags(flags: Partial<MetaserverFlags>): MetaserverFlags {
  for (const [flag, option] of Object.entries(REQUIRED)) {
    if (flags[flag as keyof MetaserverFlags] !== undefined) continue;
    throw new CliError(
      `required option '--${option}' is missing: it takes --id, --listen, --data-dir, --cluster-id and --peers to run a metaserver (see 'holdfast metaserver --help')`,
    );
  }
  return flags as MetaserverFlags;
}

/** `holdfast metaserver`: one metaserver in the foreground; its subcommands manage those of a running cluster. */
export function metaserverCommand(): Command {
  return (
    new Command('metaserver')
      .description('run one metaserver in the foreground, or manage those of a running cluster')
      // Options behind a subcommand are the subcommand's.
      .enablePositionalOptions()
      .addCommand(addCommand())
      .addCommand(removeCommand())
      .addCommand(recoverCommand())
      .option(
        '--id <n>',
        'number of this server, unique among the metaservers',
        parseInteger('--id', 1, SERVERS_MAX),
      )
      .option('--listen <host:port>', 'address to listen on')
      .option('--data-dir <dir>', 'directory for this server alone; made when missing')
      .option('--cluster-id <uuid>', 'the cluster it belongs to')
      .option('--peers <id=host:port,..>', 'all metaservers, this one included')
      .option(
        '--existing',
        'the cluster exists: with an empty data directory, wait to be taken in; never found a new one',
      )
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
      .option(
        '--pgs <n>',
        'placement groups (new clusters)',
        parseInteger('--pgs', 1, 4096),
        DEFAULT_PG_COUNT,
      )
      .option(
        '--chunkservers <n>',
        'place data once this many have registered (new clusters)',
        parseInteger('--chunkservers', 1, SERVERS_MAX),
        3,
      )
      .option('--await-restore', 'wait for `holdfast snapshot restore` instead of making a new cluster')
      .addOption(traceOption())
      .option(
        '--log-level <level>',
        LOG_LEVELS.join(', '),
        parseChoice('--log-level', LOG_LEVELS),
        'info' as LogLevel,
      )
      .action(async (given: Partial<MetaserverFlags>) => {
        const flags = requireFlags(given);
        const { host, port } = parseAddress(flags.listen, '--listen');
        const { runMetaserver } = await import('../metaserver/main.js');
        const deps = processDeps({ part: 'metaserver', id: flags.id }, flags.logLevel);
        const tracing = await startTracing(flags.trace, `metaserver-${flags.id}`, deps);
        const server = await runMetaserver(
          {
            id: flags.id,
            host,
            port,
            dataDir: resolve(flags.dataDir),
            clusterId: flags.clusterId,
            peers: parsePeers(flags.peers),
            existing: flags.existing ?? false,
            awaitRestore: flags.awaitRestore ?? false,
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
          { ...deps, tracer: tracing.tracer },
        ).catch((error: unknown) => {
          throw startError(`metaserver ${flags.id} on ${flags.listen}`, error);
        });
        const close = () => server.close().finally(() => tracing.close());
        process.exitCode = await serveUntilStopped({ close, ended: server.fatal }, deps);
      })
  );
}

function parsePeers(text: string): { id: number; address: string }[] {
  return text.split(',').map((one) => {
    const match = /^(\d+)=(.+)$/.exec(one.trim());
    if (!match) throw new CliError(`--peers: '${one}' is not id=host:port`);
    parseAddress(match[2] as string, '--peers');
    return { id: Number(match[1]), address: match[2] as string };
  });
}
