import path from 'node:path';
import { z } from 'zod';
import { type Disk, diskErrorCode, readWholeFile, replaceFile } from '../../common/disk.js';
import type { RaftConfState } from '../raft/types.js';

/** Version of everything below a replica's directory: format file, log records, snapshots. */
export const REPLICA_FORMAT_VERSION = 1;
const FORMAT_NAME = 'holdfast-metaserver';
const FORMAT_FILE = 'format.json';

/** Who a replica is. Written once, when its disk is formatted. */
export interface ReplicaIdentity {
  clusterId: string;
  serverId: number;
  /** Made with the disk's format: a server whose disk was replaced comes back as another one. */
  diskUuid: string;
}

/** The identity and what the log starts from. */
export interface ReplicaFormat extends ReplicaIdentity {
  /** Members before the first log entry. */
  conf: RaftConfState;
}

/** The directory cannot be used by this server; the message is one line for the operator. */
export class ReplicaFormatError extends Error {
  override name = 'ReplicaFormatError';
}

const serverIds = z.array(z.number().int().positive());
const formatSchema = z.object({
  clusterId: z.string().min(1),
  serverId: z.number().int().positive(),
  diskUuid: z.uuid(),
  conf: z.object({ voters: serverIds, votersOutgoing: serverIds, learners: serverIds }),
});

/** Where the log's segments lie. */
export function logDirectory(dir: string): string {
  return path.join(dir, 'log');
}

/** Writes the format file of an empty replica; durable when it resolves. @throws ReplicaFormatError when there is one */
export async function writeFormat(disk: Disk, dir: string, format: ReplicaFormat): Promise<void> {
  await disk.mkdir(dir);
  if (await readFormat(disk, dir)) throw new ReplicaFormatError(`${dir}: already formatted`);
  const content = { format: FORMAT_NAME, version: REPLICA_FORMAT_VERSION, ...format };
  await replaceFile(disk, path.join(dir, FORMAT_FILE), Buffer.from(`${JSON.stringify(content, null, 2)}\n`));
}

/**
 * What the format file says; undefined when the directory was never formatted.
 * @throws ReplicaFormatError when it is damaged, or of a version that this program does not know
 */
export async function readFormat(disk: Disk, dir: string): Promise<ReplicaFormat | undefined> {
  const file = path.join(dir, FORMAT_FILE);
  let text: string;
  try {
    text = (await readWholeFile(disk, file)).toString('utf8');
  } catch (error) {
    if (diskErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new ReplicaFormatError(`${file}: not valid JSON`);
  }
  const head = z.object({ format: z.literal(FORMAT_NAME), version: z.number() }).safeParse(raw);
  if (!head.success) throw new ReplicaFormatError(`${file}: not the format file of a metaserver`);
  if (head.data.version !== REPLICA_FORMAT_VERSION) {
    const known = `this program knows version ${REPLICA_FORMAT_VERSION}`;
    throw new ReplicaFormatError(`${file}: format version ${head.data.version} is not supported; ${known}`);
  }
  const parsed = formatSchema.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new ReplicaFormatError(`${file}: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  return parsed.data;
}

/** Refuses a disk that belongs to another cluster or server. @throws ReplicaFormatError */
export function checkIdentity(
  dir: string,
  found: ReplicaIdentity,
  wanted: Omit<ReplicaIdentity, 'diskUuid'>,
): void {
  if (found.clusterId !== wanted.clusterId) {
    throw new ReplicaFormatError(`${dir}: data of cluster ${found.clusterId}, not of ${wanted.clusterId}`);
  }
  if (found.serverId !== wanted.serverId) {
    throw new ReplicaFormatError(`${dir}: data of metaserver ${found.serverId}, not of ${wanted.serverId}`);
  }
}
