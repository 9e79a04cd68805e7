import { Command } from 'commander';
import { HoldfastError } from '../proto/errors.js';
import {
  AdminServiceDefinition,
  type QuotaReply,
  type QuotaRequest,
  type QuotaStatus,
} from '../proto/gen/admin.js';
import { QuotaKind } from '../proto/gen/meta.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { callLeader } from './leader-stream.js';
import { CliError, EXIT_FAILED, formatBytes, formatTable, oneLine, printJson, printLine } from './output.js';
import {
  optionalTargetOf,
  parseBytes,
  parseInodes,
  type QuotaTarget,
  type TargetFlags,
  targetOf,
} from './quota-target.js';

interface QuotaFlags extends ClusterSelection, TargetFlags {
  bytes?: number;
  inodes?: number;
  json?: boolean;
}

const KIND_NAMES: Record<number, string> = {
  [QuotaKind.QUOTA_TREE]: 'tree',
  [QuotaKind.QUOTA_USER]: 'user',
  [QuotaKind.QUOTA_GROUP]: 'group',
};
const NO_PATH = Buffer.alloc(0);

/** `holdfast quota`: limits of bytes and inodes for directory trees, users and groups. */
export function quotaCommand(): Command {
  return new Command('quota')
    .description('limit the bytes and inodes of directory trees, users and groups')
    .addCommand(setCommand())
    .addCommand(showCommand())
    .addCommand(removeCommand());
}

function options(command: Command): Command {
  command
    .option('--user <name>', "a user's files in the whole cluster: name or number")
    .option('--group <name>', "a group's files in the whole cluster: name or number")
    .option('--json', 'print one JSON object');
  return addClusterOptions(command);
}

function setCommand(): Command {
  const command = new Command('set')
    .description('set limits; what is there already is counted first, while the file system is in use')
    .argument('[dir]', 'directory below a mount, or path in the cluster, from its root /')
    .option('--bytes <n>', 'stored bytes, as in 500M, 10G (powers of 1024); none: no limit', parseBytes)
    .option(
      '--inodes <n>',
      'files, directories and others, as in 20K, 1M (powers of 1000); none',
      parseInodes,
    );
  return options(command).action(async (dir: string | undefined, flags: QuotaFlags) => {
    if (flags.bytes === undefined && flags.inodes === undefined)
      throw new CliError('give a limit: --bytes, --inodes or both');
    const target = await targetOf(dir, flags);
    const { bytes, inodes } = flags;
    const [quota] = await change(flags, target, { bytes, inodes, remove: false });
    if (flags.json) printJson(quota ? jsonOf(quota) : {});
    else printLine(`set: ${target.name}${quota ? `: ${describe(quota)}` : ''}`);
  });
}

function removeCommand(): Command {
  const command = new Command('remove')
    .description('end a quota; nothing of the files changes')
    .argument('[dir]', 'as for set');
  return options(command).action(async (dir: string | undefined, flags: QuotaFlags) => {
    const target = await targetOf(dir, flags);
    await change(flags, target, { remove: true });
    if (flags.json) printJson({ removed: target.name });
    else printLine(`removed: the quota of ${target.name}`);
  });
}

function showCommand(): Command {
  const command = new Command('show')
    .description('show one quota, or all')
    .argument('[dir]', 'directory that has a quota of its own, as for set');
  return options(command).action(async (dir: string | undefined, flags: QuotaFlags) => {
    const target = await optionalTargetOf(dir, flags);
    const value = target ? { kind: target.kind, id: target.id } : {};
    const quotas = await call(flags, { body: { $case: 'show', value }, path: pathOf(target) });
    if (target && quotas.length === 0)
      throw new CliError(`${target.name} has no quota: set one with 'holdfast quota set'`, EXIT_FAILED);
    if (flags.json) printJson(target ? jsonOf(quotas[0] as QuotaStatus) : { quotas: quotas.map(jsonOf) });
    else printLine(quotas.length === 0 ? 'there is no quota' : tableOf(quotas));
  });
}

function change(
  flags: QuotaFlags,
  target: QuotaTarget,
  limits: { bytes?: number | undefined; inodes?: number | undefined; remove: boolean },
): Promise<QuotaStatus[]> {
  const { kind, id } = target;
  return call(flags, { body: { $case: 'change', value: { kind, id, ...limits } }, path: pathOf(target) });
}

function pathOf(target: QuotaTarget | undefined): Buffer {
  return target?.path === undefined ? NO_PATH : Buffer.from(target.path);
}

/** @throws CliError with what the leader answered */
async function call(flags: QuotaFlags, request: QuotaRequest): Promise<QuotaStatus[]> {
  const { addresses } = await selectCluster(flags);
  const live = process.stderr.isTTY === true && !flags.json;
  let shown = false;
  let quotas: QuotaStatus[] = [];
  const take = ({ progress, quotas: found, end }: QuotaReply): boolean => {
    if (progress && live) {
      const share = progress.total > 0 ? ` of ${progress.total}` : '';
      process.stderr.write(`\rcounting: ${progress.done}${share} inodes`);
      shown = true;
    }
    if (end) quotas = found;
    return end;
  };
  try {
    await callLeader(addresses, AdminServiceDefinition.methods.quota, request, take);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw refused(error);
  } finally {
    if (shown) process.stderr.write('\r\x1b[K');
  }
  return quotas;
}

function refused(error: HoldfastError): CliError {
  switch (error.errorName) {
    case 'ENOENT':
      return new CliError(error.detail || 'there is no such directory in the cluster', EXIT_FAILED);
    case 'ENOTDIR':
      return new CliError('a quota is for a directory and all below it, not for a file', EXIT_FAILED);
    case 'CONNECTION_LOST':
    case 'NOT_LEADER':
      return new CliError(
        `the leader has changed; the quota is counted further: see 'holdfast quota show' (${oneLine(error)})`,
        EXIT_FAILED,
      );
    default:
      return new CliError(error.detail || oneLine(error), EXIT_FAILED);
  }
}

function jsonOf(quota: QuotaStatus): object {
  const { kind, id, path, limitBytes, limitInodes, bytes, inodes, reservedBytes, reservedInodes, state } =
    quota;
  return {
    kind: KIND_NAMES[kind],
    id,
    ...(path.length > 0 && { path: path.toString() }),
    limitBytes: limitBytes || null,
    limitInodes: limitInodes || null,
    bytes,
    inodes,
    reservedBytes,
    reservedInodes,
    state,
  };
}

function nameOf({ kind, id, path }: QuotaStatus): string {
  if (kind === QuotaKind.QUOTA_TREE) return path.length > 0 ? path.toString() : `directory ${id}`;
  return `${KIND_NAMES[kind]} ${id}`;
}

function describe({ bytes, inodes, limitBytes, limitInodes }: QuotaStatus): string {
  const limit = (value: number, text: string): string => (value > 0 ? text : 'no limit');
  const ofBytes = `${formatBytes(bytes)} of ${limit(limitBytes, formatBytes(limitBytes))}`;
  return `${ofBytes}, ${inodes} inodes of ${limit(limitInodes, String(limitInodes))}`;
}

function tableOf(quotas: readonly QuotaStatus[]): string {
  const rows = quotas.map((quota) => [
    nameOf(quota),
    formatBytes(quota.bytes),
    quota.limitBytes > 0 ? formatBytes(quota.limitBytes) : '-',
    String(quota.inodes),
    quota.limitInodes > 0 ? String(quota.limitInodes) : '-',
    quota.state,
  ]);
  return formatTable([['quota of', 'bytes', 'limit', 'inodes', 'limit', 'state'], ...rows]);
}
