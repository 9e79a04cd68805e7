import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { type FrameFields, type FrameHeader, FrameType } from '../../proto/frame-header.js';
import type { ClusterMap, PgStatus, Purge } from '../../proto/gen/cluster.js';
import { PgCore } from '../pg/pg-core.js';
import {
  type LinkSide,
  type PgEnv,
  type PgEvent,
  RECOVERY_LIMITS,
  type RecoveryLimits,
} from '../pg/types.js';
import type { ChunkStore } from '../store/chunk-store.js';
import { Audit } from './audit.js';
import type { ClientCall, IncomingCall } from './calls.js';
import { LinkTable, type PeerLink, roomFields, roomOf } from './links.js';
import { PgEffects, type PgEffectsDeps } from './pg-effects.js';
import { Purges } from './purges.js';
import { Repair } from './repair.js';

export interface PgHostDeps extends PgEffectsDeps {
  log: Logger;
  /** Default RECOVERY_LIMITS. */
  limits?: RecoveryLimits;
  /** The own store failed, or an invariant: nothing may be answered any more. */
  onFatal(error: Error): void;
}

/** More bytes than this wait for the own disk: clients are asked to come again later. Peers are not, their writes have an order. */
const DISK_BACKLOG_BYTES_MAX = 128 * 1024 * 1024;

/** What other servers send on behalf of clients. */
const FOREGROUND: ReadonlySet<FrameType> = new Set([
  FrameType.REPLICATE_WRITE,
  FrameType.REPLICATE_EXTENTS,
  FrameType.REPLICATE_RESERVE,
]);

function diskIsBehind(store: ChunkStore): boolean {
  return (store.backlogBytes?.() ?? 0) > DISK_BACKLOG_BYTES_MAX;
}

/** All placement groups of this server: hands each core what happens to it, one event at a time. */
export class PgHost {
  readonly #deps: PgHostDeps;
  readonly #cores = new Map<number, PgCore>();
  readonly links = new LinkTable();
  readonly #env: PgEnv;
  readonly #effects: PgEffects;
  readonly #purges = new Purges();
  readonly repair: Repair;
  readonly audit: Audit;
  #map: ClusterMap | undefined;
  #leaseUntil = 0;
  #leased = false;
  #registered = false;
  /** Events that came up while effects are carried out. */
  #queue: { core: PgCore; event: PgEvent }[] = [];
  #busy = false;
  #ended = false;

  constructor(deps: PgHostDeps) {
    this.#deps = deps;
    const { store, log } = deps;
    this.repair = new Repair(store, this.links, log);
    this.audit = new Audit({
      self: deps.self,
      store,
      log,
      group: (pg) => this.#cores.get(pg),
      link: (server, side) => this.links.get(server, side),
      repair: this.repair,
    });
    this.#effects = new PgEffects(deps, this.links, this.repair, {
      dispatch: (core, event) => this.#dispatch(core, event),
      fatal: (what, error) => this.#fatal(what, error),
    });
    this.#env = {
      self: deps.self,
      limits: deps.limits ?? RECOVERY_LIMITS,
      leaseUntil: () => this.#leaseUntil,
      registered: () => this.#registered,
      minInSync: () => this.#map?.minInSync ?? Number.POSITIVE_INFINITY,
      linked: (server, side) => this.links.get(server, side) !== undefined,
      congested: (server) => (server === deps.self ? diskIsBehind(store) : this.links.congested(server)),
      roomBytes: (server) => (server === deps.self ? store.usage().roomBytes : this.links.roomBytes(server)),
      promisedRoomBytes: (server) =>
        server === deps.self ? store.usage().promisedRoomBytes : this.links.roomBytes(server, 'promised'),
      coverage: (pg, key, ranges) => store.coverage(pg, key, ranges),
      truncateSeq: (pg, ino) => store.truncateSeq(pg, ino),
      chunkInfo: (pg, key) => store.chunkInfo(pg, key),
      holds: (pg, ino) => store.holds(pg, ino),
      list: (pg, after, limit) => store.list(pg, after?.ino === 0 ? undefined : after, limit),
      listTruncateSeqs: (pg, afterIno, limit) => store.listTruncateSeqs(pg, afterIno, limit),
    };
    for (const pg of store.pgs()) this.#core(pg);
  }

  get map(): ClusterMap | undefined {
    return this.#map;
  }

  /** Stops all steps: nothing is answered or written any more. */
  close(): void {
    this.#ended = true;
    this.#effects.close();
  }

  /** A newer map; an older one, or the same, is ignored. */
  setMap(map: ClusterMap): void {
    if (this.#map && map.version <= this.#map.version) return;
    this.#map = map;
    const groups = new Map(map.pgs.map((pg) => [pg.id, pg]));
    for (const id of groups.keys()) this.#core(id);
    for (const [id, core] of this.#cores) this.#dispatch(core, { kind: 'map', pg: groups.get(id) });
  }

  /** The heartbeat stream stands, and the map of its registration was set; or it has ended, and the lease with it. */
  setRegistered(registered: boolean): void {
    this.#registered = registered;
    if (!registered) this.#leaseUntil = 0;
    this.#leaseChanged();
  }

  /** @param until local milliseconds */
  setLease(until: number): void {
    this.#leaseUntil = until;
    this.#leaseChanged();
  }

  #leaseChanged(): void {
    const leased = this.#registered && this.#deps.clock.now() < this.#leaseUntil;
    if (leased && this.#leased) return;
    this.#leased = leased;
    this.#dispatchAll({ kind: 'lease' });
  }

  linkUp(server: number, side: LinkSide, link: PeerLink): void {
    const former = this.links.get(server, side);
    if (former) this.linkDown(server, side, former, 'replaced by another connection');
    this.links.set(server, side, link, (done) => {
      link.request({ type: FrameType.REPLICATE_SYNC }, undefined, 0, undefined, (error) => done(error));
    });
    this.#dispatchAll({ kind: 'linkUp', server, side });
  }

  /** Ignored when `link` is not the present one. */
  linkDown(server: number, side: LinkSide, link: PeerLink, reason: string): void {
    if (this.links.get(server, side) !== link) return;
    this.links.delete(server, side);
    link.close(reason);
    this.#dispatchAll({ kind: 'linkDown', server, side, reason });
  }

  isCurrent(server: number, side: LinkSide, link: PeerLink): boolean {
    return this.links.get(server, side) === link;
  }

  /** What this server's disk may take now. */
  room(): FrameFields {
    return roomFields(this.#deps.store);
  }

  /** What another server says that its disk may take now. */
  setRoom(server: number, header: FrameHeader): void {
    const out = this.links.out(server);
    if (out) out.room = roomOf(header);
  }

  tick(): void {
    if (this.#leased && this.#deps.clock.now() >= this.#leaseUntil) this.#leased = false;
    this.#dispatchAll({ kind: 'tick' });
  }

  /** @throws HoldfastError EINVAL, UNAVAILABLE */
  request(pg: number, call: ClientCall): void {
    this.#effects.foreground();
    this.#dispatch(this.#known(pg), { kind: 'request', request: call });
  }

  /** @throws HoldfastError EINVAL, UNAVAILABLE */
  call(pg: number, call: IncomingCall): void {
    if (FOREGROUND.has(call.type)) this.#effects.foreground();
    this.#dispatch(this.#known(pg), { kind: 'call', call });
  }

  /** Makes what was written here durable. */
  sync(): Promise<void> {
    return this.#effects.sync();
  }

  /** The metaserver's order; `done` when all in-sync replicas have it. Dropped when this server is not the one to ask. */
  purge(purge: Purge, done: () => void): void {
    const core = this.#cores.get(purge.pg);
    const request = core && this.#purges.begin(purge, this.#deps.clock.now(), done);
    if (core && request) this.#dispatch(core, { kind: 'request', request });
  }

  /** The metaservers let others lead the group; ignored when it has changed meanwhile. */
  stepDown(pg: number, epoch: number): void {
    const core = this.#cores.get(pg);
    if (core) this.#dispatch(core, { kind: 'stepDown', epoch });
  }

  /** Groups that this server leads now. */
  led(): number[] {
    return [...this.#cores.values()].filter((core) => core.active).map((core) => core.id);
  }

  /** For the heartbeat: groups that are not plainly in-sync. */
  progress(): PgStatus[] {
    const statuses: PgStatus[] = [];
    for (const core of this.#cores.values()) {
      const progress = core.progress();
      if (!progress) continue;
      statuses.push({
        pg: core.id,
        epoch: core.map?.epoch ?? 0,
        state: progress.state,
        recoveryDoneBytes: progress.doneBytes,
        recoveryLeftBytes: progress.leftBytes,
      });
    }
    return statuses;
  }

  #known(pg: number): PgCore {
    const core = this.#cores.get(pg);
    if (core) return core;
    if (this.#map && this.#map.pgs.length > 0) throw new HoldfastError('EINVAL', `no group ${pg}`);
    throw new HoldfastError('UNAVAILABLE', 'this server has no cluster map yet');
  }

  #core(pg: number): PgCore {
    let core = this.#cores.get(pg);
    if (!core) {
      core = new PgCore(pg, this.#env, this.#deps.store.pgState(pg));
      this.#cores.set(pg, core);
    }
    return core;
  }

  #dispatchAll(event: PgEvent): void {
    for (const core of this.#cores.values()) this.#dispatch(core, event);
  }

  #dispatch(core: PgCore, event: PgEvent): void {
    if (this.#ended) return;
    if (this.#busy) {
      this.#queue.push({ core, event });
      return;
    }
    this.#busy = true;
    try {
      this.#step(core, event);
      for (let next = this.#queue.shift(); next; next = this.#queue.shift())
        this.#step(next.core, next.event);
    } catch (error) {
      this.#fatal('step', error);
    } finally {
      this.#busy = false;
    }
  }

  #step(core: PgCore, event: PgEvent): void {
    for (const effect of core.step(event, this.#deps.clock.now())) this.#effects.perform(core, effect);
  }

  #fatal(what: string, error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    const cause = error instanceof Error ? error : new Error(String(error));
    this.#deps.log.error({ err: cause, what }, 'chunkserver cannot go on');
    this.#deps.onFatal(cause);
  }
}
