import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Tracer } from '../../common/trace.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import type { ClusterMap, PgStatus, Purge } from '../../proto/gen/cluster.js';
import { PgCore } from '../pg/pg-core.js';
import {
  type Ask,
  type Effect,
  type LinkSide,
  type Op,
  type PgEnv,
  type PgEvent,
  RECOVERY_LIMITS,
  type RecoveryLimits,
  type SyncBarrier,
} from '../pg/types.js';
import type { ChunkStore, Version } from '../store/chunk-store.js';
import { Audit } from './audit.js';
import { answerClient, type ClientCall, type IncomingCall, replicateFields } from './calls.js';
import { serveFetch, serveList } from './copy-server.js';
import { FetchQueue } from './fetch-queue.js';
import { LinkTable, type PeerLink } from './links.js';
import { Purges } from './purges.js';
import { Repair } from './repair.js';
import { applyOp, readFor, readNowFor } from './store-calls.js';
import { SyncGroup } from './sync-group.js';

/** What the host tells the metaserver. */
export interface MetaReports {
  replicaFailed(pg: number, epoch: number, server: number, reason: string): void;
  replicaCaughtUp(pg: number, epoch: number, server: number): void;
}

export interface PgHostDeps {
  self: number;
  store: ChunkStore;
  clock: Clock;
  log: Logger;
  recoveryBytesPerSecond: number;
  /** Default RECOVERY_LIMITS. */
  limits?: RecoveryLimits;
  reports: MetaReports;
  /** The own store failed, or an invariant: nothing may be answered any more. */
  onFatal(error: Error): void;
  /** Notes how long requests wait for the disk; absent: nothing is noted. */
  tracer?: Tracer;
  /** Runs `fn` behind what else has arrived in this turn of the event loop; default: at once. */
  schedule?(fn: () => void): void;
}

/** All placement groups of this server: carries out the effects of their cores with store and links. */
export class PgHost {
  readonly #deps: PgHostDeps;
  readonly #cores = new Map<number, PgCore>();
  readonly links = new LinkTable();
  readonly #env: PgEnv;
  readonly #fetches: FetchQueue;
  readonly #localSync: SyncGroup;
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
    const { store, clock, log, tracer } = deps;
    this.repair = new Repair(store, this.links, log);
    this.audit = new Audit({
      self: deps.self,
      store,
      log,
      group: (pg) => this.#cores.get(pg),
      link: (server, side) => this.links.get(server, side),
      repair: this.repair,
    });
    this.#localSync = new SyncGroup(
      (done) => {
        store.sync().then(
          () => done(),
          (error: unknown) => this.#fatal('sync', error),
        );
      },
      tracer && ((done) => tracer.callback('sync', 'wait for sync', done)),
      deps.schedule,
    );
    this.#fetches = new FetchQueue(
      clock,
      deps.recoveryBytesPerSecond,
      (ask, done) => this.#sendAsk(ask, done),
      () => this.sync(),
    );
    this.#env = {
      self: deps.self,
      limits: deps.limits ?? RECOVERY_LIMITS,
      leaseUntil: () => this.#leaseUntil,
      registered: () => this.#registered,
      minInSync: () => this.#map?.minInSync ?? Number.POSITIVE_INFINITY,
      linked: (server, side) => this.links.get(server, side) !== undefined,
      congested: (server) => this.links.congested(server),
      freeBytes: (server) => (server === deps.self ? store.usage().freeBytes : this.links.freeBytes(server)),
      truncateSeq: (pg, ino) => store.truncateSeq(pg, ino),
      chunkInfo: (pg, key) => store.chunkInfo(pg, key),
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
    this.#fetches.close();
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

  /** What this server's disk may still take. */
  freeBytes(): number {
    return Math.max(0, this.#deps.store.usage().freeBytes);
  }

  /** Free bytes that another server reported. */
  setFreeBytes(server: number, bytes: number): void {
    const out = this.links.out(server);
    if (out) out.freeBytes = bytes;
  }

  tick(): void {
    if (this.#leased && this.#deps.clock.now() >= this.#leaseUntil) this.#leased = false;
    this.#dispatchAll({ kind: 'tick' });
  }

  /** @throws HoldfastError EINVAL, UNAVAILABLE */
  request(pg: number, call: ClientCall): void {
    this.#fetches.foreground();
    this.#dispatch(this.#known(pg), { kind: 'request', request: call });
  }

  /** @throws HoldfastError EINVAL, UNAVAILABLE */
  call(pg: number, call: IncomingCall): void {
    if (call.type === FrameType.REPLICATE_WRITE || call.type === FrameType.REPLICATE_EXTENTS)
      this.#fetches.foreground();
    this.#dispatch(this.#known(pg), { kind: 'call', call });
  }

  /** Makes what was written here durable. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#localSync.request((error) => (error ? reject(error) : resolve()));
    });
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
    for (const effect of core.step(event, this.#deps.clock.now())) this.#perform(core, effect);
  }

  #fatal(what: string, error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    const cause = error instanceof Error ? error : new Error(String(error));
    this.#deps.log.error({ err: cause, what }, 'chunkserver cannot go on');
    this.#deps.onFatal(cause);
  }

  #perform(core: PgCore, effect: Effect): void {
    switch (effect.kind) {
      case 'apply':
        this.#apply(core, effect.op);
        break;
      case 'replicate':
        for (const server of effect.to) this.#replicate(core, effect.op, server);
        break;
      case 'read':
        this.#read(core, effect.request as ClientCall);
        break;
      case 'repair':
        this.#repairRead(core, effect.request as ClientCall, effect.from);
        break;
      case 'answer':
        answerClient(effect, this.#deps.store.truncateSeq(core.id, effect.request.ino));
        break;
      case 'sync':
        for (const server of effect.servers) this.#syncAt(core, effect.barrier, server);
        break;
      case 'ask':
        this.#ask(core, effect.ask);
        break;
      case 'answerCall':
        this.#answerCall(effect);
        break;
      case 'serve':
        this.#serve(core, effect.call as IncomingCall, effect.last, effect.repairFrom);
        break;
      default:
        this.#keep(core, effect);
    }
  }

  /** Effects on the store beside operations, and reports. */
  #keep(core: PgCore, effect: Effect): void {
    const { store, reports } = this.#deps;
    switch (effect.kind) {
      case 'install': {
        const { key, content, done } = effect;
        const bytes = content?.extents.reduce((sum, { data }) => sum + data.length, 0) ?? 0;
        const installed = store.install(core.id, key, content).then(() => this.#fetches.copied(bytes));
        this.#stored(core, installed, done);
        break;
      }
      case 'setTruncateSeq':
        this.#stored(core, store.setTruncateSeq(core.id, effect.ino, effect.truncateSeq), undefined);
        break;
      case 'setState': {
        const state = store.setPgState(core.id, effect.state);
        this.#stored(core, effect.sync ? Promise.all([state, this.sync()]) : state, effect.done);
        break;
      }
      case 'drop':
        this.#stored(core, store.dropPg(core.id), effect.done);
        break;
      case 'reportFailed':
        reports.replicaFailed(core.id, effect.epoch, effect.server, effect.reason);
        break;
      case 'reportCaughtUp':
        reports.replicaCaughtUp(core.id, effect.epoch, effect.server);
        break;
    }
  }

  #stored(
    core: PgCore,
    promise: Promise<unknown>,
    done: ((error: HoldfastError | undefined, now: number) => void) | undefined,
  ): void {
    promise.then(
      () => done && this.#dispatch(core, { kind: 'stored', done, error: undefined }),
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        if (!done || error.errorName !== 'ENOSPC') this.#fatal('store', cause);
        else this.#dispatch(core, { kind: 'stored', done, error });
      },
    );
  }

  #apply(core: PgCore, op: Op): void {
    const { store } = this.#deps;
    const written = applyOp(store, core.id, op);
    const done = op.sync ? Promise.all([written, this.sync()]).then(([result]) => result) : written;
    done.then(
      ({ allocatedDelta }) => this.#dispatch(core, { kind: 'applied', op, error: undefined, allocatedDelta }),
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        if (error.errorName !== 'ENOSPC') this.#fatal('store', cause);
        else this.#dispatch(core, { kind: 'applied', op, error, allocatedDelta: 0 });
      },
    );
  }

  #replicate(core: PgCore, op: Op, server: number): void {
    const out = this.links.out(server);
    if (!out) {
      const error = new HoldfastError('CONNECTION_LOST', 'not connected');
      this.#dispatch(core, { kind: 'acked', op, server, error });
      return;
    }
    const bytes = op.payload.length;
    out.inFlightBytes += bytes;
    const crc = bytes > 0 ? op.payloadCrc : undefined;
    const payload = bytes > 0 ? op.payload : undefined;
    out.link.request(replicateFields(core.id, op), payload, 0, crc, (error, reply) => {
      out.inFlightBytes -= bytes;
      if (reply) out.freeBytes = reply.header.aux;
      this.#dispatch(core, { kind: 'acked', op, server, error });
    });
  }

  #syncAt(core: PgCore, barrier: SyncBarrier, server: number): void {
    const done = (cause: Error | undefined): void => {
      const error = cause && toHoldfastError(cause);
      this.#dispatch(core, { kind: 'synced', barrier, server, error });
    };
    if (server === this.#deps.self) this.#localSync.request(done);
    else {
      const out = this.links.out(server);
      if (out) out.syncs.request(done);
      else done(new HoldfastError('CONNECTION_LOST', 'not connected'));
    }
  }

  #read(core: PgCore, call: ClientCall): void {
    const now = readNowFor(this.#deps.store, core.id, call);
    if (now) {
      call.result = now;
      this.#dispatch(core, { kind: 'readDone', request: call, error: undefined, version: now.version });
      return;
    }
    readFor(this.#deps.store, core.id, call).then(
      (result) => {
        call.result = result;
        const { version } = result;
        this.#dispatch(core, { kind: 'readDone', request: call, error: undefined, version });
      },
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        this.#dispatch(core, { kind: 'readDone', request: call, error, version: undefined });
      },
    );
  }

  #repairRead(core: PgCore, call: ClientCall, from: number[]): void {
    const epoch = core.map?.epoch ?? 0;
    const key = { ino: call.ino, chunk: call.chunk };
    this.repair.chunk(core.id, epoch, key, from).then(
      () => this.#dispatch(core, { kind: 'repaired', request: call, error: undefined }),
      (cause: unknown) =>
        this.#dispatch(core, { kind: 'repaired', request: call, error: toHoldfastError(cause) }),
    );
  }

  #answerCall(effect: Extract<Effect, { kind: 'answerCall' }>): void {
    const call = effect.call as IncomingCall;
    const error = effect.error && new HoldfastError(effect.error, effect.detail);
    call.answer(error, { fields: { ...effect.fields, aux: this.freeBytes() } });
  }

  #ask(core: PgCore, ask: Ask): void {
    this.#askers.set(ask, core);
    if (ask.pace) this.#fetches.add(ask, ask.pace);
    else this.#sendAsk(ask, () => {});
  }

  /** Who asked; a question that is never sent is let go with its object. */
  readonly #askers = new WeakMap<Ask, PgCore>();

  #sendAsk(ask: Ask, done: () => void): void {
    const core = this.#askers.get(ask) as PgCore;
    const link = this.links.get(ask.to, ask.side);
    if (!link) {
      done();
      const error = new HoldfastError('UNAVAILABLE', `server ${ask.to} is not connected`);
      this.#dispatch(core, { kind: 'reply', ask, error, reply: undefined });
      return;
    }
    link.request(ask.fields, undefined, 0, undefined, (error, reply) => {
      done();
      this.#dispatch(core, { kind: 'reply', ask, error, reply });
    });
  }

  #serve(core: PgCore, call: IncomingCall, last: Version, repairFrom: number[]): void {
    const { store } = this.#deps;
    if (call.type === FrameType.LIST) {
      call.answer(undefined, serveList(store, call, last));
      return;
    }
    const epoch = core.map?.epoch ?? 0;
    const repair =
      repairFrom.length > 0
        ? (key: { ino: number; chunk: number }) => this.repair.chunk(core.id, epoch, key, repairFrom)
        : undefined;
    serveFetch(store, call, () => core.last, repair).then(
      (reply) => call.answer(undefined, reply),
      (error: unknown) => call.answer(toHoldfastError(error), {}),
    );
  }
}
