import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod/v3';
import { DEFAULT_CHUNK_SIZE_BYTES, DEFAULT_MIN_IN_SYNC, DEFAULT_PG_COUNT } from '../proto/types.js';
import { CliError } from './output.js';

/** DATA/cluster.json: what a cluster on this machine consists of, and where its servers listen. */

export const CLUSTER_FILE = 'cluster.json';
export const CLUSTER_FILE_FORMAT = 1;
/** Servers of one kind that `up` starts at most. */
export const SERVERS_MAX = 64;

const serverSchema = z.object({
  id: z.number().int().min(1).max(SERVERS_MAX),
  host: z.string().min(1),
  port: z.number().int().min(1).max(65535),
});

const clusterSchema = z.object({
  format: z.literal(CLUSTER_FILE_FORMAT),
  clusterId: z.string().uuid(),
  replicas: z.number().int().min(1).max(SERVERS_MAX),
  minInSync: z.number().int().min(1).max(SERVERS_MAX),
  chunkSize: z.number().int().min(65_536),
  pgCount: z.number().int().min(1).max(4096),
  metaservers: z.array(serverSchema).min(1),
  chunkservers: z.array(serverSchema).min(1),
  /** It was up once: metaservers without data must not found a new cluster in its place. */
  formed: z.boolean().optional(),
});

export type ClusterFile = z.infer<typeof clusterSchema>;
export type ServerAddress = z.infer<typeof serverSchema>;

export function clusterFilePath(dataDir: string): string {
  return join(dataDir, CLUSTER_FILE);
}

/** host:port of every metaserver. */
export function metaAddresses(cluster: ClusterFile): string[] {
  return cluster.metaservers.map((server) => `${server.host}:${server.port}`);
}

/** A new cluster whose ports are still to be filled in. `min_in_sync` is 2, or 1 when there is only one copy. */
export function newCluster(params: {
  metaservers: ServerAddress[];
  chunkservers: ServerAddress[];
  replicas: number;
}): ClusterFile {
  return {
    format: CLUSTER_FILE_FORMAT,
    clusterId: randomUUID(),
    replicas: params.replicas,
    minInSync: Math.min(DEFAULT_MIN_IN_SYNC, params.replicas),
    chunkSize: DEFAULT_CHUNK_SIZE_BYTES,
    pgCount: DEFAULT_PG_COUNT,
    metaservers: params.metaservers,
    chunkservers: params.chunkservers,
  };
}

/**
 * Reads and checks a cluster file.
 * @returns undefined when there is none
 * @throws CliError when it is damaged or of a format that this version does not know
 */
export async function readClusterFile(path: string): Promise<ClusterFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CliError(`cannot read ${path}: ${(error as Error).message}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CliError(
      `${path} is damaged (not JSON): restore it from a backup, or move it away to start a new cluster`,
    );
  }
  const format = (value as { format?: unknown } | null)?.format;
  if (typeof format === 'number' && format !== CLUSTER_FILE_FORMAT) {
    throw new CliError(
      `${path} has format version ${format}, this holdfast knows ${CLUSTER_FILE_FORMAT}: use the version that wrote it`,
    );
  }
  const parsed = clusterSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new CliError(
      `${path} is damaged (${issue?.path.join('.') || 'content'}: ${issue?.message}): restore it from a backup`,
    );
  }
  return parsed.data;
}

/** Writes the file so that a crash leaves the old or the new content whole. */
export async function writeClusterFile(path: string, cluster: ClusterFile): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o644);
  try {
    await file.writeFile(`${JSON.stringify(cluster, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const directory = await open(dirname(path), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
