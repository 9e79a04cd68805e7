import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  ReplicaState,
} from '../../proto/gen/cluster.js';

/**
 * What becomes of one PG when a replica of it changes: the rules that every map command obeys.
 *
 * Invariants:
 *  - an in-sync replica holds every acknowledged write. The last one stays in-sync, even if its server is down; it leaves
 *    that state only when its disk was replaced by an empty one;
 *  - `wholeDisk` names a disk which holds every acknowledged write although the replica is not in-sync: with fewer
 *    in-sync replicas than `minInSync` no write is acknowledged, so that whoever was dropped since then misses nothing.
 *    When no replica is in-sync, a replica that is on such a disk becomes in-sync; while there is none, the PG has no
 *    primary: it answers nothing rather than that its data is gone;
 *  - a PG has at most one replica that is leaving; the one that comes for it is listed last. When that is in-sync they
 *    change places, so that the order, and with it the spread of the primaries, stays as it was placed;
 *  - epochs and intervals only rise; every change of a PG raises its epoch by one, and a change of the primary sets the
 *    interval to the new epoch.
 */
const { REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

/** What the rules look at beside the PG: the servers as they are after the command. */
export interface PgView {
  readonly servers: ReadonlyMap<number, ChunkServerInfo>;
  readonly minInSync: number;
}

/** What the map says of its servers. */
export function pgView({ servers, minInSync }: Pick<ClusterMap, 'servers' | 'minInSync'>): PgView {
  return { servers: new Map(servers.map((server) => [server.id, server])), minInSync };
}

/** The server id of a PG's primary: its first in-sync replica; undefined when there is none. */
export function primaryOf(pg: Pick<Pg, 'replicas'>): number | undefined {
  return pg.replicas.find((replica) => replica.state === REPLICA_IN_SYNC)?.server;
}

/** The PG with a replica in another state; the very same one when nothing changes, or the last in-sync replica would go. */
export function changeState(
  pg: Pg,
  server: number,
  view: PgView,
  to: (state: ReplicaState) => ReplicaState,
): Pg {
  const index = pg.replicas.findIndex((replica) => replica.server === server);
  const replica = pg.replicas[index];
  if (!replica) return pg;
  const state = to(replica.state);
  if (state === replica.state || isLastInSync(pg, replica)) return pg;
  const wholeDisk = replica.state === REPLICA_IN_SYNC ? diskOf(view, server) : replica.wholeDisk;
  return settle(pg, pg.replicas.with(index, { ...replica, state, wholeDisk }), view);
}

/** A server has come back with an empty disk in the place of `formerDisk`: whatever it held is to be copied again. */
export function wipeReplica(pg: Pg, server: number, formerDisk: string, view: PgView): Pg {
  const index = pg.replicas.findIndex((replica) => replica.server === server);
  const replica = pg.replicas[index];
  if (!replica) return pg;
  const wholeDisk = replica.state === REPLICA_IN_SYNC ? formerDisk : replica.wholeDisk;
  return settle(pg, pg.replicas.with(index, { ...replica, state: REPLICA_RECOVERING, wholeDisk }), view);
}

/** The server was started again: an in-sync replica may lack what was not synced. */
export function markRestarted(pg: Pg, server: number, view: PgView): Pg {
  const restarted = (replica: Replica): Replica =>
    replica.server === server && replica.state === REPLICA_IN_SYNC
      ? { ...replica, restarted: true }
      : replica;
  return settle(pg, pg.replicas.map(restarted), view);
}

/** A new primary on the same server: what it did under the former interval is over. */
export function renewInterval(pg: Pg): Pg {
  return { ...pg, epoch: pg.epoch + 1, interval: pg.epoch + 1 };
}

/** The PG with the replicas that follow from `replicas` by the rules; the very same one when they are as before. */
export function settle(pg: Pg, changed: readonly Replica[], view: PgView): Pg {
  let replicas = changed.map((replica) => tidy(replica));
  if (countInSync(replicas) === 0) replicas = replicas.map((replica) => promoteWhole(replica, view));
  replicas = changePlaces(replicas);
  // From here on writes may be acknowledged that are on no other disk.
  if (countInSync(replicas) >= view.minInSync) replicas = replicas.map(forgetWhole);
  const inSync = replicas.filter((replica) => replica.state === REPLICA_IN_SYNC);
  const begins = inSync.length > 0 && inSync.every((replica) => replica.restarted);
  if (begins) replicas = replicas.map(forgetRestart);
  if (!begins && sameReplicas(replicas, pg.replicas)) return pg;
  const epoch = pg.epoch + 1;
  const after = { ...pg, epoch, replicas };
  if (begins) Object.assign(after, { lineage: epoch, formerLineage: pg.lineage ?? 0 });
  return primaryOf(after) === primaryOf(pg) ? after : { ...after, interval: epoch };
}

/** All PGs; the same array when none of them changes. */
export function changePgs(map: ClusterMap, change: (pg: Pg) => Pg): Pg[] {
  let changed = false;
  const pgs = map.pgs.map((pg) => {
    const after = change(pg);
    changed ||= after !== pg;
    return after;
  });
  return changed ? pgs : map.pgs;
}

/** One PG, if the command is of its present epoch. */
export function changeOne(
  map: ClusterMap,
  op: { pg: number; epoch: number },
  change: (pg: Pg, view: PgView) => Pg,
): ClusterMap {
  const before = map.pgs[op.pg];
  if (!before || before.epoch !== op.epoch) return map;
  const after = change(before, pgView(map));
  if (after === before) return map;
  const pgs = map.pgs.with(op.pg, after);
  return { ...map, version: map.version + 1, pgs };
}

export function countInSync(replicas: readonly Replica[]): number {
  return replicas.filter((replica) => replica.state === REPLICA_IN_SYNC).length;
}

function isLastInSync({ replicas }: Pg, replica: Replica): boolean {
  return replica.state === REPLICA_IN_SYNC && countInSync(replicas) === 1;
}

/** The replica that gives up its place; undefined: the PG is not being moved. */
export function leavingOf({ replicas }: Pick<Pg, 'replicas'>): Replica | undefined {
  return replicas.find((replica) => replica.leaving);
}

/** The replica that comes for the one that leaves; undefined when it has taken its place already, or nobody leaves. */
export function comingOf({ replicas }: Pick<Pg, 'replicas'>): Replica | undefined {
  const last = replicas.at(-1);
  return leavingOf({ replicas }) && !last?.leaving ? last : undefined;
}

function changePlaces(replicas: Replica[]): Replica[] {
  const coming = comingOf({ replicas });
  if (coming?.state !== REPLICA_IN_SYNC) return replicas;
  const at = replicas.findIndex((replica) => replica.leaving);
  return [...replicas.slice(0, at), coming, ...replicas.slice(at + 1, -1), replicas[at] as Replica];
}

/** Without fields that say nothing: two equal replicas have the same keys. */
function tidy(replica: Replica): Replica {
  if (replica.state === REPLICA_IN_SYNC) return forgetWhole(replica);
  return forgetRestart(replica.wholeDisk ? replica : forgetWhole(replica));
}

function forgetRestart(replica: Replica): Replica {
  if (!('restarted' in replica)) return replica;
  const { restarted: _, ...rest } = replica;
  return rest;
}

function forgetWhole(replica: Replica): Replica {
  if (!('wholeDisk' in replica)) return replica;
  const { wholeDisk: _, ...rest } = replica;
  return rest;
}

function promoteWhole(replica: Replica, view: PgView): Replica {
  const info = view.servers.get(replica.server);
  if (!replica.wholeDisk || !info?.alive || info.diskUuid !== replica.wholeDisk) return replica;
  // It was out: who knows how often it was started again.
  return forgetWhole({ ...replica, state: REPLICA_IN_SYNC, restarted: true });
}

function diskOf(view: PgView, server: number): string | undefined {
  return view.servers.get(server)?.diskUuid;
}

function sameReplicas(a: readonly Replica[], b: readonly Replica[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index] as Replica;
      return (
        one.server === other.server &&
        one.state === other.state &&
        (one.leaving ?? false) === (other.leaving ?? false) &&
        (one.restarted ?? false) === (other.restarted ?? false) &&
        (one.wholeDisk ?? '') === (other.wholeDisk ?? '')
      );
    })
  );
}
