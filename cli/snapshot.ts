import { resolve } from 'node:path';
import { Command } from 'commander';
import { HoldfastError } from '../proto/errors.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { CliError, EXIT_FAILED, formatBytes, oneLine, printJson, printLine } from './output.js';
import { restoreSnapshot, saveSnapshot } from './snapshot-transfer.js';

interface SnapshotFlags extends ClusterSelection {
  json?: boolean;
}

/** `holdfast snapshot`: all metadata into a file, and back. */
export function snapshotCommand(): Command {
  return new Command('snapshot')
    .description('save all metadata to a file, or restore it into new metaservers')
    .addCommand(saveCommand())
    .addCommand(restoreCommand());
}

function saveCommand(): Command {
  const command = new Command('save')
    .description('save all metadata of a running cluster into a new file')
    .argument('<file>', 'made; must not exist')
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (file: string, flags: SnapshotFlags) => {
    const { addresses } = await selectCluster(flags);
    const path = resolve(file);
    const show = progressLine('saving', 'records');
    const saved = await saveSnapshot(addresses, path, (records) => show(records)).catch(explain('not saved'));
    show();
    const { header, records, bytes } = saved;
    const { clusterId, inodes, index, savedSec } = header;
    if (flags.json) printJson({ file: path, clusterId, inodes, records, bytes, index, savedSec });
    else printLine(`saved: ${inodes} inodes, ${records} records, ${formatBytes(bytes)} in ${path}`);
  });
}

function restoreCommand(): Command {
  const command = new Command('restore')
    .description('restore a snapshot into new metaservers that were started with --await-restore')
    .argument('<file>', 'written by `holdfast snapshot save`')
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (file: string, flags: SnapshotFlags) => {
    const { addresses } = await selectCluster(flags);
    const path = resolve(file);
    const show = progressLine('restoring', 'blocks');
    const header = await restoreSnapshot(addresses, path, (done) => show(done)).catch(explainRestore);
    show();
    const { clusterId, inodes, savedSec } = header;
    if (flags.json) printJson({ file: path, clusterId, inodes, savedSec });
    else printLine(`restored: ${inodes} inodes of cluster ${clusterId}`);
  });
}

/** Shows a count on a terminal; without one, ends the line. */
function progressLine(verb: string, what: string): (done?: number) => void {
  let shown = false;
  return (done) => {
    if (process.stderr.isTTY !== true) return;
    if (done !== undefined) process.stderr.write(`\r${verb}: ${done} ${what} `);
    else if (shown) process.stderr.write('\n');
    shown = true;
  };
}

function explain(what: string): (error: unknown) => never {
  return (error) => {
    if (error instanceof CliError) throw error;
    throw new CliError(`${what}: ${oneLine(error)}`, EXIT_FAILED);
  };
}

/** @throws CliError with what to do */
export function explainRestore(error: unknown): never {
  if (error instanceof HoldfastError && error.errorName === 'EEXIST') {
    throw new CliError(
      `not restored: ${error.detail}: start new ones on empty directories with --await-restore`,
      EXIT_FAILED,
    );
  }
  if (error instanceof HoldfastError && error.errorName === 'WRONG_CLUSTER') {
    throw new CliError(
      `not restored: ${error.detail}: start them with that cluster's cluster.json`,
      EXIT_FAILED,
    );
  }
  return explain('not restored')(error);
}
