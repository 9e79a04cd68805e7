import { Command } from 'commander';
import { addClusterOptions, type ClusterSelection, parseInteger, selectCluster } from './cluster-options.js';
import type { ClusterStatus, RecoveryStatus } from './cluster-status.js';
import { CliError, EXIT_FAILED, formatBytes, formatTable, printJson, printLine } from './output.js';

const BYTES_PER_MB = 1_000_000;

interface StatusFlags extends ClusterSelection {
  json?: boolean;
  check?: boolean;
  timeout: number;
}

/** `holdfast status`: what the cluster says of itself. */
export function statusCommand(): Command {
  const command = new Command('status')
    .description('show the leader, the servers, the placement groups, capacity and mounts')
    .option('--json', 'print one JSON object')
    .option('--check', 'exit with 1 unless the cluster is healthy')
    .option(
      '--timeout <ms>',
      'how long a metaserver may take to answer',
      parseInteger('--timeout', 50, 60_000),
      2_000,
    );
  return addClusterOptions(command).action(async (flags: StatusFlags) => {
    const { addresses, file } = await selectCluster(flags);
    const { StatusReader, UNANSWERED } = await import('./cluster-status.js');
    const reader = new StatusReader(addresses, file?.chunkservers.length ?? 0);
    try {
      const status = await reader.read(flags.timeout);
      if (!status) {
        throw new CliError(
          `no metaserver answers (${addresses.join(', ')}): is the cluster running?`,
          EXIT_FAILED,
          { ...UNANSWERED },
        );
      }
      if (flags.json) printJson(status);
      else printLine(renderStatus(status));
      if (flags.check && !status.healthy) process.exitCode = EXIT_FAILED;
    } finally {
      reader.close();
    }
  });
}

/** "12 PGs, 340 MiB done, 172 MiB left, 95.0 MB/s, about 2 s to go" */
export function renderRecovery(recovery: RecoveryStatus): string {
  const { pgs, doneBytes, leftBytes, bytesPerSecond, etaSeconds } = recovery;
  return [
    `${pgs} PGs`,
    `${formatBytes(doneBytes)} done`,
    `${formatBytes(leftBytes)} left`,
    `${(bytesPerSecond / BYTES_PER_MB).toFixed(1)} MB/s`,
    ...(etaSeconds === null ? [] : [`about ${etaSeconds} s to go`]),
  ].join(', ');
}

/** For people. What only a leader knows is left out while there is none. */
export function renderStatus(status: ClusterStatus): string {
  const { leader } = status;
  const lines = [
    `cluster   ${status.clusterId}`,
    `health    ${status.healthy ? 'healthy' : status.problems.join('; ')}`,
    `leader    ${leader ? `metaserver-${leader.id} (${leader.address}), term ${status.term}` : 'unknown'}`,
    ...(leader ? ownLines(status) : []),
    '',
    formatTable([
      ['SERVER', 'ADDRESS', 'STATE', 'DETAIL'],
      ...status.metaservers.map((one) => [
        one.name,
        one.address,
        one.alive ? 'alive' : 'down',
        one.alive ? `${one.role}, term ${one.term}, applied ${one.appliedIndex}` : '',
      ]),
      ...status.chunkservers.map((one) => [
        one.name,
        one.address,
        `${one.alive ? 'alive' : 'down'}${one.draining ? ', draining' : ''}`,
        `${one.pgsInSync} PGs in-sync (${one.pgsPrimary} primary), ` +
          `${formatBytes(one.usedBytes)} used, ${formatBytes(one.freeBytes)} free` +
          (one.recovery.pgs > 0 ? `; recovering: ${renderRecovery(one.recovery)}` : ''),
      ]),
    ]),
  ];
  if (status.notes.length > 0) lines.push('', ...status.notes.map((note) => `note      ${note}`));
  if (status.mounts.length > 0) {
    const rows = status.mounts.map((one) => [
      `${one.hostname}:${one.mountPoint}`,
      String(one.session),
      one.connected ? 'connected' : `silent for ${Math.round(one.idleMs / 1000)} s`,
      `${one.openFiles} open files`,
    ]);
    lines.push('', formatTable([['MOUNT', 'SESSION', 'STATE', ''], ...rows]));
  }
  return lines.join('\n');
}

function ownLines(status: ClusterStatus): string[] {
  const { pgs, capacity, recovery } = status;
  return [
    `PGs       ${pgs.inSync} of ${pgs.total} fully in-sync, ${pgs.recovering} recovering, ${pgs.moving} moving, ${pgs.unavailable} unavailable`,
    ...(recovery.pgs > 0 ? [`recovery  ${renderRecovery(recovery)}`] : []),
    `capacity  ${formatBytes(capacity.usedBytes)} used of ${formatBytes(capacity.totalBytes)}, ${capacity.inodesUsed} inodes`,
    ...damageLine(status),
  ];
}

/** Shown once there was any. */
function damageLine({ chunkservers }: ClusterStatus): string[] {
  const sum = (field: 'damageFound' | 'damageRepaired'): number =>
    chunkservers.reduce((total, one) => total + one[field], 0);
  const found = sum('damageFound');
  return found === 0 ? [] : [`damage    ${found} copies of chunks found, ${sum('damageRepaired')} repaired`];
}
