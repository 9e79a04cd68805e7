import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { InitCluster } from '../../proto/gen/meta.js';
import type { RpcServices } from '../../proto/rpc.js';
import { SESSION_TIMES, type SessionTimes } from '../../proto/types.js';
import { ChunkServerRegistry } from '../cluster/chunk-server-registry.js';
import { ClusterService } from '../cluster/cluster-service.js';
import { LEADER_GRACE_MS } from '../cluster/liveness.js';
import { LossService } from '../cluster/loss-service.js';
import { ManageService } from '../cluster/manage-service.js';
import { primaryOf } from '../cluster/pg-change.js';
import { CheckService } from '../fsck/check-service.js';
import { PgTasks } from '../fsck/pg-tasks.js';
import { SnapshotService } from '../fsck/snapshot-service.js';
import { AdminService } from './admin-service.js';
import { type Capacity, ClientService } from './client-service.js';
import type { ClientStream } from './client-stream.js';
import { Leadership } from './leadership.js';
import type { MetaReplica, MetaState } from './ports.js';
import { Proposer } from './proposer.js';
import { QuotaService } from './quota-service.js';
import { Reclaimer } from './reclaim.js';
import { SessionTable } from './session-table.js';

export interface ServicesOptions {
  replica: MetaReplica;
  state: MetaState;
  clock: Clock;
  log: Logger;
  serverId: number;
  /** Settings of a cluster that has none yet. */
  init: InitCluster;
  /** Wait for a snapshot to be restored instead. */
  awaitRestore?: boolean;
  /** Default: SESSION_TIMES. */
  sessionTimes?: SessionTimes;
  /** Resident memory of this process, bytes. */
  rssBytes(): number;
  /** What an operator should know of this server and need not act upon, a line each. */
  notes?(): string[];
}

export interface Services {
  /** Adds the services to an RPC server that does not listen yet. */
  attach(server: RpcServices): void;
  /** Begins to follow the replica's leadership. */
  start(): void;
  /** Ends the leader's duties and their streams. */
  close(): void;
}

/** With more than this part of the disks free nobody waits for space. */
const ROOM_PART = 8;

/** Puts the leader's services together over a replica and its state machine. */
export function createServices(options: ServicesOptions): Services {
  const { replica, state, clock, log, serverId, init, awaitRestore, rssBytes } = options;
  const metaservers = (): string[] =>
    replica.status().members.flatMap(({ address }) => (address === '' ? [] : [address]));
  const proposer = new Proposer(replica, clock);
  const leadership = new Leadership({ replica, state, proposer, clock, log, init, awaitRestore });
  const registry = new ChunkServerRegistry();
  const sessions = new SessionTable<ClientStream>(() => reclaimer.released());
  let ledSince = 0;

  const capacity = (): Capacity | undefined => {
    const map = state.map();
    const settled = clock.now() - ledSince >= LEADER_GRACE_MS;
    return settled || registry.complete(map) ? registry.capacity(map) : undefined;
  };
  const cluster: ClusterService = new ClusterService({
    replica,
    state,
    proposer,
    leadership,
    registry,
    clock,
    log,
    onPurgeDone: (server, done) => reclaimer.purgeDone(server, done),
    onTaskDone: (server, done) => tasks.taskDone(server, done),
    onRegistered: () => reclaimer.mapChanged(),
  });
  const connectedPrimary = (pg: number): number | undefined => {
    const server = primaryOf(cluster.map?.pgs[pg] ?? { replicas: [] });
    return server !== undefined && cluster.connected(server) ? server : undefined;
  };
  const tasks: PgTasks = new PgTasks({
    clock,
    primary: connectedPrimary,
    push: (server, task) => cluster.pushTask(server, task),
  });
  const reclaimer: Reclaimer = new Reclaimer({
    state,
    proposer,
    sessions,
    primary: connectedPrimary,
    pgCount: () => cluster.map?.pgs.length ?? 0,
    hasRoom: () => {
      const { totalBytes, availBytes } = capacity() ?? { totalBytes: 0, availBytes: 0 };
      return availBytes > totalBytes / ROOM_PART;
    },
    pushPurge: (server, purge) => cluster.pushPurge(server, purge),
    clock,
    log,
  });
  const clients = new ClientService({
    replica,
    state,
    proposer,
    leadership,
    sessions,
    times: options.sessionTimes ?? SESSION_TIMES,
    clock,
    log,
    serverId,
    metaservers,
    capacity,
    isReclaiming: (ino) => reclaimer.isReclaiming(ino),
    shutOut: () => cluster.shutOut(),
  });
  const admin = new AdminService({
    replica,
    state,
    leadership,
    registry,
    sessions,
    clock,
    clusterId: init.clusterId,
    rssBytes,
    notes: options.notes ?? (() => []),
  });

  const manage = new ManageService({ replica, state, proposer, leadership, log });
  const loss = new LossService({ replica, state, proposer, leadership, log });
  const check = new CheckService({
    replica,
    state,
    proposer,
    leadership,
    tasks,
    map: () => cluster.map,
    inUse: (ino) => !sessions.allAnnounced || sessions.isOpen(ino) || clients.unveil(ino),
    clock,
    log,
  });

  const snapshots = new SnapshotService({
    ...{ replica, state, proposer, leadership, clock, log },
    clusterId: init.clusterId,
  });

  const quotas = new QuotaService({ replica, state, proposer, leadership, clients, clock, log });

  let mapVersion = 0;
  leadership.add({
    begin: () => {
      ledSince = clock.now();
      mapVersion = state.mapVersion();
    },
    end: () => {},
  });
  for (const duty of [clients, cluster, reclaimer, quotas]) leadership.add(duty);
  replica.onApplied(() => {
    if (!leadership.ready) return;
    if (state.mapVersion() !== mapVersion) {
      mapVersion = state.mapVersion();
      cluster.mapChanged();
      clients.pushMap();
      reclaimer.mapChanged();
      tasks.mapChanged();
    }
    reclaimer.applied();
    quotas.applied();
  });
  return {
    attach: (server) => {
      for (const service of [clients, cluster, admin, check, manage, loss, snapshots, quotas])
        service.attach(server);
    },
    start: () => leadership.start(),
    close: () => leadership.close(),
  };
}
