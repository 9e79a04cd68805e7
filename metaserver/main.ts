import { randomUUID } from 'node:crypto';
import { createServer } from 'node:net';
import type { Clock } from '../common/clock.js';
import { deferred } from '../common/deferred.js';
import { lockDirectory } from '../common/dir-lock.js';
import { type Disk, nodeDisk } from '../common/disk.js';
import type { Logger } from '../common/logger.js';
import type { Prng } from '../common/prng.js';
import { toHoldfastError } from '../proto/errors.js';
import type { CommandResult, InitCluster } from '../proto/gen/meta.js';
import { RpcServer } from '../proto/rpc.js';
import { newDiskUuid, readFormat, writeFormat } from './replica/format.js';
import { Replica } from './replica/replica.js';
import { replicaPort } from './service/replica-port.js';
import { ReplicatedState } from './service/replicated-state.js';
import { createServices } from './service/services.js';

export interface MetaserverOptions {
  /** Number of this server, one of `peers`. */
  id: number;
  /** Where it listens. */
  host: string;
  port: number;
  /** For this server alone; made when missing. */
  dataDir: string;
  clusterId: string;
  /** All metaservers, this one included; host:port. */
  peers: { id: number; address: string }[];
  /**
   * The cluster exists: a server without data waits to be taken in, and never helps to found a new cluster in the place of one
   * whose disks were all lost. Default false: the servers found one when all of them are without data.
   */
  existing?: boolean;
  /** Settings of a new cluster; an existing one keeps its own. */
  init: InitCluster;
}

export interface MetaserverDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
}

export interface RunningMetaserver {
  port: number;
  /** Hands the leadership over if it has it, ends all streams and closes its files. */
  close(): Promise<void>;
  /** Resolves when the server cannot go on; it should be closed then. */
  fatal: Promise<Error>;
}

/**
 * Runs one metaserver: Raft replica, state machine, and the services of its leader, all on one port.
 * @throws Error with one line for the operator: the port is in use, the data directory belongs to another server,
 *   cluster or format version, or holds something else
 */
export async function runMetaserver(
  options: MetaserverOptions,
  deps: MetaserverDeps,
): Promise<RunningMetaserver> {
  checkOptions(options);
  const { id, host, port, dataDir, clusterId, peers, init } = options;
  const { clock, log, prng } = deps;
  await checkPort(host, port);
  await nodeDisk.mkdir(dataDir);
  const opened: { close(): Promise<void> | void }[] = [{ close: await lockDirectory(dataDir) }];
  const closeAll = async (): Promise<void> => {
    for (const each of opened.splice(0).reverse()) await each.close();
  };
  const fatal = deferred<Error>();
  try {
    await format(nodeDisk, options);
    const state = await ReplicatedState.open(nodeDisk, dataDir);
    opened.push(state);
    const replica = await Replica.open<CommandResult>({
      disk: nodeDisk,
      dir: dataDir,
      clusterId,
      serverId: id,
      peers,
      address: peers.find((peer) => peer.id === id)?.address,
      stateMachine: state,
      clock,
      prng,
      log,
      onFatal: (error) => fatal.resolve(error instanceof Error ? error : new Error(String(error))),
    });
    opened.push(replica);
    const meta = replicaPort(replica, clock);
    const services = createServices({
      replica: meta,
      state,
      clock,
      log,
      serverId: id,
      init,
      rssBytes: () => process.memoryUsage.rss(),
    });
    const server = new RpcServer(log);
    replica.attach(server);
    services.attach(server);
    const bound = await server.listen(host, port);
    opened.push(server);
    services.start();
    replica.start();
    opened.push(services);
    log.info({ host, port: bound, dataDir, applied: state.appliedIndex() }, 'metaserver started');
    const close = async (): Promise<void> => {
      if (meta.status().role === 'leader' && meta.status().members.length > 1) {
        const handedOver = await meta.transferLeader(0).catch((error: unknown) => toHoldfastError(error));
        if (handedOver) log.debug({ error: handedOver.message }, 'leadership not handed over');
      }
      await closeAll();
    };
    return { port: bound, close, fatal: fatal.promise };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** @throws Error on settings that cannot work */
function checkOptions({ id, peers, init }: MetaserverOptions): void {
  const { replicas, minInSync, chunkservers } = init;
  if (!peers.some((peer) => peer.id === id)) throw new Error(`metaserver ${id} is not among its peers`);
  if (new Set(peers.map((peer) => peer.id)).size !== peers.length) throw new Error('two peers have one id');
  if (minInSync > replicas)
    throw new Error(`${minInSync} in-sync copies cannot be had of ${replicas} replicas`);
  if (replicas > chunkservers)
    throw new Error(`${replicas} replicas need more than ${chunkservers} chunkservers`);
}

/** @throws the system's error when the address is in use or not ours */
function checkPort(host: string, port: number): Promise<void> {
  if (port === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}

/** Formats an empty directory for this server; what a formatted one is for, is checked when the replica opens. */
async function format(disk: Disk, { id, dataDir, clusterId, existing }: MetaserverOptions): Promise<void> {
  if (await readFormat(disk, dataDir)) return;
  // A format that was interrupted leaves its temporary file; a disk of its own has a lost+found.
  const names = await disk.list(dataDir);
  const foreign = names.find((name) => name !== 'lock' && name !== 'lost+found' && !name.endsWith('.tmp'));
  if (foreign !== undefined)
    throw new Error(`${dataDir} is no metaserver's directory and not empty: ${foreign}`);
  await writeFormat(disk, dataDir, {
    clusterId,
    serverId: id,
    diskUuid: newDiskUuid(randomUUID),
    conf: null,
    mayFound: !existing,
    begun: false,
  });
}
