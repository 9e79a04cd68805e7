import { type ClusterMap, type Pg, type Replica, ReplicaState } from '../../proto/gen/cluster.js';
import type { ReplicaAdd, ReplicaFirst } from '../../proto/gen/meta.js';
import { comingOf, countInSync, leavingOf } from './pg-change.js';
import { levelPrimaries } from './placement.js';

export type Move = ReplicaAdd;

/** Pairs of servers that are tried for one step of balancing. */
const PAIRS_MAX = 256;

/** One server that may take PGs, with what it holds when all moves under way have ended. */
interface Host {
  readonly id: number;
  /** Servers of equal domains fail together. */
  readonly domain: string;
  /** PGs. */
  held: number;
  /** PGs of which it is the first replica: the primary while everybody is in-sync. */
  first: number;
}

/** The next moves for one map: which PG gets a further replica, on which server, and who gives up its place. */
export class MovePlan {
  readonly #map: ClusterMap;
  readonly #hosts = new Map<number, Host>();
  readonly #domains = new Map<number, string>();
  readonly #alive = new Set<number>();
  readonly #draining = new Set<number>();
  /** PGs that stay as they are for now: they are being moved, or nobody alive could give what is to be copied. */
  readonly #fixed = new Set<number>();

  constructor(map: ClusterMap) {
    this.#map = map;
    for (const { id, domain, alive, draining } of map.servers) {
      this.#domains.set(id, domain || `\0${id}`);
      if (alive) this.#alive.add(id);
      if (draining) this.#draining.add(id);
      if (alive && !draining) this.#hosts.set(id, { id, domain: this.#domainOf(id), held: 0, first: 0 });
    }
    for (const pg of map.pgs) {
      if (leavingOf(pg) || !pg.replicas.some((one) => this.#gives(one))) this.#fixed.add(pg.id);
      for (const [place, server] of placesOf(pg).entries()) this.#count(server, place, 1);
    }
  }

  /** At most `limit` moves, the most urgent ones; each of another PG. */
  moves(limit: number): Move[] {
    const moves = [...this.#urgent(limit)];
    while (moves.length < limit && this.#calm) {
      const move = this.#balance();
      if (!move) break;
      moves.push(move);
    }
    return moves;
  }

  /** PGs that another of their replicas should lead, when nothing moves and everybody is in-sync; at most `limit`. */
  leads(limit: number): ReplicaFirst[] {
    const { pgs } = this.#map;
    if (this.#fixed.size > 0 || pgs.some(({ replicas }) => !replicas.every((one) => this.#gives(one))))
      return [];
    const leaders = levelPrimaries(pgs.map(({ replicas }) => replicas.map(({ server }) => server)));
    const changed = pgs.filter((pg) => pg.replicas[0]?.server !== leaders[pg.id]);
    return changed
      .slice(0, limit)
      .map((pg) => ({ pg: pg.id, epoch: pg.epoch, server: leaders[pg.id] as number }));
  }

  /** Off servers that drain, and up to the number of copies: PGs with the fewest copies first. */
  #urgent(limit: number): Move[] {
    const moves: Move[] = [];
    const due = this.#map.pgs.filter((pg) => !this.#fixed.has(pg.id) && this.#isDue(pg));
    due.sort((a, b) => countInSync(a.replicas) - countInSync(b.replicas) || a.id - b.id);
    for (const pg of due) {
      if (moves.length >= limit) break;
      const leaving = pg.replicas.find(({ server }) => this.#draining.has(server));
      const target = this.#choose(pg, leaving);
      if (target) moves.push(this.#move(pg, target, leaving?.server ?? 0));
    }
    return moves;
  }

  #isDue(pg: Pg): boolean {
    return this.#isShort(pg) || pg.replicas.some(({ server }) => this.#draining.has(server));
  }

  #isShort(pg: Pg): boolean {
    return pg.replicas.length < this.#map.replicas;
  }

  /** Nothing is more urgent than an even spread. */
  get #calm(): boolean {
    return !this.#map.pgs.some(
      (pg) => this.#isDue(pg) && !this.#fixed.has(pg.id) && this.#choose(pg, undefined),
    );
  }

  /** The server for a further replica: in a domain of its own where there is one, then the emptiest. */
  #choose(pg: Pg, leaving: Replica | undefined): Host | undefined {
    const stay = pg.replicas.filter((one) => one !== leaving);
    const first = pg.replicas[0] === leaving;
    let best: { rank: number[]; host: Host } | undefined;
    for (const host of this.#hosts.values()) {
      if (pg.replicas.some(({ server }) => server === host.id)) continue;
      const met = stay.filter(({ server }) => this.#domainOf(server) === host.domain).length;
      const rank = [met, host.held, first ? host.first : 0, host.id];
      if (!best || isBefore(rank, best.rank)) best = { rank, host };
    }
    return best?.host;
  }

  /** One PG from a fuller to an emptier server; undefined when they are within one of each other, or domains forbid it. */
  #balance(): Move | undefined {
    const hosts = [...this.#hosts.values()].sort((a, b) => a.held - b.held || a.id - b.id);
    let pairs = 0;
    for (const from of [...hosts].reverse()) {
      for (const to of hosts) {
        if (from.held - to.held < 2 || ++pairs > PAIRS_MAX) break;
        const pg = this.#movable(from, to);
        if (pg) return this.#move(pg, to, from.id);
      }
    }
    return undefined;
  }

  /** The PG that may go from one to the other, best such that the primaries become more even as well. */
  #movable(from: Host, to: Host): Pg | undefined {
    const firstGain = Math.sign(from.first - to.first);
    let best: Pg | undefined;
    let bestGain = Number.NEGATIVE_INFINITY;
    for (const pg of this.#map.pgs) {
      if (this.#fixed.has(pg.id) || !this.#mayMove(pg, from, to)) continue;
      const gain = pg.replicas[0]?.server === from.id ? firstGain || -1 : 0;
      if (gain <= bestGain) continue;
      best = pg;
      bestGain = gain;
    }
    return best;
  }

  #mayMove({ replicas }: Pg, from: Host, to: Host): boolean {
    const servers = replicas.map(({ server }) => server);
    if (!servers.includes(from.id) || servers.includes(to.id)) return false;
    // What is being repaired is not carried about as well.
    if (!replicas.every((one) => this.#gives(one))) return false;
    const others = servers.filter((server) => server !== from.id);
    return this.#spread([...others, to.id]) >= this.#spread(servers);
  }

  #spread(servers: readonly number[]): number {
    return new Set(servers.map((server) => this.#domainOf(server))).size;
  }

  #gives({ server, state }: Replica): boolean {
    return state === ReplicaState.REPLICA_IN_SYNC && this.#alive.has(server);
  }

  #domainOf(server: number): string {
    return this.#domains.get(server) ?? `\0${server}`;
  }

  #move(pg: Pg, to: Host, leaving: number): Move {
    this.#fixed.add(pg.id);
    const place = pg.replicas.findIndex(({ server }) => server === leaving);
    if (leaving > 0) this.#count(leaving, place, -1);
    this.#count(to.id, leaving > 0 ? place : pg.replicas.length, 1);
    return { pg: pg.id, epoch: pg.epoch, server: to.id, leaving };
  }

  #count(server: number, place: number, by: number): void {
    const host = this.#hosts.get(server);
    if (!host) return;
    host.held += by;
    if (place === 0) host.first += by;
  }
}

/** The PG's servers in order, as they are when its move has ended. */
function placesOf(pg: Pg): number[] {
  const coming = comingOf(pg);
  const stay = pg.replicas.filter((one) => one !== coming);
  if (!coming) return stay.filter((one) => !one.leaving).map(({ server }) => server);
  return stay.map((one) => (one.leaving ? coming.server : one.server));
}

function isBefore(a: readonly number[], b: readonly number[]): boolean {
  for (const [i, value] of a.entries()) {
    const other = b[i] as number;
    if (value !== other) return value < other;
  }
  return false;
}
