import { HoldfastError } from '../../proto/errors.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  ReplicaState,
} from '../../proto/gen/cluster.js';
import type { AcceptLoss, PgChoice } from '../../proto/gen/meta.js';
import { type PgView, pgView, settle } from './pg-change.js';

/**
 * A PG without a living in-sync replica answers nothing until a disk returns that holds every acknowledged write. When
 * all such disks are gone for ever, an operator may accept what is lost with them: another replica takes over with what
 * it has. Pure.
 */
const { REPLICA_OUT, REPLICA_IN_SYNC } = ReplicaState;

/** PGs of one order. */
export const ACCEPT_LOSS_PGS_MAX = 65_536;

/**
 * What a living replica of such a PG has:
 *  - 'whole': every acknowledged write;
 *  - 'stale': what it had when it was dropped, or had copied by then;
 *  - 'empty': it came with an empty disk in the place of one that held everything, and could copy from nobody.
 */
export type Holding = 'whole' | 'stale' | 'empty';
const BEST_FIRST: readonly Holding[] = ['whole', 'stale', 'empty'];

export interface Survivor {
  server: number;
  holds: Holding;
}

type Servers = ReadonlyMap<number, ChunkServerInfo>;

/** Whether a living replica answers for the PG, or will as soon as it has looked around. */
export function isServed({ replicas }: Pick<Pg, 'replicas'>, servers: Servers): boolean {
  return replicas.some(({ server, state }) => state === REPLICA_IN_SYNC && servers.get(server)?.alive);
}

/** The disks that a PG which is not served waits for, by their servers. */
export function missedDisks(
  { replicas }: Pick<Pg, 'replicas'>,
  servers: Servers,
): { server: number; disk: string }[] {
  return replicas.flatMap((replica) => {
    const { server, state, wholeDisk } = replica;
    const info = servers.get(server);
    const disk = state === REPLICA_IN_SYNC ? info?.diskUuid : wholeDisk;
    return disk === undefined || (info?.alive && info.diskUuid === disk) ? [] : [{ server, disk }];
  });
}

/** Living replicas that could take over, the best one first; among equals in the PG's order. */
export function survivorsOf({ replicas }: Pick<Pg, 'replicas'>, servers: Servers): Survivor[] {
  const living = replicas.filter(({ server }) => servers.get(server)?.alive);
  const survivors = living.map((replica) => ({ server: replica.server, holds: holdingOf(replica, servers) }));
  return survivors.sort((a, b) => BEST_FIRST.indexOf(a.holds) - BEST_FIRST.indexOf(b.holds));
}

function holdingOf({ server, state, wholeDisk }: Replica, servers: Servers): Holding {
  if (state === REPLICA_IN_SYNC) return 'whole';
  if (wholeDisk === undefined) return 'stale';
  return servers.get(server)?.diskUuid === wholeDisk ? 'whole' : 'empty';
}

/**
 * Which replica takes over each of the PGs.
 * @param server undefined: the best one that is left
 * @throws HoldfastError ENOENT for a PG or replica that is not there; EINVAL while the PG is served, no replica of it is
 *   alive, or another one than the named has more
 */
export function chooseSurvivors(
  map: ClusterMap,
  ids: readonly number[],
  server: number | undefined,
): PgChoice[] {
  return [...new Set(ids)].map((id) => {
    const pg = map.pgs[id];
    if (!pg) throw new HoldfastError('ENOENT', `there is no PG ${id}`);
    const choice = server ?? survivorsOf(pg, pgView(map).servers)[0]?.server;
    if (choice === undefined)
      throw new HoldfastError('EINVAL', `no replica of PG ${id} is alive: start one of their servers first`);
    check(pg, choice, pgView(map));
    return { pg: id, epoch: pg.epoch, server: choice };
  });
}

function check(pg: Pg, server: number, { servers }: PgView): void {
  if (isServed(pg, servers)) throw new HoldfastError('EINVAL', `PG ${pg.id} is served: nothing is lost`);
  const survivors = survivorsOf(pg, servers);
  const chosen = survivors.find((one) => one.server === server);
  if (!chosen) throw new HoldfastError('ENOENT', `chunkserver-${server} is no living replica of PG ${pg.id}`);
  const best = survivors[0] as Survivor;
  if (best.holds !== 'whole' || chosen.holds === 'whole') return;
  const text = `chunkserver-${best.server} holds everything of PG ${pg.id}: chunkserver-${server} does not`;
  throw new HoldfastError('EINVAL', text);
}

/**
 * Makes the named replicas in-sync, alone, and forgets the disks that were missed: what returns on them is copied over.
 * All PGs change, or none.
 * @throws HoldfastError EAGAIN when a PG has changed since it was looked at; else as `chooseSurvivors`
 */
export function acceptLoss(map: ClusterMap, { choices }: AcceptLoss): ClusterMap {
  const view = pgView(map);
  const pgs = [...map.pgs];
  if (choices.length === 0 || choices.length > ACCEPT_LOSS_PGS_MAX)
    throw new HoldfastError('EINVAL', `${choices.length} PGs`);
  for (const { pg: id, epoch, server } of choices) {
    const pg = pgs[id];
    if (!pg) throw new HoldfastError('ENOENT', `there is no PG ${id}`);
    if (pg.epoch !== epoch) throw new HoldfastError('EAGAIN', `PG ${id} has changed meanwhile: look again`);
    check(pg, server, view);
    pgs[id] = settle(pg, takeOver(pg.replicas, server), view);
  }
  return { ...map, version: map.version + 1, pgs };
}

/** Who takes over was out: who knows how often it was started again. */
function takeOver(replicas: readonly Replica[], server: number): Replica[] {
  return replicas.map(({ wholeDisk: _, restarted: __, ...replica }) => {
    if (replica.server === server) return { ...replica, state: REPLICA_IN_SYNC, restarted: true };
    return replica.state === REPLICA_IN_SYNC ? { ...replica, state: REPLICA_OUT } : replica;
  });
}
