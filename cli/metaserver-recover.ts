import { resolve } from 'node:path';
import { Command } from 'commander';
import { systemClock } from '../common/clock.js';
import { AdminServiceDefinition } from '../proto/gen/admin.js';
import { RpcClient } from '../proto/rpc.js';
import { CliError, EXIT_FAILED, EXIT_USAGE, formatBytes, oneLine, printJson, printLine } from './output.js';
import { SnapshotWriter } from './snapshot-file.js';

interface RecoverFlags {
  dataDir?: string;
  acceptLoss?: boolean;
  json?: boolean;
}

const PROBE_TIMEOUT_MS = 2_000;

/** `holdfast metaserver recover`: what one surviving disk knows becomes a snapshot, when the majority is gone for ever. */
export function recoverCommand(): Command {
  return new Command('recover')
    .description(
      'last resort, when a majority of the metaservers is gone for ever: save what one surviving disk knows as a snapshot',
    )
    .argument(
      '<file>',
      'snapshot to make; `holdfast up --restore FILE` or `snapshot restore FILE` begin anew with it',
    )
    .option('--data-dir <dir>', 'data directory of the metaserver that survived; it must not run')
    .option('--accept-loss', 'changes that had not reached this disk are lost, acknowledged or not')
    .option('--json', 'print one JSON object')
    .action(async (file: string, flags: RecoverFlags) => recover(resolve(file), flags));
}

async function recover(file: string, { dataDir, acceptLoss, json }: RecoverFlags): Promise<void> {
  if (dataDir === undefined) throw new CliError("required option '--data-dir' is missing", EXIT_USAGE);
  const { openSurvivingDisk } = await import('../metaserver/recover.js');
  const disk = await openSurvivingDisk(resolve(dataDir)).catch((error: unknown) => {
    throw new CliError(`not recovered: ${oneLine(error)}`, EXIT_FAILED);
  });
  try {
    const { serverId, index, term, uncertain, voters, others } = disk;
    const alive = await answering(others.map(({ server, address }) => ({ server, address })));
    const majority = Math.floor(voters / 2) + 1;
    if (alive.length + 1 >= majority) {
      const names = alive.map((server) => `metaserver-${server}`).join(', ');
      throw new CliError(
        `not recovered: ${names ? `${names} and ` : ''}this disk are a majority of ${voters}: start metaserver-${serverId} again, nothing is lost`,
        EXIT_FAILED,
      );
    }
    if (!acceptLoss) {
      throw new CliError(
        `metaserver-${serverId} knows the log up to entry ${index} of term ${term}; what the others acknowledged behind it is lost: names, sizes, permissions. ` +
          `Use the disk with the highest term, then entry. When the others can never come back, repeat with --accept-loss`,
      );
    }
    const writer = await SnapshotWriter.create(file);
    let inodes = 0;
    try {
      for (const block of disk.snapshot(systemClock.wall().sec)) {
        if (block.body?.$case === 'header') inodes = block.body.value.inodes;
        await writer.block(block);
      }
      await writer.finish();
    } catch (error) {
      await writer.abort();
      throw new CliError(`not recovered: ${oneLine(error)}`, EXIT_FAILED);
    }
    if (json) {
      printJson({ file, server: serverId, index, term, uncertain, inodes, bytes: writer.bytes });
      return;
    }
    printLine(
      `recovered: ${inodes} inodes, ${formatBytes(writer.bytes)} in ${file}, up to entry ${index} of term ${term}`,
    );
    if (uncertain > 0)
      printLine(`note: the last ${uncertain} entries may never have been acknowledged; they are in it`);
    printLine(
      `next: start metaservers with empty data directories and 'holdfast up --restore ${file}' (or --await-restore and 'holdfast snapshot restore'); never start the old ones again; then 'holdfast fsck'`,
    );
  } finally {
    await disk.close();
  }
}

/** Those that answer at the address where they were last known. */
async function answering(servers: readonly { server: number; address: string }[]): Promise<number[]> {
  const { fullName, methods } = AdminServiceDefinition;
  const answers = await Promise.all(
    servers.map(async ({ server, address }) => {
      const client = new RpcClient(address);
      try {
        await client.unary(fullName, methods.status, {}, PROBE_TIMEOUT_MS);
        return server;
      } catch {
        return undefined;
      } finally {
        client.close();
      }
    }),
  );
  return answers.filter((server) => server !== undefined);
}
