import { type Pg, ReplicaState } from '../../proto/gen/cluster.js';
import type { Lineage } from '../../proto/lineage.js';
import type { ChunkKey, Version } from '../store/chunk-store.js';
import { type Effect, type Op, type PgEnv, REPORT_INTERVAL_MS, SUSPECTS_MAX } from './types.js';

/** What the roles of one placement group share: its map entry, its place in the order, the effects of this step. */
export class PgContext {
  readonly id: number;
  readonly env: PgEnv;
  map: Pg | undefined;
  /** The last operation given to the store (or, in recovery, known to be in what is copied). */
  last: Version;
  /** As the store was told last. */
  clean: boolean;
  /** What is left of the group is being removed: nothing may be copied in before that is done. */
  dropping = false;
  /** Other servers of the group, by their state in the map. */
  inSyncPeers: number[] = [];
  recoveringPeers: number[] = [];
  #out: Effect[] = [];
  /** The last operation that was left when the lineage `since` began, if this server knows. */
  #boundary: { since: number; last: Version } | undefined;
  readonly #lost = new Map<number, { reason: string; reportedAt: number }>();
  /** "inode/chunk" of writes that the store refused, "inode" of truncates and deletes. */
  readonly #suspects = new Set<string>();

  constructor(id: number, env: PgEnv, last: Version, clean: boolean) {
    this.id = id;
    this.env = env;
    this.last = last;
    this.clean = clean;
  }

  /** As a primary that is active knows it. */
  get lineage(): Lineage {
    const { lineage: since = 0, formerLineage: former = 0 } = this.map ?? {};
    const known = this.#boundary?.since === since ? this.#boundary.last : { epoch: 0, seq: 0 };
    return { since, former, boundary: known };
  }

  /**
   * This server holds all that is left of the group, `last` being the newest operation: the present lineage, if it has
   * given none itself, began behind that one. What another server knows of it already goes first.
   */
  learnBoundary(last: Version): void {
    const since = this.map?.lineage ?? 0;
    if (this.#boundary?.since !== since && last.epoch < since) this.#boundary = { since, last };
  }

  /** What another server says of a lineage. */
  takeBoundary({ since, boundary }: Pick<Lineage, 'since' | 'boundary'>): void {
    if (boundary.epoch === 0 || since !== this.map?.lineage || this.#boundary?.since === since) return;
    this.#boundary = { since, last: boundary };
  }

  emit(effect: Effect): void {
    this.#out.push(effect);
  }

  take(): Effect[] {
    const out = this.#out;
    this.#out = [];
    return out;
  }

  setMap(pg: Pg | undefined): void {
    this.map = pg;
    const others = (state: ReplicaState) =>
      (pg?.replicas ?? [])
        .filter((replica) => replica.state === state && replica.server !== this.env.self)
        .map((replica) => replica.server);
    this.inSyncPeers = others(ReplicaState.REPLICA_IN_SYNC);
    this.recoveringPeers = others(ReplicaState.REPLICA_RECOVERING);
    for (const server of this.#lost.keys()) {
      if (!this.inSyncPeers.includes(server)) this.#lost.delete(server);
    }
  }

  /** The first in-sync replica; 0: there is none. */
  get primary(): number {
    const first = this.map?.replicas.find((replica) => replica.state === ReplicaState.REPLICA_IN_SYNC);
    return first?.server ?? 0;
  }

  get isPrimary(): boolean {
    return this.primary === this.env.self;
  }

  /** This server's state in the map; undefined: not a replica. */
  get selfState(): ReplicaState | undefined {
    return this.map?.replicas.find((replica) => replica.server === this.env.self)?.state;
  }

  /** Others are not in-sync, yet hold all that was acknowledged, if they return with the disks that they had. */
  get hasWholePeers(): boolean {
    const { self } = this.env;
    return (this.map?.replicas ?? []).some(
      ({ server, state, wholeDisk }) =>
        server !== self && state !== ReplicaState.REPLICA_IN_SYNC && wholeDisk !== undefined,
    );
  }

  /** In-sync replicas by the map, this one included. */
  get copies(): number {
    return this.inSyncPeers.length + 1;
  }

  hasLease(now: number): boolean {
    return this.env.registered() && now < this.env.leaseUntil();
  }

  setState(last: Version, clean: boolean): void {
    this.last = last;
    this.clean = clean;
    this.emit({ kind: 'setState', state: { last, clean }, sync: false });
  }

  /**
   * The store refused an operation (its disk is full) and may have taken later ones: what it touches is not the content
   * of its version, and has to be copied as a whole before this copy counts as complete.
   */
  refused(op: Op): void {
    if (this.#suspects.size < SUSPECTS_MAX)
      this.#suspects.add(op.kind === 'write' ? `${op.ino}/${op.chunk}` : `${op.ino}`);
    if (this.clean) this.setState(this.last, false);
  }

  /** Whether the chunk's version says nothing of its content. */
  isSuspect({ ino, chunk }: ChunkKey): boolean {
    const { size } = this.#suspects;
    if (size === 0) return false;
    return size >= SUSPECTS_MAX || this.#suspects.has(`${ino}/${chunk}`) || this.#suspects.has(`${ino}`);
  }

  /** Everything was compared and copied since the last refusal. */
  trustAll(): void {
    this.#suspects.clear();
  }

  isLost(server: number): boolean {
    return this.#lost.has(server);
  }

  /** Reports an in-sync replica that does not follow; again at times until the map drops it. Primaries only. */
  lose(server: number, reason: string, now: number): void {
    if (!this.inSyncPeers.includes(server) || this.#lost.has(server)) return;
    this.#lost.set(server, { reason, reportedAt: now });
    this.emit({ kind: 'reportFailed', server, epoch: this.map?.epoch ?? 0, reason });
  }

  forgetLost(): void {
    this.#lost.clear();
  }

  reportAgain(now: number): void {
    for (const [server, lost] of this.#lost) {
      if (now - lost.reportedAt < REPORT_INTERVAL_MS) continue;
      lost.reportedAt = now;
      this.emit({ kind: 'reportFailed', server, epoch: this.map?.epoch ?? 0, reason: lost.reason });
    }
  }
}
