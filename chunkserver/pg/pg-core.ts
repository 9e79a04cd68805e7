import type { ErrorName } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import { type Pg, ReplicaState } from '../../proto/gen/cluster.js';
import type { PgState, Version } from '../store/chunk-store.js';
import { PgContext } from './context.js';
import { Peering } from './peering.js';
import { Primary } from './primary.js';
import { Replica } from './replica.js';
import {
  ACTIVE_WAIT_MS,
  type Effect,
  MAP_WAIT_MS,
  type Op,
  PARKED_BYTES_MAX,
  PARKED_CALLS_MAX,
  PARKED_REQUESTS_MAX,
  type PeerCall,
  type PgEnv,
  type PgEvent,
  type PgProgress,
  type PgRequest,
} from './types.js';

interface Parked {
  request: PgRequest;
  /** What the client hears when the wait is over. */
  error: ErrorName;
  until: number;
}

interface WaitingCall {
  call: PeerCall;
  until: number;
}

/** A primary whose own store refused an operation peers again after so long. */
const REPEER_DELAY_MS = 1000;

/**
 * One placement group at one server (PacificA; Ceph's PGs): `step(event, now) -> effects`. It knows the group's entry in
 * the cluster map, and is by it the primary (peering, then active), a replica, or nothing. Requests that come too early
 * (for a map, a lease or replicas) wait here, bounded in number and time.
 */
export class PgCore {
  readonly #ctx: PgContext;
  readonly #primary: Primary;
  readonly #replica: Replica;
  #peering: Peering | undefined;
  #active = false;
  /** Versions of this interval may have been given by an earlier process or an earlier peering. */
  #jump = true;
  #repeerAt = 0;
  /** Requests that wait, in the order of their arrival. */
  #parked: Parked[] = [];
  #parkedBytes = 0;
  /** Peers' calls of an epoch that this server's map has not reached. */
  #calls: WaitingCall[] = [];
  /** Set while a request that had waited is tried again: its wait goes on, it does not begin anew. */
  #retried: Parked | undefined;
  #now = 0;

  /** @param state what the store holds of the group */
  constructor(id: number, env: PgEnv, state: PgState) {
    this.#ctx = new PgContext(id, env, state.last, state.clean);
    this.#primary = new Primary(this.#ctx, (request, error) => this.#park(request, error, request.deadline));
    this.#replica = new Replica(this.#ctx);
  }

  get id(): number {
    return this.#ctx.id;
  }

  get map(): Pg | undefined {
    return this.#ctx.map;
  }

  /** The last operation that the store was given. */
  get last(): Version {
    return this.#ctx.last;
  }

  get active(): boolean {
    return this.#active;
  }

  get isPrimary(): boolean {
    return this.#ctx.isPrimary;
  }

  /** In-sync replicas beside this server; for repair. */
  get inSyncPeers(): readonly number[] {
    return this.#ctx.inSyncPeers;
  }

  /** For the heartbeat; undefined: plainly in-sync. */
  progress(): PgProgress | undefined {
    const pull = this.#peering?.pull ?? this.#replica.pull;
    const bytes = { doneBytes: pull?.doneBytes ?? 0, leftBytes: pull?.leftBytes ?? 0 };
    if (this.#peering) return { state: 'peering', ...bytes };
    if (this.#ctx.selfState === ReplicaState.REPLICA_RECOVERING || pull)
      return { state: 'recovering', ...bytes };
    if (this.#parked.length > 0) return { state: 'waiting', ...bytes };
    return undefined;
  }

  /** Moves the group on. The effects are to be carried out in order, and before the next step. */
  step(event: PgEvent, now: number): Effect[] {
    this.#now = now;
    this.#handle(event, now);
    return this.#ctx.take();
  }

  #handle(event: PgEvent, now: number): void {
    switch (event.kind) {
      case 'request':
        this.#admit(event.request);
        break;
      case 'call':
        this.#call(event.call);
        break;
      case 'applied':
        if (event.error) this.#ctx.refused(event.op);
        event.op.owner.applied(event.op, event.error, event.allocatedDelta, now);
        if (event.error) this.#storeRefused(event.op);
        break;
      case 'acked':
        this.#primary.acked(event.op, event.server, event.error, now);
        break;
      case 'synced':
        this.#primary.synced(event.barrier, event.server, event.error, now);
        break;
      case 'readDone':
        this.#primary.readDone(event.request, event.error, event.version, now);
        break;
      case 'repaired':
        this.#primary.repaired(event.request, event.error);
        break;
      case 'reply':
        if (!event.ask.cancelled) event.ask.done(event.error, event.reply, now);
        break;
      case 'stored':
        event.done(event.error, now);
        break;
      case 'map':
        this.#mapChanged(event.pg);
        break;
      case 'linkUp':
        this.#linkUp(event.server, event.side);
        break;
      case 'linkDown':
        this.#linkDown(event.server, event.side, event.reason);
        break;
      case 'lease':
        this.#retryParked();
        if (this.#active) this.#primary.evaluate(now);
        break;
      case 'stepDown':
        if (this.#ctx.isPrimary && this.#ctx.map?.epoch === event.epoch)
          this.#giveUp('it cannot reach the other replicas');
        break;
      case 'tick':
        this.#tick();
        break;
    }
  }

  #mapChanged(pg: Pg | undefined): void {
    const ctx = this.#ctx;
    const before = ctx.map;
    const wasPrimary = ctx.isPrimary;
    if (before && pg && pg.epoch <= before.epoch) return;
    const inSyncBefore = ctx.inSyncPeers.join();
    ctx.setMap(pg);
    const newInterval = before?.interval !== pg?.interval;
    if (ctx.isPrimary) {
      if (!wasPrimary || newInterval) {
        // An interval that began after the map of before: nobody can have led it.
        this.#jump = before === undefined || (pg?.interval ?? 0) <= before.epoch;
        this.#replica.stop();
        ctx.forgetLost();
        this.#peer();
      } else if (this.#active) {
        ctx.learnBoundary(ctx.last);
        this.#primary.mapChanged(this.#now);
      } else if (this.#peering && inSyncBefore !== ctx.inSyncPeers.join()) this.#peer();
    } else {
      if (wasPrimary) this.#stepDown();
      if (ctx.selfState === undefined) this.#left(before);
      else this.#replica.mapChanged(newInterval || wasPrimary);
    }
    this.#retryCalls();
    this.#retryParked();
  }

  #stepDown(): void {
    this.#peering?.cancel();
    this.#peering = undefined;
    this.#active = false;
    this.#ctx.forgetLost();
    this.#primary.stop();
  }

  /** The group is not placed here any more; what is left of it goes when it is complete elsewhere. */
  #left(before: Pg | undefined): void {
    this.#replica.stop();
    const { map, last, clean } = this.#ctx;
    const complete =
      map !== undefined &&
      map.replicas.length > 0 &&
      map.replicas.every(({ state }) => state === ReplicaState.REPLICA_IN_SYNC);
    const held = before !== undefined || last.seq > 0 || clean;
    // A map older than the data (of metaservers that lost theirs) says nothing about where the group is.
    const older = map !== undefined && map.epoch < last.epoch;
    if (!complete || !held || older || this.#ctx.dropping) return;
    this.#ctx.last = { epoch: 0, seq: 0 };
    this.#ctx.clean = false;
    this.#ctx.dropping = true;
    this.#ctx.emit({
      kind: 'drop',
      done: () => {
        this.#ctx.dropping = false;
        this.#replica.dropped();
      },
    });
  }

  #peer(): void {
    this.#peering?.cancel();
    this.#active = false;
    this.#repeerAt = 0;
    this.#primary.stop();
    this.#peering = new Peering(this.#ctx, this.#jump, this.#now, (now) => {
      this.#peering = undefined;
      this.#active = true;
      this.#jump = true;
      this.#ctx.learnBoundary(this.#ctx.last);
      this.#primary.activate(now);
      this.#retryParked();
    });
    this.#peering.start(this.#now);
  }

  /** The disk is full beyond what was foreseen: this server lacks what replicas may have. */
  #storeRefused(op: Op): void {
    this.#replica.refusedByStore(this.#now);
    this.#peering?.pull?.refusedByStore(this.#now);
    // Another replica is to lead; when there is none, the map stays, and what was refused has never been.
    if (op.owner === this.#primary && this.#active) this.#giveUp('the disk of the primary is full');
  }

  /** Leads no more before the metaservers hear of it: nothing old is shown while another one leads. */
  #giveUp(reason: string): void {
    this.#peering?.cancel();
    this.#peering = undefined;
    this.#active = false;
    this.#primary.stop();
    const { map, env } = this.#ctx;
    this.#ctx.emit({ kind: 'reportFailed', server: env.self, epoch: map?.epoch ?? 0, reason });
    this.#repeerAt = this.#now + REPEER_DELAY_MS;
  }

  #linkUp(server: number, side: 'out' | 'in'): void {
    if (side === 'in') {
      if (!this.#ctx.isPrimary) this.#replica.linkUp(server);
    } else if (this.#peering) this.#peering.linkUp(this.#now);
    else if (this.#active) this.#primary.linkUp(server);
  }

  #linkDown(server: number, side: 'out' | 'in', reason: string): void {
    // What came over the broken connection is void: its sender may have started anew.
    this.#calls = this.#calls.filter(({ call }) => call.from !== server || call.side !== side);
    if (side === 'in') this.#replica.linkDown(server);
    else if (this.#peering) this.#peering.linkDown(server, reason, this.#now);
    else if (this.#active) this.#primary.linkDown(server, reason, this.#now);
  }

  #tick(): void {
    const now = this.#now;
    this.#ctx.reportAgain(now);
    this.#peering?.tick(now);
    this.#replica.tick(now);
    if (this.#active) this.#primary.tick(now);
    if (this.#repeerAt > 0 && now >= this.#repeerAt && this.#ctx.isPrimary) this.#peer();
    this.#expire();
  }

  // ---- requests of clients

  #admit(request: PgRequest): void {
    const { map, env } = this.#ctx;
    const now = this.#now;
    if (!map || (request.patient && request.epoch > map.epoch)) {
      this.#park(request, 'STALE_EPOCH', now + MAP_WAIT_MS);
    } else if (!this.#ctx.isPrimary || !env.registered()) {
      this.#refuse(request, 'NOT_PRIMARY');
    } else if (request.patient && request.epoch < map.interval) {
      this.#refuse(request, 'STALE_EPOCH');
    } else if (!this.#active) {
      this.#park(request, 'UNAVAILABLE', now + ACTIVE_WAIT_MS);
    } else if (!this.#ctx.hasLease(now)) {
      this.#park(request, 'NOT_PRIMARY', now + ACTIVE_WAIT_MS);
    } else this.#primary.request(request, now);
  }

  #refuse(request: PgRequest, error: ErrorName, detail?: string): void {
    this.#ctx.emit({ kind: 'answer', request, error, detail });
  }

  #park(request: PgRequest, error: ErrorName, until: number): void {
    if (!request.patient) {
      this.#refuse(request, error);
      return;
    }
    const bytes = request.payload.length;
    if (this.#parked.length >= PARKED_REQUESTS_MAX || this.#parkedBytes + bytes > PARKED_BYTES_MAX) {
      this.#refuse(request, 'OVERLOADED', 'too many requests wait');
      return;
    }
    // Waiting on for the same reason does not begin the wait anew.
    const goesOn = this.#retried?.error === error ? this.#retried.until : until;
    this.#parked.push({ request, error, until: Math.min(goesOn, request.deadline) });
    this.#parkedBytes += bytes;
  }

  #retryParked(): void {
    const parked = this.#parked;
    if (parked.length === 0) return;
    this.#parked = [];
    this.#parkedBytes = 0;
    for (const entry of parked) {
      this.#retried = entry;
      this.#admit(entry.request);
    }
    this.#retried = undefined;
  }

  #expire(): void {
    const now = this.#now;
    if (this.#parked.some((entry) => entry.until <= now)) {
      for (const { request, error, until } of this.#parked) {
        if (until > now) continue;
        this.#parkedBytes -= request.payload.length;
        this.#refuse(request, error);
      }
      this.#parked = this.#parked.filter((entry) => entry.until > now);
    }
    while (this.#calls[0] && this.#calls[0].until <= now) {
      const { call } = this.#calls.shift() as WaitingCall;
      this.#refuseCall(call, 'STALE_EPOCH', 'the map of this server is older');
    }
  }

  // ---- calls of other chunkservers

  #call(call: PeerCall): void {
    const behind = this.#calls.some((waiting) => waiting.call.from === call.from);
    if (behind || call.header.epoch > (this.#ctx.map?.epoch ?? 0)) {
      if (this.#calls.length >= PARKED_CALLS_MAX) this.#refuseCall(call, 'OVERLOADED');
      else this.#calls.push({ call, until: this.#now + MAP_WAIT_MS });
      return;
    }
    this.#serveCall(call);
  }

  /** In their order; what waits behind a call of the same server that has to wait on, waits on. */
  #retryCalls(): void {
    const waiting = this.#calls;
    this.#calls = [];
    const stuck = new Set<number>();
    for (const entry of waiting) {
      const { from, header } = entry.call;
      if (stuck.has(from) || header.epoch > (this.#ctx.map?.epoch ?? 0)) {
        stuck.add(from);
        this.#calls.push(entry);
      } else this.#serveCall(entry.call);
    }
  }

  #refuseCall(call: PeerCall, error: ErrorName, detail?: string): void {
    this.#ctx.emit({ kind: 'answerCall', call, error, detail });
  }

  #serveCall(call: PeerCall): void {
    const { map, primary } = this.#ctx;
    if (call.header.epoch < (map?.interval ?? 0)) this.#refuseCall(call, 'STALE_EPOCH');
    else if (call.type === FrameType.LIST || call.type === FrameType.FETCH) this.#serveCopy(call);
    else if (call.type === FrameType.CAUGHT_UP) this.#takeCaughtUp(call);
    else if (primary !== call.from || this.#ctx.isPrimary) {
      this.#refuseCall(call, 'NOT_PRIMARY', `the map names server ${primary}`);
    } else this.#replica.call(call);
  }

  #serveCopy(call: PeerCall): void {
    const { recoveringPeers, inSyncPeers, last, primary, selfState } = this.#ctx;
    const recovers = recoveringPeers.includes(call.from);
    if (this.#ctx.isPrimary) {
      const inSync = inSyncPeers.includes(call.from);
      // In-sync replicas copy all while the group is at rest; single chunks, which they found damaged, at any time.
      const single = this.#active && call.type === FrameType.FETCH;
      const allowed = recovers ? this.#active : inSync && (this.#peering?.serves || single);
      if (!allowed) {
        this.#refuseCall(call, 'UNAVAILABLE');
        return;
      }
      if (recovers && call.type === FrameType.LIST) this.#primary.beginsAnew(call.from);
    } else if (primary !== call.from || selfState !== ReplicaState.REPLICA_IN_SYNC) {
      this.#refuseCall(call, 'NOT_PRIMARY');
      return;
    }
    const repairFrom = this.#active ? inSyncPeers : [];
    this.#ctx.emit({ kind: 'serve', call, last, repairFrom });
  }

  #takeCaughtUp(call: PeerCall): void {
    if (!this.#active || !this.#ctx.recoveringPeers.includes(call.from)) {
      this.#refuseCall(call, 'UNAVAILABLE');
    } else if (this.#primary.takeCaughtUp(call)) {
      this.#ctx.emit({ kind: 'answerCall', call, error: undefined });
    } else this.#refuseCall(call, 'STALE_EPOCH');
  }
}
