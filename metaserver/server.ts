import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { Clock } from '../common/clock.js';
import { type Disk, nodeDisk } from '../common/disk.js';
import type { Logger } from '../common/logger.js';
import type { Prng } from '../common/prng.js';
import type { Tracer } from '../common/trace.js';
import { toHoldfastError } from '../proto/errors.js';
import type { CommandResult, InitCluster } from '../proto/gen/meta.js';
import { RpcServer } from '../proto/rpc.js';
import { DAMAGED_DIR, keptDamage, keptIsUnused } from './damage.js';
import { newDiskUuid, readFormat, writeFormat } from './replica/format.js';
import { Replica } from './replica/replica.js';
import { replicaPort } from './service/replica-port.js';
import { ReplicatedState, type Unverified } from './service/replicated-state.js';
import { createServices } from './service/services.js';
import { MetaTracing } from './tracing.js';

/** Some 2 seconds to read. A larger state is verified while it serves: each value that is used has its own checksum. */
const VERIFY_FIRST_MAX_BYTES = 64 * 1024 * 1024;

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
  /** Wait for a snapshot to be restored instead of making a new cluster. */
  awaitRestore?: boolean;
}

export interface MetaserverDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
  /** Notes where the time of each request goes; absent: nothing is noted. */
  tracer?: Tracer;
}

/** A server that was started in a data directory that is locked for this process. */
export interface StartedServer {
  port: number;
  /** Reads as a whole what a crash has left, if the start has not; onFatal hears of damage. */
  verifyBehind(): void;
  /** Hands the leadership over if it has it, ends all streams and closes its files. */
  close(): Promise<void>;
  /** Ends everything as it is; nothing more is answered. Never rejects. */
  abort(): Promise<void>;
}

/**
 * Starts replica, state machine and services over the data directory, formatting it when it is empty.
 * @param onFatal called when the server cannot go on; it should be aborted then
 * @throws Error with one line for the operator; isDamage() tells damaged data from what an operator must decide
 */
export async function startServer(
  options: MetaserverOptions,
  deps: MetaserverDeps,
  onFatal: (error: unknown) => void,
): Promise<StartedServer> {
  const { id, host, port, dataDir, clusterId, peers, init } = options;
  const { clock, log, prng } = deps;
  const tracing = deps.tracer && new MetaTracing(deps.tracer);
  const opened: { close(): Promise<void> | void }[] = [];
  const closeAll = async (): Promise<void> => {
    for (const each of opened.splice(0).reverse()) await each.close();
  };
  const abort = async (): Promise<void> => {
    for (const each of opened.splice(0).reverse()) {
      await Promise.resolve(each.close()).catch((error: unknown) =>
        log.warn({ err: error }, 'not closed cleanly'),
      );
    }
  };
  try {
    await format(nodeDisk, options);
    const state = await ReplicatedState.open(nodeDisk, dataDir, {
      onFailure: onFatal,
      verifyFirstMaxBytes: VERIFY_FIRST_MAX_BYTES,
      onUnverified: (error) =>
        log.error({ err: error }, 'the state could not be read as a whole after a crash'),
    });
    opened.push(state);
    const replica = await Replica.open<CommandResult>({
      disk: tracing?.disk(nodeDisk) ?? nodeDisk,
      dir: dataDir,
      clusterId,
      serverId: id,
      peers,
      address: peers.find((peer) => peer.id === id)?.address,
      stateMachine: tracing?.stateMachine(state) ?? state,
      clock,
      prng,
      log,
      onFatal,
    });
    opened.push(replica);
    const plainPort = replicaPort(replica, clock);
    const meta = tracing?.replica(plainPort) ?? plainPort;
    const services = createServices({
      replica: meta,
      state,
      clock,
      log,
      serverId: id,
      init,
      awaitRestore: options.awaitRestore,
      rssBytes: () => process.memoryUsage.rss(),
      notes: () => notes(id, dataDir, state.unverified),
    });
    const server = new RpcServer(log);
    replica.attach(server);
    services.attach(tracing?.services(server) ?? server);
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
    return { port: bound, verifyBehind: () => state.verifyBehind(), close, abort };
  } catch (error) {
    await abort();
    throw error;
  }
}

function notes(id: number, dataDir: string, unverified: Unverified | undefined): string[] {
  const told = unverified ? [`metaserver-${id}: ${unverifiedText(unverified)}`] : [];
  const kept = keptDamage(dataDir);
  if (!kept) return told;
  const where = path.join(dataDir, DAMAGED_DIR);
  return [...told, `metaserver-${id}: damaged data was set aside in ${where} (${kept.time}): ${kept.reason}`];
}

/** For people, behind the name of the server. */
export function unverifiedText({ failure }: Unverified): string {
  return failure === undefined
    ? 'its state has yet to be read as a whole after a crash'
    : `its state could not be read as a whole after a crash, the next start tries again: ${failure}`;
}

/** What an unformatted directory may hold. */
const MAY_LIE_THERE: ReadonlySet<string> = new Set(['lock', 'lost+found', DAMAGED_DIR]);

/** Formats an empty directory for this server; what a formatted one is for, is checked when the replica opens. */
async function format(disk: Disk, { id, dataDir, clusterId, existing }: MetaserverOptions): Promise<void> {
  if (await readFormat(disk, dataDir)) return;
  // A format that was interrupted leaves its temporary file; a disk of its own has a lost+found.
  const names = await disk.list(dataDir);
  const foreign = names.find(
    (name) => !MAY_LIE_THERE.has(name) && !name.startsWith('lock.') && !name.endsWith('.tmp'),
  );
  if (foreign !== undefined)
    throw new Error(`${dataDir} is no metaserver's directory and not empty: ${foreign}`);
  await writeFormat(disk, dataDir, {
    clusterId,
    serverId: id,
    diskUuid: newDiskUuid(randomUUID),
    conf: null,
    // Who has lost damaged data belongs to a cluster, unless that data was never used.
    mayFound: !existing && (!names.includes(DAMAGED_DIR) || (await keptIsUnused(disk, dataDir))),
    begun: false,
  });
}
