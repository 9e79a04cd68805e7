import path from 'node:path';
import { z } from 'zod/v3';
import { assert } from '../../common/assert.js';
import { type Disk, diskErrorCode, readWholeFile, replaceFile } from '../../common/disk.js';
import type { RaftConfState } from '../raft/types.js';

/** Version of everything below a replica's directory: format file, log records, snapshots. */
export const REPLICA_FORMAT_VERSION = 2;
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
  /** Members before the first log entry, in a cluster that this disk helped to found; null: it did not, or not yet. */
  conf: RaftConfState | null;
  /**
   * Whether this disk may help to found a cluster as long as it belongs to none. Not when the cluster is known to exist:
   * this disk then replaces one that was lost, and founding would make an empty cluster in its place.
   */
  mayFound: boolean;
  /** Something was written to the log: from then on an empty log is a lost one, which may have held a vote. */
  begun: boolean;
}

/**
 * The number of a member in the consensus core: the first 32 bits of its disk's uuid. A disk that was formatted anew is so
 * another member, and nothing that its predecessor promised or acknowledged can be taken for its own.
 */
export function memberIdOf(diskUuid: string): number {
  const id = Number.parseInt(diskUuid.slice(0, 8), 16);
  assert(id > 0, `disk uuid ${diskUuid} makes no member id`);
  return id;
}

const DISK_UUID = /^(?!00000000)[0-9a-f]{8}-[0-9a-f-]{27}$/;

/** Whether a member id can be made of what a peer says its disk uuid is. */
export function isDiskUuid(text: string): boolean {
  return DISK_UUID.test(text);
}

/** A uuid for a new disk. @param draw gives random uuids */
export function newDiskUuid(draw: () => string): string {
  for (;;) {
    const uuid = draw();
    if (isDiskUuid(uuid)) return uuid;
  }
}

/** The directory cannot be used by this server; the message is one line for the operator. */
export class ReplicaFormatError extends Error {
  override name = 'ReplicaFormatError';
}

const memberIds = z.array(z.number().int().positive());
const rosterSchema = z.array(
  z.object({
    id: z.number().int().positive(),
    server: z.number().int().positive(),
    diskUuid: z.string().uuid(),
    address: z.string(),
  }),
);
const formatSchema = z.object({
  clusterId: z.string().min(1),
  serverId: z.number().int().positive(),
  diskUuid: z.string().uuid(),
  conf: z
    .object({ voters: memberIds, votersOutgoing: memberIds, learners: memberIds, roster: rosterSchema })
    .nullable(),
  mayFound: z.boolean(),
  begun: z.boolean(),
});

/**
 * What lies in the directory is not what this server wrote there: it must not go on from it, for it may have forgotten what it
 * promised or acknowledged. As a server with an empty disk it may.
 */
export class ReplicaDamagedError extends Error {
  override name = 'ReplicaDamagedError';
}

/** Where the log's segments lie. */
export function logDirectory(dir: string): string {
  return path.join(dir, 'log');
}

/** Writes the format file of an empty replica; durable when it resolves. @throws ReplicaFormatError when there is one */
export async function writeFormat(disk: Disk, dir: string, format: ReplicaFormat): Promise<void> {
  await disk.mkdir(dir);
  if (await readFormat(disk, dir)) throw new ReplicaFormatError(`${dir}: already formatted`);
  await replaceFormat(disk, dir, format);
}

/** Replaces the format file, durably. */
async function replaceFormat(disk: Disk, dir: string, format: ReplicaFormat): Promise<void> {
  const content = { format: FORMAT_NAME, version: REPLICA_FORMAT_VERSION, ...format };
  await replaceFile(disk, path.join(dir, FORMAT_FILE), Buffer.from(`${JSON.stringify(content, null, 2)}\n`));
}

/**
 * What the format file says; undefined when the directory was never formatted.
 * @throws ReplicaDamagedError, or ReplicaFormatError: a version that this program does not know, or something else altogether
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
    throw new ReplicaDamagedError(`${file}: not valid JSON`);
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
    throw new ReplicaDamagedError(`${file}: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const { clusterId, serverId, diskUuid, conf, mayFound, begun } = parsed.data;
  return { clusterId, serverId, diskUuid, conf, mayFound, begun };
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

/** The format file of an open replica, as it is on disk; changes are written one after the other. */
export class FormatFile {
  readonly #disk: Disk;
  readonly #dir: string;
  #current: ReplicaFormat;
  #writing: Promise<void> = Promise.resolve();

  constructor(disk: Disk, dir: string, format: ReplicaFormat) {
    this.#disk = disk;
    this.#dir = dir;
    this.#current = format;
  }

  get current(): ReplicaFormat {
    return this.#current;
  }

  /** Resolves when the change is durable. @throws the disk's error */
  update(change: Partial<Pick<ReplicaFormat, 'conf' | 'begun'>>): Promise<void> {
    const done = this.#writing.then(async () => {
      const next = { ...this.#current, ...change };
      await replaceFormat(this.#disk, this.#dir, next);
      this.#current = next;
    });
    this.#writing = done.catch(() => undefined);
    return done;
  }
}
