import { type Pg, ReplicaState } from '../../proto/gen/cluster.js';

/** A report counts for so long: chunkservers repeat theirs until the map shows that it was heard. */
export const REPORT_MEMORY_MS = 5000;
/** A server that had so many healthy others dropped within BLAME_WINDOW_MS is the one that fails. */
export const HEALTHY_DROPS_MAX = 6;
export const BLAME_WINDOW_MS = 60_000;

interface Report {
  reporter: number;
  server: number;
  at: number;
}

/**
 * Who of two replicas that cannot reach one another is to leave a PG's in-sync set: the primary reports, and may itself be
 * the one that is cut off. Pure; `now` is monotonic milliseconds.
 *
 * The other replica leaves, unless
 *  - too few were left for writes, while it could go on with a third one that the reporter cannot reach either; or
 *  - the reporter had healthy servers dropped again and again.
 */
export class Blame {
  readonly #reports = new Map<string, Report>();
  /** The healthy servers that each reporter had dropped. */
  readonly #drops = new Map<number, { server: number; at: number }[]>();

  clear(): void {
    this.#reports.clear();
    this.#drops.clear();
  }

  /** The server was started again, or has gone: what was said of its connections is void. */
  forget(server: number): void {
    for (const [key, report] of this.#reports) {
      if (report.reporter === server || report.server === server) this.#reports.delete(key);
    }
    this.#drops.delete(server);
    for (const [reporter, drops] of this.#drops) {
      const left = drops.filter((drop) => drop.server !== server);
      this.#drops.set(reporter, left);
    }
  }

  /** `reporter` cannot reach `server`. */
  report(reporter: number, server: number, now: number): void {
    for (const [key, { at }] of this.#reports) if (now - at > REPORT_MEMORY_MS) this.#reports.delete(key);
    this.#reports.set(`${reporter}/${server}`, { reporter, server, at: now });
  }

  /**
   * A server that is connected and well was dropped for what `reporter` said: once for each time, however many of its PGs
   * said so.
   */
  healthyDropped(reporter: number, server: number, now: number): void {
    const drops = (this.#drops.get(reporter) ?? []).filter(({ at }) => now - at <= BLAME_WINDOW_MS);
    drops.push({ server, at: now });
    this.#drops.set(reporter, drops.slice(-HEALTHY_DROPS_MAX));
  }

  /**
   * Whether the reporter is to give up the PG that it leads, rather than that `server` is dropped from it.
   * @param healthy whether a server is connected to the metaservers
   */
  isReporters(
    { replicas }: Pick<Pg, 'replicas'>,
    { reporter, server }: { reporter: number; server: number },
    minInSync: number,
    healthy: (server: number) => boolean,
    now: number,
  ): boolean {
    const inSync = replicas.filter(({ state }) => state === ReplicaState.REPLICA_IN_SYNC);
    // It holds everything: somebody has to.
    if (!inSync.some((one) => one.server === server) || !healthy(server)) return false;
    if (this.#isNotorious(reporter, now)) return true;
    if (inSync.length - 1 >= minInSync) return false;
    const partner = replicas.some(
      ({ server: third }) =>
        third !== reporter &&
        third !== server &&
        healthy(third) &&
        this.#apart(reporter, third, now) &&
        !this.#apart(server, third, now),
    );
    return partner;
  }

  #isNotorious(reporter: number, now: number): boolean {
    const drops = this.#drops.get(reporter) ?? [];
    return drops.filter(({ at }) => now - at <= BLAME_WINDOW_MS).length >= HEALTHY_DROPS_MAX;
  }

  #apart(one: number, other: number, now: number): boolean {
    const said = (from: number, to: number): boolean =>
      now - (this.#reports.get(`${from}/${to}`)?.at ?? Number.NEGATIVE_INFINITY) <= REPORT_MEMORY_MS;
    return said(one, other) || said(other, one);
  }
}
