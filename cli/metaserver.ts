import { resolve } from 'node:path';
import { Command } from 'commander';
import {
  DEFAULT_CHUNK_SIZE_BYTES,
  DEFAULT_MIN_IN_SYNC,
  DEFAULT_PG_COUNT,
  DEFAULT_REPLICAS,
} from '../proto/types.js';
import { SERVERS_MAX } from './cluster-file.js';
import { parseAddress, parseInteger } from './cluster-options.js';
import { addCommand, removeCommand } from './metaserver-manage.js';
import { recoverCommand } from './metaserver-recover.js';
import { CliError } from './output.js';
import { requireFlags, runServer, type ServerFlags } from './run-server.js';
import { logLevelOption } from './serve.js';
import { traceOption } from './tracing.js';

interface MetaserverFlags extends ServerFlags {
  clusterId: string;
  peers: string;
  existing?: boolean;
  replicas: number;
  minInSync: number;
  chunkSize: number;
  pgs: number;
  chunkservers: number;
  awaitRestore?: boolean;
}

const REQUIRED = { id: 'id', listen: 'listen', dataDir: 'data-dir', clusterId: 'cluster-id', peers: 'peers' };

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
      .addOption(logLevelOption())
      .action(async (given: Partial<MetaserverFlags>) => {
        const flags = requireFlags<MetaserverFlags>('metaserver', REQUIRED, given);
        await runServer('metaserver', flags, async (address, deps) => {
          const { runMetaserver } = await import('../metaserver/main.js');
          return runMetaserver(
            {
              id: flags.id,
              ...address,
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
            deps,
          );
        });
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
