import { resolve } from 'node:path';
import { Command } from 'commander';
import type { BindingChoice } from '../client/fuse/choose.js';
import { canonicalMountPoint } from '../client/fuse/mount-point.js';
import { SERVERS_MAX } from './cluster-file.js';
import { BINDINGS, DEFAULT_DATA_DIR, parseChoice, parseInteger, recoveryOption } from './cluster-options.js';
import { CliError } from './output.js';

const DEFAULT_MOUNT_POINT = './mnt';

interface UpFlags {
  data: string;
  metaservers?: number;
  chunkservers?: number;
  replicas?: number;
  port?: number;
  recoveryMbps?: number;
  restore?: string;
  binding: BindingChoice;
  restart: boolean;
  trace?: boolean;
  json?: boolean;
}

/** `holdfast up`: a whole cluster on this machine, mounted, until it is told to stop. */
export function upCommand(): Command {
  return new Command('up')
    .description('start a cluster on this machine and mount it; ^C stops everything in order')
    .argument('[dir]', `mount point, an empty directory (default: ${DEFAULT_MOUNT_POINT}, made when missing)`)
    .option('--data <dir>', 'where the servers keep their data; made when missing', DEFAULT_DATA_DIR)
    .option(
      '--metaservers <n>',
      'metaservers of a new cluster: 1, 3 or 5 (default: 3)',
      parseInteger('--metaservers', 1, 9),
    )
    .option(
      '--chunkservers <n>',
      'chunkservers of a new cluster (default: 3); more than an existing one has are added to it',
      parseInteger('--chunkservers', 1, SERVERS_MAX),
    )
    .option(
      '--replicas <n>',
      'copies of each chunk in a new cluster (default: 3)',
      parseInteger('--replicas', 1, 16),
    )
    .option(
      '--port <n>',
      'first port; one for each server from there on (default: a free range from 7400)',
      parseInteger('--port', 1024, 65_535),
    )
    .addOption(recoveryOption())
    .option(
      '--binding <name>',
      BINDINGS.join(', '),
      parseChoice('--binding', BINDINGS),
      'auto' as BindingChoice,
    )
    .option('--restore <file>', 'restore a snapshot of the metadata first: the metaservers must have no data')
    .option('--no-restart', 'leave a server that died down')
    .option(
      '--trace',
      'note where the time of each request goes, in DATA/trace; `holdfast trace DATA` sums it up',
    )
    .option('--json', 'print one JSON line for each event')
    .addHelpText('after', '\nPrints `ready: DIR` once the directory can be used.')
    .action(async (dir: string | undefined, flags: UpFlags) => {
      if (flags.metaservers !== undefined && flags.metaservers % 2 === 0) {
        throw new CliError(
          `--metaservers ${flags.metaservers}: an even number survives no more failures than one fewer; use an odd one`,
        );
      }
      const { runUp } = await import('./up-run.js');
      process.exitCode = await runUp({
        ...flags,
        mountPoint: await canonicalMountPoint(dir ?? DEFAULT_MOUNT_POINT),
        makeMountPoint: dir === undefined,
        dataDir: resolve(flags.data),
        ...(flags.restore !== undefined && { restore: resolve(flags.restore) }),
        json: flags.json ?? false,
      });
    });
}
