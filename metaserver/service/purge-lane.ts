import type { Purge } from '../../proto/gen/cluster.js';

/** Purges of one PG in flight. */
export const PURGES_PER_PG_MAX = 16;
/** A purge without an answer is sent again after so long, twice as long after each time in a row .. */
export const PURGE_TIMEOUT_MS = 2000;
/** .. up to so long. */
export const PURGE_TIMEOUT_MAX_MS = 60_000;

interface Entry {
  key: string;
  purge: Purge;
  server: number;
  sentAt: number;
}

/**
 * The purges of one PG: sent in order to its primary, a few at a time, until each is answered. Pure but for `send`. What waits
 * is bounded by RECLAIMS_ACTIVE_MAX.
 */
export class PurgeLane {
  readonly pg: number;
  #queue: Entry[] = [];
  readonly #inFlight = new Map<string, Entry>();
  #timeoutMs = PURGE_TIMEOUT_MS;

  constructor(pg: number) {
    this.pg = pg;
  }

  add(key: string, purge: Purge): void {
    this.#queue.push({ key, purge, server: 0, sentAt: 0 });
  }

  /** Sends what fits; without a primary everything waits. */
  pump(primary: number | undefined, now: number, send: (server: number, purge: Purge) => boolean): void {
    if (primary === undefined) return;
    while (this.#queue.length > 0 && this.#inFlight.size < PURGES_PER_PG_MAX) {
      const entry = this.#queue[0] as Entry;
      if (!send(primary, entry.purge)) return;
      this.#queue.shift();
      entry.server = primary;
      entry.sentAt = now;
      this.#inFlight.set(entry.key, entry);
    }
  }

  /** @returns false when that purge was not asked of that server, or was answered already */
  done(server: number, key: string): boolean {
    const entry = this.#inFlight.get(key);
    if (entry?.server !== server) return false;
    this.#inFlight.delete(key);
    this.#timeoutMs = PURGE_TIMEOUT_MS;
    return true;
  }

  /** Takes back, to the front and in order, what was sent to a server that is not the primary any more, or too long ago. */
  recall(primary: number | undefined, now: number): void {
    const recalled: Entry[] = [];
    let timedOut = false;
    for (const entry of this.#inFlight.values()) {
      const late = now - entry.sentAt >= this.#timeoutMs;
      timedOut ||= late;
      if (late || entry.server !== primary) recalled.push(entry);
    }
    for (const entry of recalled) this.#inFlight.delete(entry.key);
    this.#queue = [...recalled, ...this.#queue];
    if (timedOut) this.#timeoutMs = Math.min(2 * this.#timeoutMs, PURGE_TIMEOUT_MAX_MS);
  }
}
