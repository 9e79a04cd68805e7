import { type ClusterMap, type Pg, type Replica, ReplicaState } from '../../proto/gen/cluster.js';
import type { ReplicaFirst } from '../../proto/gen/meta.js';
import { mayLeave } from './membership.js';
import { type Move, MovePlan } from './move-plan.js';
import { comingOf, leavingOf, type PgView, pgView } from './pg-change.js';

/** PGs that are being moved at one time: each is copied as a whole, under the servers' bandwidth cap. */
export const MOVES_MAX = 16;
/** A coming replica whose server is down is given up after so long; the leaving one stays. */
export const COMING_PATIENCE_MS = 30_000;
/** A leaving replica that holds everything stays so long for others of the PG whose servers are down. */
export const LEAVING_PATIENCE_MS = 60_000;

export type MoveCommand =
  | { $case: 'replicaAdd'; value: Move }
  | { $case: 'replicaFirst'; value: ReplicaFirst }
  | { $case: 'replicaRemove'; value: { pg: number; epoch: number; server: number } };

/** What the leader has seen of a PG's move: volatile, begun anew by each leader. */
interface Watch {
  /** Since when the move is in this state. */
  interval: number;
  epoch: number;
  since: number;
  /** The map that showed the present interval first. */
  mapVersion: number;
}

/**
 * Which PGs are to be moved, and which moves are at an end. Pure: `now` is monotonic milliseconds.
 *
 * PGs move off servers that drain, onto servers until each PG has all its copies, and from the fullest to the emptiest
 * server until they are within one of each other; a PG that need not move stays. Then the primaries are made even. Servers that are down keep what they
 * have: only the operator knows whether they return, and drains them if not.
 */
export class Rebalancer {
  readonly #watched = new Map<number, Watch>();

  clear(): void {
    this.#watched.clear();
  }

  /** @param actsBy version of the map by which a server acts, as it last said; Infinity: it certainly serves nothing */
  next(map: ClusterMap, actsBy: (server: number) => number, now: number): MoveCommand[] {
    const view = pgView(map);
    const commands: MoveCommand[] = [];
    let moving = 0;
    for (const pg of map.pgs) {
      if (!leavingOf(pg)) {
        this.#watched.delete(pg.id);
        continue;
      }
      moving++;
      const watch = this.#watch(pg, map.version, now);
      const ended = this.#ended(pg, view, watch, actsBy, now);
      if (!ended) continue;
      commands.push({ $case: 'replicaRemove', value: { pg: pg.id, epoch: pg.epoch, server: ended.server } });
    }
    if (moving >= MOVES_MAX) return commands;
    const plan = new MovePlan(map);
    for (const value of plan.moves(MOVES_MAX - moving)) commands.push({ $case: 'replicaAdd', value });
    if (commands.length === 0 && moving === 0)
      for (const value of plan.leads(MOVES_MAX)) commands.push({ $case: 'replicaFirst', value });
    return commands;
  }

  #watch({ id, epoch, interval }: Pg, mapVersion: number, now: number): Watch {
    let watch = this.#watched.get(id);
    if (watch?.interval !== interval) watch = { interval, epoch, since: now, mapVersion };
    else if (watch.epoch !== epoch) watch = { ...watch, epoch, since: now };
    this.#watched.set(id, watch);
    return watch;
  }

  /** The replica with which the move ends now, well or not. */
  #ended(
    pg: Pg,
    view: PgView,
    watch: Watch,
    actsBy: (server: number) => number,
    now: number,
  ): Replica | undefined {
    const patience = now - watch.since;
    const coming = comingOf(pg);
    if (coming) {
      const info = view.servers.get(coming.server);
      if (coming.state === ReplicaState.REPLICA_IN_SYNC || (info?.alive && !info.draining)) return undefined;
      return patience >= COMING_PATIENCE_MS ? coming : undefined;
    }
    const leaving = leavingOf(pg);
    if (!leaving || !mayLeave(pg, leaving, view)) return undefined;
    const whole = pg.replicas.every((one) => one === leaving || one.state === ReplicaState.REPLICA_IN_SYNC);
    if (!whole && leaving.state === ReplicaState.REPLICA_IN_SYNC && patience < LEAVING_PATIENCE_MS)
      return undefined;
    // A server that has not seen that it does not lead any more may still serve reads under its lease.
    return actsBy(leaving.server) >= watch.mapVersion ? leaving : undefined;
  }
}
