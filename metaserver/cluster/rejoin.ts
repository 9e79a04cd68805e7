import { type ClusterMap, ReplicaState } from '../../proto/gen/cluster.js';

/** A connected server whose replicas were dropped is taken back after so long .. */
export const REJOIN_DELAY_MS = 1000;
/** .. twice as long after each time in a row, up to so long. */
export const REJOIN_DELAY_MAX_MS = 30_000;
/** A server that was in for so long starts at the shortest delay again. */
export const REJOIN_CALM_MS = 60_000;

interface Outcast {
  /** When it was first seen out, this time; undefined: it is in. */
  since: number | undefined;
  delayMs: number;
  /** When it was last put in. */
  joinedAt: number;
}

/**
 * Which connected chunkservers ought to be registered again, because the map calls them down or has dropped replicas of
 * theirs (a primary could not reach them for a while). Pure; `now` is monotonic milliseconds.
 */
export class Rejoin {
  readonly #servers = new Map<number, Outcast>();

  /** The server is not connected any more, or has just registered. */
  forget(server: number): void {
    this.#servers.delete(server);
  }

  clear(): void {
    this.#servers.clear();
  }

  /** Servers of `connected` that are due now; each is taken to be registered with this call. */
  due(map: ClusterMap, connected: readonly number[], now: number): number[] {
    const out = outOf(map);
    return connected.filter((id) => {
      const state = this.#servers.get(id);
      if (!out.has(id)) {
        if (state) this.#in(id, state, now);
        return false;
      }
      if (!state) {
        this.#servers.set(id, { since: now, delayMs: REJOIN_DELAY_MS, joinedAt: now });
        return false;
      }
      state.since ??= now;
      if (now - state.since < state.delayMs) return false;
      state.since = undefined;
      state.joinedAt = now;
      state.delayMs = Math.min(2 * state.delayMs, REJOIN_DELAY_MAX_MS);
      return true;
    });
  }

  #in(id: number, state: Outcast, now: number): void {
    state.since = undefined;
    if (now - state.joinedAt >= REJOIN_CALM_MS) this.#servers.delete(id);
  }
}

/** Servers that the map calls down, or that hold a replica which receives no writes. */
function outOf(map: ClusterMap): Set<number> {
  const out = new Set(map.servers.filter((server) => !server.alive).map((server) => server.id));
  for (const pg of map.pgs) {
    for (const { server, state } of pg.replicas) if (state === ReplicaState.REPLICA_OUT) out.add(server);
  }
  return out;
}
