import { HoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  ReplicaState,
} from '../../proto/gen/cluster.js';
import type { DrainChunkServer, ReplicaAdd, ReplicaFirst, ReplicaRemove } from '../../proto/gen/meta.js';
import { changeOne, comingOf, countInSync, leavingOf, type PgView, primaryOf, settle } from './pg-change.js';

/**
 * The map commands that move PGs between servers and let servers leave. A move is: add the coming replica (it recovers),
 * let it catch up (the map commands of every recovery), remove the leaving one. Whoever proposes a removal has to know that
 * the leaving server does not act as the PG's primary any more.
 */
const { REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

/** Disks that are remembered as removed; the oldest is forgotten. */
export const REMOVED_DISKS_MAX = 1024;
/** Replicas of one PG, those that come and go counted. */
const PG_REPLICAS_MAX = 32;

/** @throws HoldfastError ENOENT */
export function drainServer(map: ClusterMap, { server, draining }: DrainChunkServer): ClusterMap {
  const known = find(map, server);
  if ((known.draining ?? false) === draining) return map;
  const { draining: _, ...rest } = known;
  const after: ChunkServerInfo = draining ? { ...rest, draining } : rest;
  const servers = map.servers.map((other) => (other === known ? after : other));
  return { ...map, version: map.version + 1, servers };
}

/** A further replica for a PG of the named epoch; ignored when the PG is being moved already, or is complete. */
export function addReplica(map: ClusterMap, op: ReplicaAdd): ClusterMap {
  const info = map.servers.find((server) => server.id === op.server);
  if (!info?.alive || info.draining) return map;
  return changeOne(map, op, (pg, view) => {
    const { replicas } = pg;
    const listed = (id: number): boolean => replicas.some((replica) => replica.server === id);
    if (listed(op.server) || leavingOf(pg) || replicas.length >= PG_REPLICAS_MAX) return pg;
    if (op.leaving === 0 ? replicas.length >= map.replicas : !listed(op.leaving)) return pg;
    const marked = replicas.map((replica) =>
      replica.server === op.leaving ? { ...replica, leaving: true } : replica,
    );
    return settle(pg, [...marked, { server: op.server, state: REPLICA_RECOVERING }], view);
  });
}

/** Ends a move: the leaving replica goes, or the coming one that did not make it. Ignored while data would be less safe. */
export function removeReplica(map: ClusterMap, op: ReplicaRemove): ClusterMap {
  return changeOne(map, op, (pg, view) => {
    const replica = pg.replicas.find((one) => one.server === op.server);
    if (!replica) return pg;
    const others = pg.replicas.filter((one) => one !== replica);
    if (mayLeave(pg, replica, view)) return settle(pg, others, view);
    // The move is called off: nobody has relied on the coming replica yet.
    if (replica === comingOf(pg) && replica.state !== REPLICA_IN_SYNC && !replica.wholeDisk)
      return settle(pg, others.map(stay), view);
    return pg;
  });
}

/** Puts an in-sync replica first, so that it leads; ignored while the PG is being moved. */
export function putFirst(map: ClusterMap, op: ReplicaFirst): ClusterMap {
  return changeOne(map, op, (pg, view) => {
    const replica = pg.replicas.find((one) => one.server === op.server);
    if (replica?.state !== REPLICA_IN_SYNC || leavingOf(pg)) return pg;
    return settle(pg, [replica, ...pg.replicas.filter((one) => one !== replica)], view);
  });
}

/**
 * Whether the leaving replica can go without making data less safe: its place is taken, it does not lead, and without it
 * there are enough in-sync replicas to acknowledge writes, whatever is alive among them.
 */
export function mayLeave(pg: Pg, replica: Replica, view: PgView): boolean {
  if (!replica.leaving || comingOf(pg) || primaryOf(pg) === replica.server) return false;
  const others = pg.replicas.filter((one) => one !== replica);
  const alive = others.filter((one) => view.servers.get(one.server)?.alive);
  return (
    alive.every((one) => one.state === REPLICA_IN_SYNC) &&
    countInSync(alive) >= Math.min(view.minInSync, others.length)
  );
}

/**
 * A server leaves the cluster, and its disk for good.
 * @throws HoldfastError ENOENT; EBUSY while it holds PGs
 */
export function removeServer(map: ClusterMap, id: number): ClusterMap {
  const known = find(map, id);
  const held = map.pgs.filter((pg) => pg.replicas.some((replica) => replica.server === id)).length;
  if (held > 0) throw new HoldfastError('EBUSY', `chunkserver ${id} holds ${held} PGs: drain it first`);
  const uuids = [...(map.removed?.uuids ?? []), known.diskUuid].slice(-REMOVED_DISKS_MAX);
  const servers = map.servers.filter((server) => server !== known);
  return { ...map, version: map.version + 1, servers, removed: { uuids } };
}

function stay({ leaving: _, ...replica }: Replica): Replica {
  return replica;
}

function find(map: ClusterMap, id: number): ChunkServerInfo {
  const known = map.servers.find((server) => server.id === id);
  if (!known) throw new HoldfastError('ENOENT', `there is no chunkserver ${id}`);
  return known;
}
