import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  CLUSTER_FILE,
  type ClusterFile,
  clusterFilePath,
  newCluster,
  readClusterFile,
  SERVERS_MAX,
  type ServerAddress,
  writeClusterFile,
} from './cluster-file.js';
import { CliError } from './output.js';
import type { ProcessSpec } from './supervisor.js';
import { TRACE_DIR } from './tracing.js';

/** What `up` was asked for; what is absent was not said. */
export interface UpRequest {
  dataDir: string;
  metaservers?: number;
  chunkservers?: number;
  replicas?: number;
  port?: number;
  /** Of every chunkserver. */
  recoveryMbps?: number;
  /** Snapshot to restore: the metaservers wait for it. */
  restore?: string;
  /** Every process notes where the time of requests goes. */
  trace?: boolean;
}

const HOST = '127.0.0.1';
const DEFAULT_SERVERS = 3;
const DEFAULT_REPLICAS_MAX = 3;
/** Without --port, a new cluster takes the first free range from here on, in steps, and keeps it. */
const FIRST_PORT = 7400;
const PORT_STEP = 100;
const PORT_TRIES = 100;
const PORT_MAX = 65_535;
/** What a start that was cut short leaves in a data directory before there is a cluster. */
const OF_A_START = ['run', 'log', `${CLUSTER_FILE}.new`];

/**
 * Reads the data directory's cluster, or makes a new one there, and checks it against the request.
 * @throws CliError on anything that does not fit, before anything is started
 */
export async function planCluster(request: UpRequest): Promise<ClusterFile> {
  const path = clusterFilePath(request.dataDir);
  const existing = await readClusterFile(path);
  if (!existing) refuseForeignFiles(request.dataDir);
  const cluster = existing ?? makeCluster(request);
  if (existing) refuseChanges(existing, request);
  while (cluster.chunkservers.length < (request.chunkservers ?? 0))
    await addServer(cluster, 'chunkserver', request.dataDir);
  if (!existing || request.port !== undefined) await assignPorts(cluster, request.port);
  const busy = await firstBusy(allServers(cluster));
  if (busy) {
    throw new CliError(`port ${busy.port} is in use: stop what uses it, or choose other ports with --port N`);
  }
  try {
    mkdirSync(join(request.dataDir, 'run'), { recursive: true });
    mkdirSync(join(request.dataDir, 'log'), { recursive: true });
    await writeClusterFile(path, cluster);
  } catch (error) {
    throw new CliError(`cannot write the data directory ${request.dataDir}: ${(error as Error).message}`);
  }
  return cluster;
}

/** A kind of server that can be added. */
export type ServerKind = 'metaserver' | 'chunkserver';

/**
 * A further server, on a free port, with a number and a data directory that were never used. The caller writes the
 * cluster file.
 * @throws CliError when there are too many
 */
export async function addServer(
  cluster: ClusterFile,
  kind: ServerKind,
  dataDir: string,
): Promise<ServerAddress> {
  const servers = kind === 'chunkserver' ? cluster.chunkservers : cluster.metaservers;
  let id = Math.max(0, ...servers.map((server) => server.id)) + 1;
  while (existsSync(join(dataDir, `${kind}-${id}`))) id++;
  if (id > SERVERS_MAX)
    throw new CliError(`there can be no more than ${SERVERS_MAX} ${kind}s on one machine`);
  let port = Math.max(...allServers(cluster).map((server) => server.port)) + 1;
  while (port <= PORT_MAX && !(await portFree({ id, host: HOST, port }))) port++;
  const server = { id, host: HOST, port };
  servers.push(server);
  return server;
}

/** The servers' command lines, in the order in which they start. */
export function serverSpecs(
  cluster: ClusterFile,
  {
    dataDir,
    recoveryMbps,
    restore,
    trace,
  }: Pick<UpRequest, 'dataDir' | 'recoveryMbps' | 'restore' | 'trace'>,
): ProcessSpec[] {
  const clusterFile = clusterFilePath(dataDir);
  const peers = cluster.metaservers.map((one) => `${one.id}=${one.host}:${one.port}`).join(',');
  const metaservers = cluster.metaservers.map((one) => ({
    name: `metaserver-${one.id}`,
    args: [
      'metaserver',
      ...serverFlags(one, dataDir, `metaserver-${one.id}`),
      ...['--cluster-id', cluster.clusterId, '--peers', peers, '--replicas', String(cluster.replicas)],
      ...['--min-in-sync', String(cluster.minInSync), '--chunk-size', String(cluster.chunkSize)],
      ...['--pgs', String(cluster.pgCount), '--chunkservers', String(cluster.chunkservers.length)],
      ...(restore !== undefined ? ['--await-restore'] : cluster.formed ? ['--existing'] : []),
      ...traceFlags(dataDir, trace),
    ],
  }));
  const chunkservers = cluster.chunkservers.map((one) => ({
    name: `chunkserver-${one.id}`,
    args: [
      'chunkserver',
      ...serverFlags(one, dataDir, `chunkserver-${one.id}`),
      ...['--cluster', clusterFile],
      ...(recoveryMbps === undefined ? [] : ['--recovery-mbps', String(recoveryMbps)]),
      ...traceFlags(dataDir, trace),
    ],
  }));
  return [...metaservers, ...chunkservers];
}

/** --trace of one process of `up`. */
export function traceFlags(dataDir: string, trace = false): string[] {
  return trace ? ['--trace', join(dataDir, TRACE_DIR)] : [];
}

function serverFlags(server: ServerAddress, dataDir: string, name: string): string[] {
  return [
    '--id',
    String(server.id),
    '--listen',
    `${server.host}:${server.port}`,
    '--data-dir',
    join(dataDir, name),
  ];
}

function refuseForeignFiles(dataDir: string): void {
  if (!existsSync(dataDir)) return;
  let names: string[];
  try {
    names = readdirSync(dataDir);
  } catch (error) {
    throw new CliError(`cannot use the data directory ${dataDir}: ${(error as Error).message}`);
  }
  const others = names.filter((name) => !OF_A_START.includes(name));
  if (others.length > 0) {
    throw new CliError(
      `${dataDir} holds other files (${others[0]}) and no cluster.json: name an empty directory with --data`,
    );
  }
}

function makeCluster(request: UpRequest): ClusterFile {
  const servers = (count: number): ServerAddress[] =>
    Array.from({ length: count }, (_, index) => ({ id: index + 1, host: HOST, port: 1 }));
  const chunkservers = request.chunkservers ?? DEFAULT_SERVERS;
  const replicas = request.replicas ?? Math.min(DEFAULT_REPLICAS_MAX, chunkservers);
  if (replicas > chunkservers) {
    throw new CliError(
      `--replicas ${replicas} needs at least as many chunkservers (--chunkservers ${chunkservers})`,
    );
  }
  return newCluster({
    metaservers: servers(request.metaservers ?? DEFAULT_SERVERS),
    chunkservers: servers(chunkservers),
    replicas,
  });
}

function refuseChanges(cluster: ClusterFile, request: UpRequest): void {
  const check = (flag: string, wanted: number | undefined, has: number): void => {
    if (wanted !== undefined && wanted !== has) {
      throw new CliError(
        `${flag} ${wanted}: the cluster in ${request.dataDir} has ${has}; leave the flag out, or use another --data`,
      );
    }
  };
  check('--metaservers', request.metaservers, cluster.metaservers.length);
  const { chunkservers = Number.POSITIVE_INFINITY } = request;
  if (chunkservers < cluster.chunkservers.length) {
    throw new CliError(
      `--chunkservers ${chunkservers}: the cluster in ${request.dataDir} has ${cluster.chunkservers.length}; use 'holdfast chunkserver drain' and 'remove' while it runs`,
    );
  }
  check('--replicas', request.replicas, cluster.replicas);
}

function allServers(cluster: ClusterFile): ServerAddress[] {
  return [...cluster.metaservers, ...cluster.chunkservers];
}

async function assignPorts(cluster: ClusterFile, wanted: number | undefined): Promise<void> {
  const servers = allServers(cluster);
  const assign = (base: number): void => {
    servers.forEach((server, index) => {
      server.port = base + index;
    });
  };
  if (wanted !== undefined) {
    if (wanted + servers.length - 1 > 65_535)
      throw new CliError(`--port ${wanted}: ${servers.length} ports from there on do not exist`);
    assign(wanted);
    return;
  }
  for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
    assign(FIRST_PORT + attempt * PORT_STEP);
    if (!(await firstBusy(servers))) return;
  }
  throw new CliError('no free range of ports was found: choose one with --port N');
}

async function firstBusy(servers: ServerAddress[]): Promise<ServerAddress | undefined> {
  for (const server of servers) if (!(await portFree(server))) return server;
  return undefined;
}

function portFree({ host, port }: ServerAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, host, () => probe.close(() => resolve(true)));
  });
}
