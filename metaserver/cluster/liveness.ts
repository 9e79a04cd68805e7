import { LEASE_MS } from '../../proto/types.js';

/**
 * Which chunkservers are alive, as the leader may conclude it. Pure: `step(event, now) -> effects`.
 *
 * A chunkserver serves only under a lease that lasts LEASE_MS from the moment it SENT an acknowledged heartbeat, and
 * only while its heartbeat stream stands. Hence:
 *  - the end of its stream ends its lease at once: it is declared down at once;
 *  - silence ends its lease LEASE_MS after its last heartbeat was RECEIVED (later than sent): it is declared down then;
 *  - a new leader knows of no heartbeat: whoever the map calls alive may hold a lease of the leader before, which
 *    acknowledged nothing after this leadership began; it has LEADER_GRACE_MS to connect.
 * Invariant: no `down` for a server whose lease may still hold.
 */
export type LivenessEvent =
  /** The leadership began; the servers that are alive in the map. */
  | { kind: 'led'; alive: readonly number[] }
  /** A registered stream stands. */
  | { kind: 'connected'; server: number }
  | { kind: 'heartbeat'; server: number }
  | { kind: 'disconnected'; server: number }
  /** The map changed; the servers that are alive in it. */
  | { kind: 'map'; alive: readonly number[] }
  /** Due every LIVENESS_TICK_MS. */
  | { kind: 'tick' };

export type LivenessEffect =
  /** Propose ServerDown. */
  | { kind: 'down'; server: number; reason: string }
  /** End the server's stream: it is silent, and has to register again. */
  | { kind: 'disconnect'; server: number; reason: string };

export const LIVENESS_TICK_MS = 100;
/** Added to each lease: the clocks of two machines drift apart while one runs. */
export const LEASE_MARGIN_MS = 50;
/** From the begin of a leadership, for servers that the map calls alive: their lease, and time to find the new leader. */
export const LEADER_GRACE_MS = LEASE_MS + 1500;
/** A registered server has its map to work through before its first heartbeat; it has no lease meanwhile. */
export const FIRST_HEARTBEAT_MS = 3000;
/** A tick that is so late means that this process was paused: what it did not hear proves nothing. */
export const LATE_TICK_MS = 400;
/** After a pause of this process, heartbeats that wait in its sockets have so long to be read. */
export const PAUSE_GRACE_MS = 300;
/** A ServerDown that did not make it into the map is proposed again after so long. */
export const DOWN_RETRY_MS = 1000;

interface ServerState {
  /** As the map says. */
  alive: boolean;
  connected: boolean;
  /** From here on its lease has certainly ended. */
  leaseEndsAt: number;
  /** When `down` was last asked for; -Infinity: not since it was last alive. */
  downAt: number;
}

/** The liveness core of one leadership. `now` is monotonic milliseconds. */
export class Liveness {
  readonly #servers = new Map<number, ServerState>();
  #lastTickAt = Number.NEGATIVE_INFINITY;

  step(event: LivenessEvent, now: number): LivenessEffect[] {
    switch (event.kind) {
      case 'led':
        return this.#led(event.alive, now);
      case 'connected': {
        const state = this.#server(event.server);
        state.connected = true;
        // It ended its stream to the leader before, and with it the lease of that one; ours comes with a heartbeat.
        state.leaseEndsAt = now + FIRST_HEARTBEAT_MS;
        return [];
      }
      case 'heartbeat': {
        const state = this.#servers.get(event.server);
        if (state?.connected) state.leaseEndsAt = now + LEASE_MS + LEASE_MARGIN_MS;
        return [];
      }
      case 'disconnected': {
        const state = this.#server(event.server);
        state.connected = false;
        state.leaseEndsAt = Number.NEGATIVE_INFINITY;
        return state.alive ? [this.#down(event.server, state, now, 'its stream ended')] : [];
      }
      case 'map':
        return this.#mapChanged(event.alive, now);
      case 'tick':
        return this.#tick(now);
    }
  }

  /** Whether the server certainly serves nothing: its stream is gone and its lease, if it had one, has ended. */
  leaseOver(server: number, now: number): boolean {
    const state = this.#servers.get(server);
    return state === undefined || (!state.connected && now >= state.leaseEndsAt);
  }

  connected(server: number): boolean {
    return this.#servers.get(server)?.connected ?? false;
  }

  #led(alive: readonly number[], now: number): LivenessEffect[] {
    this.#servers.clear();
    this.#lastTickAt = now;
    for (const id of alive) {
      const state = this.#server(id);
      state.alive = true;
      state.leaseEndsAt = now + LEADER_GRACE_MS;
    }
    return [];
  }

  #mapChanged(alive: readonly number[], now: number): LivenessEffect[] {
    const living = new Set(alive);
    for (const id of living) this.#server(id);
    const effects: LivenessEffect[] = [];
    for (const [id, state] of this.#servers) {
      const was = state.alive;
      state.alive = living.has(id);
      if (state.alive && !was) state.downAt = Number.NEGATIVE_INFINITY;
      // It registered, and its stream ended before the map showed it.
      if (state.alive && !was && !state.connected && now >= state.leaseEndsAt) {
        effects.push(this.#down(id, state, now, 'its stream ended while it registered'));
      }
    }
    return effects;
  }

  #tick(now: number): LivenessEffect[] {
    const late = now - this.#lastTickAt > LATE_TICK_MS;
    this.#lastTickAt = now;
    const effects: LivenessEffect[] = [];
    for (const [id, state] of this.#servers) {
      if (late && state.leaseEndsAt > Number.NEGATIVE_INFINITY) this.#extend(state, now + PAUSE_GRACE_MS);
      if (now < state.leaseEndsAt) continue;
      if (state.connected) {
        state.connected = false;
        effects.push({ kind: 'disconnect', server: id, reason: `silent for ${LEASE_MS} ms` });
      }
      if (state.alive && now - state.downAt >= DOWN_RETRY_MS) {
        effects.push(this.#down(id, state, now, `silent for ${LEASE_MS} ms`));
      }
    }
    return effects;
  }

  #down(server: number, state: ServerState, now: number, reason: string): LivenessEffect {
    state.downAt = now;
    return { kind: 'down', server, reason };
  }

  #extend(state: ServerState, until: number): void {
    state.leaseEndsAt = Math.max(state.leaseEndsAt, until);
  }

  #server(id: number): ServerState {
    let state = this.#servers.get(id);
    if (!state) {
      const never = Number.NEGATIVE_INFINITY;
      state = { alive: false, connected: false, leaseEndsAt: never, downAt: never };
      this.#servers.set(id, state);
    }
    return state;
  }
}
