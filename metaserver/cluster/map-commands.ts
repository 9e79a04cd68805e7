import { unreachable } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  type ReplicaCaughtUp,
  ReplicaState,
} from '../../proto/gen/cluster.js';
import type { Command, CreatePgs, InitCluster, ReplicaDrop } from '../../proto/gen/meta.js';

/**
 * The commands that change the cluster map, as pure functions on it.
 *
 * Invariants, whatever the commands:
 *  - a PG that once had an in-sync replica always has one (the last one stays, even if its server is down: nobody else
 *    holds every acknowledged write);
 *  - a replica becomes in-sync again only by ReplicaCaughtUp for the PG's present epoch;
 *  - epochs and intervals only rise; every change of a PG raises its epoch by one, and a change of the primary sets the
 *    interval to the new epoch; every change of the map raises its version by one;
 *  - a command that would change nothing returns the very same map.
 * The order of the replicas is fixed at creation, and the first in-sync one is the primary: after every failure and
 * return the primaries are spread as placement spread them.
 */
export type MapCommand = Extract<
  NonNullable<Command['body']>,
  { $case: 'putChunkServer' | 'serverDown' | 'replicaDrop' | 'replicaInSync' | 'createPgs' }
>;

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
export function applyMapCommand(map: ClusterMap, command: MapCommand): ClusterMap {
  switch (command.$case) {
    case 'putChunkServer':
      return putServer(map, command.value.server);
    case 'serverDown':
      return serverDown(map, command.value.server);
    case 'replicaDrop':
      return replicaDrop(map, command.value);
    case 'replicaInSync':
      return replicaCaughtUp(map, command.value);
    case 'createPgs':
      return createPgs(map, command.value);
    default:
      return unreachable(command);
  }
}

/** A server has registered: new, returned, moved, or with an empty disk. */
function putServer(map: ClusterMap, info: ChunkServerInfo | undefined): ClusterMap {
  if (!info || info.id < 1) throw new HoldfastError('EINVAL', 'a chunkserver needs an id');
  const known = map.servers.find((server) => server.id === info.id);
  if (!known && map.servers.length >= MAX_SERVERS) throw new HoldfastError('EINVAL', 'too many servers');
  const server = { ...info, alive: true };
  const servers = known
    ? map.servers.map((other) => (other === known ? server : other))
    : [...map.servers, server].sort((a, b) => a.id - b.id);
  const wiped = known !== undefined && known.diskUuid !== info.diskUuid;
  const pgs = changeReplicas(map, info.id, (state) => {
    // What it holds may be behind; a wiped disk holds nothing.
    if (state === REPLICA_OUT) return REPLICA_RECOVERING;
    return wiped ? REPLICA_RECOVERING : state;
  });
  if (pgs === map.pgs && known && sameServer(known, server)) return map;
  return { ...map, version: map.version + 1, servers, pgs };
}

/** A server is certainly not serving any more. */
function serverDown(map: ClusterMap, id: number): ClusterMap {
  const known = map.servers.find((server) => server.id === id);
  if (!known) throw new HoldfastError('ENOENT', `no chunkserver ${id}`);
  const pgs = changeReplicas(map, id, () => REPLICA_OUT);
  if (pgs === map.pgs && !known.alive) return map;
  const servers = map.servers.map((server) => (server === known ? { ...server, alive: false } : server));
  return { ...map, version: map.version + 1, servers, pgs };
}

/** A replica did not take a write: it has to catch up, or is out while its server is. One that was recovering is out. */
function replicaDrop(map: ClusterMap, op: ReplicaDrop): ClusterMap {
  const alive = map.servers.some((server) => server.id === op.server && server.alive);
  return changeOne(map, op, (state) =>
    state === REPLICA_IN_SYNC && alive ? REPLICA_RECOVERING : REPLICA_OUT,
  );
}

/** The primary has given a recovering replica everything. */
function replicaCaughtUp(map: ClusterMap, op: ReplicaCaughtUp): ClusterMap {
  return changeOne(map, op, (state) => (state === REPLICA_RECOVERING ? REPLICA_IN_SYNC : state));
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

/** The server id of a PG's primary: its first in-sync replica; undefined when there is none. */
export function primaryOf(pg: Pg): number | undefined {
  return pg.replicas.find((replica) => replica.state === REPLICA_IN_SYNC)?.server;
}

type Transition = (state: ReplicaState) => ReplicaState;

/** All PGs of a server; the same array when none of them changes. */
function changeReplicas(map: ClusterMap, server: number, transition: Transition): Pg[] {
  let changed = false;
  const pgs = map.pgs.map((pg) => {
    const after = changeReplica(pg, server, transition);
    changed ||= after !== pg;
    return after;
  });
  return changed ? pgs : map.pgs;
}

/** One PG, if the command is of its present epoch. */
function changeOne(
  map: ClusterMap,
  op: { pg: number; epoch: number; server: number },
  transition: Transition,
): ClusterMap {
  const before = map.pgs[op.pg];
  if (!before || before.epoch !== op.epoch) return map;
  const after = changeReplica(before, op.server, transition);
  if (after === before) return map;
  const pgs = map.pgs.with(op.pg, after);
  return { ...map, version: map.version + 1, pgs };
}

/** The PG with a replica's new state, unless that would take its last in-sync replica; the same when nothing changes. */
function changeReplica(pg: Pg, server: number, transition: Transition): Pg {
  const index = pg.replicas.findIndex((replica) => replica.server === server);
  const replica = pg.replicas[index];
  if (!replica) return pg;
  const state = transition(replica.state);
  if (state === replica.state) return pg;
  const inSync = pg.replicas.filter((other) => other.state === REPLICA_IN_SYNC);
  if (replica.state === REPLICA_IN_SYNC && inSync.length === 1) return pg;
  const replicas: Replica[] = pg.replicas.with(index, { server, state });
  const epoch = pg.epoch + 1;
  const after = { ...pg, epoch, replicas };
  return primaryOf(after) === primaryOf(pg) ? after : { ...after, interval: epoch };
}

function sameServer(a: ChunkServerInfo, b: ChunkServerInfo): boolean {
  return (
    a.diskUuid === b.diskUuid &&
    a.host === b.host &&
    a.port === b.port &&
    a.alive === b.alive &&
    a.domain === b.domain
  );
}
