import type { Clock } from '../../common/clock.js';
import { HoldfastError } from '../../proto/errors.js';
import { type ChunkServerInfo, type ClusterMap, ReplicaState } from '../../proto/gen/cluster.js';
import { pgOfChunk } from '../../proto/types.js';
import type { Interrupt } from '../wait.js';

/** Where requests for a placement group go now. */
export interface Primary {
  server: ChunkServerInfo;
  epoch: number;
}

/** The newest cluster map that this mount has seen, and those who wait for a newer one. */
export class ClusterView {
  readonly #clock: Clock;
  readonly #servers = new Map<number, ChunkServerInfo>();
  readonly #listeners: ((servers: ReadonlyMap<number, ChunkServerInfo>) => void)[] = [];
  readonly #lineageListeners: ((pgs: readonly number[]) => void)[] = [];
  readonly #waiters = new Set<() => void>();
  #map: ClusterMap | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** 0: none yet. */
  get version(): number {
    return this.#map?.version ?? 0;
  }

  /** Takes a map unless it is older than the present one. */
  update(map: ClusterMap): void {
    if (this.#map && map.version <= this.#map.version) return;
    const former = this.#map;
    this.#map = map;
    this.#servers.clear();
    for (const server of map.servers) this.#servers.set(server.id, server);
    for (const listener of this.#listeners) listener(this.#servers);
    const begun = former ? newLineages(former, map) : [];
    if (begun.length > 0) for (const listener of this.#lineageListeners) listener(begun);
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  /** Called with the servers of every newer map. */
  onChange(listener: (servers: ReadonlyMap<number, ChunkServerInfo>) => void): void {
    this.#listeners.push(listener);
  }

  /** Called with groups that have a new lineage: see proto/lineage.ts. */
  onNewLineage(listener: (pgs: readonly number[]) => void): void {
    this.#lineageListeners.push(listener);
  }

  /** -1 while the cluster has no placement groups. */
  pgOf(ino: number, chunk: number): number {
    const count = this.#map?.pgs.length ?? 0;
    return count === 0 ? -1 : pgOfChunk(ino, chunk, count);
  }

  /** The first in-sync replica; undefined while there is none, or its server is down. */
  primary(pg: number): Primary | undefined {
    const group = this.#map?.pgs[pg];
    const replica = group?.replicas.find(({ state }) => state === ReplicaState.REPLICA_IN_SYNC);
    const server = replica && this.#servers.get(replica.server);
    return group && server?.alive ? { server, epoch: group.epoch } : undefined;
  }

  /**
   * Resolves when the map is newer than `version`, or after `ms`.
   * @throws HoldfastError EINTR when `signal` aborts
   */
  newerThan(version: number, ms: number, signal?: Interrupt): Promise<void> {
    if (this.version > version) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (): void => {
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
        this.#waiters.delete(done);
        resolve();
      };
      const onAbort = (): void => {
        timer.cancel();
        this.#waiters.delete(done);
        reject(new HoldfastError('EINTR'));
      };
      const timer = this.#clock.after(ms, done);
      this.#waiters.add(done);
      if (signal?.aborted) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}

function newLineages(former: ClusterMap, map: ClusterMap): number[] {
  return map.pgs.flatMap(({ lineage }, pg) => (lineage === former.pgs[pg]?.lineage ? [] : [pg]));
}
