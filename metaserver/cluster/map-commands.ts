import { unreachable } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type ReplicaCaughtUp,
  ReplicaState,
} from '../../proto/gen/cluster.js';
import type { Command, CreatePgs, InitCluster, ReplicaDrop } from '../../proto/gen/meta.js';
import { addReplica, drainServer, putFirst, removeReplica, removeServer } from './membership.js';
import {
  changeOne,
  changePgs,
  changeState,
  markRestarted,
  pgView,
  primaryOf,
  renewInterval,
  wipeReplica,
} from './pg-change.js';
import { acceptLoss } from './pg-loss.js';

/**
 * The commands that change the cluster map, as pure functions on it.
 *
 * Invariants, whatever the commands: those of pg-change.ts for each PG, and
 *  - a replica becomes in-sync only by ReplicaCaughtUp for the PG's present epoch, or because its disk is known to hold
 *    every acknowledged write while no other replica is in-sync, or because an operator accepts what is lost;
 *  - every change of the map raises its version by one; a command that would change nothing returns the very same map.
 * The order of the replicas is fixed at creation, and the first in-sync one is the primary: after every failure and
 * return the primaries are spread as placement spread them.
 */
export type MapCommand = Extract<
  NonNullable<Command['body']>,
  {
    $case:
      | 'putChunkServer'
      | 'serverDown'
      | 'replicaDrop'
      | 'replicaInSync'
      | 'createPgs'
      | 'drainChunkServer'
      | 'replicaAdd'
      | 'replicaRemove'
      | 'replicaFirst'
      | 'removeChunkServer'
      | 'acceptLoss';
  }
>;

/** What the rest of the state machine knows when a command is applied. */
export interface MapFacts {
  /** Nothing is, or waits to be, stored in the cluster: no PG holds anything that could be missed. */
  nothingStored: boolean;
}

const SOMETHING_STORED: MapFacts = { nothingStored: false };

const { REPLICA_OUT, REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

/** Server ids and PG counts beyond these are refused: the map is sent whole. */
const MAX_SERVERS = 4096;
const MAX_PGS = 65_536;
const MAX_REPLICAS = 16;

/** The first map of a cluster. @throws HoldfastError EINVAL on settings that cannot work */
export function createMap(op: InitCluster): ClusterMap {
  const { clusterId, replicas, minInSync, chunkSize, pgCount } = op;
  if (!clusterId) throw new HoldfastError('EINVAL', 'the cluster needs an id');
  if (replicas < 1 || replicas > MAX_REPLICAS || minInSync < 1 || minInSync > replicas) {
    throw new HoldfastError('EINVAL', `${replicas} replicas, ${minInSync} in sync`);
  }
  if (pgCount < 1 || pgCount > MAX_PGS) throw new HoldfastError('EINVAL', `${pgCount} PGs`);
  return { version: 1, clusterId, replicas, minInSync, chunkSize, servers: [], pgs: [] };
}

/** The map after the command: the same object when nothing changes. @throws HoldfastError EINVAL, ENOENT */
export function applyMapCommand(map: ClusterMap, command: MapCommand, facts = SOMETHING_STORED): ClusterMap {
  switch (command.$case) {
    case 'putChunkServer':
      return putServer(map, command.value.server, facts);
    case 'serverDown':
      return serverDown(map, command.value.server);
    case 'replicaDrop':
      return replicaDrop(map, command.value);
    case 'replicaInSync':
      return replicaCaughtUp(map, command.value);
    case 'createPgs':
      return createPgs(map, command.value);
    case 'drainChunkServer':
      return drainServer(map, command.value);
    case 'replicaAdd':
      return addReplica(map, command.value);
    case 'replicaRemove':
      return removeReplica(map, command.value);
    case 'replicaFirst':
      return putFirst(map, command.value);
    case 'removeChunkServer':
      return removeServer(map, command.value.server);
    case 'acceptLoss':
      return acceptLoss(map, command.value);
    default:
      return unreachable(command);
  }
}

/** A server has registered: new, returned, moved, or with an empty disk. */
function putServer(map: ClusterMap, info: ChunkServerInfo | undefined, facts: MapFacts): ClusterMap {
  if (!info || info.id < 1) throw new HoldfastError('EINVAL', 'a chunkserver needs an id');
  const known = map.servers.find((server) => server.id === info.id);
  if (!known && map.servers.length >= MAX_SERVERS) throw new HoldfastError('EINVAL', 'too many servers');
  if (map.removed?.uuids.includes(info.diskUuid))
    throw new HoldfastError('EINVAL', `disk ${info.diskUuid} was removed from this cluster`);
  const server: ChunkServerInfo = { ...info, alive: true };
  if (known?.draining) server.draining = true;
  const servers = known
    ? map.servers.map((other) => (other === known ? server : other))
    : [...map.servers, server].sort((a, b) => a.id - b.id);
  const view = pgView({ servers, minInSync: map.minInSync });
  const wiped = known !== undefined && known.diskUuid !== info.diskUuid;
  const restarted = info.boot !== undefined && known?.boot !== info.boot;
  const pgs = changePgs(map, (pg) => {
    if (!wiped) {
      // What it holds may be behind.
      const back = changeState(pg, info.id, view, (state) =>
        state === REPLICA_OUT ? REPLICA_RECOVERING : state,
      );
      return restarted ? markRestarted(back, info.id, view) : back;
    }
    const after = wipeReplica(pg, info.id, known.diskUuid, view);
    // An empty disk lacks nothing of an empty file system.
    return primaryOf(after) === undefined && facts.nothingStored ? keepInSync(pg, info.id) : after;
  });
  if (pgs === map.pgs && known && sameServer(known, server)) return map;
  return { ...map, version: map.version + 1, servers, pgs };
}

function keepInSync(pg: Pg, server: number): Pg {
  return primaryOf(pg) === server ? renewInterval(pg) : pg;
}

/** A server is certainly not serving any more. */
function serverDown(map: ClusterMap, id: number): ClusterMap {
  const known = map.servers.find((server) => server.id === id);
  if (!known) throw new HoldfastError('ENOENT', `no chunkserver ${id}`);
  const servers = map.servers.map((server) => (server === known ? { ...server, alive: false } : server));
  const view = pgView({ servers, minInSync: map.minInSync });
  const pgs = changePgs(map, (pg) => changeState(pg, id, view, () => REPLICA_OUT));
  if (pgs === map.pgs && !known.alive) return map;
  return { ...map, version: map.version + 1, servers, pgs };
}

/** A replica did not take a write: it has to catch up, or is out while its server is. One that was recovering is out. */
function replicaDrop(map: ClusterMap, op: ReplicaDrop): ClusterMap {
  const alive = map.servers.some((server) => server.id === op.server && server.alive);
  const to = (state: ReplicaState) => (state === REPLICA_IN_SYNC && alive ? REPLICA_RECOVERING : REPLICA_OUT);
  return changeOne(map, op, (pg, view) => changeState(pg, op.server, view, to));
}

/** The primary has given a recovering replica everything. */
function replicaCaughtUp(map: ClusterMap, op: ReplicaCaughtUp): ClusterMap {
  const to = (state: ReplicaState) => (state === REPLICA_RECOVERING ? REPLICA_IN_SYNC : state);
  return changeOne(map, op, (pg, view) => changeState(pg, op.server, view, to));
}

/** The first placement; a second one is ignored. */
function createPgs(map: ClusterMap, op: CreatePgs): ClusterMap {
  if (map.pgs.length > 0) return map;
  if (op.pgs.length < 1 || op.pgs.length > MAX_PGS) throw new HoldfastError('EINVAL', `${op.pgs.length} PGs`);
  const alive = new Map(map.servers.map((server) => [server.id, server.alive]));
  const pgs = op.pgs.map((pg, index): Pg => {
    const servers = pg.replicas.map((replica) => replica.server);
    if (pg.id !== index || servers.length < 1 || new Set(servers).size !== servers.length) {
      throw new HoldfastError('EINVAL', `placement of PG ${index}`);
    }
    if (!servers.every((id) => alive.has(id)))
      throw new HoldfastError('EINVAL', `PG ${index} on an unknown server`);
    // Nothing is stored yet, so all are in-sync, except a server that went down since the placement was made.
    const anyAlive = servers.some((id) => alive.get(id));
    const replicas = servers.map((server) => ({
      server,
      state: alive.get(server) || !anyAlive ? REPLICA_IN_SYNC : REPLICA_OUT,
    }));
    return { id: index, epoch: 1, interval: 1, replicas };
  });
  return { ...map, version: map.version + 1, pgs };
}

function sameServer(a: ChunkServerInfo, b: ChunkServerInfo): boolean {
  return (
    a.diskUuid === b.diskUuid &&
    a.host === b.host &&
    a.port === b.port &&
    a.alive === b.alive &&
    a.domain === b.domain &&
    a.boot === b.boot
  );
}
