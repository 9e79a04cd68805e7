import type { Clock } from '../../common/clock.js';
import type { Tracer } from '../../common/trace.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { FrameType, joinFields } from '../../proto/frame-header.js';
import type { PgCore } from '../pg/pg-core.js';
import type { Ask, Effect, Op, PgEvent, SyncBarrier } from '../pg/types.js';
import type { ChunkStore, Version } from '../store/chunk-store.js';
import { answerClient, type ClientCall, type IncomingCall, replicateFields } from './calls.js';
import { serveFetch, serveList } from './copy-server.js';
import { FetchQueue } from './fetch-queue.js';
import { type LinkTable, roomFields, roomOf } from './links.js';
import type { Repair } from './repair.js';
import { applyOp, readFor, readNowFor } from './store-calls.js';
import { SyncGroup } from './sync-group.js';

/** What the groups tell the metaserver. */
export interface MetaReports {
  replicaFailed(pg: number, epoch: number, server: number, reason: string): void;
  replicaCaughtUp(pg: number, epoch: number, server: number): void;
}

export interface PgEffectsDeps {
  self: number;
  store: ChunkStore;
  clock: Clock;
  recoveryBytesPerSecond: number;
  reports: MetaReports;
  /** Notes how long requests wait for the disk; absent: nothing is noted. */
  tracer?: Tracer;
  /** Runs `fn` behind what else has arrived in this turn of the event loop; default: at once. */
  schedule?(fn: () => void): void;
}

/** Steps the cores, one event at a time. */
interface CoreLoop {
  dispatch(core: PgCore, event: PgEvent): void;
  /** The own store failed: nothing may be answered any more. */
  fatal(what: string, error: unknown): void;
}

/** Carries out the effects of the groups' cores with store and links; gives each core the outcome as an event. */
export class PgEffects {
  readonly #deps: PgEffectsDeps;
  readonly #loop: CoreLoop;
  readonly #links: LinkTable;
  readonly #repair: Repair;
  readonly #fetches: FetchQueue;
  readonly #localSync: SyncGroup;
  /** Who asked; a question that is never sent is let go with its object. */
  readonly #askers = new WeakMap<Ask, PgCore>();

  constructor(deps: PgEffectsDeps, links: LinkTable, repair: Repair, loop: CoreLoop) {
    this.#deps = deps;
    this.#links = links;
    this.#repair = repair;
    this.#loop = loop;
    const { store, clock, tracer } = deps;
    this.#localSync = new SyncGroup(
      (done) => {
        store.sync().then(
          () => done(),
          (error: unknown) => loop.fatal('sync', error),
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
  }

  /** A client is served: fetches stand back. */
  foreground(): void {
    this.#fetches.foreground();
  }

  /** Makes what was written here durable. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#localSync.request((error) => (error ? reject(error) : resolve()));
    });
  }

  /** Nothing more is fetched. */
  close(): void {
    this.#fetches.close();
  }

  /** Does what an effect asks for; what comes of it arrives as an event. */
  perform(core: PgCore, effect: Effect): void {
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
        if (content?.lost?.length) this.#repair.lacks(core.id, key, content.lost);
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
      () => done && this.#loop.dispatch(core, { kind: 'stored', done, error: undefined }),
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        if (!done || error.errorName !== 'ENOSPC') this.#loop.fatal('store', cause);
        else this.#loop.dispatch(core, { kind: 'stored', done, error });
      },
    );
  }

  #apply(core: PgCore, op: Op): void {
    const { store } = this.#deps;
    const written = applyOp(store, core.id, op);
    const done = op.sync ? Promise.all([written, this.sync()]).then(([result]) => result) : written;
    done.then(
      ({ allocatedDelta }) =>
        this.#loop.dispatch(core, { kind: 'applied', op, error: undefined, allocatedDelta }),
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        if (error.errorName !== 'ENOSPC') this.#loop.fatal('store', cause);
        else this.#loop.dispatch(core, { kind: 'applied', op, error, allocatedDelta: 0 });
      },
    );
  }

  #replicate(core: PgCore, op: Op, server: number): void {
    const out = this.#links.out(server);
    if (!out) {
      const error = new HoldfastError('CONNECTION_LOST', 'not connected');
      this.#loop.dispatch(core, { kind: 'acked', op, server, error });
      return;
    }
    const bytes = op.payload.length;
    const { takes = 0 } = op;
    const { inFlight } = out;
    inFlight.any += takes;
    inFlight.promised += bytes;
    const crc = bytes > 0 ? op.payloadCrc : undefined;
    const payload = bytes > 0 ? op.payload : undefined;
    out.link.request(replicateFields(core.id, op), payload, 0, crc, (error, reply) => {
      inFlight.any -= takes;
      inFlight.promised -= bytes;
      if (reply) out.room = roomOf(reply.header);
      this.#loop.dispatch(core, { kind: 'acked', op, server, error });
    });
  }

  #syncAt(core: PgCore, barrier: SyncBarrier, server: number): void {
    const done = (cause: Error | undefined): void => {
      const error = cause && toHoldfastError(cause);
      this.#loop.dispatch(core, { kind: 'synced', barrier, server, error });
    };
    if (server === this.#deps.self) this.#localSync.request(done);
    else {
      const out = this.#links.out(server);
      if (out) out.syncs.request(done);
      else done(new HoldfastError('CONNECTION_LOST', 'not connected'));
    }
  }

  #read(core: PgCore, call: ClientCall): void {
    const now = readNowFor(this.#deps.store, core.id, call);
    if (now) {
      call.result = now;
      this.#loop.dispatch(core, { kind: 'readDone', request: call, error: undefined, version: now.version });
      return;
    }
    readFor(this.#deps.store, core.id, call).then(
      (result) => {
        call.result = result;
        const { version } = result;
        this.#loop.dispatch(core, { kind: 'readDone', request: call, error: undefined, version });
      },
      (cause: unknown) => {
        const error = toHoldfastError(cause);
        this.#loop.dispatch(core, { kind: 'readDone', request: call, error, version: undefined });
      },
    );
  }

  #repairRead(core: PgCore, call: ClientCall, from: number[]): void {
    const epoch = core.map?.epoch ?? 0;
    const key = { ino: call.ino, chunk: call.chunk };
    this.#repair.chunk(core.id, epoch, key, from).then(
      () => this.#loop.dispatch(core, { kind: 'repaired', request: call, error: undefined }),
      (cause: unknown) =>
        this.#loop.dispatch(core, { kind: 'repaired', request: call, error: toHoldfastError(cause) }),
    );
  }

  #answerCall(effect: Extract<Effect, { kind: 'answerCall' }>): void {
    const call = effect.call as IncomingCall;
    const error = effect.error && new HoldfastError(effect.error, effect.detail);
    const room = roomFields(this.#deps.store);
    call.answer(error, { fields: effect.fields ? joinFields(room, effect.fields) : room });
  }

  #ask(core: PgCore, ask: Ask): void {
    this.#askers.set(ask, core);
    if (ask.pace) this.#fetches.add(ask, ask.pace);
    else this.#sendAsk(ask, () => {});
  }

  #sendAsk(ask: Ask, done: (receivedBytes: number) => void): void {
    const core = this.#askers.get(ask) as PgCore;
    const link = this.#links.get(ask.to, ask.side);
    if (!link) {
      done(0);
      const error = new HoldfastError('UNAVAILABLE', `server ${ask.to} is not connected`);
      this.#loop.dispatch(core, { kind: 'reply', ask, error, reply: undefined });
      return;
    }
    link.request(ask.fields, undefined, 0, undefined, (error, reply) => {
      done(reply?.payload.length ?? 0);
      this.#loop.dispatch(core, { kind: 'reply', ask, error, reply });
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
        ? (key: { ino: number; chunk: number }) => this.#repair.chunk(core.id, epoch, key, repairFrom)
        : undefined;
    serveFetch(store, call, () => core.last, repair).then(
      (reply) => call.answer(undefined, reply),
      (error: unknown) => call.answer(toHoldfastError(error), {}),
    );
  }
}
